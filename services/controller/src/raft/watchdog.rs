//! A net under openraft's elections (correctness rule 31). Two things keep a controller there from standing for election
//! when it should: it draws its election timeout once per process, so that two which drew the same meet again and again;
//! and who was once refused for lack of entries waits two election timeouts more the next time, even if it has all of
//! them by then and nobody else can win.
//!
//! So the same is done here once more, with a timeout that is drawn anew each time, and with the longer wait only for who
//! was refused since it obeyed a leader last. Whichever of both is first moves the vote, and the other begins to wait
//! anew. When a leader was obeyed last openraft is asked, and what it has not come to yet is waited for.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio::time::{Instant, timeout_at};
use weir_runtime::Os;

use super::outdone::Outdone;
use super::types::Raft;
use crate::mutant::Mutant;

/// How long followers wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// See [`Config::election_timeout_min`](crate::Config::election_timeout_min).
    pub(crate) min: Duration,
    /// Also for how long a follower votes for nobody after it has obeyed a leader.
    pub(crate) max: Duration,
}

impl Timing {
    /// How long after a leader was obeyed, or a vote was given or asked for, this controller stands for election.
    /// `obeying`: its vote is a leader's; others still hold to him for as long. `outdone`: it would only be in the way of
    /// somebody who has more.
    fn patience(self, os: &dyn Os, obeying: bool, outdone: bool) -> Duration {
        let span_ms = u64::try_from((self.max.saturating_sub(self.min)).as_millis()).unwrap_or(0) + 1;
        let drawn = self.min + Duration::from_millis(os.random_u64() % span_ms);
        let lease = if obeying { self.max } else { Duration::ZERO };
        drawn + lease + if outdone { 2 * self.max } else { Duration::ZERO }
    }
}

