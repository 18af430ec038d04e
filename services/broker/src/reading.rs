//! What all reading calls share: a cursor in one partition, and stored batches as clients get them.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use weir_proto::v1::{
    Codec as WireCodec, ErrorReason, Isolation, PartitionProgress, ProducerIdentity, RecordBatch,
    TimestampType,
};
use weir_record::Codec;
use weir_rpc::Problem;
use weir_storage::{Chunk, Ends, Frame, FrameHeader, Limit, Partition, ReadError, ReadRequest};
use weir_types::{LeaderEpoch, Offset};

use crate::broker::Broker;
use crate::damage::Damage;
use crate::mutant::Mutant;
use crate::near::{self, Standing};
use crate::problems;
use crate::topic_map::Topic;

/// What stands for an end of a log that is not known for sure.
pub(crate) const UNKNOWN_END: Offset = -1;
/// The number of no codec there is.
const UNKNOWN_CODEC: u8 = 15;

/// A place in a partition, moving on.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) topic: Arc<Topic>,
    pub(crate) partition: i32,
    pub(crate) log: Partition,
    /// The next offset to be read.
    pub(crate) offset: Offset,
    pub(crate) limit: Limit,
    pub(crate) damage: Arc<Damage>,
    standing: Standing,
    /// The epoch of what is before the offset that it began at, as the reader has named it.
    named: Option<LeaderEpoch>,
}

impl Cursor {
    /// A cursor at an offset of a partition that is led here, or that has a replica here for readers of this rack (empty:
    /// none is meant). The end is a place to wait at; beyond it no reader can have got.
    pub(crate) fn new(
        broker: &Broker,
        topic: Arc<Topic>,
        partition: i32,
        offset: Offset,
        leader_epoch: Option<LeaderEpoch>,
        limit: Limit,
        rack: &str,
    ) -> Result<Self, Problem> {
        if offset < 0 {
            return Err(
                Problem::out_of_range("offset", offset, "offsets start at 0").at(&topic.name, partition)
            );
        }
        // As an answer says it that knows none.
        let leader_epoch = leader_epoch.filter(|epoch| *epoch > 0);
        let damage = broker.damage.clone();
        if let Some(followed) = broker.replica_here(&topic, partition, rack) {
            let (log, standing) = (followed.partition.clone(), broker.follows(followed));
            // What is above its high watermark is nobody's yet.
            let limit = if limit == Limit::LogEnd { Limit::HighWatermark } else { limit };
            let reached = near::has_reached(followed, &log.ends(), offset, leader_epoch);
            if !reached || standing.is_over(&topic, partition) {
                return Err(near::ask_the_leader(broker, &topic, partition));
            }
            let named = leader_epoch;
            return Ok(Self { topic, partition, log, offset, limit, damage, standing, named });
        }
        let log = broker.led_here(&topic, partition)?.clone();
        let standing = Standing::Leads(topic.partition(partition)?.led.clone());
        let place = check_epoch(&topic, partition, &log, offset, leader_epoch)
            .and_then(|()| check_end(&topic, partition, &log, offset, limit));
        if let Err(problem) = place {
            // What the reader has got may be with those that were not heard yet.
            topic.check_heard(partition)?;
            return Err(problem);
        }
        Ok(Self { topic, partition, log, offset, limit, damage, standing, named: leader_epoch })
    }

    /// Reads on, up to `bytes_max` of whole batches (the first one whatever its size), and moves past them. An
    /// empty chunk: there is nothing now.
    pub(crate) async fn read(&mut self, bytes_max: usize) -> Result<Chunk, Problem> {
        if Mutant::MovedInSilence.is_planted() {
            self.offset = self.offset.max(self.log.ends().log_start);
        }
        let request = ReadRequest { from: self.offset, bytes_max, limit: self.limit };
        let read = self.log.read(request).await;
        // Before anything is said of it: another leader may have another history.
        if self.is_over() {
            return Err(self.over());
        }
        let chunk =
            read.map_err(|error| self.damage.refused(&self.topic, self.partition, self.offset, &error))?;
        self.standing.read(&chunk);
        self.offset = self.offset.max(chunk.next_offset);
        Ok(chunk)
    }

    /// Whether nothing may be read here any more: the log is closed, or it is led or followed otherwise than it was.
    pub(crate) fn is_over(&self) -> bool {
        self.log.is_closed() || self.standing.is_over(&self.topic, self.partition)
    }

