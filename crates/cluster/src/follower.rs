//! Follows the metadata: keeps the newest image, and never goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Status;
use weir_metadata::{Delta, FEATURE_LEVEL, Image};
use weir_proto::internal::v1::watch_metadata_response::Frame;
use weir_proto::internal::v1::{WatchMetadataRequest, WatchMetadataResponse};
use weir_proto::v1::ErrorReason;
use weir_runtime::spread_ms;
use weir_types::ClusterId;

use crate::asked::{Asked, in_words};
use crate::controllers::{Client, Controllers, is_for, leader_hint};
use crate::mutant::Mutant;
use crate::rows::{ImageReader, Row, RowError};

/// Pause before watching again at first, in milliseconds; doubled each time, with jitter.
const PAUSE_MS: u64 = 20;
/// And at most.
const PAUSE_MS_MAX: u64 = 1_000;
/// A watch that says nothing for so long is dead: a live one says its version every five seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// The newest image, and who waits for a newer one.
#[derive(Debug)]
pub struct Follower {
    image: ArcSwap<Image>,
    version: watch::Sender<i64>,
    /// Nothing older than this is believed: the highest version that was written down before, and who wrote it.
    floor: (i64, u64),
    /// The highest version that somebody said exists.
    expected: AtomicI64,
    /// Why no controller's metadata is believed now.
    refused: Mutex<Option<String>>,
    /// What those have said that were asked for it, while nobody tells of the metadata.
    asked: Mutex<Asked>,
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Status(#[from] Status),
    #[error("{0}")]
    Row(#[from] RowError),
    #[error("{0}")]
    Gap(#[from] weir_metadata::Gap),
    #[error(
        "the controller is at version {theirs}, this process has seen {ours}: was it restored from a backup? (weir errors \
         CLUSTER_MISMATCH says what to do)"
    )]
    Behind { theirs: i64, ours: i64 },
    #[error(
        "version {seen} of the controller's metadata is not the one that this process has seen: was it restored from a \
         backup? bring the newer metadata back (weir errors CLUSTER_MISMATCH says how)"
    )]
    OtherHistory { seen: i64 },
    #[error("the controller stays at version {theirs}, and {expected} exists")]
    Stale { theirs: i64, expected: i64 },
    #[error(
        "the cluster is at feature level {0}, this version understands {FEATURE_LEVEL}: start a newer one"
    )]
    Newer(i32),
    #[error("the stream ended")]
    Closed,
    #[error("nothing was heard for {} s", SILENCE.as_secs())]
    Silent,
}

impl Ended {
    /// Whether asking again does not help until a person has done something.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Behind { .. } | Self::OtherHistory { .. } | Self::Newer(_) => true,
            Self::Status(status) => is_for(status, ErrorReason::ClusterMismatch),
            _ => false,
        }
    }
}

impl Follower {
    /// Knows nothing yet, and will believe nothing older than `floor` (correctness rule 33): 0, or the highest
    /// version that was written down in an earlier life.
    pub fn new(floor: i64) -> Self {
        Self::after(floor, 0)
    }

    /// The same, where it was also written down who wrote that version: another one of that number is none of the same
    /// history.
    pub fn after(floor: i64, author: u64) -> Self {
        Self {
            image: ArcSwap::default(),
            version: watch::Sender::new(0),
            floor: (floor, author),
            expected: AtomicI64::new(0),
            refused: Mutex::default(),
            asked: Mutex::new(Asked::patient()),
        }
    }

    /// Why no metadata is followed, if that is so because there is none that may be believed: the controllers are
    /// behind what this process has seen, or of another cluster. It goes on asking.
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// The newest image.
    pub fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// The newest version that was believed, in this life or before, and who wrote it.
    pub fn seen(&self) -> (i64, u64) {
        let known = self.image.load();
        self.floor.max((known.version(), known.author()))
    }

    /// Says each new version. A reader that is slow sees the newest, not each one; what changed since an image it
    /// still has, [`Image::partitions_changed_since`] says.
    pub fn versions(&self) -> watch::Receiver<i64> {
        self.version.subscribe()
    }

    /// Somebody who leads said that this version exists (the answer to a heartbeat): a controller that lives and
    /// stays behind it is left for another one.
    pub fn expect(&self, version: i64) {
        self.expected.fetch_max(version, Ordering::Relaxed);
    }

    /// The first image at or beyond a version. Cancel safe. Waits for ever if none comes.
    pub async fn wait_for(&self, version: i64) -> Arc<Image> {
        let mut versions = self.version.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = versions.wait_for(|now| *now >= version).await;
        self.image()
    }

