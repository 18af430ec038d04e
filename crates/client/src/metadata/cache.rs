//! The map, kept and refreshed. Many may want it refreshed at once, when a broker dies; one question is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use weir_proto::v1;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;

use super::map::{Map, Topic};
use crate::client::Inner;
use crate::{Error, Result};
use weir_types::Endpoint;

#[derive(Debug)]
pub(crate) struct Cache {
    map: ArcSwap<Map>,
    /// How many questions were answered, to know whether somebody asked while we waited.
    answered: AtomicU64,
    asking: tokio::sync::Mutex<()>,
    /// Told of every change, for as long as somebody listens.
    pub(super) changed: watch::Sender<()>,
    /// Told when a topic came in.
    pub(super) grown: Notify,
    /// Told when somebody is owed an answer.
    pub(super) doubts: watch::Sender<()>,
    /// Whose changes are heard, and whose by the second watch while there is one.
    pub(super) watched: Mutex<Option<Endpoint>>,
    pub(super) watched_too: Mutex<Option<Endpoint>>,
    /// Told when the map says something else because of what the first watch did not tell, and need not take back.
    pub(super) elsewhere: watch::Sender<()>,
    /// Whether the task that keeps the map fresh runs.
    pub(super) followed: AtomicBool,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            map: ArcSwap::default(),
            answered: AtomicU64::new(0),
            asking: tokio::sync::Mutex::default(),
            changed: watch::channel(()).0,
            grown: Notify::new(),
            doubts: watch::channel(()).0,
            watched: Mutex::default(),
            watched_too: Mutex::default(),
            elsewhere: watch::channel(()).0,
            followed: AtomicBool::new(false),
        }
    }
}

impl Cache {
    /// The map as it is known now.
    pub(crate) fn map(&self) -> Arc<Map> {
        self.map.load_full()
    }

    /// An answer is owed for longer than is usual: whoever tells us of changes may be silent, too.
    pub(crate) fn doubt(&self) {
        self.doubts.send_replace(());
    }

    /// Whether the map says something else since.
    pub(super) fn change(&self, change: impl Fn(&Map) -> Map) -> bool {
        let before = self.map.rcu(|map| change(map));
        let now = self.map();
        if now.topics.keys().any(|name| !before.topics.contains_key(name)) {
            self.grown.notify_one();
        }
        if now != before {
            self.changed.send_replace(());
        }
        !now.says_the_same(&before)
    }

    fn answered(&self, asked: &[String], answer: &v1::GetMetadataResponse) {
        if self.change(|map| map.after(asked, answer)) {
            self.elsewhere.send_replace(());
        }
        self.answered.fetch_add(1, Ordering::Release);
    }
}

impl Inner {
    /// A topic, from the map or from a broker.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND in the server's own words, which may name a topic of a similar name.
    pub(crate) async fn topic(self: &Arc<Self>, name: &str) -> Result<Arc<Topic>> {
        if let Some(topic) = self.metadata.map().topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        self.look_up_topic(name).await
    }

    /// A topic as a broker knows it now.
    pub(crate) async fn look_up_topic(self: &Arc<Self>, name: &str) -> Result<Arc<Topic>> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        self.io.run(async move { inner.fetch_topic(&name).await }).await
    }

    async fn fetch_topic(&self, name: &str) -> Result<Arc<Topic>> {
        self.fetch(vec![name.to_owned()], 0).await?;
        if let Some(topic) = self.metadata.map().topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        // The map leaves out what it does not know; this call says why.
        let request = v1::GetTopicRequest { name: name.to_owned() };
        self.call_here("GetTopic", request, &|channel, request| async move {
            TopicServiceClient::new(channel).get_topic(request).await
        })
        .await?;
        // It was made in between.
        self.fetch(vec![name.to_owned()], 0).await?;
        let map = self.metadata.map();
        let topic = map.topics.get(name).map(Arc::clone);
        topic.ok_or_else(|| Error::invalid(format!("topic \"{name}\" exists, but no broker serves it yet")))
    }

    /// Asks for the topics in the map again, unless an answer came since `seen` was looked at.
    pub(crate) async fn refresh_metadata(&self, seen: u64) -> Result<()> {
        let _one = self.metadata.asking.lock().await;
        if self.metadata.answered.load(Ordering::Acquire) != seen {
            return Ok(());
        }
        let map = self.metadata.map();
        let topics = map.names();
        if topics.is_empty() {
            return Ok(());
        }
        self.fetch(topics, map.version_of_all()).await
    }

    /// A mark for [`Inner::refresh_metadata`]: take it before looking at the map.
    pub(crate) fn metadata_seen(&self) -> u64 {
        self.metadata.answered.load(Ordering::Acquire)
    }

    /// Looks at the metadata again, and then does this: also if it could not be had.
    pub(crate) fn refresh_metadata_then(self: &Arc<Self>, then: impl FnOnce() + Send + 'static) {
        let inner = Arc::clone(self);
        self.io.spawn(async move {
            if let Err(error) = inner.refresh_metadata(inner.metadata_seen()).await {
                tracing::debug!(%error, "the map could not be refreshed");
            }
            then();
        });
    }

    async fn fetch(&self, topics: Vec<String>, if_newer_than: i64) -> Result<()> {
        let mut whole: Option<v1::GetMetadataResponse> = None;
        let mut page_token = String::new();
        loop {
            let request =
                v1::GetMetadataRequest { topics: topics.clone(), if_newer_than, page_size: 1000, page_token };
            let page = self
                .call_promptly("GetMetadata", request, &|channel, request| async move {
                    let bytes_max = self.options.message_bytes_max;
                    MetadataServiceClient::new(channel)
                        .max_decoding_message_size(bytes_max)
                        .get_metadata(request)
                        .await
                })
                .await?;
            page_token = page.next_page_token.clone();
            match &mut whole {
                None => whole = Some(page),
                // Each page is of what its broker knew then. The whole is known to be no newer than the oldest of them, and
                // the brokers are those of just that version.
                Some(whole) => {
                    if page.version < whole.version {
                        whole.version = page.version;
                        whole.brokers = page.brokers;
                    }
                    whole.topics.extend(page.topics);
                }
            }
            if page_token.is_empty() {
                break;
            }
        }
        let Some(answer) = whole else { return Ok(()) };
        // "Not newer" comes without content, and must not be taken for "all of it is gone".
        let unchanged = if_newer_than != 0 && answer.version <= if_newer_than;
        self.metadata.answered(if unchanged { &[] } else { &topics }, &answer);
        self.forget_gone();
        Ok(())
    }
}
