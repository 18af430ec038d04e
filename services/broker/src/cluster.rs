//! The broker's side of the controllers: its registration, its heartbeats, its copy of the metadata, and the changes
//! it passes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use weir_cluster::{Client, Controllers, Follower, Row, Session};
use weir_metadata::{BrokerEpoch, BrokerState, FEATURE_LEVEL, Image};
use weir_proto::internal::v1 as wire;
use weir_proto::v1::ErrorReason;
use weir_rpc::{Problem, deadline};
use weir_runtime::{Os, Reason, Stop};
use weir_storage::{LogDir, OpenReport};
use weir_types::{BrokerId, ClusterId, Offset, PartitionId};

use crate::mutant::Mutant;
use crate::reach::Reach;
use crate::reports;

mod failed;

/// How long a change may take before the caller is told that nobody knows.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change is waited for in our own copy, after the controller has carried it out.
const SEEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping broker waits for a controller to hear of it: one that does not notices by itself.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping broker waits for its leaderships to have gone to others.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);
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
        let identity =
            found.identity.as_ref().and_then(|of| Some((of.cluster_id.parse().ok()?, of.broker_id)));
        let registered = identity.zip(found.broker_epoch.as_ref());
        Self {
            metadata_version: found.metadata_version,
            metadata_author: found.metadata_author,
            registration: registered.map(|((cluster_id, id), last)| {
                (cluster_id, BrokerEpoch { broker: BrokerId(id), epoch: last.broker_epoch })
            }),
        }
    }
}

/// Where this broker stands with the controllers.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// When the last heartbeat was sent of which everything is acted upon that had been decided until its answer. `None`:
    /// there is none, or the last answer was that this broker does not serve.
    valid_since: Option<Instant>,
    /// A later one, and the version of the metadata that its answer named.
    next: Option<(Instant, i64)>,
    /// Whether the last heartbeat was answered.
    heard: bool,
    /// The version of the metadata with which this broker may stop: what others can lead, others lead there.
    may_stop: Option<i64>,
}

