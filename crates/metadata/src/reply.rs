//! What a command that was carried out answers, and the answers that are remembered for requests sent twice.

use std::collections::VecDeque;

use weir_types::{BrokerId, PartitionId};

use crate::Error;
use crate::command::Command;
use crate::settings::Settings;
use crate::shared_map::SharedMap;
use crate::topic::TopicSummary;

/// Answers remembered at most.
pub const REPLIES_MAX: usize = 10_000;
/// How long an answer is remembered, in milliseconds of the proposers' clocks.
const REPLY_AGE_MS_MAX: i64 = 3_600_000;
/// Longest request id, in bytes.
pub(crate) const REQUEST_ID_BYTES_MAX: usize = 64;

/// What a command that was carried out answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing more to say.
    Done,
    /// The controller's id in the quorum.
    ControllerJoined {
        /// Its id.
        id: i64,
    },
    /// The broker's registration.
    BrokerRegistered {
        /// Its id.
        broker: BrokerId,
        /// Its epoch.
        epoch: i64,
    },
    /// The broker is not registered: a directory that it comes with has failed, which is on record from now on.
    BrokerDistrusted {
        /// Why, as whoever comes with it again is told.
        refused: Error,
    },
    /// What became of each part; parts that are not named were carried out.
    Partitions {
        /// The refused ones.
        refused: Vec<(PartitionId, Error)>,
    },
    /// The topic.
    TopicCreated {
        /// As it is.
        topic: TopicSummary,
        /// Whether this command made it.
        created: bool,
    },
    /// The topic's change.
    TopicUpdated {
        /// As it was.
        before: TopicSummary,
        /// As it is.
        after: TopicSummary,
    },
    /// The deleted topic.
    TopicDeleted {
        /// As it was.
        topic: TopicSummary,
    },
    /// The cluster's settings.
    ClusterConfigSet {
        /// As they were.
        before: Settings,
        /// As they are.
        after: Settings,
    },
    /// A block of producer ids.
    ProducerIds {
        /// The first one.
        first: i64,
        /// How many.
        count: i64,
    },
}

impl Reply {
    /// Whether this can be the answer to a command: the same kind, about the same thing.
    fn answers(&self, command: &Command) -> bool {
        match (self, command) {
            (Self::TopicCreated { topic, .. }, Command::CreateTopic(command)) => *topic.name == *command.name,
            (Self::TopicUpdated { after, .. }, Command::UpdateTopic(command)) => *after.name == *command.name,
            (Self::TopicDeleted { topic }, Command::DeleteTopic(command)) => *topic.name == *command.name,
            (Self::ClusterConfigSet { .. }, Command::SetClusterConfig(_)) => true,
            _ => false,
        }
    }
}

/// A remembered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub request_id: String,
    /// When the answer was given, by its proposer's clock.
    pub at_ms: i64,
    /// The answer.
    pub reply: Reply,
}

/// The answers of the last hour to requests that named an id. Part of the replicated state, not of the image:
/// only controllers need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replies {
    by_id: SharedMap<String, (i64, Reply)>,
    oldest_first: VecDeque<String>,
}

impl Replies {
    /// The answer the same request got before.
    pub(crate) fn recall(&self, command: &Command) -> Option<Result<Reply, Error>> {
        let id = command.request_id()?;
        let (_, reply) = self.by_id.get(id)?;
        Some(if reply.answers(command) {
            Ok(reply.clone())
        } else {
            Err(Error::RequestIdReused(id.to_owned()))
        })
    }

    /// Remembers an answer, and forgets what is too old or too much. A clock that jumps ahead forgets early, one
    /// that jumps back keeps longer, within the bound of their number.
    pub fn remember(&mut self, entry: Remembered) {
        while let Some(oldest) = self.oldest_first.front() {
            let age_ms =
                self.by_id.get(oldest).map_or(i64::MAX, |(at_ms, _)| entry.at_ms.saturating_sub(*at_ms));
            if age_ms <= REPLY_AGE_MS_MAX && self.oldest_first.len() < REPLIES_MAX {
                break;
            }
            self.by_id.remove(oldest);
            self.oldest_first.pop_front();
        }
        self.restore(entry);
    }

    /// Puts back the next answer of a snapshot. Nothing is forgotten here: what is in a snapshot had its time counted
    /// by the answers that came after it, and counted once more, by fewer of them, it would come out as less than whoever
    /// wrote the snapshot still has (correctness rule D3).
    pub fn restore(&mut self, entry: Remembered) {
        self.oldest_first.push_back(entry.request_id.clone());
        self.by_id.insert(entry.request_id, (entry.at_ms, entry.reply));
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Remembered> {
        self.oldest_first.iter().filter_map(|id| {
            let (at_ms, reply) = self.by_id.get(id)?;
            Some(Remembered { request_id: id.clone(), at_ms: *at_ms, reply: reply.clone() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remember(replies: &mut Replies, id: impl ToString, at_ms: i64) {
        replies.remember(Remembered { request_id: id.to_string(), at_ms, reply: Reply::Done });
    }

    #[test]
    fn what_is_too_old_or_too_much_is_forgotten() {
        let mut replies = Replies::default();
        for id in 0..REPLIES_MAX + 5 {
            remember(&mut replies, id, 0);
        }
        assert_eq!(replies.iter().count(), REPLIES_MAX);
        assert_eq!(replies.iter().next().unwrap().request_id, "5");
        remember(&mut replies, "later", REPLY_AGE_MS_MAX + 1);
        assert_eq!(replies.iter().count(), 1);
        remember(&mut replies, "back in time", i64::MIN);
        assert_eq!(replies.iter().count(), 2);
    }

    #[test]
    fn what_is_put_back_is_what_there_was() {
        let mut replies = Replies::default();
        // One proposer's clock is hours ahead, so that answers outlive it which a later one would have forgotten.
        remember(&mut replies, "ahead", 9 * REPLY_AGE_MS_MAX);
        for id in 0..REPLIES_MAX - 2 {
            remember(&mut replies, id, 0);
        }
        remember(&mut replies, "later", 2 * REPLY_AGE_MS_MAX);
        remember(&mut replies, "one too many", 0);
        let mut restored = Replies::default();
        replies.iter().for_each(|entry| restored.restore(entry));
        assert_eq!(restored.iter().count(), REPLIES_MAX);
        assert_eq!(restored, replies);
    }
}