    /// What a reader is told then, by somebody who does not know who leads now.
    fn over(&self) -> Problem {
        let said =
            format!("{}/{} is not served by this broker as it was any more", self.topic.name, self.partition);
        Problem::new(ErrorReason::NotLeader, said).at(&self.topic.name, self.partition)
    }

    /// Whether there is something to be read now.
    pub(crate) fn has_more(&self) -> bool {
        let ends = self.log.ends();
        self.offset < self.end() || self.offset < ends.log_start
    }

    /// The end of what this cursor may read.
    pub(crate) fn end(&self) -> Offset {
        let ends = self.log.ends();
        match self.limit {
            Limit::Stable => ends.last_stable,
            Limit::HighWatermark => ends.high_watermark,
            Limit::LogEnd => ends.log_end,
        }
    }

    /// The epoch of what is before an offset up to which the reader has got everything.
    pub(crate) fn epoch_before(&self, offset: Offset) -> Option<LeaderEpoch> {
        // Nothing was read yet from where it began.
        if self.standing.is_behind(&self.log.ends(), offset) {
            self.named
        } else {
            self.log.epoch_before(offset)
        }
    }

    /// Where the partition stands for this reader, who has got everything before `next_offset`.
    pub(crate) fn progress(&self, next_offset: Offset, last_timestamp_ms: i64) -> PartitionProgress {
        let ends = self.log.ends();
        let is_behind = self.standing.is_behind(&ends, next_offset);
        let told = |end| if is_behind { UNKNOWN_END } else { told(&ends, end) };
        PartitionProgress {
            topic: self.topic.name.to_string(),
            partition: self.partition,
            log_start_offset: ends.log_start,
            next_offset,
            high_watermark: told(ends.high_watermark),
            last_stable_offset: told(ends.last_stable),
            last_timestamp_ms,
            leader_epoch: self.epoch_before(next_offset),
        }
    }
}

/// An end of what is committed, as readers are told of it: not one that may be lower than what they were told before
/// (correctness rule 4).
pub(crate) fn told(ends: &Ends, end: Offset) -> Offset {
    if ends.is_settled() { end } else { UNKNOWN_END }
}

/// The end is a place to wait at; beyond it no reader can have got.
fn check_end(
    topic: &Topic,
    partition: i32,
    log: &Partition,
    offset: Offset,
    limit: Limit,
) -> Result<(), Problem> {
    let ends = log.ends();
    if offset <= ends.log_end {
        return Ok(());
    }
    let error = ReadError::OutOfRange { log_start: ends.log_start, end: ends.end(limit) };
    Err(problems::read(&topic.name, partition, offset, &error))
}

/// A position on a history that was cut off is told so, never moved silently (correctness rule 13). Of the leadership in
/// force this log has all that there is, also before anything was appended in it.
fn check_epoch(
    topic: &Topic,
    partition: i32,
    log: &Partition,
    offset: Offset,
    leader_epoch: Option<LeaderEpoch>,
) -> Result<(), Problem> {
    let Some(epoch) = leader_epoch else { return Ok(()) };
    let current = topic.partition(partition)?.leader_epoch;
    if epoch > current {
        return Err(Problem::new(
            ErrorReason::LeaderEpochUnknown,
            format!(
                "{}/{partition}: the call names leader epoch {epoch}, this broker knows {current}",
                topic.name
            ),
        )
        .fact("leader_epoch", current)
        .fact("given", epoch)
        .at(&topic.name, partition));
    }
    let Some((back, before)) = log.parts((offset, epoch), current) else { return Ok(()) };
    if Mutant::PositionUnchecked.is_planted() {
        return Ok(());
    }
    let problem = Problem::new(
        ErrorReason::LogTruncated,
        format!(
            "{}/{partition}: what was read before {offset}, in leader epoch {epoch}, is on a history that was cut off: \
             go back to {back}",
            topic.name
        ),
    )
    .fact("offset", back)
    .fact("given", offset)
    .at(&topic.name, partition);
    Err(match before {
        Some(epoch) => problem.fact("leader_epoch", epoch),
        None => problem,
    })
}

/// How far a reader of that isolation may see.
pub(crate) fn limit(isolation: i32) -> Result<Limit, Problem> {
    match Isolation::try_from(isolation) {
        Ok(Isolation::Unspecified | Isolation::Committed) => Ok(Limit::Stable),
        Ok(Isolation::Uncommitted) => Ok(Limit::HighWatermark),
        Err(_) => Err(Problem::unknown_enum("isolation", isolation)),
    }
}