/// Starts an election when no leader was heard of for long enough. Ends with raft.
pub(crate) async fn watch_elections(os: Arc<dyn Os>, raft: Raft, outdone: Outdone, timing: Timing) {
    let mut changes = raft.server_metrics();
    // The vote as it was last seen, and whether it was outdone then; what was drawn for it.
    let mut seen = None;
    let mut patience = timing.max;
    // When a leader was obeyed, or the vote moved, as far as is known.
    let mut stirred = Instant::now();
    loop {
        // Taken out at once: a reference that is held keeps openraft from telling anybody anything (rule 34).
        let metrics = changes.borrow_and_update().clone();
        let lacks = outdone.holds_at(&metrics.vote);
        if seen != Some((metrics.vote, lacks)) {
            // A vote that has moved is somebody's attempt; to be found lacking is not, and only makes this one wait.
            if seen.is_none_or(|(vote, _)| vote != metrics.vote) {
                stirred = Instant::now();
            }
            seen = Some((metrics.vote, lacks));
            patience = timing.patience(&*os, metrics.vote.is_committed(), lacks);
        }
        if stirred + patience <= Instant::now() {
            let membership = metrics.membership_config.membership();
            // Who is alone needs nobody.
            let one_of_many =
                membership.voter_ids().any(|id| id == metrics.id) && membership.voter_ids().count() > 1;
            let is_watched = !Mutant::Unwatched.is_planted();
            let may_stand = one_of_many && metrics.state != ServerState::Leader && is_watched;
            if may_stand {
                // openraft alone knows when it obeyed a leader last. What that one has sent since may lie in its queue, behind
                // a write of ours that takes long, whether or not the sender still waits for the answer: this question
                // comes after all of it, and so would the election.
                let Ok(obeyed) = raft.with_raft_state(|state| state.vote_last_modified()).await else {
                    return;
                };
                stirred = obeyed.map_or(stirred, |obeyed| obeyed.max(stirred));
            }
            if stirred + patience <= Instant::now() {
                if may_stand {
                    tracing::debug!("no leader was heard of for {patience:?}: standing for election");
                    if raft.trigger().elect().await.is_err() {
                        return;
                    }
                }
                stirred = Instant::now();
                patience = timing.patience(&*os, metrics.vote.is_committed(), lacks);
            }
        }
        // Woken by a change, or to look at the clock and ask again.
        if let Ok(Err(_)) = timeout_at(stirred + patience, changes.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
    use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership};
    use tokio::time::{sleep, timeout};
    use tonic::Request;
    use weir_cluster::Row;
    use weir_io::{Disk, MemDisk};
    use weir_proto::internal::v1 as pb;
    use weir_proto::internal::v1::raft_service_server::RaftService;
    use weir_runtime::testing::TestOs;
    use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, RaftRuntime, Step, Waker};
    use weir_types::{ClusterId, DirectoryId};

    use super::super::types::{LogEntry, LogId, RaftRow, Vote};
    use super::super::{Heard, Network, Polled, RaftServer, Rewound, raft_config};
    use super::*;
    use crate::Config;
    use crate::machine::Machine;
    use crate::store::{Identity, LogStore, Member};

    /// A system whose disk takes as long as the test says, on tokio's clock, and that reaches nobody.
    #[derive(Debug)]
    pub(crate) struct SlowDisk {
        rest: TestOs,
        takes_ms: AtomicU64,
    }

    #[async_trait::async_trait]
    impl Os for SlowDisk {
        async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
            self.rest.listen(addr).await
        }

        async fn connect(&self, _host: &str, _port: u16) -> io::Result<Box<dyn Connection>> {
            Err(io::ErrorKind::ConnectionRefused.into())
        }

        fn disk(&self) -> Arc<dyn Disk> {
            self.rest.disk()
        }

        fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
            self.rest.executors(wanted)
        }

        fn block(&self, job: Box<dyn FnOnce() + Send>) {
            let takes = Duration::from_millis(self.takes_ms.load(Ordering::Relaxed));
            tokio::spawn(async move {
                sleep(takes).await;
                job();
            });
        }

        fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
            self.rest.spawn_loop(name, step)
        }

        fn wall_ms(&self) -> i64 {
            self.rest.wall_ms()
        }

        fn boot_id(&self) -> String {
            self.rest.boot_id()
        }

        fn random_u64(&self) -> u64 {
            self.rest.random_u64()
        }
    }

    const US: Member = Member { cluster_id: ClusterId(7), node_id: 2, quorum_id: 0 };

    fn id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(if index == 0 { 0 } else { 3 }, u64::from(index > 0)), index)
    }

    /// One of three controllers, which follows the first, and its disk.
    pub(crate) async fn follower() -> (Arc<SlowDisk>, RaftServer) {
        let rest = TestOs::new(Arc::new(MemDisk::new(1)));
        let slow = Arc::new(SlowDisk { rest, takes_ms: AtomicU64::new(0) });
        let (os, dir): (Arc<dyn Os>, _) = (slow.clone(), Path::new("/controller"));
        os.disk().create_dir(dir).unwrap();
        let identity = Identity { directory: DirectoryId(2), member: Some(US) };
        let (mut store, _) = LogStore::open(&os, dir, move || Ok(identity)).await.unwrap();
        let nodes = [1, 2, 3].map(|node| (node, BasicNode::new(format!("c{node}:1"))));
        let voters = Membership::new(vec![[1, 2, 3].into()], BTreeMap::from(nodes));
        let first = LogEntry { log_id: id(0), payload: EntryPayload::Membership(voters) };
        store.blocking_append([first]).await.unwrap();
        store.save_vote(&Vote::new_committed(3, 1)).await.unwrap();

        let config = Config::new(dir.to_owned(), "127.0.0.1:0".parse().unwrap());
        let machine = Machine::open(&os, dir, config.snapshot_commands).await.unwrap();
        let outdone = Outdone::default();
        let network = Network::new(
            os.clone(),
            US,
            outdone.clone(),
            (Heard::new(config.election_timeout_max), Polled::default(), Rewound::default()),
        );
        let timing = Timing { min: config.election_timeout_min, max: config.election_timeout_max };
        let config = Arc::new(raft_config(&config, US.cluster_id).unwrap());
        let raft = Raft::new(US.node_id, config, network, store, machine.clone());
        let raft = RaftRuntime::drawing_from(os.clone(), raft).await.unwrap();
        tokio::spawn(watch_elections(os.clone(), raft.clone(), outdone, timing));
        (slow, RaftServer { raft, machine, os, member: US })
    }

    /// The leader's word, with an entry or without, which he waits for as long as for any.
    async fn say(server: &RaftServer, entry: Option<LogEntry>) {
        let request = pb::AppendEntriesRequest {
            cluster_id: US.cluster_id.to_wire(),
            target_id: US.node_id,
            vote: Some(Vote::new_committed(3, 1).to_wire()),
            prev_log_id: Some(id(0).to_wire()),
            entries: entry.iter().map(RaftRow::to_wire).collect(),
            leader_commit: None,
            quorum_id: US.quorum(),
        };
        // Too late is as good as never, for him.
        let _ = timeout(Duration::from_millis(100), server.append_entries(Request::new(request))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_whose_word_waits_behind_a_slow_disk_of_ours_is_not_deposed() {
        let (disk, server) = follower().await;
        let mut metrics = server.raft.server_metrics();
        disk.takes_ms.store(3_000, Ordering::Relaxed);
        say(&server, Some(LogEntry { log_id: id(1), payload: EntryPayload::Blank })).await;
        // The next one may be quick.
        disk.takes_ms.store(0, Ordering::Relaxed);
        for _ in 0..60 {
            say(&server, None).await;
            sleep(Duration::from_millis(100)).await;
        }
        let now = metrics.borrow_and_update().clone();
        assert_eq!((now.vote, now.current_leader), (Vote::new_committed(3, 1), Some(1)));

        // He falls silent.
        let stands = metrics.wait_for(|metrics| metrics.vote.leader_id().node_id == US.node_id);
        let stood = timeout(Duration::from_secs(2), stands).await.expect("somebody has to").unwrap().vote;
        assert!(stood.leader_id().term > 3, "{stood}");
    }

    #[tokio::test]
    async fn who_obeys_waits_for_the_lease_and_who_lacks_entries_for_others() {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let timing = Timing { min: Duration::from_millis(300), max: Duration::from_millis(600) };
        for (obeying, outdone, beyond) in
            [(false, false, 0), (true, false, 600), (false, true, 1_200), (true, true, 1_800)]
        {
            for _ in 0..100 {
                let patience = timing.patience(&os, obeying, outdone) - Duration::from_millis(beyond);
                assert!(patience >= timing.min && patience <= timing.max, "{patience:?}");
            }
        }
    }
}
