//! Damage before the log's start. Nobody is given what lies there, but the way to what comes behind leads through it: from a
//! mark to the frame that is wanted, from header to header, until the segment goes.

use std::sync::Arc;

use weir_types::Offset;

use super::{SEARCH_BYTES, pread};
use crate::core::Core;
use crate::error::ReadError;
use crate::frame::{FrameHeader, HEADER_BYTES, MAGIC};
use crate::segment::Segment;

/// Where the next frame begins behind a header that does not hold, if the log starts, and `from` lies, in that frame or behind it:
/// then only what was deleted is passed over. `None`: what is damaged, or some of it, was not.
///
/// Headers are sealed with what no producer knows, so one that holds is no payload. One window is enough: between two marks there
/// are small frames, and a large one behind them, which is followed by a mark.
pub(super) async fn past_deleted(
    core: &Arc<Core>,
    segment: &Arc<Segment>,
    bad: u64,
    from: Offset,
) -> Result<Option<u64>, ReadError> {
    let until = from.min(core.ends().log_start);
    if segment.base >= until {
        return Ok(None);
    }
    let position = bad.saturating_add(1);
    let len = segment.written().saturating_sub(position).min(SEARCH_BYTES as u64) as usize;
    let (bytes, _) = pread(core, segment, position, len).await?;
    let frames = bytes.windows(HEADER_BYTES).zip(position..).filter(|(bytes, _)| bytes.starts_with(&MAGIC));
    let mut headers =
        frames.filter_map(|(bytes, at)| Some((FrameHeader::decode(bytes, core.seed).ok()?, at)));
    Ok(headers.next().filter(|(header, _)| header.base_offset <= until).map(|(_, at)| at))
}
