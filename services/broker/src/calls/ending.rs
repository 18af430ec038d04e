//! What ends a stream as planned, though its client wants more: the broker stops, or the connection is as old as
//! connections get. The client is told, and may open the stream again at once.

use tokio_util::sync::CancellationToken;
use weir_proto::v1::{ErrorReason, StreamGoodbye};
use weir_rpc::{LongCall, Problem};

use crate::broker::Broker;

/// The planned ends of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    stopping: CancellationToken,
    retiring: CancellationToken,
}

impl Ending {
    /// Those of a stream of this connection; without one, those of the broker alone.
    pub(crate) fn new(broker: &Broker, call: Option<&LongCall>) -> Self {
        let retiring = call.map(|call| call.retiring().clone()).unwrap_or_default();
        Self { stopping: broker.stopping.clone(), retiring }
    }

    /// Why the stream is to end, if it is.
    pub(crate) fn now(&self) -> Option<Problem> {
        if self.stopping.is_cancelled() {
            let said = "this broker is stopping: open the stream again, on any broker";
            return Some(Problem::new(ErrorReason::Draining, said));
        }
        self.retiring.is_cancelled().then(|| {
            let said = "this connection is as old as connections get: open the stream again, on a new one";
            Problem::new(ErrorReason::MaxAge, said)
        })
    }

    /// Waits until it is to end. Cancel safe.
    pub(crate) async fn comes(&self) {
        tokio::select! {
            () = self.stopping.cancelled() => {}
            () = self.retiring.cancelled() => {}
        }
    }
}

/// The last answer of a stream that ends for this reason.
pub(crate) fn goodbye(broker: &Broker, cause: &Problem) -> StreamGoodbye {
    StreamGoodbye {
        drain_deadline_ms: i64::try_from(broker.drain.as_millis()).unwrap_or(i64::MAX),
        cause: Some(cause.failure()),
    }
}
