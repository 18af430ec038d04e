//! A broker's part in its session: heartbeats, what their answers allow it, and its end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::Status;
use weir_cluster::{Row, Session};
use weir_metadata::{BrokerState, FEATURE_LEVEL};
use weir_proto::internal::v1 as wire;
use weir_proto::v1::ErrorReason;
use weir_storage::LogDir;
use weir_types::{Offset, PartitionId};

use super::{Cluster, START_TIMEOUT};
use crate::damage::Damage;
use crate::mutant::Mutant;
use crate::reports::{self, Said};

/// How long a stopping broker waits for a controller to hear of it: one that does not notices by itself.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a stopping broker waits for its leaderships to have gone to others.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Where this broker stands with the controllers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// When the last heartbeat was sent of which everything is acted upon that had been decided until its answer. `None`:
    /// there is none, or the last answer was that this broker does not serve.
    valid_since: Option<Instant>,
    /// A later one, and the version of the metadata that its answer named.
    next: Option<(Instant, i64)>,
    /// Whether the last heartbeat was answered.
    heard: bool,
    /// When one was answered last.
    heard_last: Option<Instant>,
    /// The version of the metadata with which this broker may stop: what others can lead, others lead there.
    may_stop: Option<i64>,
    stands_back: StandsBack,
}

/// Whether the controllers may give to others what this broker leads because its disk is slow. They begin with what it says
/// itself, and go on as long as it counts as slow: nobody waits until it has heard of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StandsBack {
    #[default]
    No,
    Now,
    /// Until this version of the metadata is acted upon, with which it was over.
    Until(i64),
}

impl Standing {
    /// Since when it is valid, where this version of the metadata is acted upon.
    fn since(&self, acted: i64) -> Option<Instant> {
        let next = self.next.filter(|(_, version)| *version <= acted).map(|(sent, _)| sent);
        next.max(self.valid_since)
    }
}

impl Cluster {
    /// Shows the controller that this broker lives, for as long as it does, and tells it what it wants to know of the
    /// replicas here.
    pub(crate) async fn beat(self: Arc<Self>, log_dir: LogDir, damage: Arc<Damage>) {
        let Some(registration) = self.registration.get() else { return };
        let beating = Beating { cluster: &self, log_dir, damage };
        tokio::select! {
            () = self.last_beat.cancelled() => {}
            () = self.controllers.keep_session(registration.heartbeat, &self.more, &beating) => {}
        }
    }

    /// How long this broker may be silent before others may get what it leads.
    pub(crate) fn session(&self) -> Duration {
        self.registration.get().map_or(Duration::ZERO, |registration| registration.session)
    }

    /// Whether this broker may still promise what epochs do not protect: acknowledgements weaker than ALL, the latest
    /// offset, outcomes and conditions that are judged by its end (correctness rule 10). It may for a session from when
    /// the last heartbeat was sent that was answered: until then nobody else was given what it leads. But one that was
    /// silent for longer is heard again, and serves again, before it has heard what was given to others meanwhile: an
    /// answer counts once all is acted upon that was decided before it. What it asks for itself is another matter: see
    /// [`Cluster::stands_back`].
    pub(crate) fn session_valid(&self) -> bool {
        let session = self.session();
        let acted = self.acted.load(Ordering::Acquire);
        // The controllers are about to hear that its disk has failed, and do not wait for a session then.
        if self.has_failed.load(Ordering::Acquire) {
            return false;
        }
        let is_heard = self.standing.borrow().since(acted).is_some_and(|since| since.elapsed() <= session);
        is_heard || Mutant::SessionForever.is_planted()
    }

    /// For how long no controller has answered a heartbeat, where that is longer than a session: what is known here of
    /// brokers, leaders and settings is as old as that.
    pub(crate) fn controllers_silent(&self) -> Option<Duration> {
        let session = self.registration.get()?.session;
        let Standing { heard, heard_last, .. } = *self.standing.borrow();
        heard_last.filter(|_| !heard).map(|last| last.elapsed()).filter(|silent| *silent > session)
    }

    /// Whether the last heartbeat was answered.
    pub(crate) fn is_heard(&self) -> bool {
        self.standing.borrow().heard
    }

    /// There is something to be told with the next heartbeat: it is due.
    pub(crate) fn beat_now(&self) {
        self.more.notify_one();
    }

    /// Whether what is led here may be another one's although the session is valid, wherever somebody else is in sync: this
    /// broker is stopping, or its disk is slow (correctness rule 41). It asks for that, and the controllers do not wait for a
    /// session then.
    pub(crate) fn stands_back(&self) -> bool {
        if self.stopping.load(Ordering::Acquire) {
            return !Mutant::LeavingPromises.is_planted();
        }
        match self.standing.borrow().stands_back {
            StandsBack::No => false,
            StandsBack::Now => true,
            StandsBack::Until(version) => self.acted.load(Ordering::Acquire) < version,
        }
    }

    /// The next heartbeat says that the disk is slow.
    pub(crate) fn says_slow(&self) {
        self.standing.send_if_modified(|standing| {
            standing.stands_back = StandsBack::Now;
            // Nobody waits for that.
            false
        });
    }

    /// Whether that is so of a version.
    pub(crate) fn has_acted_upon(&self, version: i64) -> bool {
        self.acted.load(Ordering::Acquire) >= version
    }

