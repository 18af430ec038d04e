//! Calls that are another broker's to answer, passed on to it: every broker answers every call, whoever leads the
//! partitions that it is about (correctness rule 42).
//!
//! ```text
//!   client -> entrance -> owner         one hop, never another: who is asked on the internal listener answers or says
//!             (public)    (internal)    NOT_LEADER
//! ```
//!
//! - **Bytes, not messages.** What goes to one owner goes as it came: a field that only client and owner know arrives.
//!   A call about partitions of several owners is split, and its answers are put together ([`unary`]).
//! - **Who knows more waits for nobody, who knows less waits a moment.** A call carries the version of the metadata that
//!   it was sent by, and the owner answers once it has that ([`caught_up`]); a refusal carries the owner's version, and
//!   the entrance looks again once it has that. It tries again once, and only what was refused: what may have been
//!   applied is never sent twice by a broker.
//! - **Long streams** have a stream of their own to each owner that they need: appends in `calls::produce_stream`, reads
//!   over a [`feed`], which [`elsewhere`] gives out.
//!
//! What is asked for with `route = DIRECT` is not passed on, and refused with NOT_LEADER by whoever does not lead.

mod calls;
mod caught_up;
pub(crate) mod elsewhere;
mod feed;

pub(crate) mod hop;
pub(crate) mod look;
pub(crate) mod peers;
mod unary;

use std::time::Duration;

use tonic::Status;
use weir_proto::v1::{Applied, ErrorReason};
use weir_rpc::Problem;
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::problems::UNSURE_FACT;
use crate::topic_map::Topic;

pub(crate) use caught_up::CaughtUpLayer;
pub(crate) use unary::{Caller, Forwarding};

/// In a refusal: the version of the metadata that it was made by.
pub(crate) const VERSION_FACT: &str = "metadata_version";

/// How long the metadata by which another broker has refused a call is waited for.
const NEWS_WAIT: Duration = Duration::from_secs(1);
/// How long is waited where that broker knows no more than this one: it hears of its leadership soon, or is about to lose
/// it.
const MOVE_WAIT: Duration = Duration::from_millis(100);

impl Broker {
    /// The other broker that leads a partition, if one does that can be asked. `None`: what there is to say is said here.
    pub(crate) fn owner(&self, topic: &str, partition: i32) -> Option<BrokerId> {
        let topics = self.topics.load();
        self.owner_in(topics.find(topic)?, partition)
    }

    /// The same of a topic that was looked up.
    pub(crate) fn owner_in(&self, topic: &Topic, partition: i32) -> Option<BrokerId> {
        let leader = topic.partitions.get(&partition)?.leader?;
        (leader != self.cluster.broker_id() && self.peers.knows(&self.cluster.image(), leader))
            .then_some(leader)
    }

    /// Waits, a moment, until this broker acts by the metadata that it has.
    pub(crate) async fn catches_up(&self) {
        let version = self.cluster.image().version();
        if !self.replicas.is_settled(version) {
            // What is taken up by then is what is gone by.
            let _in_time = tokio::time::timeout(NEWS_WAIT, self.replicas.settled(version)).await;
        }
    }

    /// Waits until this broker knows what another one knew when it refused, or for a moment if it does.
    async fn hear_of(&self, version: i64) {
        if self.replicas.is_settled(version) {
            return tokio::time::sleep(MOVE_WAIT).await;
        }
        // What is known by then is what is gone by.
        let _in_time = tokio::time::timeout(NEWS_WAIT, self.replicas.settled(version)).await;
    }
}

/// Whether another broker says that it does not lead, once more: whoever is not sure says more than that.
fn leads_not(status: &Status) -> bool {
    let heard = Problem::heard_of_call(status).unwrap_or_default();
    not_led_there(status).is_some() && heard.iter().any(|problem| problem.reason == ErrorReason::NotLeader)
}

/// The version by which another broker has refused a call, or a part of it, because it does not lead, or is not sure that it
/// does: nothing of that was applied.
fn not_led_there(status: &Status) -> Option<i64> {
    let heard = Problem::heard_of_call(status)?;
    if heard.iter().any(|problem| problem.applied != Applied::No) {
        return None;
    }
    let is_it = |problem: &&Problem| {
        problem.reason == ErrorReason::NotLeader || problem.facts.contains_key(UNSURE_FACT)
    };
    let refused = heard.iter().find(is_it)?;
    Some(refused.facts.get(VERSION_FACT).and_then(|version| version.parse().ok()).unwrap_or(0))
}
