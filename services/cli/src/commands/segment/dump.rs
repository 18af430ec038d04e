//! `weir segment dump`: what is in the files, batch by batch or record by record.

use bytes::Bytes;
use clap::Args;
use weir_io::Disk;
use weir_proto::v1::{Header, StoredRecord};
use weir_record::{Codec, Decompressor, Records};
use weir_storage::inspect::{Directory, FrameAt, PartitionFiles, Segment};

use super::{Found, Place, name, topic};
use crate::clock;
use crate::error::{Error, Result};
use crate::output::{Column, Table, View};
use crate::record_format::RecordFormat;
use crate::session::Session;
use crate::units;

/// Show what is in the files: the directory, the batches of partitions, or their records
#[derive(Debug, Args)]
#[command(after_help = "\
Without a topic: the directory and its partitions. With one, and for a partition's folder or a
segment: every batch, where it lies, and what its header says; with --records, the records in it.

Examples:
  $ weir segment dump ./weir-data
  $ weir segment dump ./weir-data flights/0
  $ weir segment dump ./weir-data flights/0 --records -n 3 -f '%r %k %v\\n'")]
pub(crate) struct Dump {
    #[command(flatten)]
    place: Place,
    /// Show the records, not the batches
    #[arg(long)]
    records: bool,
    /// Begin with this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0, hide_default_value = true)]
    from: i64,
    /// Stop after so many batches or records
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<usize>,
    /// How records are written: json, raw, or a text such as '%k %v\n' [default: '%v\n']
    #[arg(short, long, requires = "records")]
    format: Option<RecordFormat>,
}

impl Dump {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let disk = session.os().disk();
        let Found { directory, partitions } = self.place.open(&*disk)?;
        if self.records {
            return self.records(session, &*disk, &partitions);
        }
        if let Some(directory) = directory.filter(|_| self.place.what.is_empty()) {
            return session.print(&overview(&directory, &partitions));
        }
        let mut view = View::default();
        let mut left = self.count.unwrap_or(usize::MAX);
        for files in &partitions {
            let mut table = columns();
            view.line(files.path.display().to_string());
            let mut ends = Vec::new();
            for (base, segment) in self.segments(&*disk, files)? {
                let mut segment = segment;
                while let Some(frame) = next(&mut segment, left)? {
                    if frame.header.next_offset() > self.from {
                        row(&mut table, &mut view, base, &frame);
                        left -= 1;
                    }
                }
                if let Some(end) = segment.bad_end() {
                    let file = segment.path().display();
                    ends.push(format!(
                        "{file}: byte {}: {}; {} bytes are left",
                        end.position, end.why, end.bytes
                    ));
                }
            }
            view.table(table);
            ends.into_iter().for_each(|end| view.line(end));
            view.names.push(name(files));
        }
        session.print(&view)
    }

    /// The segments that can hold what is wanted.
    fn segments(&self, disk: &dyn Disk, files: &PartitionFiles) -> Result<Vec<(i64, Segment)>> {
        let after = files.segments.iter().skip(1).copied().chain([i64::MAX]);
        let wanted = files.segments.iter().zip(after).filter(|(_, end)| *end > self.from);
        wanted
            .map(|(base, _)| {
                let segment = Segment::open(disk, files, *base);
                Ok((*base, segment.map_err(|error| Error::Failed(error.to_string()))?))
            })
            .collect()
    }

    fn records(&self, session: &Session, disk: &dyn Disk, partitions: &[PartitionFiles]) -> Result<()> {
        let format = self.format.clone().unwrap_or_default();
        let mut left = self.count.unwrap_or(usize::MAX);
        let mut decompressor = Decompressor::new();
        for files in partitions {
            let topic = topic(files);
            for (_, mut segment) in self.segments(disk, files)? {
                while let Some(frame) = next(&mut segment, left)? {
                    if frame.header.control || frame.header.next_offset() <= self.from {
                        continue;
                    }
                    let mut text = Vec::new();
                    for record in records_of(&mut decompressor, &topic, files.id.partition, &frame)? {
                        if left > 0 && record.offset >= self.from {
                            format.write(&mut text, &record).map_err(Error::stdout)?;
                            left -= 1;
                        }
                    }
                    session.print_bytes(&text)?;
                }
            }
        }
        Ok(())
    }
}

fn next(segment: &mut Segment, left: usize) -> Result<Option<FrameAt>> {
    if left == 0 {
        return Ok(None);
    }
    segment.next_frame().map_err(|error| Error::Failed(error.to_string()))
}

