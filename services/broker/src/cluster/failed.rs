//! What the controllers are told, and tell, of a log directory that has failed (correctness rule 35).

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Status;
use weir_cluster::{Row, is_for};
use weir_metadata::{BrokerEpoch, FailDirectory};
use weir_proto::internal::v1 as wire;
use weir_proto::v1::ErrorReason;
use weir_runtime::Reason;
use weir_types::DirectoryId;

use super::Cluster;

/// How long it is until a registration that was made is known here, perhaps.
const AGAIN: Duration = Duration::from_millis(20);

impl Cluster {
    /// The last words of this process: a write or sync has failed in its log directory. A controller that may not be
    /// followed is not told, for it would write about this broker what others take for its history.
    pub(crate) async fn tell_failed(
        &self,
        directory: DirectoryId,
        failure: u64,
        until: Instant,
    ) -> Result<(), Status> {
        self.has_failed.store(true, Ordering::Release);
        loop {
            let Some(by) = self.speaks_as() else { return Ok(()) };
            if self.trouble().is_some() {
                return Ok(());
            }
            let failed = FailDirectory { by, directory, failure }.to_wire();
            let (metadata_version, metadata_author) = self.follower.seen();
            let request =
                wire::FailDirectoryRequest { failed: Some(failed), metadata_version, metadata_author };
            let told = self.controllers.call(until, |mut client| {
                let request = request.clone();
                async move { client.fail_directory(request).await }
            });
            match told.await {
                // It was registered meanwhile, and the answer is on its way.
                Err(stale) if is_for(&stale, ErrorReason::BrokerEpochStale) && Instant::now() < until => {
                    sleep(AGAIN).await;
                }
                told => return told.map(drop),
            }
        }
    }

    /// As whom a process speaks of its directory. One that fails while it starts is, to the controllers, the one that was
    /// registered before. `None`: nobody was.
    fn speaks_as(&self) -> Option<BrokerEpoch> {
        if self.is_registered() {
            return Some(self.registered_as());
        }
        let (cluster_id, earlier) = self.earlier?;
        self.controllers.belong_to(cluster_id);
        Some(earlier)
    }

    /// The controllers have it on record that a write or sync has failed in the log directory of this registration. If that
    /// was here, this process is about to end.
    pub(super) fn distrusted(&self) {
        if self.has_failed.load(Ordering::Acquire) {
            return;
        }
        let why = "a write or sync has failed in the log directory of this broker, as the controllers have it on record, but \
                   not in this process: do two run on copies of one log directory? this one ends; look at its disk, and \
                   if that is good say so (weir broker trust)";
        if !self.over.is_requested() {
            tracing::error!("{why}");
        }
        self.over.request(Reason::Failed { task: "broker/registration".to_owned(), why: why.to_owned() });
        self.last_beat.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_cluster::Controllers;
    use weir_io::MemDisk;
    use weir_metadata::{Command, CreateCluster, Entry, FEATURE_LEVEL, JoinController, State};
    use weir_runtime::Stop;
    use weir_runtime::testing::TestOs;
    use weir_types::{BrokerId, ClusterId};

    use super::super::Earlier;
    use super::super::tests::{is_heard, registered_as};
    use super::*;
    use crate::testing::registers;

    const DIRECTORY: DirectoryId = DirectoryId(7);

    #[tokio::test]
    async fn who_fails_before_it_is_registered_says_so_as_who_it_was() {
        let by = BrokerEpoch { broker: BrokerId(3), epoch: 9 };
        let earlier = Earlier { registration: Some((ClusterId(1), by)), ..Earlier::default() };
        let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
        let new = |earlier| {
            Cluster::new(Controllers::new(os.clone(), vec!["c1:9349".to_owned()]), earlier, Stop::new())
        };
        assert_eq!(new(earlier).speaks_as(), Some(by));
        assert_eq!(new(Earlier::default()).speaks_as(), None, "a new directory is nobody's");
        let registered = registered_as(os.clone(), BrokerEpoch { broker: BrokerId(3), epoch: 10 });
        assert_eq!(registered.speaks_as().map(|by| by.epoch), Some(10));
    }

    /// A cluster of one broker, of whose directory a failure is on record; and its registration.
    fn failed() -> (State, BrokerEpoch) {
        let mut state = State::default();
        let mut index = 0;
        let mut run = |state: &mut State, command| {
            index += 1;
            let applied = state.apply(index, &Entry { at_ms: index, author: 1, commands: vec![command] });
            assert!(applied.outcomes.iter().all(Result::is_ok), "{:?}", applied.outcomes);
        };
        run(
            &mut state,
            Command::CreateCluster(CreateCluster {
                cluster_id: ClusterId(1),
                feature_level: FEATURE_LEVEL,
                settings: Default::default(),
                controller: JoinController { directory: DirectoryId(1), endpoint: "c1:9349".to_owned() },
            }),
        );
        run(&mut state, registers(DIRECTORY));
        let by = state
            .image
            .brokers()
            .next()
            .map(|broker| BrokerEpoch { broker: broker.id, epoch: broker.epoch })
            .unwrap();
        run(&mut state, Command::FailDirectory(FailDirectory { by, directory: DIRECTORY, failure: 77 }));
        (state, by)
    }

    #[tokio::test]
    async fn who_has_failed_promises_nothing_that_ends_with_a_session() {
        let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
        let cluster = registered_as(os, BrokerEpoch { broker: BrokerId(3), epoch: 9 });
        is_heard(&cluster, 7);
        cluster.acted_upon(7);
        assert!(cluster.session_valid());
        // It is over before anybody can hear of it.
        let told = cluster.tell_failed(DIRECTORY, 77, Instant::now());
        assert!(
            tokio::time::timeout(Duration::from_secs(5), told).await.unwrap().is_err(),
            "nobody is there"
        );
        assert!(!cluster.session_valid());
    }

    #[tokio::test]
    async fn a_process_ends_whose_registration_has_failed_somewhere_else() {
        let (state, by) = failed();
        let os = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
        let here = registered_as(os.clone(), by);
        here.has_failed.store(true, Ordering::Release);
        assert!(here.is_mine(&state.image) && !here.over().is_requested(), "it is about to end by itself");
        let elsewhere = registered_as(os, by);
        assert!(elsewhere.is_mine(&state.image) && elsewhere.over().is_requested());
    }
}
