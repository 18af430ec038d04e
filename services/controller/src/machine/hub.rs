//! Hands out the image and what changes.
//!
//! Nobody is waited for: a watcher that is slow loses the thread and starts over, from the changes that are still
//! remembered or from the image. What it is given never goes back.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use weir_metadata::{Image, SharedDelta};

/// So many deltas may wait for a watcher before it has to start over.
const QUEUE: usize = 1_024;
/// So many are remembered for watchers that come back.
const REMEMBERED: usize = 4_096;
/// And so many events in them, whatever their number.
const REMEMBERED_EVENTS: usize = 65_536;

/// What watchers are told.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// This changed.
    Delta(SharedDelta),
    /// The image was replaced as a whole.
    Replaced,
}

/// Where a watcher begins.
#[derive(Debug)]
pub(crate) enum Start {
    /// It has seen everything up to here but these.
    Deltas(Vec<SharedDelta>),
    /// It begins anew.
    Image(Arc<Image>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    image: ArcSwap<Image>,
    version: watch::Sender<i64>,
    news: broadcast::Sender<News>,
    recent: Mutex<Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    deltas: VecDeque<SharedDelta>,
    events: usize,
}

impl Hub {
    pub(crate) fn new(image: Image) -> Self {
        Self {
            version: watch::Sender::new(image.version()),
            image: ArcSwap::from_pointee(image),
            news: broadcast::Sender::new(QUEUE),
            recent: Mutex::default(),
        }
    }

    /// The newest image.
    pub(crate) fn image(&self) -> Arc<Image> {
        self.image.load_full()
    }

    /// The first image at or beyond a version. Cancel safe.
    pub(crate) async fn wait_for(&self, version: i64) -> Arc<Image> {
        let mut versions = self.version.subscribe();
        // The sender lives in `self`.
        let _ = versions.wait_for(|now| *now >= version).await;
        self.image()
    }

    /// One delta led to this image. Called by the state machine alone, in order.
    pub(crate) fn publish(&self, image: Image, delta: SharedDelta) {
        let mut recent = self.recent.lock();
        recent.events += delta.events.len();
        recent.deltas.push_back(delta.clone());
        while recent.deltas.len() > REMEMBERED || recent.events > REMEMBERED_EVENTS {
            let Some(oldest) = recent.deltas.pop_front() else { break };
            recent.events -= oldest.events.len();
        }
        self.tell(image, News::Delta(delta));
    }

    /// A snapshot was installed.
    pub(crate) fn replace(&self, image: Image) {
        let mut recent = self.recent.lock();
        *recent = Recent::default();
        self.tell(image, News::Replaced);
    }

    /// Under the lock of `recent`, so that who subscribes sees either the state before or the state after.
    fn tell(&self, image: Image, news: News) {
        let version = image.version();
        self.image.store(Arc::new(image));
        // Without watchers nobody hears it.
        let _ = self.news.send(news);
        self.version.send_replace(version);
    }

    /// Begins a watch for somebody who has seen `from`; 0: nothing.
    pub(crate) fn subscribe(&self, from: i64) -> (Start, broadcast::Receiver<News>) {
        let recent = self.recent.lock();
        let news = self.news.subscribe();
        let image = self.image.load_full();
        if from == image.version() && from > 0 {
            return (Start::Deltas(Vec::new()), news);
        }
        let known = recent.deltas.iter().position(|delta| delta.previous == from);
        match known.filter(|_| from > 0) {
            Some(at) => (Start::Deltas(recent.deltas.iter().skip(at).cloned().collect()), news),
            None => (Start::Image(image), news),
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::{Command, CreateCluster, Entry, JoinController, SetClusterConfig, State};
    use weir_types::{ClusterId, DirectoryId};

    use super::*;

    fn step(state: &mut State, hub: &Hub, index: i64) {
        let command = if index == 1 {
            let controller = JoinController { directory: DirectoryId(1), endpoint: String::new() };
            let (cluster_id, settings) = (ClusterId(1), Default::default());
            Command::CreateCluster(CreateCluster { cluster_id, feature_level: 1, settings, controller })
        } else {
            let set = [("retention_ms".to_owned(), index.to_string())].into();
            Command::SetClusterConfig(SetClusterConfig {
                set,
                unset: vec![],
                expected: Default::default(),
                request_id: String::new(),
            })
        };
        let applied = state.apply(index, &Entry { at_ms: 0, author: 0, commands: vec![command] });
        hub.publish(state.image.clone(), applied.delta.unwrap());
    }

    fn versions(start: Start) -> Vec<i64> {
        match start {
            Start::Deltas(deltas) => deltas.iter().map(|delta| delta.version).collect(),
            Start::Image(image) => vec![-image.version()],
        }
    }

    #[tokio::test]
    async fn who_comes_back_gets_what_was_missed_or_the_image() {
        let (mut state, hub) = (State::default(), Hub::new(Image::default()));
        for index in 1..=5 {
            step(&mut state, &hub, index);
        }
        assert_eq!(versions(hub.subscribe(0).0), [-5], "an image");
        assert_eq!(versions(hub.subscribe(3).0), [4, 5]);
        assert_eq!(versions(hub.subscribe(5).0), [0; 0]);
        assert_eq!(versions(hub.subscribe(9).0), [-5], "never seen here");
        hub.replace(state.image.clone());
        assert_eq!(versions(hub.subscribe(3).0), [-5]);
        for index in 6..=6 + REMEMBERED as i64 {
            step(&mut state, &hub, index);
        }
        assert_eq!(versions(hub.subscribe(5).0), [-(6 + REMEMBERED as i64)], "too long ago");
        assert_eq!(versions(hub.subscribe(6).0).len(), REMEMBERED);
        assert_eq!(hub.wait_for(6).await.version(), 6 + REMEMBERED as i64);
    }
}