/// The directory and its partitions.
fn overview(directory: &Directory, partitions: &[PartitionFiles]) -> View {
    let mut view = View::default();
    let owner = match &directory.identity {
        Some(identity) => format!("cluster {}, broker {}", identity.cluster_id, identity.broker_id),
        None => "nobody's yet".to_owned(),
    };
    let left = if directory.clean { "left in order" } else { "in use, or left by a crash" };
    view.line(format!("directory {}: {owner}, {left}", directory.directory_id));
    if let Some(problem) = &directory.checkpoint_problem {
        view.line(format!("checkpoint: {problem}"));
    }
    view.line("");
    let mut table = Table::new(&[
        Column::left("PARTITION"),
        Column::right("SEGMENTS"),
        Column::right("START"),
        Column::right("END"),
        Column::right("DURABLE TO"),
        Column::right("GENERATION").wide(),
        Column::left("FOLDER").wide(),
    ]);
    for files in partitions {
        let known = |f: fn(&weir_storage::inspect::CheckpointEntry) -> i64| {
            files.checkpoint.as_ref().map_or("?".to_owned(), |entry| f(entry).to_string())
        };
        table.row([
            name(files),
            files.segments.len().to_string(),
            known(|entry| entry.log_start),
            known(|entry| entry.log_end),
            known(|entry| entry.recovery_point),
            files.checkpoint.as_ref().map_or("?".to_owned(), |entry| entry.generation.to_string()),
            files.path.display().to_string(),
        ]);
        view.names.push(name(files));
        view.objects.push(serde_json::json!({
            "partition": name(files), "topicId": files.id.topic.to_string(), "path": files.path,
            "segments": files.segments,
            "logStartOffset": files.checkpoint.map(|entry| entry.log_start),
            "logEndOffset": files.checkpoint.map(|entry| entry.log_end),
            "recoveryPoint": files.checkpoint.map(|entry| entry.recovery_point),
        }));
    }
    view.table(table);
    view
}

fn columns() -> Table {
    Table::new(&[
        Column::right("SEGMENT"),
        Column::right("BYTE"),
        Column::left("OFFSETS"),
        Column::right("RECORDS"),
        Column::right("BYTES"),
        Column::left("CODEC"),
        Column::right("EPOCH"),
        Column::left("APPENDED"),
        Column::left("PRODUCER"),
        Column::left("STATUS"),
        Column::right("UNCOMPRESSED").wide(),
        Column::right("FLUSHED TO").wide(),
    ])
}

fn row(table: &mut Table, view: &mut View, base: i64, frame: &FrameAt) {
    let header = &frame.header;
    let codec = Codec::from_number(header.codec).map_or_else(|_| header.codec.to_string(), |c| c.to_string());
    let producer = header.producer.map(|producer| {
        format!("{} epoch {} sequence {}", producer.id, producer.epoch, header.base_sequence)
    });
    let status = frame.problem.map_or("ok".to_owned(), |problem| problem.to_string());
    table.row([
        base.to_string(),
        frame.position.to_string(),
        format!("{}-{}", header.base_offset, header.last_offset()),
        header.record_count.to_string(),
        header.frame_bytes().to_string(),
        if header.control { "control".to_owned() } else { codec.clone() },
        header.leader_epoch.to_string(),
        clock::show(header.append_time_ms),
        producer.clone().unwrap_or_default(),
        status.clone(),
        units::count(header.uncompressed_bytes),
        header.flushed_end.map_or("?".to_owned(), |end| end.to_string()),
    ]);
    view.objects.push(serde_json::json!({
        "segment": base, "position": frame.position,
        "baseOffset": header.base_offset, "lastOffset": header.last_offset(),
        "records": header.record_count, "bytes": header.frame_bytes(),
        "uncompressedBytes": header.uncompressed_bytes, "codec": codec, "control": header.control,
        "leaderEpoch": header.leader_epoch, "appendTimestampMs": header.append_time_ms,
        "producerId": header.producer.map(|producer| producer.id.0),
        "producerEpoch": header.producer.map(|producer| producer.epoch),
        "baseSequence": header.producer.map(|_| header.base_sequence),
        "flushedTo": header.flushed_end, "status": status,
    }));
}

/// The records of a batch, as a reader would get them.
fn records_of(
    decompressor: &mut Decompressor,
    topic: &str,
    partition: i32,
    frame: &FrameAt,
) -> Result<Vec<StoredRecord>> {
    let header = &frame.header;
    let failed = |error: &dyn std::fmt::Display| {
        Error::Failed(format!("{topic}/{partition}@{}: {error}", header.base_offset))
    };
    if let Some(problem) = frame.problem {
        return Err(failed(&problem));
    }
    let codec = Codec::from_number(header.codec).map_err(|error| failed(&error))?;
    let set = decompressor
        .decompress(codec, &frame.payload, header.uncompressed_bytes as usize, weir_record::BATCH_BYTES_MAX)
        .map_err(|error| failed(&error))?;
    let copy = Bytes::copy_from_slice;
    Records::new(&set, header.last_offset_delta)
        .map(|record| {
            let record = record.map_err(|error| failed(&error))?;
            let headers = record.headers();
            let headers =
                headers.map(|header| Header { key: header.key.to_owned(), value: copy(header.value) });
            Ok(StoredRecord {
                topic: topic.to_owned(),
                partition,
                offset: header.base_offset + i64::from(record.offset_delta),
                timestamp_ms: match header.append_time {
                    true => header.append_time_ms,
                    false => header.base_timestamp_ms + record.timestamp_delta_ms,
                },
                key: record.key.map(copy),
                value: record.value.map(copy),
                headers: headers.collect(),
                tombstone: record.value.is_none(),
                leader_epoch: header.leader_epoch,
                ..StoredRecord::default()
            })
        })
        .collect()
}
