//! What ends a stream as planned, though its client wants more: the broker stops, or the connection is as old as
//! connections get. The client is told, and may open the stream again at once.

use weir_proto::v1::{ErrorReason, StreamGoodbye};
use weir_rpc::{LongCall, Problem};
use weir_runtime::Stop;

use crate::broker::Broker;

/// The planned ends of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    stopping: Stop,
    retiring: Stop,
}

impl Ending {
    /// Those of a stream of this connection; without one, those of the broker alone.
    pub(crate) fn new(broker: &Broker, call: Option<&LongCall>) -> Self {
        let retiring = call.map(|call| call.retiring().clone()).unwrap_or_else(Stop::new);
        Self { stopping: broker.stopping.clone(), retiring }
    }

    /// Why the stream is to end, if it is. Asked for each delivery.
    pub(crate) fn now(&self) -> Option<Problem> {
        if self.stopping.is_requested() {
            let said = "this broker is stopping: open the stream again, on any broker";
            return Some(Problem::new(ErrorReason::Draining, said));
        }
        self.retiring.is_requested().then(|| {
            let said = "this connection is as old as connections get: open the stream again, on a new one";
            Problem::new(ErrorReason::MaxAge, said)
        })
    }

    /// Waits until it is to end. Cancel safe.
    pub(crate) async fn comes(&self) {
        tokio::select! {
            () = self.stopping.requested() => {}
            () = self.retiring.requested() => {}
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
