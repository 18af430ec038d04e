//! Sessions of brokers: who was heard of, and who is fenced for silence. In memory, at the leader alone; a
//! heartbeat is never a raft write.
//!
//! Here is only what silence means. A connection that ends says more, and sooner: see `service::session`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::{Instant, sleep_until};
use weir_metadata::{BrokerEpoch, Image};
use weir_types::BrokerId;

use crate::fences::Fences;
use crate::machine::Machine;
use crate::mutant::Mutant;
use crate::propose::Proposer;
use crate::raft::{Heard, Raft};

/// Beyond a session, so that it is over.
const TICK: Duration = Duration::from_millis(1);

/// When each broker was heard of last, in which registration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<BTreeMap<BrokerId, Session>>>);

/// What a broker has said in its newest registration.
#[derive(Debug)]
struct Session {
    epoch: i64,
    heard: Instant,
    /// The highest number of its heartbeats.
    number: i64,
    /// How many streams it has opened.
    streams: u64,
    /// The highest feature level it understands; 0: it has not said.
    feature_level: i32,
}

impl Sessions {
    /// The session of a registration, as `change` leaves it. An older registration's word does not count.
    fn with<T>(&self, by: BrokerEpoch, at: Instant, change: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let new = || Session { epoch: by.epoch, heard: at, number: 0, streams: 0, feature_level: 0 };
        let mut sessions = self.0.lock();
        let session = sessions.entry(by.broker).or_insert_with(new);
        if session.epoch < by.epoch {
            *session = new();
        }
        (session.epoch == by.epoch).then(|| change(session))
    }

    /// A broker was heard of, by a call that came in at `at`.
    pub(crate) fn heard(&self, by: BrokerEpoch, at: Instant) {
        self.with(by, at, |session| session.heard = session.heard.max(at));
    }

    /// The same of a heartbeat. Whether what it wants is to be done: it is not one that was overtaken by a later one.
    pub(crate) fn beat(&self, by: BrokerEpoch, at: Instant, number: i64, feature_level: i32) -> bool {
        let beat = |session: &mut Session| {
            session.heard = session.heard.max(at);
            session.feature_level = session.feature_level.max(feature_level);
            let newest = number == 0 || number >= session.number;
            session.number = session.number.max(number);
            newest
        };
        self.with(by, at, beat).unwrap_or(false)
    }

    /// A broker has opened a stream: its number.
    pub(crate) fn opened(&self, by: BrokerEpoch) -> u64 {
        let open = |session: &mut Session| {
            session.streams += 1;
            session.streams
        };
        self.with(by, Instant::now(), open).unwrap_or(0)
    }

    /// Whether nothing was heard of a broker since, and that stream was its last.
    pub(crate) fn is_last_word(&self, by: BrokerEpoch, stream: u64, heard: Instant) -> bool {
        let sessions = self.0.lock();
        sessions.get(&by.broker).is_some_and(|session| {
            session.epoch == by.epoch && session.streams == stream && session.heard <= heard
        })
    }

    /// The highest feature level that a registration understands, if it has said so.
    pub(crate) fn feature_level(&self, by: BrokerEpoch) -> Option<i32> {
        let sessions = self.0.lock();
        let session = sessions.get(&by.broker).filter(|session| session.epoch == by.epoch)?;
        Some(session.feature_level).filter(|level| *level > 0)
    }

    /// When a registration was heard of last, not before `since`.
    fn heard_last(&self, by: BrokerEpoch, since: Instant) -> Instant {
        heard_last(&self.0.lock(), by, since)
    }

    /// Brokers that serve, or are about to, and were silent for a session, and when the first of the others will have been if it says nothing
    /// more. Nobody is before `since`: that is when this controller began to listen.
    fn silent(
        &self,
        image: &Image,
        since: Instant,
        session: Duration,
        now: Instant,
    ) -> (Vec<BrokerEpoch>, Option<Instant>) {
        let sessions = self.0.lock();
        let since = match Mutant::NoGrace.is_planted() {
            true => now.checked_sub(2 * session).unwrap_or(since),
            false => since,
        };
        let heard = |by| heard_last(&sessions, by, since);
        let (mut silent, mut next) = (Vec::new(), None);
        for broker in image.brokers().filter(|broker| broker.state.is_there()) {
            let by = BrokerEpoch { broker: broker.id, epoch: broker.epoch };
            let over = heard(by) + session;
            if now > over {
                silent.push(by);
            } else {
                next = Some(next.map_or(over, |next: Instant| next.min(over)));
            }
        }
        (silent, next)
    }
}

fn heard_last(sessions: &BTreeMap<BrokerId, Session>, by: BrokerEpoch, since: Instant) -> Instant {
    match sessions.get(&by.broker) {
        Some(session) if session.epoch == by.epoch => since.max(session.heard),
        _ => since,
    }
}

