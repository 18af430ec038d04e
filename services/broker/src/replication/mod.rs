//! Replication between brokers, around the pure core: partitions that are led here and followed elsewhere, partitions
//! that are followed here, and the in-sync sets of those that are led.
//!
//! ```text
//!   claim ─asks─▶ Led ◀─tell─ leading_stream ◀══ one stream a pair of brokers ══▶ following_stream ─▶ Followed ◀─asks─ claim
//!                  │ propose                                                          ▲
//!                  ▼                                                                  │ link: dials, again and again
//!                 isr ──▶ controller ──▶ metadata ──▶ replicas: who leads, who follows ┘
//! ```
//!
//! On the way of a batch it stands behind the claim: what was written is read from the page cache and sent on, and the
//! high watermark follows what comes back. Who leads what is said by `replicas`; nothing here looks at the metadata but
//! for addresses.

mod bells;
mod clock;
mod feed;
mod floors;
mod followed;
mod following_stream;
mod isr;
mod leading_stream;
mod led;
mod link;
mod server;
mod start_state;
pub(crate) mod suspects;
mod zones;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use weir_metadata::Image;
use weir_replication::{Member, Record};
use weir_runtime::Os;
use weir_storage::{Holders, Partition, StartState};
use weir_types::{BrokerId, Durability, LeaderEpoch, Offset, PartitionId};

use crate::cluster::Cluster;
use crate::news::News;
use crate::replication::bells::Bells;
use crate::replication::clock::Clock;
pub(crate) use crate::replication::floors::Floor;
pub(crate) use crate::replication::followed::{Followed, Following};
pub(crate) use crate::replication::led::{Lag, Leading, Led};
use crate::replication::link::Change;
pub(crate) use crate::replication::server::Replicator;

/// Why what is led here may be another one's: see [`Led::is_sure`].
pub(crate) const UNSURE: &str = "it has not heard of a controller for a session, or has asked for its leaderships to be \
                                 given away (it is stopping, or its disk is slow)";
use crate::replication::suspects::Suspects;
use crate::replication::zones::Zones;

/// The largest message between two brokers: the largest batch, and what is around it.
const MESSAGE_BYTES_MAX: usize = 80 << 20;
/// Bytes of batches that may be on their way from one leader to one follower.
const WINDOW_BYTES: usize = 32 << 20;

/// What is counted.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) sent_bytes: IntCounter,
    pub(crate) received_bytes: IntCounter,
    pub(crate) stream_failures: IntCounter,
    pub(crate) isr_changes: IntCounter,
    pub(crate) damaged_batches: IntCounter,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What links run on: a queue for each data runtime, whose end starts them there.
pub(crate) type Starts = mpsc::UnboundedReceiver<Task>;

/// Logs that are to begin anew.
pub(crate) type Restarts = mpsc::UnboundedReceiver<Restart>;

/// See the module.
pub(crate) struct Replication {
    os: Arc<dyn Os>,
    cluster: Arc<Cluster>,
    clock: Clock,
    /// A follower that is behind for longer leaves the in-sync set.
    lag_max: Duration,
    metrics: Counters,
    /// What people are told of what is led here.
    pub(crate) news: News,
    led: Mutex<BTreeMap<PartitionId, Arc<Led>>>,
    /// Links by their leader, and where each partition is followed.
    links: Mutex<Links>,
    starts: Vec<mpsc::UnboundedSender<Task>>,
    restarts: mpsc::UnboundedSender<Restart>,
    isr: Arc<Bells<PartitionId>>,
    pub(crate) suspects: Suspects,
    subscriptions: AtomicU64,
}

#[derive(Default)]
struct Links {
    by_leader: BTreeMap<BrokerId, mpsc::UnboundedSender<Change>>,
    by_partition: BTreeMap<PartitionId, Arc<Followed>>,
}

impl Replication {
    /// A broker's replication, for each of its `data_runtimes` what is to be run there ([`host`]), and the logs that are to
    /// begin anew, for whoever opens logs.
    pub(crate) fn new(
        os: Arc<dyn Os>,
        cluster: Arc<Cluster>,
        data_runtimes: usize,
        lag_max: Duration,
        metrics: Counters,
    ) -> (Arc<Self>, Vec<Starts>, Restarts) {
        let (restarts, restarted) = mpsc::unbounded_channel();
        let (starts, started) = (0..data_runtimes).map(|_| mpsc::unbounded_channel()).unzip();
        let replication = Self {
            os,
            cluster,
            clock: Clock::start(),
            lag_max,
            metrics,
            news: News::default(),
            led: Mutex::default(),
            links: Mutex::default(),
            starts,
            restarts,
            isr: Bells::new(),
            suspects: Suspects::default(),
            subscriptions: AtomicU64::new(1),
        };
        (Arc::new(replication), started, restarted)
    }