impl Standing {
    /// Since when it is valid, where this version of the metadata is acted upon.
    fn since(&self, acted: i64) -> Option<Instant> {
        let next = self.next.filter(|(_, version)| *version <= acted).map(|(sent, _)| sent);
        next.max(self.valid_since)
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

    /// Shows the controller that this broker lives, for as long as it does, and tells it what it wants to know of the
    /// replicas here.
    pub(crate) async fn beat(self: Arc<Self>, log_dir: LogDir) {
        let Some(registration) = self.registration.get() else { return };
        let beating = Beating { cluster: &self, log_dir };
        tokio::select! {
            () = self.last_beat.cancelled() => {}
            () = self.controllers.keep_session(registration.heartbeat, &self.more, &beating) => {}
        }
    }

    /// Whether this broker may still promise what epochs do not protect: acknowledgements weaker than ALL, the latest
    /// offset, outcomes and conditions that are judged by its end (correctness rule 10). It may for a session from when
    /// the last heartbeat was sent that was answered: until then nobody else was given what it leads. But one that was
    /// silent for longer is heard again, and serves again, before it has heard what was given to others meanwhile: an
    /// answer counts once all is acted upon that was decided before it.
    pub(crate) fn session_valid(&self) -> bool {
        let session = self.registration.get().map_or(Duration::ZERO, |registration| registration.session);
        let acted = self.acted.load(Ordering::Acquire);
        let is_heard = self.standing.borrow().since(acted).is_some_and(|since| since.elapsed() <= session);
        is_heard || Mutant::SessionForever.is_planted()
    }

    /// This version of the metadata is acted upon here, in all.
    pub(crate) fn acted_upon(&self, version: i64) {
        self.acted.fetch_max(version, Ordering::AcqRel);
    }

    /// Asks for this broker's leaderships to be given to others, as far as others can lead, and waits until that is so
    /// here as well. Not for long, and not for a controller that does not answer: whoever stops then is fenced by and by.
    pub(crate) async fn hand_over(&self, patience: Duration) {
        // Nor for one that may not be followed: it would write about this broker what others take for its history.
        if !self.standing.borrow().heard || self.last_beat.is_cancelled() || self.trouble().is_some() {
            return;
        }
        self.leaving.store(true, Ordering::Release);
        self.more.notify_one();
        let mut standing = self.standing.subscribe();
        let handed = async {
            let settled = standing.wait_for(|standing| standing.may_stop.is_some() || !standing.heard).await;
            let version = settled.ok().and_then(|standing| standing.may_stop);
            if let Some(version) = version {
                self.follower.wait_for(version).await;
            }
        };
        if timeout(patience.min(HAND_OVER_TIMEOUT), handed).await.is_err() {
            tracing::warn!("stopping with leaderships that could not be handed over in time");
        }
    }

    /// A heartbeat was answered.
    fn answered(&self, sent: Instant, answer: &wire::BrokerHeartbeatResponse) {
        self.follower.expect(answer.metadata_version);
        *self.unknown.lock() = None;
        let serves = BrokerState::from_wire(answer.state).is_ok_and(BrokerState::is_alive);
        let leaving = self.leaving.load(Ordering::Acquire);
        let acted = self.acted.load(Ordering::Acquire);
        self.standing.send_modify(|standing| {
            if !serves {
                (standing.valid_since, standing.next) = (None, None);
            } else if standing.next.is_none_or(|(_, version)| version <= acted) {
                // One that is not acted upon yet is not put off by the next one, which is newer still.
                standing.valid_since = standing.since(acted);
                standing.next = Some((sent, answer.metadata_version));
            }
            standing.heard = true;
            if leaving && answer.may_stop {
                standing.may_stop.get_or_insert(answer.metadata_version);
            }
        });
        let cuts = answer.cuts.iter();
        let cuts =
            cuts.filter_map(|cut| Some((PartitionId::from_wire(cut.partition.clone()?).ok()?, cut.offset)));
        let cuts: BTreeMap<_, _> = cuts.collect();
        // What became of them is told with the next one, and not before that is due.
        let wanted = answer.wanted.iter().cloned().chain(cuts.keys().map(Row::to_wire));
        *self.wanted.lock() = wanted.collect();
        self.cuts.send_if_modified(|known| {
            let is_new = *known != cuts;
            *known = cuts;
            is_new
        });
    }

    /// The damaged logs here that a person lets go on as far as they are whole, and where that ends.
    pub(crate) fn cuts(&self) -> watch::Receiver<BTreeMap<PartitionId, Offset>> {
        self.cuts.subscribe()
    }

    /// A heartbeat was not taken.
    fn unheard(&self, status: &Status) {
        self.standing.send_modify(|standing| standing.heard = false);
        let stale = weir_cluster::is_for(status, ErrorReason::BrokerEpochStale);
        let current = weir_cluster::fact(status, "current").and_then(|epoch| epoch.parse().ok());
        if let Some(current) = current.filter(|current| stale && *current > self.broker_epoch().epoch) {
            self.superseded(current);
        } else if stale || weir_cluster::is_for(status, ErrorReason::BrokerNotFound) {
            // It knows less than it once gave.
            let why = format!("the controller has forgotten this broker: {}", status.message());
            self.stands_apart(why);
        } else if weir_cluster::is_for(status, ErrorReason::ClusterMismatch) {
            // It knows less than this broker has acted upon, or something else. Following the metadata will say so too, once
            // that is tried again.
            self.stands_apart(format!("the controller refuses this broker: {}", status.message()));
        } else {
            // That none of them does is said where they are asked.
            tracing::debug!(%status, "a controller took no heartbeat");
        }
    }

    /// The controller does not take this process for the broker that it is.
    fn stands_apart(&self, why: String) {
        let why = format!("{why} (weir errors CLUSTER_MISMATCH says what to do after a restore)");
        let mut unknown = self.unknown.lock();
        if unknown.is_none() {
            tracing::error!("{why}");
        }
        *unknown = Some(why);
    }

    /// The first heartbeat, as soon as a controller takes it.
    pub(crate) async fn begin(&self) -> Result<wire::BrokerHeartbeatResponse, Status> {
        self.heartbeat(false, Instant::now() + START_TIMEOUT).await
    }

    /// The last one: this broker has stopped. Heartbeats are counted, so that one which lands behind this one does not
    /// have a broker elected that is gone.
    pub(crate) async fn end(
        &self,
        beat: JoinHandle<Option<()>>,
    ) -> Result<wire::BrokerHeartbeatResponse, Status> {
        self.last_beat.cancel();
        // It ends where it waits.
        let _ = beat.await;
        self.heartbeat(true, Instant::now() + END_TIMEOUT).await
    }

    /// One heartbeat, with which the broker is (still) ready to serve, or says that it has stopped.
    async fn heartbeat(
        &self,
        stopped: bool,
        until: Instant,
    ) -> Result<wire::BrokerHeartbeatResponse, Status> {
        let mut sent = Instant::now();
        let asked = self.controllers.call(until, |mut client| {
            sent = Instant::now();
            let request = self.beat_with(stopped, Vec::new());
            async move { client.broker_heartbeat(request).await }
        });
        let answer = asked.await?;
        self.answered(sent, &answer);
        Ok(answer)
    }

    fn beat_with(&self, stopped: bool, reports: Vec<wire::ReplicaReport>) -> wire::BrokerHeartbeatRequest {
        let (metadata_version, metadata_author) = self.follower.seen();
        wire::BrokerHeartbeatRequest {
            broker: Some(self.broker_epoch()),
            epoch_persisted: true,
            metadata_version,
            metadata_author,
            wants_to_stop: stopped || self.leaving.load(Ordering::Acquire),
            stopped,
            number: self.beats.fetch_add(1, Ordering::AcqRel) + 1,
            feature_level: FEATURE_LEVEL,
            reports,
            disk_slow: false,
        }
    }

    /// Waits until our own copy has a version, so that the caller of a change finds it here.
    pub(crate) async fn seen(&self, version: i64) {
        self.seen_where(|image| image.version() >= version).await;
    }

    /// Waits until something holds in our own copy, for so long that the caller better does not wait, or until this
    /// process is to end.
    pub(crate) async fn seen_where(&self, mut holds: impl FnMut(&Image) -> bool) {
        let mut versions = self.versions();
        let waited = async {
            tokio::select! {
                _ = versions.wait_for(|_| holds(&self.image())) => {}
                () = self.over.requested() => {}
            }
        };
        if tokio::time::timeout(SEEN_TIMEOUT, waited).await.is_err() {
            let version = self.image().version();
            tracing::warn!(
                version,
                waited = ?SEEN_TIMEOUT,
                "the controller has made a change that this broker does not know of yet: whoever asked for it is \
                 answered now, and may not find it here at once"
            );
        }
    }

    /// Passes a change on to the controller that leads, within its time. It may be sent more than once: it must say
    /// the same twice, or carry a request id. While there is none that this broker may follow nothing is passed on:
    /// one that was restored would give out ids a second time.
    pub(crate) async fn change<Q, T, F>(&self, request: Q, call: impl Fn(Client, Q) -> F) -> Result<T, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.change_by(Instant::now() + CHANGE_TIMEOUT, request, call).await
    }

