//! How large a message a client takes. Stock clients refuse replies above 4 MiB: nobody gets a larger one who has
//! not said that it may be.

use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::Offset;

use crate::reading::Cursor;

/// What every stock client takes.
const STOCK: usize = 4 << 20;
/// Left for framing and what stands beside the records.
const MARGIN: usize = 64 << 10;
/// The smallest limit that leaves room for something.
const LEAST: usize = 2 * MARGIN;
/// The most any message holds: a batch of the largest size, and its envelope.
const MOST: usize = (64 << 20) + MARGIN;

/// The largest message for a client that declared `message_bytes_max` (0: nothing), as bytes of records.
pub(crate) fn check(message_bytes_max: i32) -> Result<usize, Problem> {
    let declared = match usize::try_from(message_bytes_max) {
        Ok(0) => STOCK,
        Ok(given) if given >= LEAST => given.min(MOST),
        _ => {
            return Err(Problem::out_of_range(
                "message_bytes_max",
                message_bytes_max,
                "0 (4 MiB, what stock clients take), or 131072 and more",
            ));
        }
    };
    Ok(declared - MARGIN)
}

/// A stored batch that the client could not receive.
pub(crate) fn batch_too_large(cursor: &Cursor, offset: Offset, size: usize, limit: usize) -> Problem {
    let Cursor { topic, partition, .. } = cursor;
    Problem::new(
        ErrorReason::MessageLargerThanClientLimit,
        format!(
            "{}/{partition}@{offset} is a batch of {size} bytes, the client takes {limit}: raise the client's \
             limit (Python and C: grpc.max_receive_message_length, Go: grpc.MaxCallRecvMsgSize, Java: \
             maxInboundMessageSize, Node: readMaxBytes, grpcurl: -max-msg-sz) and message_bytes_max, or read \
             records with Consume",
            topic.name
        ),
    )
    .fact("offset", offset)
    .fact("bytes", size)
    .fact("limit", limit)
    .at(&topic.name, *partition)
}
