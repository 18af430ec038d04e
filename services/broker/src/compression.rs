//! Compression by the broker: of plain records, and of batches that came uncompressed to a topic that wants them
//! compressed. It runs off the executors; whoever waits keeps the order.

use std::sync::Arc;

use weir_proto::v1::ErrorReason;
use weir_record::{Batch, Codec, Packed};
use weir_rpc::Problem;
use weir_runtime::{Os, blocking};
use weir_storage::NewBatch;

use crate::contexts::COMPRESSORS;

/// Below this, handing the work over costs more than doing it.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Seals plain records into a batch.
pub(crate) async fn seal(os: &Arc<dyn Os>, packed: Packed, codec: Codec) -> Result<Batch, Problem> {
    let small = codec == Codec::None || packed.bytes() <= INLINE_BYTES_MAX;
    let bytes = packed.bytes();
    let job = move || COMPRESSORS.with(bytes, |compressor| packed.seal(codec, None, compressor));
    let sealed = if small { job() } else { blocking(os, job).await };
    sealed.map_err(|error| Problem::new(ErrorReason::Internal, format!("cannot compress: {error}")))
}

/// Compresses a batch that came uncompressed, if the topic wants that and it gets smaller.
pub(crate) async fn of_topic(
    os: &Arc<dyn Os>,
    wanted: Option<Codec>,
    batch: NewBatch,
) -> Result<NewBatch, Problem> {
    let Some(codec) = wanted.filter(|_| batch.codec == Codec::None.number()) else {
        return Ok(batch);
    };
    let input = batch.payload.clone();
    let job = move || COMPRESSORS.with(input.len(), |compressor| compressor.compress(codec, None, &input));
    let compressed = if batch.payload.len() <= INLINE_BYTES_MAX { job() } else { blocking(os, job).await };
    let (codec, payload) = compressed
        .map_err(|error| Problem::new(ErrorReason::Internal, format!("cannot compress: {error}")))?;
    Ok(NewBatch {
        codec: codec.number(),
        crc: weir_record::crc(&payload),
        broker_compressed: codec != Codec::None,
        payload,
        ..batch
    })
}
