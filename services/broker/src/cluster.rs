//! The broker's side of the controllers: its registration, its heartbeats, its copy of the metadata, and the changes
//! it passes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weir_cluster::{Controllers, Follower, Row};
use weir_metadata::{BrokerEpoch, Image};
use weir_proto::internal::v1 as wire;
use weir_runtime::{Reason, Stop};
use weir_storage::OpenReport;
use weir_types::{BrokerId, ClusterId, Offset, PartitionId};

use crate::reach::Reach;

mod changes;
mod failed;
mod heartbeats;

pub(crate) use changes::{answer_by, ensure_request_id, tell_by};
use heartbeats::Standing;

/// How long a starting broker waits for a controller.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// What the controller gave this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) broker_id: BrokerId,
    pub(crate) epoch: i64,
    pub(crate) cluster_id: ClusterId,
    pub(crate) heartbeat: Duration,
    /// Who is not heard of for so long may be taken for dead.
    pub(crate) session: Duration,
}

/// What this broker was in an earlier life, as its log directory has it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Earlier {
    /// The highest version of the metadata that was acted upon, and who wrote it.
    metadata_version: i64,
    metadata_author: u64,
    registration: Option<(ClusterId, BrokerEpoch)>,
}

impl Earlier {
    /// What the directory says.
    pub(crate) fn of(found: &OpenReport) -> Self {
        let registered = found.identity.as_ref().zip(found.broker_epoch.as_ref());
        Self {
            metadata_version: found.metadata_version,
            metadata_author: found.metadata_author,
            registration: registered.map(|(of, last)| {
                (of.cluster_id, BrokerEpoch { broker: BrokerId(of.broker_id), epoch: last.broker_epoch })
            }),
        }
    }
}

/// The way to the controllers, and what they said.
#[derive(Debug)]
pub(crate) struct Cluster {
    controllers: Controllers,
    follower: Follower,
    registration: OnceLock<Registration>,
    /// The registration in an earlier life.
    earlier: Option<(ClusterId, BrokerEpoch)>,
    /// Whether a write or sync of this process has failed.
    has_failed: AtomicBool,
    /// Why the controller does not know this registration, while it does not.
    unknown: Mutex<Option<String>>,
    /// Requested when this process is to end: here, when it has no business being this broker any more.
    over: Stop,
    /// Cancelled when no further heartbeat is to begin.
    last_beat: CancellationToken,
    standing: watch::Sender<Standing>,
    /// Whether it is to give its leaderships away.
    leaving: AtomicBool,
    /// Whether a stop in order has begun, whoever hears of it.
    stopping: AtomicBool,
    /// Rings when a heartbeat is due at once.
    more: Notify,
    /// The version of the metadata that is acted upon here.
    acted: AtomicI64,
    /// How many heartbeats there were.
    beats: AtomicI64,
    /// What the controller wants to know of replicas here.
    wanted: Mutex<Vec<wire::PartitionRef>>,
    /// The damaged logs here that it wants to be cut, and where.
    cuts: watch::Sender<BTreeMap<PartitionId, Offset>>,
    /// Other brokers that this one does not reach.
    pub(crate) reach: Reach,
}

impl Cluster {
    /// `over` is the wish that this process ends.
    pub(crate) fn new(controllers: Controllers, earlier: Earlier, over: Stop) -> Self {
        Self {
            controllers,
            follower: Follower::after(earlier.metadata_version, earlier.metadata_author),
            registration: OnceLock::new(),
            earlier: earlier.registration,
            has_failed: AtomicBool::new(false),
            unknown: Mutex::default(),
            over,
            last_beat: CancellationToken::new(),
            standing: watch::Sender::default(),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            more: Notify::new(),
            acted: AtomicI64::new(0),
            beats: AtomicI64::new(0),
            wanted: Mutex::default(),
            cuts: watch::Sender::default(),
            reach: Reach::default(),
        }
    }

