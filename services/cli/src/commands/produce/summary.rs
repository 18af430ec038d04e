//! What a run of `weir produce` came to.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_client::Delivery;
use weir_types::Durability;

use super::Compression;
use crate::input::Record;
use crate::output::View;
use crate::reference::Reference;
use crate::units;

/// Below this a rate says nothing.
const RATE_FROM: Duration = Duration::from_millis(100);

/// Counts what is read and what is acknowledged.
#[derive(Debug)]
pub(super) struct Summary {
    topic: String,
    compression: Compression,
    records: u64,
    bytes: u64,
    /// As they were sent.
    sent_bytes: u64,
    started: Option<Instant>,
    took: Duration,
    partitions: BTreeMap<i32, Part>,
    promise: Promise,
}

/// What was written to a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    first: Option<i64>,
    last: Option<i64>,
    records: u64,
}

/// The weakest thing that is true of all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// Sent, and nobody said a word.
    Sent,
    /// The leader has it.
    Leader,
    /// Committed, in memory.
    Memory,
    /// Committed, on disk.
    Disk,
}

impl Summary {
    /// Of a topic, with nothing yet.
    pub(super) fn new(topic: &str, compression: Compression) -> Self {
        Self {
            topic: topic.to_owned(),
            compression,
            records: 0,
            bytes: 0,
            sent_bytes: 0,
            started: None,
            took: Duration::ZERO,
            partitions: BTreeMap::new(),
            promise: Promise::Disk,
        }
    }

    /// A record was read and is about to be sent.
    pub(super) fn read(&mut self, record: &Record) {
        self.started.get_or_insert_with(Instant::now);
        self.records += 1;
        self.bytes += record.value.as_ref().map_or(0, |value| value.len() as u64);
    }

    /// A record has arrived.
    pub(super) fn delivered(&mut self, delivery: &Delivery) {
        let promise = match (delivery.offset, delivery.committed, delivery.durability) {
            (None, _, _) => Promise::Sent,
            (Some(_), false, _) => Promise::Leader,
            (Some(_), true, Some(Durability::Fsync)) => Promise::Disk,
            (Some(_), true, _) => Promise::Memory,
        };
        self.promise = self.promise.min(promise);
        let part = self.partitions.entry(delivery.partition).or_default();
        part.records += 1;
        if let Some(offset) = delivery.offset {
            part.first = Some(part.first.map_or(offset, |first| first.min(offset)));
            part.last = Some(part.last.map_or(offset, |last| last.max(offset)));
        }
    }

    /// All receipts are in; batches had so many bytes.
    pub(super) fn done(&mut self, sent_bytes: u64) {
        self.sent_bytes = sent_bytes;
        self.took = self.started.map_or(Duration::ZERO, |started| started.elapsed());
    }

    /// How many records are known to be written, or at least sent where no answer was asked for.
    pub(super) fn written(&self) -> i128 {
        self.partitions.values().map(|part| i128::from(part.records)).sum()
    }