    /// Leads a partition from now on in the epoch of a record: the admission that its log is to be given.
    pub(crate) fn lead(&self, partition: &Partition, durability: Durability, record: Recorded) -> Leading {
        let id = partition.id();
        self.unfollow(id);
        let cluster = self.cluster.clone();
        let led = Led::new(partition.clone(), cluster, durability, record, self.clock, self.isr.bell(id));
        self.led.lock().insert(id, led.clone());
        Leading(led)
    }

    /// What people call a partition's topic; empty where that is deleted.
    pub(crate) fn topic(&self, id: PartitionId) -> String {
        self.cluster.image().topic(id.topic).map_or_else(String::new, |topic| topic.name.to_string())
    }

    /// A newer record of a partition that is led here.
    pub(crate) fn observe(&self, id: PartitionId, record: &Recorded) {
        if let Some(led) = self.led(id) {
            led.observe(record);
        }
    }

    /// Follows a partition's leader in an epoch: the admission that its log is to be given. Nothing is asked of the
    /// leader before [`Replication::follow`].
    pub(crate) fn following(
        &self,
        partition: &Partition,
        durability: Durability,
        leader: BrokerId,
        Recorded { record, zones }: &Recorded,
        unclean_epoch: LeaderEpoch,
    ) -> Following {
        self.led.lock().remove(&partition.id());
        self.unfollow(partition.id());
        // Whatever was written before somebody accepted a loss may be what was lost.
        let may_lose = partition.last_epoch().is_some_and(|last| last < unclean_epoch);
        let both = [leader, self.cluster.broker_id()].into_iter();
        // What is committed here its leader has, and this replica. Who else does this one is not told, and min.insync, by which it
        // was committed, may have been another one than that of any record that is known here.
        let written = 2;
        let flushed = if durability == Durability::Fsync { written } else { 0 };
        let holders = Holders { written, flushed, zones: zones.count(both) };
        let epoch = record.leader_epoch;
        Following(Followed::new(partition.clone(), durability, leader, epoch, may_lose, holders))
    }

    /// The log takes what its leader sends from now on: it is asked for.
    pub(crate) fn follow(self: &Arc<Self>, followed: Arc<Followed>) {
        let leader = followed.leader;
        let mut links = self.links.lock();
        links.by_partition.insert(followed.id, followed.clone());
        let link = links.by_leader.entry(leader).or_insert_with(|| self.dial(leader));
        // Its task lives as long as this.
        let _ = link.send(Change::Follow(followed));
    }

    /// A partition is neither led nor followed here any more.
    pub(crate) fn leave(&self, id: PartitionId) {
        self.led.lock().remove(&id);
        self.unfollow(id);
    }

    fn unfollow(&self, id: PartitionId) {
        let mut links = self.links.lock();
        let followed = links.by_partition.remove(&id);
        if let Some(link) = followed.and_then(|followed| links.by_leader.get(&followed.leader)) {
            let _ = link.send(Change::Leave(id));
        }
    }

    /// Starts the task of a link, always on the same runtime for the same leader.
    fn dial(self: &Arc<Self>, leader: BrokerId) -> mpsc::UnboundedSender<Change> {
        let (changes, told) = mpsc::unbounded_channel();
        let at = leader.0.unsigned_abs() as usize % self.starts.len().max(1);
        if let Some(starts) = self.starts.get(at) {
            // Fails only while the process ends.
            let _ = starts.send(Box::pin(link::run(self.clone(), leader, told)));
        }
        changes
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A partition that is led here.
    pub(crate) fn led(&self, id: PartitionId) -> Option<Arc<Led>> {
        self.led.lock().get(&id).cloned()
    }

    /// Whether a partition is led here and nobody else can lead it now: see [`Led::is_sure`].
    pub(crate) fn is_sure(&self, id: PartitionId) -> bool {
        self.led(id).is_some_and(|led| led.is_sure())
    }

    /// A partition that is followed here.
    pub(crate) fn followed(&self, id: PartitionId) -> Option<Arc<Followed>> {
        self.links.lock().by_partition.get(&id).cloned()
    }

    /// All of them.
    pub(crate) fn all_led(&self) -> Vec<Arc<Led>> {
        self.led.lock().values().cloned().collect()
    }

    /// A number for a subscription that no other one has.
    fn next_subscription(&self) -> u64 {
        self.subscriptions.fetch_add(1, Ordering::Relaxed)
    }

    /// What a log needs next is gone at its leader, or the two share nothing: it is to begin anew where the leader's begins,
    /// with what that knows there. Whether it did: then another life of the log is followed, and this one is not.
    async fn start_over(self: Arc<Self>, followed: Arc<Followed>, at: Offset) -> bool {
        if let Some(why) = followed.lacked_by_its_leader(at) {
            self.news.untaken(&self.cluster.image(), followed.id, &why, false);
            return false;
        }
        let log_end = followed.partition.ends().log_end;
        let (topic, partition) = (self.topic(followed.id), followed.id.partition);
        tracing::warn!(
            topic,
            partition,
            log_end,
            at,
            leader = followed.leader.0,
            "this replica begins anew where its leader's log begins"
        );
        let state = match start_state::fetch(&self, &followed).await {
            Ok(state) => state,
            Err(status) => {
                tracing::warn!(topic, partition, %status, "the leader does not say what its log begins with");
                return false;
            }
        };
        let (done, begun) = oneshot::channel();
        let restart = Restart { state, leader: followed.leader, epoch: followed.epoch, done };
        // Fails only while the process ends.
        let _ = self.restarts.send(restart);
        begun.await.unwrap_or(false)
    }
}

/// A log that is to begin anew, if it still follows that leadership.
pub(crate) struct Restart {
    pub(crate) state: StartState,
    pub(crate) leader: BrokerId,
    pub(crate) epoch: LeaderEpoch,
    /// Whether it did.
    pub(crate) done: oneshot::Sender<bool>,
}

impl fmt::Debug for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replication({} led)", self.led.lock().len())
    }
}