/// Fences brokers that fall silent, while this controller leads. A new leader, one that was itself asleep, and one to whom no
/// quorum has answered, gives everybody a full session first (correctness rule 10). Ends with raft.
pub(crate) async fn fence_the_silent(
    raft: Raft,
    machine: Machine,
    proposer: Proposer,
    (sessions, fences, heard): (Sessions, Fences, Heard),
    session: Duration,
    fenced: IntCounter,
) {
    let step = session / 6;
    let metrics = raft.server_metrics();
    let mut listening: Option<(u64, Instant)> = None;
    let mut due = Instant::now();
    let mut next = None;
    loop {
        due = next.take().unwrap_or(due + step);
        sleep_until(due).await;
        if metrics.has_changed().is_err() {
            return;
        }
        let now = Instant::now();
        let overslept = now.saturating_duration_since(due) > step;
        due = due.max(now);
        let current = metrics.borrow().clone();
        if current.current_leader != Some(current.id) {
            listening = None;
            continue;
        }
        let term = current.vote.leader_id().term;
        // What brokers say counts once a quorum has confirmed that this one leads. Without one nobody is heard.
        let has_quorum =
            heard.quorum_silence(current.id, &machine.voters()) < session / 2 || Mutant::NoGrace.is_planted();
        let since = match listening {
            Some((since_term, since)) if since_term == term && !overslept && has_quorum => since,
            _ => now,
        };
        listening = Some((term, since));
        // Together, so that the end of a whole zone is one entry.
        let (silent, first) = sessions.silent(&machine.hub().image(), since, session, now);
        // As soon as it is so: what the silent one leads waits for it.
        next = first.map(|first| first + TICK).filter(|first| *first < due + step);
        let fence = async |by: BrokerEpoch| {
            let is_due = || Instant::now() > sessions.heard_last(by, since) + session;
            if fences.fence(&proposer, by, is_due).await {
                let (broker, epoch) = (by.broker.0, by.epoch);
                tracing::warn!(broker, epoch, "broker was silent for {session:?}: it is fenced");
                fenced.inc();
            }
        };
        join_all(silent.into_iter().map(fence)).await;
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::{Command, DirectoryFacts, Entry, RegisterBroker, State};
    use weir_types::DirectoryId;

    use super::*;

    fn brokers() -> State {
        let mut state = State::default();
        let controller = weir_metadata::JoinController { directory: DirectoryId(1), endpoint: String::new() };
        let mut run = |index, command| {
            state.apply(index, &Entry { at_ms: 0, author: 0, commands: vec![command] });
        };
        run(
            1,
            Command::CreateCluster(weir_metadata::CreateCluster {
                cluster_id: weir_types::ClusterId(1),
                feature_level: 1,
                settings: Default::default(),
                controller,
            }),
        );
        for id in 1..=3 {
            let facts = DirectoryFacts {
                id: DirectoryId(id as u128),
                clean_epoch: None,
                persisted_epoch: None,
                same_boot: false,
                failures: Vec::new(),
            };
            run(
                id * 10,
                Command::RegisterBroker(RegisterBroker {
                    cluster_id: None,
                    broker_id: None,
                    directories: vec![facts],
                    damaged: vec![],
                    rack: String::new(),
                    endpoints: vec![],
                    version: String::new(),
                    feature_level: 1,
                    metadata_version: 0,
                    metadata_author: 0,
                    incarnation: 0,
                }),
            );
            if id != 3 {
                let by = BrokerEpoch { broker: BrokerId(id as i32), epoch: id * 10 };
                run(id * 10 + 1, Command::UnfenceBroker(by));
            }
        }
        state
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_word_of_the_registration() {
        let (state, sessions) = (brokers(), Sessions::default());
        let (start, session) = (Instant::now(), Duration::from_secs(3));
        let by = |id: i32, epoch| BrokerEpoch { broker: BrokerId(id), epoch };
        let silent = |since: Instant, at: u64| {
            sessions.silent(&state.image, since, session, start + Duration::from_secs(at)).0
        };
        assert_eq!(silent(start, 3), []);
        assert_eq!(silent(start, 4), [by(1, 10), by(2, 20), by(3, 30)], "3 did not even come to serve");
        sessions.heard(by(3, 30), start + Duration::from_secs(9));
        sessions.heard(by(1, 10), start + Duration::from_secs(2));
        sessions.heard(by(2, 19), start + Duration::from_secs(2));
        assert_eq!(silent(start, 4), [by(2, 20)], "an older registration's word does not count");
        let four = start + Duration::from_secs(4);
        let next = sessions.silent(&state.image, start, session, four).1;
        assert_eq!(next, Some(start + Duration::from_secs(5)), "broker 1 is the next one");
        assert_eq!(silent(start, 6), [by(1, 10), by(2, 20)]);
        assert_eq!(silent(start + Duration::from_secs(4), 6), [], "a new leader listens first");
    }

    #[test]
    fn a_leader_that_fences_before_it_has_listened_is_noticed() {
        let test = silence_is_counted_from_the_last_word_of_the_registration;
        assert!(Mutant::NoGrace.is_noticed_by(test));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_overtaken_is_not_done() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let by = |epoch| BrokerEpoch { broker: BrokerId(1), epoch };
        assert!(sessions.beat(by(5), now, 1, 2));
        assert!(sessions.beat(by(5), now, 3, 2));
        assert!(!sessions.beat(by(5), now, 2, 2), "it comes late");
        assert!(sessions.beat(by(5), now, 3, 2), "the same again");
        assert!(sessions.beat(by(5), now, 0, 2), "an earlier version does not count");
        assert!(sessions.beat(by(6), now, 1, 2), "another registration counts from 1");
        assert!(!sessions.beat(by(5), now, 9, 2), "and the one before is over");
        assert_eq!((sessions.feature_level(by(5)), sessions.feature_level(by(6))), (None, Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_the_last_word_if_nothing_came_after_it() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let by = BrokerEpoch { broker: BrokerId(1), epoch: 5 };
        sessions.heard(by, start);
        let first = sessions.opened(by);
        assert!(sessions.is_last_word(by, first, start));
        sessions.heard(by, start + Duration::from_secs(1));
        assert!(!sessions.is_last_word(by, first, start), "it was heard of since, by another way");
        let second = sessions.opened(by);
        let heard = start + Duration::from_secs(1);
        assert_eq!(
            (sessions.is_last_word(by, first, heard), sessions.is_last_word(by, second, heard)),
            (false, true)
        );
    }
}
