//! One partition: batches in a vector, and what is remembered of producers.

use std::collections::{HashMap, VecDeque};

use weir_client::ErrorReason;
use weir_proto::v1;

/// The batches that are remembered of a producer, as a real leader remembers them.
const WINDOW: usize = 5;

#[derive(Default)]
pub struct Log {
    pub start: i64,
    pub batches: Vec<v1::RecordBatch>,
    pub leader: i32,
    pub epoch: i32,
    producers: HashMap<i64, Producer>,
}

#[derive(Default)]
struct Producer {
    epoch: i32,
    /// (base sequence, records, base offset)
    batches: VecDeque<(i32, i32, i64)>,
}

pub enum Verdict {
    Appended(i64),
    Duplicate(i64),
    Refused(ErrorReason, String),
}

impl Log {
    /// Empty, led by broker 1.
    pub fn new() -> Self {
        Self { leader: 1, ..Self::default() }
    }

    /// The offset that the next record gets.
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(self.start, next_offset)
    }

    pub fn append(&mut self, batch: &v1::RecordBatch, expected_next_offset: Option<i64>) -> Verdict {
        if let Some(id) = &batch.producer {
            let verdict = self.judge(id, batch.base_sequence, batch.record_count);
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
        let base = self.end();
        if expected_next_offset.is_some_and(|expected| expected != base) {
            return Verdict::Refused(ErrorReason::OffsetMismatch, format!("the next offset is {base}"));
        }
        if let Some(id) = &batch.producer {
            let known = self.producers.entry(id.id).or_default();
            if id.epoch > known.epoch {
                *known = Producer { epoch: id.epoch, batches: VecDeque::new() };
            }
            known.batches.push_back((batch.base_sequence, batch.record_count, base));
            if known.batches.len() > WINDOW {
                known.batches.pop_front();
            }
        }
        let mut stored = batch.clone();
        stored.base_offset = base;
        stored.leader_epoch = self.epoch;
        stored.timestamp_type = v1::TimestampType::Create.into();
        self.batches.push(stored);
        Verdict::Appended(base)
    }

    fn judge(&self, id: &v1::ProducerIdentity, base: i32, count: i32) -> Option<Verdict> {
        let refuse = |reason, text: &str| Some(Verdict::Refused(reason, text.to_owned()));
        let Some(known) = self.producers.get(&id.id) else {
            return if base == 0 { None } else { refuse(ErrorReason::ProducerUnknown, "not known") };
        };
        if id.epoch < known.epoch {
            return refuse(ErrorReason::ProducerFenced, "a newer epoch exists");
        }
        let last = known.batches.back().filter(|_| id.epoch == known.epoch);
        let expected = last.map_or(0, |(base, count, _)| base + count);
        if id.epoch == known.epoch
            && let Some((_, _, offset)) = known.batches.iter().find(|b| b.0 == base && b.1 == count)
        {
            return Some(Verdict::Duplicate(*offset));
        }
        match base.cmp(&expected) {
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Less => refuse(ErrorReason::SequenceTooOld, "forgotten"),
            std::cmp::Ordering::Greater => refuse(ErrorReason::SequenceGap, "a batch is missing"),
        }
    }

    /// Forgets all producers, as after their expiry.
    pub fn forget_producers(&mut self) {
        self.producers.clear();
    }

    /// What GetAppendOutcome says: the offset if it is there; else, with `seal`, the fence.
    pub fn outcome(
        &mut self,
        id: &v1::ProducerIdentity,
        sequence: i32,
        seal: bool,
    ) -> (v1::AppendOutcome, i64) {
        if let Some(known) = self.producers.get(&id.id)
            && let Some((_, _, offset)) = known.batches.iter().find(|b| b.0 == sequence)
            && known.epoch == id.epoch
        {
            return (v1::AppendOutcome::Appended, *offset);
        }
        if !seal {
            return (v1::AppendOutcome::NotSoFar, 0);
        }
        let fence = Producer { epoch: id.epoch + 1, batches: VecDeque::new() };
        self.producers.insert(id.id, fence);
        let base_offset = self.end();
        self.batches.push(v1::RecordBatch {
            base_offset,
            control: true,
            record_count: 1,
            leader_epoch: self.epoch,
            ..Default::default()
        });
        (v1::AppendOutcome::Never, 0)
    }

    /// The leader epoch of what is just before an offset.
    pub fn epoch_before(&self, offset: i64) -> Option<i32> {
        self.batches.iter().rev().find(|batch| batch.base_offset < offset).map(|batch| batch.leader_epoch)
    }

    /// Where the largest epoch ends that is not above this one.
    pub fn epoch_end(&self, epoch: i32) -> i64 {
        let later = self.batches.iter().find(|batch| batch.leader_epoch > epoch);
        later.map_or(self.end(), |batch| batch.base_offset)
    }

    /// Another leader, who never had what is from here on.
    pub fn lose(&mut self, from: i64) {
        self.batches.retain(|batch| batch.base_offset < from);
        self.epoch += 1;
    }

    /// The values of all records, in order, with their offsets.
    pub fn values(&self) -> Vec<(i64, String)> {
        let mut values = Vec::new();
        for batch in self.batches.iter().filter(|batch| !batch.control) {
            let codec = weir_record::Codec::from_api(batch.codec).expect("a known codec");
            let set = weir_record::Decompressor::new()
                .decompress(
                    codec,
                    &batch.records,
                    batch.uncompressed_bytes as usize,
                    weir_record::BATCH_BYTES_MAX,
                )
                .expect("what the client packed can be opened");
            for record in weir_record::Records::new(&set, batch.last_offset_delta) {
                let record = record.expect("a whole record");
                let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                values.push((batch.base_offset + i64::from(record.offset_delta), value));
            }
        }
        values
    }
}

/// Where the log goes on after a batch.
pub fn next_offset(batch: &v1::RecordBatch) -> i64 {
    batch.base_offset + i64::from(batch.last_offset_delta) + 1
}
