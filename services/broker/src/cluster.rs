//! The broker's side of the controllers: its registration, its heartbeats, its copy of the metadata, and the changes
//! it passes on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use weir_cluster::{Client, Controllers, Follower};
use weir_metadata::Image;
use weir_proto::internal::v1 as wire;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_runtime::{Os, Reason, Stop};
use weir_types::{BrokerId, ClusterId};

/// How long a change may take before the caller is told that nobody knows.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a change is waited for in our own copy, after the controller has carried it out.
const SEEN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping broker waits for a controller to hear of it: one that does not notices by itself.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a starting broker waits for a controller.
const START_TIMEOUT: Duration = Duration::from_secs(600);

/// What the controller gave this broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) broker_id: BrokerId,
    pub(crate) epoch: i64,
    pub(crate) cluster_id: ClusterId,
    pub(crate) heartbeat: Duration,
}

/// The way to the controllers, and what they said.
#[derive(Debug)]
pub(crate) struct Cluster {
    controllers: Controllers,
    follower: Follower,
    registration: OnceLock<Registration>,
    /// Why the controller does not know this registration, while it does not.
    unknown: Mutex<Option<String>>,
    /// Requested when this process is to end: here, when it has no business being this broker any more.
    over: Stop,
    /// Cancelled when no further heartbeat is to begin.
    last_beat: CancellationToken,
}

impl Cluster {
    /// `seen` is the highest version of the metadata that was acted upon in an earlier life; `over` the wish that this
    /// process ends.
    pub(crate) fn new(controllers: Controllers, seen: i64, over: Stop) -> Self {
        Self {
            controllers,
            follower: Follower::new(seen),
            registration: OnceLock::new(),
            unknown: Mutex::default(),
            over,
            last_beat: CancellationToken::new(),
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

    /// This broker in its registration, as calls name it.
    pub(crate) fn broker_epoch(&self) -> wire::BrokerEpoch {
        let epoch = self.registration.get().map_or(0, |registration| registration.epoch);
        wire::BrokerEpoch { broker_id: self.broker_id().0, epoch }
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
        let cluster_id = weir_cluster::Row::from_wire(answer.cluster_id)
            .map_err(|error| Status::internal(format!("the controller's answer: {error}")))?;
        self.controllers.belong_to(cluster_id);
        let registration = Registration {
            broker_id: BrokerId(answer.broker_id),
            epoch: answer.epoch,
            cluster_id,
            heartbeat: Duration::from_millis(
                u64::try_from(answer.heartbeat_interval_ms).unwrap_or(500).max(10),
            ),
        };
        // A process registers once.
        Ok(*self.registration.get_or_init(|| registration))
    }

    /// Follows the metadata for as long as the process lives.
    pub(crate) async fn follow(self: Arc<Self>) {
        let cluster_id = self.registration.get().map(|registration| registration.cluster_id);
        self.follower.run(&self.controllers, cluster_id).await;
    }

    /// Shows the controller that this broker lives, for as long as it does.
    pub(crate) async fn beat(self: Arc<Self>) {
        let Some(registration) = self.registration.get() else { return };
        beats(registration.heartbeat, &self.last_beat, || self.beat_once()).await;
    }

    async fn beat_once(&self) {
        match self.heartbeat(false, Instant::now() + CHANGE_TIMEOUT).await {
            Ok(answer) => {
                self.follower.expect(answer.metadata_version);
                *self.unknown.lock() = None;
            }
            Err(status) => self.unheard(&status),
        }
    }

    /// A heartbeat was not taken.
    fn unheard(&self, status: &Status) {
        let stale = weir_cluster::is_for(status, ErrorReason::BrokerEpochStale);
        let current = weir_cluster::fact(status, "current").and_then(|epoch| epoch.parse().ok());
        if let Some(current) = current.filter(|current| stale && *current > self.broker_epoch().epoch) {
            self.superseded(current);
        } else if stale || weir_cluster::is_for(status, ErrorReason::BrokerNotFound) {
            // It knows less than it once gave.
            let why = format!("the controller has forgotten this broker: {}", status.message());
            let mut unknown = self.unknown.lock();
            if unknown.is_none() {
                tracing::error!("{why}; was it restored from a backup?");
            }
            *unknown = Some(why);
        } else {
            tracing::warn!(%status, "no controller took a heartbeat");
        }
    }

    /// The first heartbeat, as soon as a controller takes it.
    pub(crate) async fn begin(&self) -> Result<wire::BrokerHeartbeatResponse, Status> {
        self.heartbeat(false, Instant::now() + START_TIMEOUT).await
    }

    /// The last one: this broker has stopped. The task that beats comes to its end before: a heartbeat that landed
    /// behind this one would have a broker elected that is gone.
    pub(crate) async fn end(
        &self,
        mut beat: JoinHandle<Option<()>>,
    ) -> Result<wire::BrokerHeartbeatResponse, Status> {
        let until = Instant::now() + END_TIMEOUT;
        self.last_beat.cancel();
        if timeout_at(until, &mut beat).await.is_err() {
            beat.abort();
            let said = "no controller has answered the last heartbeat";
            return Err(Problem::new(ErrorReason::ControllerUnavailable, said).status());
        }
        self.heartbeat(true, until).await
    }

    /// One heartbeat, with which the broker is (still) ready to serve, or says that it has stopped.
    async fn heartbeat(
        &self,
        stopped: bool,
        until: Instant,
    ) -> Result<wire::BrokerHeartbeatResponse, Status> {
        let request = wire::BrokerHeartbeatRequest {
            broker: Some(self.broker_epoch()),
            epoch_persisted: true,
            metadata_version: self.image().version(),
            wants_to_stop: stopped,
            stopped,
        };
        self.controllers.call(until, |mut client| async move { client.broker_heartbeat(request).await }).await
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
        if let Some(trouble) = self.trouble() {
            return Err(Problem::new(ErrorReason::ControllerUnavailable, trouble).status());
        }
        self.controllers.call(Instant::now() + CHANGE_TIMEOUT, |client| call(client, request.clone())).await
    }
}

/// Beats now and at every tick, until `last` is cancelled. A beat that has begun comes to its end: once this has
/// returned, none is on its way.
async fn beats<F: Future<Output = ()>>(every: Duration, last: &CancellationToken, beat: impl Fn() -> F) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = last.cancelled() => return,
            _ = ticks.tick() => {}
        }
        // A controller that is slow or gone is waited for within the call, which paces itself.
        beat().await;
    }
}

/// A change that may be sent twice has an id; callers who gave none get one.
pub(crate) fn ensure_request_id(os: &dyn Os, request_id: &mut String) {
    if request_id.is_empty() {
        *request_id = format!("{:032x}", os.random_u128());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_beat_is_on_its_way_once_the_last_one_was_asked_for() {
        let (begun, ended) = (Cell::new(0), Cell::new(0));
        let last = CancellationToken::new();
        let beat = || async {
            begun.set(begun.get() + 1);
            sleep(Duration::from_secs(1)).await;
            ended.set(ended.get() + 1);
        };
        let stop = async {
            // In the middle of the third.
            sleep(Duration::from_millis(2_700)).await;
            assert_eq!((begun.get(), ended.get()), (3, 2));
            last.cancel();
        };
        tokio::join!(beats(Duration::from_millis(100), &last, beat), stop);
        assert_eq!((begun.get(), ended.get()), (3, 3));
    }
}
