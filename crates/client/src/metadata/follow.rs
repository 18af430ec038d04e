//! Keeping the map fresh while somebody uses it: one watch for all producers and consumers of a client.
//!
//! A watch tells of a new leader as soon as its broker knows of it, without a question; that is what makes a client go
//! on within a second after a leader died without a word. It begins with everything there is to know, so a watch that
//! broke has missed nothing once it is back. A server that refuses to be watched is asked from time to time instead,
//! which is also when it is tried again.
//!
//! Nobody is stormed: which broker a client watches is chosen at random, so those who watched one that died spread over
//! the others, and every attempt waits its part of a doubling, jittered time.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weir_proto::v1;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;

use crate::backoff::Backoff;
use crate::channel::Purpose;
use crate::client::Inner;
use crate::duplex::within;
use crate::{Error, Result};
use weir_types::Endpoint;

/// The first wait after a watch has ended, and the longest. (What the first is cut short by is jitter.)
const AGAIN_FIRST: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// The longest where it broke: another broker most likely goes on, and whoever waits for a leader waits for this.
const LOST_MAX: Duration = Duration::from_secs(1);

/// A watch that has lived so long was no failure.
const SETTLED: Duration = Duration::from_secs(10);
/// And may be left for a suspicion after so long: soon enough to hear of the leader who follows on one that fell silent,
/// and not for every suspicion where all are slow.
const HEEDED: Duration = Duration::from_secs(2);

/// Why a watch is over.
enum End {
    /// There are topics to be watched that it does not cover.
    Grown,
    /// Its broker does not answer somebody else.
    Suspected,
    Failed(Error),
}

impl Inner {
    /// Keeps the map fresh until the receiver is dropped, and every other; it tells of changes.
    pub(crate) fn follow_metadata(self: &Arc<Self>) -> watch::Receiver<()> {
        let changes = self.metadata.changed.subscribe();
        if !self.metadata.followed.swap(true, Ordering::SeqCst) {
            let inner = Arc::clone(self);
            self.io.spawn(async move { inner.follow().await });
        }
        changes
    }

    async fn follow(&self) {
        let changed = &self.metadata.changed;
        loop {
            // Safe to cancel: the map changes in one step.
            tokio::select! {
                () = changed.closed() => {}
                never = self.keep_fresh() => match never {},
            }
            // Who subscribes after this starts a task of its own; who did before is served by this one.
            self.metadata.followed.store(false, Ordering::SeqCst);
            if changed.receiver_count() == 0 || self.metadata.followed.swap(true, Ordering::SeqCst) {
                return;
            }
        }
    }

    async fn keep_fresh(&self) -> Infallible {
        let age_max = self.options.metadata_age_max.max(AGAIN_FIRST);
        let mut again = Backoff::new(AGAIN_FIRST, AGAIN_MAX);
        let mut lost = Backoff::new(AGAIN_FIRST, LOST_MAX);
        let mut refused = Backoff::new(age_max, age_max);
        let mut avoid = None;
        loop {
            let topics = self.metadata.map().names();
            if topics.is_empty() {
                // No names would mean all topics of the cluster.
                self.metadata.grown.notified().await;
                continue;
            }
            let address = self.broker_to_watch(avoid.as_ref());
            let since = Instant::now();
            let end = self.watch_metadata(&address, topics).await;
            if since.elapsed() >= SETTLED {
                again.reset();
                lost.reset();
            }
            avoid = Some(address);
            match end {
                // Topics mostly come several at a time.
                End::Grown => tokio::time::sleep(AGAIN_FIRST).await,
                End::Suspected => {}
                End::Failed(error) => {
                    tracing::debug!(%error, "a watch of the metadata ended");
                    if matches!(error, Error::Unreachable { .. } | Error::ConnectionLost { .. }) {
                        tokio::time::sleep(lost.next(&*self.os, None)).await;
                    } else if error.is_about_the_connection() || error.retry_after().is_some() {
                        tokio::time::sleep(again.next(&*self.os, error.retry_after())).await;
                    } else {
                        tokio::time::sleep(refused.next(&*self.os, None)).await;
                        if let Err(error) = self.refresh_metadata(self.metadata_seen()).await {
                            tracing::debug!(%error, "the map could not be refreshed");
                        }
                    }
                }
            }
        }
    }

    /// One of those that are known to be up, another than the last one if there is one.
    fn broker_to_watch(&self, avoid: Option<&Endpoint>) -> Endpoint {
        let map = self.metadata.map();
        let all: Vec<_> = map.brokers.values().map(|broker| &broker.address).collect();
        let others: Vec<_> = all.iter().copied().filter(|address| Some(*address) != avoid).collect();
        let among = if others.is_empty() { all } else { others };
        let count = among.len().max(1) as u64;
        let at = usize::try_from(self.os.random_u64() % count).unwrap_or(0);
        among.get(at).map_or_else(|| self.broker_to_ask(), |address| (*address).clone())
    }

    async fn watch_metadata(&self, address: &Endpoint, topics: Vec<String>) -> End {
        let covered: HashSet<_> = topics.iter().cloned().collect();
        // Each is safe to cancel: dropping the stream ends the call.
        tokio::select! {
            heard = self.hear_metadata(address, topics) => match heard {
                Ok(never) => match never {},
                Err(error) => End::Failed(error),
            },
            () = self.grown_beyond(&covered) => End::Grown,
            () = self.suspected(address) => End::Suspected,
        }
    }

    async fn hear_metadata(&self, address: &Endpoint, topics: Vec<String>) -> Result<Infallible> {
        let failed = |status| Error::from_status(&status, &address.to_string());
        let channel = self.channels.get(&self.io, address, Purpose::Calls)?;
        let mut client =
            MetadataServiceClient::new(channel).max_decoding_message_size(self.options.message_bytes_max);
        let mut missing: HashSet<_> = topics.iter().cloned().collect();
        // The version that we have is of no use: another broker may know less, and we may have missed a part.
        let request = v1::WatchMetadataRequest { topics, from_version: 0, partition_changes: true };
        let answers = within(address, client.watch_metadata(request)).await?.map_err(failed)?;
        let mut answers = answers.into_inner();
        loop {
            let message = within(address, answers.message()).await?.map_err(failed)?;
            let message = message.ok_or_else(|| Error::lost(format!("{address} ended the watch")))?;
            if message.snapshot {
                missing.retain(|name| !message.topics.iter().any(|topic| topic.name == *name));
                self.metadata.change(|map| map.told(&message, &HashSet::new()));
                continue;
            }
            // The snapshot is whole: what it did not have is gone.
            let gone = std::mem::take(&mut missing);
            let empty = message.topics.is_empty()
                && message.changed_topics.is_empty()
                && message.brokers.is_empty()
                && message.deleted_topic_ids.is_empty();
            if !empty || !gone.is_empty() {
                self.metadata.change(|map| map.told(&message, &gone));
            }
            if !message.brokers.is_empty() {
                self.forget_gone();
            }
        }
    }

    async fn grown_beyond(&self, covered: &HashSet<String>) {
        while self.metadata.map().topics.keys().all(|name| covered.contains(name)) {
            self.metadata.grown.notified().await;
        }
    }

    async fn suspected(&self, address: &Endpoint) {
        tokio::time::sleep(HEEDED).await;
        let mut suspected = self.metadata.suspected.subscribe();
        loop {
            if suspected.changed().await.is_err() {
                return std::future::pending().await;
            }
            if suspected.borrow_and_update().as_ref() == Some(address) {
                return;
            }
        }
    }
}
