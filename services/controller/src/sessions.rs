//! Sessions of brokers: who was heard of, and who is fenced for silence. In memory, at the leader alone; a
//! heartbeat is never a raft write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use weir_metadata::{BrokerEpoch, Command, Image};
use weir_types::BrokerId;

use crate::machine::Machine;
use crate::propose::Proposer;
use crate::raft::Raft;

/// When each broker was heard of last, in which registration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions(Arc<Mutex<BTreeMap<BrokerId, (i64, Instant)>>>);

impl Sessions {
    /// A broker was heard of, by a call that came in at `at`.
    pub(crate) fn heard(&self, by: BrokerEpoch, at: Instant) {
        let mut sessions = self.0.lock();
        let session = sessions.entry(by.broker).or_insert((by.epoch, at));
        if session.0 <= by.epoch {
            *session = (by.epoch, session.1.max(at));
        }
    }

    /// Living brokers that were silent for a session. Nobody is before `since`: that is when this controller
    /// began to listen.
    fn silent(&self, image: &Image, since: Instant, session: Duration, now: Instant) -> Vec<BrokerEpoch> {
        let sessions = self.0.lock();
        let heard = |by: BrokerEpoch| match sessions.get(&by.broker) {
            Some((epoch, at)) if *epoch == by.epoch => since.max(*at),
            _ => since,
        };
        image
            .brokers()
            .filter(|broker| broker.state.is_alive())
            .map(|broker| BrokerEpoch { broker: broker.id, epoch: broker.epoch })
            .filter(|by| now.saturating_duration_since(heard(*by)) > session)
            .collect()
    }
}

/// Fences brokers that fall silent, while this controller leads. A new leader, and one that was itself asleep,
/// gives everybody a full session first (correctness rule 10). Ends with raft.
pub(crate) async fn fence_the_silent(
    raft: Raft,
    machine: Machine,
    proposer: Proposer,
    sessions: Sessions,
    session: Duration,
) {
    let step = session / 6;
    let metrics = raft.server_metrics();
    let mut listening: Option<(u64, Instant)> = None;
    let mut due = Instant::now();
    loop {
        due += step;
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
        let since = match listening {
            Some((since_term, since)) if since_term == term && !overslept => since,
            _ => now,
        };
        listening = Some((term, since));
        // Together, so that the end of a whole zone is one entry.
        let silent = sessions.silent(&machine.hub().image(), since, session, now);
        join_all(silent.into_iter().map(|by| fence(&proposer, by, session))).await;
    }
}

async fn fence(proposer: &Proposer, by: BrokerEpoch, session: Duration) {
    tracing::warn!(broker = by.broker.0, epoch = by.epoch, "broker was silent for {session:?}: fencing it");
    if let Err(unapplied) = proposer.propose(Command::FenceBroker(by)).await {
        tracing::warn!(broker = by.broker.0, "could not fence: {}", unapplied.problem());
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::{DirectoryFacts, Entry, RegisterBroker, State};
    use weir_types::DirectoryId;

    use super::*;

    fn brokers() -> State {
        let mut state = State::default();
        let controller = weir_metadata::JoinController { directory: DirectoryId(1), endpoint: String::new() };
        let mut run = |index, command| {
            state.apply(index, &Entry { at_ms: 0, commands: vec![command] });
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
            sessions.silent(&state.image, since, session, start + Duration::from_secs(at))
        };
        assert_eq!(silent(start, 3), []);
        assert_eq!(silent(start, 4), [by(1, 10), by(2, 20)], "3 does not serve yet: nothing to take from it");
        sessions.heard(by(1, 10), start + Duration::from_secs(2));
        sessions.heard(by(2, 19), start + Duration::from_secs(2));
        assert_eq!(silent(start, 4), [by(2, 20)], "an older registration's word does not count");
        assert_eq!(silent(start, 6), [by(1, 10), by(2, 20)]);
        assert_eq!(silent(start + Duration::from_secs(4), 6), [], "a new leader listens first");
    }
}