/// A partition's record, and where its replicas are.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) record: Record,
    pub(crate) zones: Zones,
}

/// A partition's record, as the core is told of it.
pub(crate) fn record_of(image: &Image, partition: &weir_metadata::Partition) -> Recorded {
    let member = |broker: &BrokerId| {
        let epoch = image.broker(*broker).map_or(0, |broker| broker.epoch);
        Member { broker: *broker, epoch }
    };
    let record = Record {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        min_insync: usize::try_from(partition.min_insync).unwrap_or(1),
        isr: partition.isr.iter().map(member).collect(),
        replicas: partition.replicas.iter().map(|replica| replica.broker).collect(),
        eligible: partition.unheard().to_vec(),
    };
    Recorded { record, zones: Zones::of(image, partition) }
}

/// Runs what is started on one data runtime, for as long as there may be more; dropped, it takes that along. A panic in it
/// is this task's own: whoever watches that sees it.
pub(crate) async fn host(mut starts: Starts) {
    let mut links = JoinSet::new();
    loop {
        // Each branch is cancel safe.
        tokio::select! {
            task = starts.recv() => match task {
                Some(task) => drop(links.spawn(task)),
                None => return,
            },
            Some(ended) = links.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
        }
    }
}

/// Keeps the in-sync sets of what is led here, for as long as the process lives.
pub(crate) use isr::keep as keep_in_sync;

#[cfg(test)]
mod tests {
    use weir_runtime::testing::listen;
    use weir_runtime::{OnEnd, Reason, Role, Stop};
    use weir_storage::{Acks, Control};

    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded};

    /// Also where the two part before this log's start, so that the leader has nothing of what is here.
    #[tokio::test(start_paused = true)]
    async fn a_log_does_not_begin_anew_under_a_leader_that_lacks_what_was_acknowledged() {
        listen();
        let (said, parts) = (weir_runtime::testing::Said::here(), Parts::new());
        let log = parts.lead(ID, recorded(1, &[1])).await;
        for _ in 0..9 {
            append(&log, batch(0), Acks::All, None).await.unwrap().unwrap();
        }
        log.control(Control::SetLogStart { offset: 5 }).await.unwrap();
        for (at, unclean_epoch, begins) in [(0, 0, 0), (9, 0, 1), (0, 2, 2)] {
            let record = recorded(2, &[2]);
            let following =
                parts.replication.following(&log, Durability::Fsync, BrokerId(2), &record, unclean_epoch);
            let has_begun = parts.replication.clone().start_over(following.0.clone(), at).await;
            assert!(!has_begun, "nobody answers");
            assert_eq!(said.count("this replica begins anew"), begins, "at {at}, unclean in {unclean_epoch}");
        }
    }

    /// Says that it was dropped.
    struct Dropped(mpsc::UnboundedSender<()>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    async fn panics() {
        panic!("on purpose");
    }

    #[tokio::test]
    async fn links_end_with_their_role_and_a_panic_in_one_is_seen() {
        let over = Stop::new();
        let role = Role::new("broker", over.clone());
        let (starts, started) = mpsc::unbounded_channel::<Task>();
        let hosting = tokio::spawn(role.task("links", OnEnd::StopRole, host(started)));
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let link = async move {
            let _dropped = Dropped(dropped);
            std::future::pending().await
        };
        assert!(starts.send(Box::pin(link)).is_ok());
        assert!(starts.send(Box::pin(panics())).is_ok());
        over.requested().await;
        assert!(matches!(over.reason(), Some(Reason::Failed { task, .. }) if task == "broker/links"));
        assert_eq!(drops.recv().await, Some(()));
        role.end().await;
        assert_eq!(hosting.await.ok(), Some(None));
    }
}
