//! What a watcher of the metadata is sent: how large an image is, and each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use parking_lot::Mutex;
use prost::Message as _;
use weir_load::connect::connect;
use weir_proto::internal::v1 as wire;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::internal::v1::event::Event;
use weir_proto::internal::v1::watch_metadata_response::Frame;

/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One kind of change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) deltas: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    /// When the last one came.
    pub(crate) last: Option<Instant>,
}

/// Changes, by their first event's kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<&'static str, Changes>>>);

impl Seen {
    /// What has come since this was asked last.
    pub(crate) fn take(&self) -> BTreeMap<&'static str, Changes> {
        std::mem::take(&mut self.0.lock())
    }

    /// When the last change of a kind came.
    pub(crate) fn last(&self, kind: &str) -> Option<Instant> {
        self.0.lock().get(kind)?.last
    }

    fn note(&self, delta: &wire::Delta) {
        let kind = delta.events.first().and_then(|event| event.event.as_ref()).map_or("nothing", kind);
        let bytes = delta.encoded_len() as u64;
        let mut seen = self.0.lock();
        let changes = seen.entry(kind).or_default();
        changes.deltas += 1;
        changes.bytes += bytes;
        changes.bytes_max = changes.bytes_max.max(bytes);
        changes.last = Some(Instant::now());
    }
}

/// Watches a controller until the program ends.
pub(crate) async fn watch(address: &str) -> anyhow::Result<Seen> {
    let mut stream = begin(address).await?;
    let seen = Seen::default();
    let noted = seen.clone();
    tokio::spawn(async move {
        while let Ok(Some(response)) = stream.message().await {
            if let Some(Frame::Delta(delta)) = response.frame {
                noted.note(&delta);
            }
        }
    });
    Ok(seen)
}

/// How many bytes an image is on the wire.
pub(crate) async fn image_bytes(address: &str) -> anyhow::Result<u64> {
    let mut stream = begin(address).await?;
    let mut bytes = 0;
    while let Some(response) = stream.message().await? {
        bytes += response.encoded_len() as u64;
        if let Some(Frame::Image(rows)) = response.frame
            && rows.last
        {
            return Ok(bytes);
        }
    }
    anyhow::bail!("the stream ended within an image")
}

async fn begin(address: &str) -> anyhow::Result<tonic::Streaming<wire::WatchMetadataResponse>> {
    let client = ControllerServiceClient::new(connect(address).await?);
    let mut client = client.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let stream = client.watch_metadata(wire::WatchMetadataRequest::default()).await;
    Ok(stream.context("watching the metadata")?.into_inner())
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::BrokerRegistered(_) => "a broker registered",
        Event::BrokerUnfenced(_) => "a broker serves",
        Event::BrokerFenced(_) => "a broker was fenced",
        Event::BrokerStopped(_) => "a broker has stopped",
        Event::BrokerDraining(_) => "a broker is about to stop",
        Event::BrokerSlow(_) => "a disk became slow, or quick",
        Event::TopicCreated(_) => "a topic was made",
        Event::PartitionsChanged(_) => "partitions changed",
        _ => "something else",
    }
}