    /// For people, programs and the next command.
    pub(super) fn view(&self) -> View {
        let mut parts = vec![units::counted(self.records, "record")];
        let one = match self.partitions.iter().next() {
            Some((partition, part)) if self.partitions.len() == 1 => {
                part.first.map(|first| (*partition, first))
            }
            _ => None,
        };
        if self.partitions.len() > 1 {
            parts.push(units::counted(self.partitions.len() as u64, "partition"));
        }
        parts.push(match self.codec().filter(|_| self.sent_bytes > 0) {
            Some(codec) => {
                format!("{} -> {} {codec}", units::bytes(self.bytes), units::bytes(self.sent_bytes))
            }
            None => units::bytes(self.bytes),
        });
        if !self.partitions.is_empty() {
            let mut time = vec![units::elapsed(self.took)];
            if self.took >= RATE_FROM {
                time.push(units::rate(self.bytes, self.took));
            }
            // Where records went is said before a few of them, how fast before many.
            let promise = self.promise().to_owned();
            let at = if one.is_some() { 0 } else { time.len() };
            time.insert(at, promise);
            parts.extend(time);
        }
        let line = match one {
            Some((partition, first)) => {
                format!("{}  {}", Reference::record(&self.topic, partition, first), parts.join(", "))
            }
            None => parts.join(", "),
        };
        let partition = |(partition, part): (&i32, &Part)| {
            serde_json::json!({
                "partition": partition, "records": part.records,
                "firstOffset": part.first, "lastOffset": part.last,
            })
        };
        let object = serde_json::json!({
            "topic": self.topic, "records": self.records, "bytes": self.bytes, "sentBytes": self.sent_bytes,
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "durationUs": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "acknowledged": self.promise(),
        });
        let mut view = View { objects: vec![object], ..View::default() };
        view.line(line);
        for (partition, part) in &self.partitions {
            let first = part.first.map(|first| Reference::record(&self.topic, *partition, first).to_string());
            view.names.extend(first);
        }
        view
    }

    fn codec(&self) -> Option<&'static str> {
        match self.compression {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
            Compression::Lz4 => Some("lz4"),
        }
    }

    fn promise(&self) -> &'static str {
        match (self.promise, self.partitions.len()) {
            (Promise::Sent, _) => "not acknowledged",
            (Promise::Leader, _) => "on the leader only",
            (Promise::Memory, 2..) => "all in memory",
            (Promise::Memory, _) => "in memory",
            (Promise::Disk, 2..) => "all on disk",
            (Promise::Disk, _) => "on disk",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(partition: i32, offset: i64) -> Delivery {
        Delivery {
            partition,
            offset: Some(offset),
            leader_epoch: 0,
            append_timestamp_ms: 0,
            durability: Some(Durability::Fsync),
            replicas_written: 1,
            replicas_flushed: 1,
            zones: 1,
            committed: true,
            duplicate: false,
        }
    }

    fn record(value: &'static str) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    fn line(summary: &Summary) -> String {
        let mut text = Vec::new();
        summary.view().write(&mut text, crate::output::Format::Table).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn one_record_is_named() {
        let mut summary = Summary::new("greetings", Compression::None);
        summary.read(&record("hello"));
        summary.delivered(&delivery(0, 7));
        summary.took = Duration::from_micros(400);
        assert_eq!(line(&summary), "greetings/0@7  1 record, 5 B, on disk, 0.4 ms\n");
        assert_eq!(summary.view().names, ["greetings/0@7"]);
    }

    #[test]
    fn many_records_are_counted_with_what_became_of_them() {
        let mut summary = Summary::new("flights", Compression::Zstd);
        for (partition, offset) in [(0, 0), (3, 0), (3, 1)] {
            summary.read(&record("0123456789"));
            summary.delivered(&delivery(partition, offset));
        }
        summary.took = Duration::from_secs(2);
        summary.sent_bytes = 12;
        assert_eq!(
            line(&summary),
            "3 records, 2 partitions, 30 B -> 12 B zstd, 2.0 s, 15 B/s, all on disk\n"
        );
        let object = &summary.view().objects[0];
        assert_eq!(object["partitions"][1]["lastOffset"], 1);
    }

    #[test]
    fn the_weakest_promise_is_the_one_that_is_made() {
        let mut summary = Summary::new("t", Compression::None);
        summary.delivered(&delivery(0, 0));
        assert_eq!(summary.promise(), "on disk");
        summary.delivered(&Delivery { durability: Some(Durability::Replicated), ..delivery(0, 1) });
        assert_eq!(summary.promise(), "in memory");
        summary.delivered(&Delivery { committed: false, ..delivery(0, 2) });
        assert_eq!(summary.promise(), "on the leader only");
        summary.delivered(&Delivery { offset: None, ..delivery(1, 0) });
        assert_eq!(summary.promise(), "not acknowledged");
    }
}
