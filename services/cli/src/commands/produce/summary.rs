//! What a run of `weir produce` came to: what was acknowledged, and what was read and was not.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_client::{Applied, Delivery};
use weir_types::Durability;

use super::Compression;
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
    /// Nothing is sent: what is read is all there is.
    dry_run: bool,
    /// Records that were read and handed on.
    read: u64,
    /// Their values' bytes.
    read_bytes: u64,
    /// The same of those that are acknowledged.
    acknowledged_bytes: u64,
    /// As they were sent, acknowledged or not.
    sent_bytes: u64,
    /// Records that were not written.
    refused: u64,
    /// Records that nobody knows about.
    unknown: u64,
    /// The first record, counted from 1, that is not acknowledged.
    first_failed: Option<u64>,
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
    pub(super) fn new(topic: &str, compression: Compression, dry_run: bool) -> Self {
        Self {
            topic: topic.to_owned(),
            compression,
            dry_run,
            read: 0,
            read_bytes: 0,
            acknowledged_bytes: 0,
            sent_bytes: 0,
            refused: 0,
            unknown: 0,
            first_failed: None,
            started: None,
            took: Duration::ZERO,
            partitions: BTreeMap::new(),
            promise: Promise::Disk,
        }
    }

    /// The first record is about to be sent.
    pub(super) fn begin(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// A record was read and handed on; its value has so many bytes.
    pub(super) fn read(&mut self, bytes: u64) {
        self.read += 1;
        self.read_bytes += bytes;
    }

    /// The record of this number, counted from 1, has failed.
    pub(super) fn failed(&mut self, number: u64, applied: Applied) {
        self.first_failed = Some(self.first_failed.map_or(number, |first| first.min(number)));
        match applied {
            Applied::No => self.refused += 1,
            // One that is there but not as was asked for has no acknowledgement either.
            Applied::Maybe | Applied::Yes => self.unknown += 1,
        }
    }

    /// A record that was read has arrived; its value has so many bytes.
    pub(super) fn delivered(&mut self, delivery: &Delivery, bytes: u64) {
        self.acknowledged_bytes += bytes;
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
    pub(super) fn written(&self) -> u64 {
        self.partitions.values().map(|part| part.records).sum()
    }

    /// How many records were read and handed on.
    pub(super) fn records_read(&self) -> u64 {
        self.read
    }

    /// Whether nobody knows of some records whether they are written.
    pub(super) fn in_doubt(&self) -> bool {
        self.unknown > 0
    }

    /// The first record that is not acknowledged, and how many behind it are. All before it are.
    pub(super) fn first_failed(&self) -> Option<(u64, u64)> {
        self.first_failed.map(|first| (first, (self.written() + 1).saturating_sub(first)))
    }

    /// What became of those that were read and not acknowledged; none where all were.
    fn missing(&self) -> Option<String> {
        let (missing, mut kinds) = (self.refused + self.unknown, Vec::new());
        if self.unknown > 0 {
            kinds.push(format!("{} maybe written", units::count(self.unknown)));
        }
        if self.refused > 0 {
            kinds.push(format!("{} not written", units::count(self.refused)));
        }
        (missing > 0)
            .then(|| format!("{} not acknowledged: {}", units::counted(missing, "record"), kinds.join(", ")))
    }

    /// For people, programs and the next command.
    pub(super) fn view(&self) -> View {
        let missing = self.missing();
        let (records, bytes) = match self.dry_run {
            true => (self.read, self.read_bytes),
            false => (self.written(), self.acknowledged_bytes),
        };
        let mut parts = vec![match missing {
            Some(_) => format!("{} of {}", units::count(records), units::counted(self.read, "record")),
            None => units::counted(records, "record"),
        }];
        let one = match self.partitions.iter().next() {
            Some((partition, part)) if self.partitions.len() == 1 => {
                part.first.map(|first| (*partition, first))
            }
            _ => None,
        };
        if self.partitions.len() > 1 {
            parts.push(units::counted(self.partitions.len() as u64, "partition"));
        }
        parts.push(match self.codec().filter(|_| self.sent_bytes > 0 && missing.is_none()) {
            Some(codec) => {
                format!("{} -> {} {codec}", units::bytes(bytes), units::bytes(self.sent_bytes))
            }
            None => units::bytes(bytes),
        });
        if !self.partitions.is_empty() {
            let mut time = vec![units::elapsed(self.took)];
            if self.took >= RATE_FROM {
                time.push(units::rate(bytes, self.took));
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
            "topic": self.topic, "records": records, "bytes": bytes, "sentBytes": self.sent_bytes,
            "read": self.read, "notWritten": self.refused, "maybeWritten": self.unknown,
            "partitions": self.partitions.iter().map(partition).collect::<Vec<_>>(),
            "durationUs": u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            "acknowledged": self.promise(),
        });
        let mut view = View { objects: vec![object], ..View::default() };
        view.line(line);
        if let Some(missing) = missing {
            view.line(missing);
        }
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
        let whole = self.refused + self.unknown == 0;
        match (self.promise, self.partitions.len()) {
            _ if self.partitions.is_empty() => "nothing",
            (Promise::Sent, _) => "not acknowledged",
            (Promise::Leader, _) => "on the leader only",
            (Promise::Memory, 2..) if whole => "all in memory",
            (Promise::Memory, _) => "in memory",
            (Promise::Disk, 2..) if whole => "all on disk",
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

    fn summary(topic: &str, compression: Compression) -> Summary {
        Summary::new(topic, compression, false)
    }

    /// So many records of ten bytes are read and acknowledged.
    fn written(summary: &mut Summary, places: &[(i32, i64)]) {
        for (partition, offset) in places {
            summary.read(10);
            summary.delivered(&delivery(*partition, *offset), 10);
        }
    }

    fn line(summary: &Summary) -> String {
        let mut text = Vec::new();
        summary.view().write(&mut text, crate::output::Format::Table).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn one_record_is_named() {
        let mut summary = summary("greetings", Compression::None);
        summary.read(5);
        summary.delivered(&delivery(0, 7), 5);
        summary.took = Duration::from_micros(400);
        assert_eq!(line(&summary), "greetings/0@7  1 record, 5 B, on disk, 0.4 ms\n");
        assert_eq!(summary.view().names, ["greetings/0@7"]);
    }

    #[test]
    fn many_records_are_counted_with_what_became_of_them() {
        let mut summary = summary("flights", Compression::Zstd);
        written(&mut summary, &[(0, 0), (3, 0), (3, 1)]);
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
    fn what_was_not_acknowledged_is_not_claimed() {
        let mut summary = summary("flights", Compression::Zstd);
        written(&mut summary, &[(0, 0), (3, 0)]);
        for (number, applied) in [(4, Applied::No), (3, Applied::No), (5, Applied::Maybe)] {
            summary.read(10);
            summary.failed(number, applied);
        }
        assert_eq!(summary.first_failed(), Some((3, 0)));
        summary.took = Duration::from_millis(40);
        summary.sent_bytes = 12;
        assert_eq!(
            line(&summary),
            "2 of 5 records, 2 partitions, 20 B, 40 ms, on disk\n3 records not acknowledged: 1 maybe written, 2 not \
             written\n"
        );
        let object = &summary.view().objects[0];
        assert_eq!((&object["records"], &object["read"]), (&2.into(), &5.into()));
        assert_eq!((&object["maybeWritten"], &object["notWritten"]), (&1.into(), &2.into()));
        assert!(summary.in_doubt());
    }

    #[test]
    fn where_nothing_was_acknowledged_nothing_is_promised() {
        let mut summary = summary("t", Compression::None);
        summary.read(10);
        summary.failed(1, Applied::Maybe);
        assert_eq!(line(&summary), "0 of 1 record, 0 B\n1 record not acknowledged: 1 maybe written\n");
        let object = &summary.view().objects[0];
        assert_eq!(object["acknowledged"], "nothing");
        assert_eq!(summary.view().names, Vec::<String>::new());
    }

    #[test]
    fn a_dry_run_counts_what_it_read() {
        let mut summary = Summary::new("t", Compression::None, true);
        summary.read(10);
        assert_eq!(line(&summary), "1 record, 10 B\n");
    }

    #[test]
    fn the_weakest_promise_is_the_one_that_is_made() {
        let mut summary = summary("t", Compression::None);
        summary.delivered(&delivery(0, 0), 1);
        assert_eq!(summary.promise(), "on disk");
        summary.delivered(&Delivery { durability: Some(Durability::Replicated), ..delivery(0, 1) }, 1);
        assert_eq!(summary.promise(), "in memory");
        summary.delivered(&Delivery { committed: false, ..delivery(0, 2) }, 1);
        assert_eq!(summary.promise(), "on the leader only");
        summary.delivered(&Delivery { offset: None, ..delivery(1, 0) }, 1);
        assert_eq!(summary.promise(), "not acknowledged");
    }
}
