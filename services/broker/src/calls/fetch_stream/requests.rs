//! The requests of a stream, drained by a task of their own into a queue that is bounded in number and in bytes: a client
//! that does not read is still heard, and cannot fill our memory either.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt;
use prost::Message;
use tokio::sync::mpsc::{self, error::TrySendError};
use tonic::Status;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::{ErrorReason, FetchStreamRequest};
use weir_rpc::Problem;

use super::Requests;

/// How many requests may wait to be looked at.
pub(super) const REQUESTS_MAX: usize = 16_384;
/// How many bytes they may have together: twice what it takes to assign all partitions at once.
const REQUESTS_BYTES_MAX: usize = 8 << 20;

/// What is known of the requests that wait, on both ends of their queue.
#[derive(Debug, Default)]
pub(super) struct Queued {
    /// What they take together.
    pub(super) bytes: AtomicUsize,
    /// Set by the task that drains the requests when it had to give up.
    pub(super) overflowed: AtomicBool,
}

/// A request in the queue, and what it counts for.
pub(super) type Request = (Result<In, Status>, usize);

/// Reads requests until the client has said all, or says more than anybody could mean.
pub(super) async fn drain(mut requests: Requests, queue: mpsc::Sender<Request>, queued: Arc<Queued>) {
    loop {
        // Cancel safe by not being cancelled: this task ends with the requests or with the reader of the queue.
        let next = tokio::select! {
            next = requests.next() => next,
            () = queue.closed() => return,
        };
        let bytes = match &next {
            Some(Ok(request)) => request.encoded_len(),
            _ => 0,
        };
        let frame = match next {
            None => return,
            Some(Ok(FetchStreamRequest { frame: Some(frame) })) => Ok(frame),
            Some(Ok(FetchStreamRequest { frame: None })) => {
                Err(Problem::required("frame", "a message holds a hello, an assign, a release or a credit")
                    .status())
            }
            Some(Err(status)) => Err(weir_rpc::with_reason(status)),
        };
        let last = frame.is_err();
        let before = queued.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > REQUESTS_BYTES_MAX {
            return queued.overflowed.store(true, Ordering::Release);
        }
        match queue.try_send((frame, bytes)) {
            Ok(()) if !last => {}
            // The stream ends where the queue does, and says why.
            Err(TrySendError::Full(_)) => return queued.overflowed.store(true, Ordering::Release),
            Ok(()) | Err(TrySendError::Closed(_)) => return,
        }
    }
}

/// Why a stream ends whose queue has overflowed.
pub(super) fn too_many_requests() -> Problem {
    Problem::new(
        ErrorReason::Overloaded,
        format!(
            "more than {REQUESTS_MAX} requests of this stream, or {REQUESTS_BYTES_MAX} bytes, wait to be looked \
             at: read the answers"
        ),
    )
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use weir_proto::v1::FetchAssign;

    use super::*;

    #[tokio::test]
    async fn requests_that_nobody_looks_at_are_bounded_in_bytes_too() {
        const NAME_BYTES: usize = 512 << 10;
        let topic = "x".repeat(NAME_BYTES);
        let assign = FetchAssign { topic, ..FetchAssign::default() };
        let request = FetchStreamRequest { frame: Some(In::Assign(assign)) };
        let requests = stream::iter(vec![Ok(request); 1_000]).boxed();
        let (tx, mut rx) = mpsc::channel(REQUESTS_MAX);
        let queued = Arc::<Queued>::default();
        drain(requests, tx, queued.clone()).await;
        let waiting = std::iter::from_fn(|| rx.try_recv().ok()).count();
        assert!(waiting * NAME_BYTES <= REQUESTS_BYTES_MAX, "{waiting} requests wait");
        assert!(queued.overflowed.load(Ordering::Acquire));
    }
}