    /// Why this broker stands apart from its cluster, if it does: there is no metadata that it may follow, or the
    /// controller does not know it.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.follower.refused().or_else(|| self.unknown.lock().clone())
    }

    /// Whether a controller has taken this process as a broker.
    pub(crate) fn is_registered(&self) -> bool {
        self.registration.get().is_some()
    }

    /// This broker's id, if it has one: also that of an earlier life.
    pub(crate) fn known_as(&self) -> Option<BrokerId> {
        let registered = self.registration.get().map(|registration| registration.broker_id);
        registered.or(self.earlier.map(|(_, earlier)| earlier.broker))
    }

    /// The controllers, with what each has answered while none helps: for people.
    pub(crate) fn asked(&self) -> String {
        self.controllers.asked()
    }

    /// The same, if none takes calls now.
    pub(crate) fn asked_in_vain(&self) -> Option<String> {
        self.controllers.asked_in_vain()
    }

    /// The wish that this process ends.
    pub(crate) fn over(&self) -> &Stop {
        &self.over
    }

    /// Another process has registered as this broker since: two must not lead the same partitions.
    pub(crate) fn superseded(&self, current: i64) {
        let wire::BrokerEpoch { broker_id, epoch } = self.broker_epoch();
        let why = format!(
            "another process has registered as broker {broker_id} (epoch {current}, this one has {epoch}): do two run \
             on copies of one log directory? this one ends"
        );
        if !self.over.is_requested() {
            tracing::error!("{why}");
        }
        self.over.request(Reason::Failed { task: "broker/registration".to_owned(), why });
        self.last_beat.cancel();
    }

    /// Whether an image has the registration of this process, so that what it says of this broker is said of us.
    /// One that has a later one ends this process.
    pub(crate) fn is_mine(&self, image: &Image) -> bool {
        let Some(ours) = self.registration.get() else { return false };
        let Some(broker) = image.broker(ours.broker_id) else { return false };
        if broker.epoch > ours.epoch {
            self.superseded(broker.epoch);
        }
        if broker.epoch == ours.epoch && broker.is_over() {
            self.distrusted();
        }
        broker.epoch == ours.epoch
    }

    /// Another broker did not answer, or somebody else did.
    pub(crate) fn missed(&self, broker: BrokerId, why: &str) {
        self.reach.missed(&self.image(), broker, why, self.session_valid());
    }

    /// Brokers that are not reached now though the controllers hear them, for people. Nothing while none of those is heard:
    /// what is known is from before.
    pub(crate) fn unreached(&self) -> Vec<String> {
        if self.session_valid() { self.reach.now(&self.image()) } else { Vec::new() }
    }

    /// The newest metadata this broker has.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.follower.image()
    }

    /// Says each new version of it.
    pub(crate) fn versions(&self) -> watch::Receiver<i64> {
        self.follower.versions()
    }

    /// This broker's id; 0 before it is registered.
    pub(crate) fn broker_id(&self) -> BrokerId {
        self.registration.get().map_or(BrokerId(0), |registration| registration.broker_id)
    }

    /// This broker in its registration.
    pub(crate) fn registered_as(&self) -> BrokerEpoch {
        let epoch = self.registration.get().map_or(0, |registration| registration.epoch);
        BrokerEpoch { broker: self.broker_id(), epoch }
    }

    /// The same, as calls name it.
    pub(crate) fn broker_epoch(&self) -> wire::BrokerEpoch {
        self.registered_as().to_wire()
    }

    /// Registers as soon as a controller answers. What a controller refuses is final. However often it is sent, and by
    /// whatever way it comes, it is one registration: the process has a number of its own.
    pub(crate) async fn register(
        &self,
        mut registration: wire::RegisterBroker,
    ) -> Result<Registration, Status> {
        registration.incarnation = self.controllers.os().random_u128().to_be_bytes().to_vec().into();
        let request = wire::RegisterBrokerRequest { registration: Some(registration) };
        let answer = self
            .controllers
            .call(Instant::now() + START_TIMEOUT, |mut client| {
                let request = request.clone();
                async move { client.register_broker(request).await }
            })
            .await?;
        let cluster_id = ClusterId::from_wire(answer.cluster_id)
            .map_err(|error| Status::internal(format!("the controller's answer: {error}")))?;
        self.controllers.belong_to(cluster_id);
        let registration = Registration {
            broker_id: BrokerId(answer.broker_id),
            epoch: answer.epoch,
            cluster_id,
            heartbeat: milliseconds(answer.heartbeat_interval_ms).max(Duration::from_millis(10)),
            session: milliseconds(answer.session_timeout_ms),
        };
        // A process registers once.
        Ok(*self.registration.get_or_init(|| registration))
    }

    /// Follows the metadata for as long as the process lives.
    pub(crate) async fn follow(self: Arc<Self>) {
        let cluster_id = self.registration.get().map(|registration| registration.cluster_id);
        self.follower.run(&self.controllers, cluster_id).await;
    }
}