    /// The same for somebody who waits for it: answered by then (see [`answer_by`]).
    pub(crate) async fn change_by<Q, T, F>(
        &self,
        until: Instant,
        request: Q,
        call: impl Fn(Client, Q) -> F,
    ) -> Result<T, Status>
    where
        Q: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if let Some(trouble) = self.trouble() {
            return Err(Problem::new(ErrorReason::ControllerUnavailable, trouble).status());
        }
        self.controllers.call(until, |client| call(client, request.clone())).await
    }

    /// The same, asked once: what is refused was not carried out, and never will be.
    pub(crate) async fn once<T, F>(&self, until: Instant, call: impl FnOnce(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if let Some(trouble) = self.trouble() {
            return Err(Problem::new(ErrorReason::ControllerUnavailable, trouble).status());
        }
        self.controllers.once(until, call).await
    }
}

/// A broker's part in its session.
struct Beating<'a> {
    cluster: &'a Cluster,
    log_dir: LogDir,
}

impl Session for Beating<'_> {
    fn heartbeat(&self) -> wire::BrokerHeartbeatRequest {
        let wanted = std::mem::take(&mut *self.cluster.wanted.lock());
        let beat = self.cluster.beat_with(false, reports::of(&self.log_dir, wanted));
        wire::BrokerHeartbeatRequest { disk_slow: self.log_dir.is_slow(), ..beat }
    }

    fn answered(&self, sent: Instant, answer: wire::BrokerHeartbeatResponse) -> bool {
        self.cluster.answered(sent, &answer);
        !answer.wanted.is_empty()
    }

    fn unheard(&self, failed: &Status) {
        self.cluster.unheard(failed);
    }
}

/// When whoever asks for a change is answered at the latest: within his own time, so that he hears who was asked and what
/// they said, and not merely that his time is over.
pub(crate) fn answer_by<T>(request: &Request<T>) -> Instant {
    deadline::wait_until(CHANGE_TIMEOUT, deadline::of(request.metadata()))
}

/// A length of time, as a controller says it.
fn milliseconds(said: i64) -> Duration {
    Duration::from_millis(u64::try_from(said).unwrap_or(0))
}

/// A change that may be sent twice has an id; callers who gave none get one.
pub(crate) fn ensure_request_id(os: &dyn Os, request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = format!("{:032x}", os.random_u128());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use weir_io::MemDisk;
    use weir_runtime::testing::TestOs;

    use super::*;

    pub(crate) const SESSION: Duration = Duration::from_secs(3);

    fn registered() -> Cluster {
        registered_on(Arc::new(TestOs::new(Arc::new(MemDisk::new(1)))))
    }

    /// Broker 1, which controllers have taken.
    pub(crate) fn registered_on(os: Arc<dyn Os>) -> Cluster {
        let cluster =
            Cluster::new(Controllers::new(os, vec!["c1:9349".to_owned()]), Earlier::default(), Stop::new());
        let (broker_id, cluster_id) = (BrokerId(1), ClusterId(1));
        let heartbeat = Duration::from_millis(500);
        let given = Registration { broker_id, epoch: 5, cluster_id, heartbeat, session: SESSION };
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

    #[tokio::test]
    async fn a_controller_of_another_history_is_said_with_its_first_refusal() {
        let cluster = registered();
        let behind = Problem::new(ErrorReason::ClusterMismatch, "version 4, the caller has seen 9");
        cluster.unheard(&behind.status());
        let trouble = cluster.trouble().unwrap();
        for words in ["version 4, the caller has seen 9", "weir errors CLUSTER_MISMATCH"] {
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