    /// This version of the metadata is acted upon here, in all.
    pub(crate) fn acted_upon(&self, version: i64) {
        self.acted.fetch_max(version, Ordering::AcqRel);
        // A controller may wait for just that.
        if !self.wanted.lock().is_empty() {
            self.beat_now();
        }
    }

    /// The version of the metadata that is acted upon here, in all.
    pub(crate) fn acted(&self) -> i64 {
        self.acted.load(Ordering::Acquire)
    }

    /// Asks for this broker's leaderships to be given to others, as far as others can lead, and waits until that is so
    /// here as well. Not for long, and not for a controller that does not answer: whoever stops then is fenced by and by.
    pub(crate) async fn hand_over(&self, patience: Duration) {
        self.stopping.store(true, Ordering::Release);
        if self.last_beat.is_cancelled() {
            tracing::warn!("stopping without handing leaderships over: another process is this broker now");
            return;
        }
        // Nor for one that may not be followed: it would write about this broker what others take for its history.
        if let Some(why) = self.trouble() {
            let kept = self.led();
            tracing::warn!(kept, why, "stopping without handing leaderships over: no controller may be told");
            return;
        }
        if !self.is_heard() {
            let kept = self.led();
            tracing::warn!(kept, "stopping without handing leaderships over: no controller hears of it");
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
        let (begun, led) = (Instant::now(), self.led());
        let is_done = timeout(patience.min(HAND_OVER_TIMEOUT), handed).await.is_ok();
        let (took, kept) = (begun.elapsed(), self.led());
        let given = led.saturating_sub(kept);
        if is_done {
            // What is kept nobody else can lead.
            tracing::info!(given, kept, ?took, "leaderships were handed over");
        } else {
            tracing::warn!(
                given,
                kept,
                ?took,
                "stopping with leaderships that could not be handed over in time"
            );
        }
    }

    /// How many partitions this broker leads, as far as it knows.
    fn led(&self) -> usize {
        let (image, me) = (self.image(), self.broker_id());
        let partitions = image.topics().flat_map(|topic| topic.partitions.iter());
        partitions.filter(|(_, record)| record.leader == Some(me)).count()
    }

    /// A heartbeat was answered.
    pub(super) fn answered(&self, sent: Instant, answer: &wire::BrokerHeartbeatResponse) {
        self.follower.expect(answer.metadata_version);
        *self.unknown.lock() = None;
        let state = BrokerState::from_wire(answer.state);
        let serves = state.clone().is_ok_and(BrokerState::is_alive);
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
            standing.heard_last = Some(Instant::now());
            standing.stands_back = match standing.stands_back {
                _ if state == Ok(BrokerState::Slow) => StandsBack::Now,
                // Also where too many are slow already: that was decided with this heartbeat.
                StandsBack::Now => StandsBack::Until(answer.metadata_version),
                other => other,
            };
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
    pub(super) fn unheard(&self, status: &Status) {
        self.standing.send_modify(|standing| standing.heard = false);
        let stale = weir_cluster::is_for(status, ErrorReason::BrokerEpochStale);
        let current = weir_cluster::fact(status, "current").and_then(|epoch| epoch.parse().ok());
        if let Some(current) = current.filter(|current| stale && *current > self.broker_epoch().epoch) {
            self.superseded(current);
        } else if stale || weir_cluster::is_for(status, ErrorReason::BrokerNotFound) {
            // It knows less than it once gave.
            self.stands_apart(format!(
                "the controller has forgotten this broker: {} (weir errors CLUSTER_MISMATCH says what to do after a restore)",
                status.message()
            ));
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
            let request = self.beat_with(stopped, Said::default());
            async move { client.broker_heartbeat(request).await }
        });
        let answer = asked.await?;
        self.answered(sent, &answer);
        Ok(answer)
    }

    fn beat_with(&self, stopped: bool, said: Said) -> wire::BrokerHeartbeatRequest {
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
            reports: said.reports,
            disk_slow: false,
            damaged: Vec::new(),
            stuck: Vec::new(),
            unusable: Vec::new(),
            acted_version: said.acted_version,
        }
    }
}

/// A broker's part in its session.
struct Beating<'a> {
    cluster: &'a Cluster,
    log_dir: LogDir,
    damage: Arc<Damage>,
}

impl Session for Beating<'_> {
    fn heartbeat(&self) -> wire::BrokerHeartbeatRequest {
        let wanted = std::mem::take(&mut *self.cluster.wanted.lock());
        let said = reports::of(self.cluster, &self.log_dir, &self.damage, wanted);
        let beat = self.cluster.beat_with(false, said);
        let disk_slow = self.log_dir.is_slow();
        if disk_slow {
            self.cluster.says_slow();
        }
        let (damaged, stuck) = self.damage.to_be_told(&self.log_dir);
        let damaged = damaged.iter().map(Row::to_wire).collect();
        let stuck = stuck.iter().map(Row::to_wire).collect();
        let unusable = self.damage.led_in_vain(&self.log_dir).iter().map(Row::to_wire).collect();
        wire::BrokerHeartbeatRequest { disk_slow, damaged, stuck, unusable, ..beat }
    }

    fn answered(&self, sent: Instant, answer: wire::BrokerHeartbeatResponse) -> bool {
        self.cluster.answered(sent, &answer);
        self.damage.answered(answer.metadata_version);
        // As long as it cannot say yet, there is time.
        !answer.wanted.is_empty() && self.cluster.has_acted_upon(answer.metadata_version)
    }

    fn unheard(&self, failed: &Status) {
        self.cluster.unheard(failed);
    }
}
