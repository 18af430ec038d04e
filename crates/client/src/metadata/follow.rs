//! Keeping the map fresh while somebody uses it: one watch for all producers and consumers of a client.
//!
//! A watch tells of a new leader as soon as its broker knows of it, without a question; that is what makes a client go
//! on within a second after a leader died without a word. It begins with everything there is to know, so a watch that
//! broke has missed nothing once it is back. A server that refuses to be watched is asked from time to time instead,
//! which is also when it is tried again.
//!
//! While somebody is owed an answer there is a second watch, of another broker. The first may be of the one that fell silent,
//! and who that is cannot be told from who owes: a leader that is well keeps its producers waiting for a follower that is not.
//!
//! A broker tells what differs from what it told before, not from the map, where something newer may be that another broker
//! said: the second watch, or the answer to a question. If that is undone before the first watch has come so far, nothing
//! differs for it, and nobody would take it back: the second watch does as long as it lives, an answer never. So whenever
//! somebody else has changed what the map says, or the map is newer than what a watch begins with, the first watch begins again
//! with all there is.
//!
//! Nobody is stormed: which broker a client watches is chosen at random, so those who watched one that died spread over
//! the others, and every attempt waits its part of a doubling, jittered time.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
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

/// A second watch goes on for so long after the last doubt: where all are slow, it is not opened again for each of them.
const DOUBT: Duration = Duration::from_secs(10);

/// Why a watch is over.
enum End {
    /// There are topics to be watched that it does not cover.
    Grown,
    /// The map may have what this one never takes back.
    Outdated,
    Failed(Error),
}

/// What was heard of a watch.
#[derive(Default)]
struct Heard {
    /// Whether the map says something else because of it.
    news: AtomicBool,
    /// Told when it begins with less than is in the map.
    behind: Notify,
}