/// A stored batch as it goes to a client: the payload is a slice of what was read.
pub(crate) fn wire_batch(frame: Frame) -> RecordBatch {
    let header = &frame.header;
    let timestamp_type = if header.append_time { TimestampType::Append } else { TimestampType::Create };
    RecordBatch {
        format: 1,
        base_offset: header.base_offset,
        last_offset_delta: header.last_offset_delta,
        record_count: header.record_count,
        base_timestamp_ms: header.base_timestamp_ms,
        max_timestamp_ms: if header.append_time { header.append_time_ms } else { header.max_timestamp_ms },
        timestamp_type: timestamp_type.into(),
        codec: wire_codec(header.codec).into(),
        uncompressed_bytes: i32::try_from(header.uncompressed_bytes).unwrap_or(i32::MAX),
        crc: header.payload_crc,
        producer: header
            .producer
            .map(|producer| ProducerIdentity { id: producer.id.0, epoch: producer.epoch }),
        base_sequence: header.base_sequence,
        transactional: header.transactional,
        control: header.control,
        leader_epoch: header.leader_epoch,
        records: frame.payload,
    }
}

/// The same on its way back: a batch that another broker has read.
pub(crate) fn frame(batch: RecordBatch) -> Frame {
    let codec = Codec::from_api(batch.codec).map_or(UNKNOWN_CODEC, Codec::number);
    let header = FrameHeader {
        base_offset: batch.base_offset,
        last_offset_delta: batch.last_offset_delta,
        record_count: batch.record_count,
        base_timestamp_ms: batch.base_timestamp_ms,
        max_timestamp_ms: batch.max_timestamp_ms,
        // Where it stands for theirs, it is the last of the records' times.
        append_time_ms: batch.max_timestamp_ms,
        append_time: batch.timestamp_type() == TimestampType::Append,
        codec,
        transactional: batch.transactional,
        control: batch.control,
        broker_compressed: false,
        uncompressed_bytes: batch.uncompressed_bytes.unsigned_abs(),
        payload_bytes: u32::try_from(batch.records.len()).unwrap_or(u32::MAX),
        payload_crc: batch.crc,
        producer: None,
        base_sequence: batch.base_sequence,
        leader_epoch: batch.leader_epoch,
        flushed_end: None,
    };
    Frame { header, payload: batch.records }
}

fn wire_codec(number: u8) -> WireCodec {
    match Codec::from_number(number) {
        Ok(Codec::None) => WireCodec::None,
        Ok(Codec::Gzip) => WireCodec::Gzip,
        Ok(Codec::Zstd) => WireCodec::Zstd,
        Ok(Codec::Lz4) => WireCodec::Lz4,
        // Written by a newer version: the client sees that it does not know it.
        Err(_) => WireCodec::Unspecified,
    }
}

/// Partitions that are waited for, each under a key: which of them came is known without a look at the others.
pub(crate) struct Arrivals<K>(FuturesUnordered<BoxFuture<'static, K>>);

impl<K: Send + 'static> Arrivals<K> {
    pub(crate) fn new() -> Self {
        Self(FuturesUnordered::new())
    }

    /// Waits, from now on, until the partition has something at `offset`, or is closed.
    pub(crate) fn wait(&self, key: K, cursor: &Cursor, offset: Offset) {
        let arrival = arrival(cursor.log.clone(), cursor.limit, offset);
        self.0.push(arrival.map(move |()| key).boxed());
    }

    /// One that came; it is waited for no more.
    pub(crate) fn came(&mut self) -> Option<K> {
        self.0.next().now_or_never().flatten()
    }

    /// The same, when one comes; never, if none is waited for: the caller's timer ends this. Cancel safe.
    pub(crate) async fn comes(&mut self) -> K {
        match self.0.next().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

/// Waits until there is something at `offset`, or the partition is closed.
pub(crate) async fn arrival(log: Partition, limit: Limit, offset: Offset) {
    let mut changes = log.watch();
    loop {
        let ends = *changes.borrow_and_update();
        if ends.end(limit) > offset || changes.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_has_just_begun_tells_no_end() {
        let ends = Ends { high_watermark: 7, last_stable: 7, log_end: 9, epoch_start: 8, ..Ends::default() };
        assert_eq!(told(&ends, ends.high_watermark), UNKNOWN_END);
        let settled = Ends { high_watermark: 8, ..ends };
        assert_eq!(told(&settled, settled.high_watermark), 8);
    }
}