    /// Follows until dropped. Cancel safe: the image changes in one step.
    pub async fn run(&self, controllers: &Controllers, cluster_id: Option<ClusterId>) {
        let mut pause_ms = PAUSE_MS;
        loop {
            let before = self.image.load().version();
            let (endpoint, ended) = match controllers.client() {
                Ok((endpoint, client)) => (endpoint, self.watch(controllers, client, cluster_id).await),
                Err(status) => (String::new(), Err(Ended::Status(status))),
            };
            if self.image.load().version() > before {
                pause_ms = PAUSE_MS;
            }
            if let Err(ended) = ended {
                self.note(&endpoint, &ended, &controllers.endpoints());
                let hint = if let Ended::Status(status) = &ended { leader_hint(status) } else { None };
                controllers.turn_from(&endpoint, hint);
            }
            sleep(Duration::from_millis(spread_ms(&**controllers.os(), pause_ms))).await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    /// What is refused is said once, and loudly, until it changes. That nobody tells of the metadata is said once, too: as
    /// soon as it has lasted for some seconds: one that is started anew is back before.
    fn note(&self, endpoint: &str, ended: &Ended, known: &[String]) {
        let version = self.image.load().version();
        if !ended.is_refusal() {
            tracing::debug!(endpoint, %ended, version, "watching the metadata again");
            let words = match ended {
                Ended::Status(status) => in_words(endpoint, status),
                other => other.to_string(),
            };
            let mut asked = self.asked.lock();
            let was_told = asked.is_told();
            let told = asked.noted(endpoint, words, false, known).filter(|_| !was_told);
            if let Some(asked) = told {
                tracing::warn!(version, "no controller tells of the metadata, it is asked for on: {asked}");
            }
            return;
        }
        let said = match ended {
            Ended::Status(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        let mut refused = self.refused.lock();
        if refused.as_ref() != Some(&said) {
            tracing::error!(endpoint, version, "the metadata is not followed: {said}");
            *refused = Some(said);
        }
    }

    async fn watch(
        &self,
        controllers: &Controllers,
        mut client: Client,
        cluster_id: Option<ClusterId>,
    ) -> Result<(), Ended> {
        let (from_version, from_author) = {
            let image = self.image.load();
            (image.version(), image.author())
        };
        let request = WatchMetadataRequest {
            cluster_id: cluster_id.map(|id| id.to_wire()).unwrap_or_default(),
            from_version,
            from_author,
        };
        let mut stream = client.watch_metadata(request.clone()).await?.into_inner();
        if from_version > 0 && self.refused().is_some() {
            // It knew less than this process, and caught up: by another history, perhaps. A whole image says so.
            stream = client
                .watch_metadata(WatchMetadataRequest { from_version: 0, from_author: 0, ..request })
                .await?
                .into_inner();
        }
        let mut reader: Option<ImageReader> = None;
        let mut quiet_at = None;
        loop {
            let next = tokio::time::timeout(SILENCE, stream.message()).await.map_err(|_| Ended::Silent)?;
            let WatchMetadataResponse { frame } = next?.ok_or(Ended::Closed)?;
            match frame {
                Some(Frame::Image(rows)) => {
                    if rows.first {
                        reader = Some(ImageReader::default());
                    }
                    let mut open = reader.take().ok_or(RowError::Missing("beginning of the image"))?;
                    for row in rows.rows {
                        open.push(row)?;
                    }
                    if rows.last {
                        self.replace(open.finish()?)?;
                        self.tell(controllers);
                    } else {
                        reader = Some(open);
                    }
                }
                Some(Frame::Delta(row)) => {
                    let delta = Delta::from_wire(row)?;
                    self.follow(&delta)?;
                    self.tell(controllers);
                }
                Some(Frame::CurrentVersion(theirs)) => {
                    let ours = self.image.load().version();
                    if theirs != ours {
                        return Err(weir_metadata::Gap { image: ours, delta: theirs }.into());
                    }
                    let expected = self.expected.load(Ordering::Relaxed);
                    if quiet_at == Some(theirs) && expected > theirs {
                        return Err(Ended::Stale { theirs, expected });
                    }
                    quiet_at = Some(theirs);
                }
                None => return Err(RowError::Unknown("frame").into()),
            }
            self.followed();
        }
    }

    /// Somebody tells of the metadata, as far as he knows it: with a quorum or without.
    fn followed(&self) {
        if let Some(away) = self.asked.lock().helped() {
            let version = self.image.load().version();
            tracing::info!(version, ?away, "a controller tells of the metadata again");
        }
    }

    fn replace(&self, image: Image) -> Result<(), Ended> {
        let (theirs, (ours, author)) = (image.version(), self.seen());
        if theirs < ours && !Mutant::OlderBelieved.is_planted() {
            return Err(Ended::Behind { theirs, ours });
        }
        if !image.continues(ours, author) && !Mutant::OtherHistoryFollowed.is_planted() {
            return Err(Ended::OtherHistory { seen: ours });
        }
        self.publish(image)
    }

    fn follow(&self, delta: &Delta) -> Result<(), Ended> {
        // A cheap copy that shares what does not change; readers keep theirs.
        let mut image = self.image.load().as_ref().clone();
        image.follow(delta)?;
        self.publish(image)
    }

    fn publish(&self, image: Image) -> Result<(), Ended> {
        let version = image.version();
        // What it says may mean something else than it says here (correctness rule D4).
        if image.feature_level() > FEATURE_LEVEL {
            return Err(Ended::Newer(image.feature_level()));
        }
        if let Some(refused) = self.refused.lock().take() {
            tracing::info!(version, refused, "the metadata is followed again");
        }
        self.image.store(Arc::new(image));
        self.version.send_replace(version);
        Ok(())
    }

    fn tell(&self, controllers: &Controllers) {
        let image = self.image.load();
        controllers
            .set_endpoints(image.controllers().map(|controller| controller.endpoint.clone()).collect());
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::{Command, CreateCluster, Entry, JoinController, SetClusterConfig, State};
    use weir_runtime::testing::{Said, listen};
    use weir_types::DirectoryId;

    use super::*;

    #[test]
    fn an_image_older_than_what_was_written_down_is_refused() {
        let refused = Follower::new(9).replace(Image::default());
        assert!(matches!(refused, Err(Ended::Behind { theirs: 0, ours: 9 })), "{refused:?}");
    }

    #[test]
    fn an_older_image_that_is_believed_is_noticed() {
        assert!(Mutant::OlderBelieved.is_noticed_by(an_image_older_than_what_was_written_down_is_refused));
    }

    /// At version 2, written by this one.
    fn written_by(author: u64) -> Image {
        let retention = |value: &str| [("retention_ms".to_owned(), value.to_owned())].into();
        let create = CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: FEATURE_LEVEL,
            settings: retention("1d"),
            controller: JoinController { directory: DirectoryId(1), endpoint: "a:1".to_owned() },
        };
        let set = SetClusterConfig {
            set: retention("2d"),
            unset: Vec::new(),
            expected: Default::default(),
            request_id: String::new(),
        };
        let mut state = State::default();
        for (index, command) in [(1, Command::CreateCluster(create)), (2, Command::SetClusterConfig(set))] {
            state.apply(index, &Entry { at_ms: 0, author, commands: vec![command] });
        }
        assert_eq!((state.image.version(), state.image.author()), (2, author));
        state.image
    }

    #[test]
    fn an_image_of_another_history_is_refused_though_it_has_as_many_versions() {
        let refused = Follower::after(2, 7).replace(written_by(8));
        assert!(matches!(refused, Err(Ended::OtherHistory { seen: 2 })), "{refused:?}");
        assert!(Follower::after(2, 7).replace(written_by(7)).is_ok());
        assert!(Follower::new(2).replace(written_by(8)).is_ok(), "who wrote what was seen is not known");
    }

    #[test]
    fn another_history_that_is_followed_is_noticed() {
        let test = an_image_of_another_history_is_refused_though_it_has_as_many_versions;
        assert!(Mutant::OtherHistoryFollowed.is_noticed_by(test));
    }

    #[tokio::test(start_paused = true)]
    async fn that_nobody_tells_of_the_metadata_is_said_once_and_so_is_that_somebody_does() {
        listen();
        let (said, follower, known) = (Said::here(), Follower::new(0), ["a:1", "b:1"].map(str::to_owned));
        let told = || (said.count("no controller tells"), said.count("a controller tells"));
        let refused = || Ended::Status(Status::unavailable("cannot connect to b:1: Connection refused"));
        for round in 1..=2 {
            follower.note("a:1", &Ended::Closed, &known);
            assert_eq!(told(), (round - 1, round - 1), "another one may tell");
            for _ in 0..3 {
                follower.note("b:1", &refused(), &known);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            follower.followed();
            assert_eq!(told(), (round - 1, round - 1), "they were started anew");
            follower.note("a:1", &Ended::Closed, &known);
            for _ in 0..600 {
                follower.note("b:1", &refused(), &known);
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            assert_eq!(told(), (round, round - 1));
            follower.followed();
            follower.followed();
            assert_eq!(told(), (round, round));
        }
        assert_eq!(said.count("a:1: the stream ended; b:1: Connection refused"), 2);
        assert_eq!(said.count("600s"), 2, "for how long");
        follower.note("a:1", &Ended::Closed, &known);
        follower.followed();
        assert_eq!(told(), (2, 2), "who goes to another one at once has missed nothing");
    }
}