impl Heard {
    fn note(&self, is_news: bool) {
        self.news.fetch_or(is_news, Ordering::Relaxed);
    }
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
                never = self.watch_in_doubt() => match never {},
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
        let mut last = None;
        loop {
            let topics = self.metadata.map().names();
            if topics.is_empty() {
                // No names would mean all topics of the cluster.
                self.metadata.grown.notified().await;
                continue;
            }
            let too = self.metadata.watched_too.lock().clone();
            let avoid: Vec<_> = last.into_iter().chain(too).collect();
            let address = self.broker_to_watch(&avoid);
            tracing::debug!(broker = %address, "watching the metadata");
            *self.metadata.watched.lock() = Some(address.clone());
            let since = Instant::now();
            let end = self.watch_metadata(&address, topics).await;
            if since.elapsed() >= SETTLED {
                again.reset();
                lost.reset();
            }
            last = Some(address);
            match end {
                End::Outdated => {}
                // Topics mostly come several at a time.
                End::Grown => tokio::time::sleep(AGAIN_FIRST).await,
                End::Failed(error) => {
                    tracing::debug!(%error, "a watch of the metadata ended");
                    if matches!(error, Error::Unreachable { .. } | Error::ConnectionLost { .. }) {
                        tokio::time::sleep(lost.next(&*self.os, None)).await;
                    } else if error.is_about_the_connection() || error.retry_after().is_some() {
                        tokio::time::sleep(again.next(&*self.os, error.asked_to_wait())).await;
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

    /// One of those that are known to be up, another than these. If there are too few, the first of these are what is avoided.
    fn broker_to_watch(&self, avoid: &[Endpoint]) -> Endpoint {
        let map = self.metadata.map();
        let without = |avoid: &[Endpoint]| -> Vec<_> {
            let all = map.brokers.values().map(|broker| &broker.address);
            all.filter(|address| !avoid.contains(address)).collect()
        };
        let fewer_and_fewer = (0..=avoid.len()).rev().filter_map(|count| avoid.get(..count));
        let among = fewer_and_fewer.map(without).find(|among| !among.is_empty()).unwrap_or_default();
        let count = among.len().max(1) as u64;
        let at = usize::try_from(self.os.random_u64() % count).unwrap_or(0);
        among.get(at).map_or_else(|| self.broker_to_ask(), |address| (*address).clone())
    }

    async fn watch_metadata(&self, address: &Endpoint, topics: Vec<String>) -> End {
        let covered: HashSet<_> = topics.iter().cloned().collect();
        let heard = Heard::default();
        // From before it is asked for: what is heard elsewhere from here on may not be in what it begins with.
        let elsewhere = self.metadata.elsewhere.subscribe();
        // Each is safe to cancel: dropping the stream ends the call.
        tokio::select! {
            ended = self.hear_metadata(address, topics, &heard) => match ended {
                Ok(never) => match never {},
                Err(error) => End::Failed(error),
            },
            () = self.grown_beyond(&covered) => End::Grown,
            () = outdated(&heard, elsewhere, self.settled()) => End::Outdated,
        }
    }

    /// How long a watch goes on at least before it begins again for what it may never take back: not all of many clients at
    /// once that were sent here at once.
    fn settled(&self) -> Duration {
        SETTLED.saturating_add(SETTLED.mul_f64(self.os.random_u64() as f64 / u64::MAX as f64))
    }

    /// Puts what a broker tells into the map.
    async fn hear_metadata(
        &self,
        address: &Endpoint,
        topics: Vec<String>,
        heard: &Heard,
    ) -> Result<Infallible> {
        let failed = |status| Error::from_status(&status, &address.to_string());
        let channel = self.channels.get(&self.io, address, Purpose::Calls)?;
        let mut client =
            MetadataServiceClient::new(channel).max_decoding_message_size(self.options.message_bytes_max);
        let mut missing: HashSet<_> = topics.iter().cloned().collect();
        let mut snapshot_version = 0;
        // The version that we have is of no use: another broker may know less, and we may have missed a part.
        let request = v1::WatchMetadataRequest { topics, from_version: 0, partition_changes: true };
        let answers = within(address, client.watch_metadata(request)).await?.map_err(failed)?;
        let mut answers = answers.into_inner();
        loop {
            let message = within(address, answers.message()).await?.map_err(failed)?;
            let message = message.ok_or_else(|| Error::lost(format!("{address} ended the watch")))?;
            if message.snapshot {
                if message.version < self.metadata.map().version {
                    heard.behind.notify_one();
                }
                missing.retain(|name| !message.topics.iter().any(|topic| topic.name == *name));
                snapshot_version = message.version;
                heard.note(self.metadata.change(|map| map.told(&message)));
                continue;
            }
            // The snapshot is whole: what it did not have is gone, as of then. What this message is of may be later than what
            // we know from elsewhere, and it need not be all that is of its version.
            let gone = std::mem::take(&mut missing);
            if !gone.is_empty() {
                heard.note(self.metadata.change(|map| map.without(&gone, snapshot_version)));
            }
            let empty = message.topics.is_empty()
                && message.changed_topics.is_empty()
                && message.brokers.is_empty()
                && message.deleted_topic_ids.is_empty();
            if !empty {
                heard.note(self.metadata.change(|map| map.told(&message)));
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

    /// The second watch, whenever there is doubt.
    async fn watch_in_doubt(&self) -> Infallible {
        let mut doubts = self.metadata.doubts.subscribe();
        loop {
            *self.metadata.watched_too.lock() = None;
            if doubts.changed().await.is_err() {
                return std::future::pending().await;
            }
            let topics = self.metadata.map().names();
            let watched = self.metadata.watched.lock().clone();
            let address = self.broker_to_watch(watched.as_slice());
            // There may be only one. No names would mean all topics.
            if topics.is_empty() || Some(&address) == watched.as_ref() {
                continue;
            }
            tracing::debug!(broker = %address, "watching the metadata here, too: somebody owes an answer");
            *self.metadata.watched_too.lock() = Some(address.clone());
            let heard = Heard::default();
            let quiet =
                async { while let Ok(Ok(())) = tokio::time::timeout(DOUBT, doubts.changed()).await {} };
            // Safe to cancel: dropping the stream ends the call, and the map changes in one step.
            tokio::select! {
                ended = self.hear_metadata(&address, topics, &heard) => match ended {
                    Ok(never) => match never {},
                    Err(error) => tracing::debug!(%error, "the second watch of the metadata ended"),
                },
                () = quiet => {}
            }
            // As long as it lived it took back itself what it had told.
            if heard.news.into_inner() {
                self.metadata.elsewhere.send_replace(());
            }
        }
    }
}

/// Returns when the map has something that a watch may never take back, once that has lived for so long that to begin it again
/// is no storm.
async fn outdated(heard: &Heard, mut elsewhere: watch::Receiver<()>, settled: Duration) {
    let settled = Instant::now() + settled;
    tokio::select! {
        () = heard.behind.notified() => {}
        // The sender lives as long as the client.
        _ = elsewhere.changed() => {}
    }
    tokio::time::sleep_until(settled).await;
}