/// A length of time, as a controller says it.
fn milliseconds(said: i64) -> Duration {
    Duration::from_millis(u64::try_from(said).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_io::MemDisk;
    use weir_metadata::{BrokerState, Error};
    use weir_runtime::Os;
    use weir_runtime::testing::TestOs;

    use super::*;
    use crate::mutant::Mutant;

    pub(crate) const SESSION: Duration = Duration::from_secs(3);

    fn registered() -> Cluster {
        registered_on(Arc::new(TestOs::new(Arc::new(MemDisk::new(1)))))
    }

    /// Broker 1, which controllers have taken.
    pub(crate) fn registered_on(os: Arc<dyn Os>) -> Cluster {
        registered_as(os, BrokerEpoch { broker: BrokerId(1), epoch: 5 })
    }

    /// A broker that controllers have taken.
    pub(crate) fn registered_as(os: Arc<dyn Os>, by: BrokerEpoch) -> Cluster {
        let cluster =
            Cluster::new(Controllers::new(os, vec!["c1:9349".to_owned()]), Earlier::default(), Stop::new());
        let (broker_id, cluster_id) = (by.broker, ClusterId(1));
        let heartbeat = Duration::from_millis(500);
        let given = Registration { broker_id, epoch: by.epoch, cluster_id, heartbeat, session: SESSION };
        cluster.registration.set(given).unwrap();
        cluster
    }

    /// A heartbeat of now is answered: it serves, and this version is what there is.
    pub(crate) fn is_heard(cluster: &Cluster, metadata_version: i64) {
        cluster.answered(Instant::now(), &answer(BrokerState::Active, metadata_version));
    }

    fn answer(state: BrokerState, metadata_version: i64) -> wire::BrokerHeartbeatResponse {
        wire::BrokerHeartbeatResponse { state: state.to_wire(), metadata_version, ..Default::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_once_what_was_decided_before_it_is_acted_upon() {
        let cluster = registered();
        cluster.answered(Instant::now(), &answer(BrokerState::Active, 7));
        assert!(!cluster.session_valid(), "somebody else may have been elected before version 7");
        cluster.acted_upon(7);
        assert!(cluster.session_valid());
        tokio::time::advance(SESSION - Duration::from_secs(1)).await;
        cluster.answered(Instant::now(), &answer(BrokerState::Active, 8));
        cluster.answered(Instant::now(), &answer(BrokerState::Active, 9));
        assert!(cluster.session_valid(), "the first one still counts");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!cluster.session_valid(), "and no more: nothing is known of what came after version 7");
        cluster.acted_upon(8);
        assert!(cluster.session_valid(), "the second one is not put off by the third");
        cluster.answered(Instant::now(), &answer(BrokerState::Fenced, 9));
        assert!(!cluster.session_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_old_once_the_controllers_are_silent_for_a_session() {
        let cluster = registered();
        is_heard(&cluster, 7);
        tokio::time::advance(2 * SESSION).await;
        assert_eq!(cluster.controllers_silent(), None, "the next heartbeat is on its way");
        cluster.unheard(&tonic::Status::unavailable("no route"));
        assert_eq!(cluster.controllers_silent(), Some(2 * SESSION));
        is_heard(&cluster, 7);
        cluster.unheard(&tonic::Status::unavailable("no route"));
        assert_eq!(cluster.controllers_silent(), None, "a moment is no age");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_its_leaderships_to_be_given_away_promises_them_no_more() {
        for is_heard_now in [true, false] {
            let cluster = registered();
            is_heard(&cluster, 0);
            if !is_heard_now {
                cluster.unheard(&tonic::Status::unavailable("no route"));
            }
            assert!(cluster.session_valid() && !cluster.stands_back());
            cluster.hand_over(Duration::ZERO).await;
            is_heard(&cluster, 0);
            assert!(cluster.stands_back(), "whoever gets them does not wait for what this one hears");
        }
    }

    #[test]
    fn who_leaves_and_goes_on_promising_is_noticed() {
        let test = who_asks_for_its_leaderships_to_be_given_away_promises_them_no_more;
        assert!(Mutant::LeavingPromises.is_noticed_by(test));
    }

    #[tokio::test]
    async fn a_slow_broker_stands_back_until_it_has_acted_upon_the_end_of_that() {
        let cluster = registered();
        let answered = |state, version| cluster.answered(Instant::now(), &answer(state, version));
        answered(BrokerState::Active, 7);
        assert!(!cluster.stands_back());
        cluster.says_slow();
        assert!(cluster.stands_back(), "from before it is heard");
        answered(BrokerState::Active, 7);
        cluster.acted_upon(7);
        assert!(!cluster.stands_back(), "too many are slow already: it leads on");
        cluster.says_slow();
        answered(BrokerState::Slow, 8);
        cluster.acted_upon(8);
        assert!(cluster.stands_back(), "with each one who joins the others, it may lose what it leads");
        answered(BrokerState::Active, 9);
        assert!(cluster.stands_back(), "what it led may have gone before version 9");
        cluster.acted_upon(9);
        assert!(!cluster.stands_back());
        answered(BrokerState::Slow, 10);
        assert!(cluster.stands_back(), "the controllers did not hear the last one in time");
    }

    #[tokio::test]
    async fn a_controller_of_another_history_is_said_with_its_first_refusal() {
        let cluster = registered();
        let behind = weir_cluster::problem(&Error::Behind { ours: 4, seen: 9 });
        cluster.unheard(&behind.status());
        let trouble = cluster.trouble().unwrap();
        for words in ["version 4, the caller has seen version 9", "weir errors CLUSTER_MISMATCH"] {
            assert!(trouble.contains(words), "{trouble}");
        }
        cluster.answered(Instant::now(), &answer(BrokerState::Active, 9));
        assert_eq!(cluster.trouble(), None);
    }

    #[test]
    fn a_session_that_lasts_for_ever_is_noticed() {
        let test = an_answer_counts_once_what_was_decided_before_it_is_acted_upon;
        assert!(Mutant::SessionForever.is_noticed_by(test));
    }
}
