//! Watching the metadata: the image, then what changes.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weir_cluster::{Row, image_rows};
use weir_metadata::Image;
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::watch_metadata_response::Frame;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use super::{Parts, check_history, other_cluster};
use crate::machine::{News, Start};

/// Messages on their way to one watcher. A slow one is not waited for: it starts over when it listens again.
const QUEUE: usize = 16;
/// Rows of an image in one message, in bytes.
const ROWS_BYTES: usize = 256 * 1024;
/// A watcher hears of a quiet cluster so often.
const HEARTBEAT: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<Result<pb::WatchMetadataResponse, Status>>;
type Stream = ReceiverStream<Result<pb::WatchMetadataResponse, Status>>;

pub(super) async fn watch(parts: &Arc<Parts>, request: pb::WatchMetadataRequest) -> Result<Stream, Problem> {
    if !request.cluster_id.is_empty() && request.cluster_id != parts.cluster_id.to_wire() {
        return Err(other_cluster(parts.cluster_id));
    }
    if request.from_version > parts.machine.hub().image().version() {
        // Behind the caller: a leader that is, was restored from a backup. Any other one catches up.
        parts.barrier.pass().await?;
    }
    check_history(&parts.machine.hub().image(), request.from_version, request.from_author)?;
    let (to, stream) = mpsc::channel(QUEUE);
    let parts = parts.clone();
    tokio::spawn(async move {
        let stopped = parts.stop.clone();
        tokio::select! {
            _ = tell(&parts, request.from_version, &to) => {}
            () = stopped.requested() => {
                let gone = Problem::new(ErrorReason::Draining, "this controller is stopping: watch another one");
                // Best effort: a watcher that does not listen finds out by the connection's end.
                let _ = to.try_send(Err(gone.status()));
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// The watcher is gone.
struct Gone;

async fn tell(parts: &Parts, from: i64, to: &Sender) -> Result<(), Gone> {
    let mut seen = from;
    loop {
        // What is published from here on waits in `news`; what was published before is in `start`.
        let (start, mut news) = parts.machine.hub().subscribe(seen);
        match start {
            Start::Image(image) => seen = tell_image(&image, to).await?,
            Start::Deltas(deltas) => {
                for delta in deltas {
                    seen = delta.version;
                    send(to, Frame::Delta(delta.to_wire())).await?;
                }
            }
        }
        let mut quiet_until = Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                next = news.recv() => next,
                () = sleep_until(quiet_until) => {
                    send(to, Frame::CurrentVersion(seen)).await?;
                    quiet_until = Instant::now() + HEARTBEAT;
                    continue;
                }
                () = to.closed() => return Err(Gone),
            };
            match next {
                Ok(News::Delta(delta)) if delta.version <= seen => {}
                Ok(News::Delta(delta)) if delta.previous == seen => {
                    seen = delta.version;
                    send(to, Frame::Delta(delta.to_wire())).await?;
                    quiet_until = Instant::now() + HEARTBEAT;
                }
                // Missed something: start over from what has been seen.
                Ok(News::Delta(_) | News::Replaced) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return Err(Gone),
            }
        }
    }
}

/// An image, row by row, as the watcher takes it: never as a whole in one buffer.
async fn tell_image(image: &Image, to: &Sender) -> Result<i64, Gone> {
    let mut message = pb::ImageRows { first: true, ..pb::ImageRows::default() };
    let mut bytes = 0;
    for row in image_rows(image) {
        bytes += row.encoded_len();
        message.rows.push(row);
        if bytes >= ROWS_BYTES {
            send(to, Frame::Image(std::mem::take(&mut message))).await?;
            bytes = 0;
        }
    }
    message.last = true;
    send(to, Frame::Image(message)).await?;
    Ok(image.version())
}

async fn send(to: &Sender, frame: Frame) -> Result<(), Gone> {
    to.send(Ok(pb::WatchMetadataResponse { frame: Some(frame) })).await.map_err(|_| Gone)
}
