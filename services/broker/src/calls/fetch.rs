//! Fetch: one answer, as soon as there is enough or time is up.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};
use weir_proto::v1::{
    ErrorReason, Failure, FetchPartition, FetchRequest, FetchedPartition, PartitionProgress, RecordFormat,
};
use weir_rpc::{ConnectionInfo, Problem, deadline};
use weir_storage::{Frame, Limit};
use weir_types::Offset;

use crate::broker::Broker;
use crate::calls::shared::{hello, message_limit};
use crate::plain_message::{Fetched, Plain};
use crate::plain_reader::{Budget, Origin, PlainReader};
use crate::reading::{self, Arrivals, Cursor};
use crate::topic_map::{Hints, Topic};

const PARTITIONS_MAX: usize = 1_000;
/// Said beside an answer.
const NOT_LED: &str = "weir-not-led";
/// `FetchedPartition.records`.
const RECORDS: u32 = 2;
/// What a batch's fields take beside its payload, at most.
const BATCH_FIELDS_BYTES: usize = 160;
/// What a plain record's fields take beside key, value, headers and topic, at least.
const RECORD_FIELDS_BYTES: usize = 12;
/// How much is read at a time of what is only counted.
const COUNT_BYTES: usize = 64 << 10;

/// The request, checked.
struct Asked {
    bytes_min: usize,
    bytes_max: usize,
    message_bytes_max: usize,
    until: Instant,
    limit: Limit,
    format: RecordFormat,
    text: bool,
    rack: String,
}

type Answer = Plain<FetchedPartition>;

/// Answers the call.
pub(crate) async fn call(
    broker: &Arc<Broker>,
    request: Request<FetchRequest>,
) -> Result<Response<Fetched>, Status> {
    let started = Instant::now();
    let caller_ends = deadline::of(request.metadata());
    let connection = request.extensions().get::<ConnectionInfo>().cloned();
    let request = request.into_inner();
    let asked = check(broker, &request, caller_ends)?;
    let _long = connection
        .filter(|_| asked.until > started)
        .map(|connection| connection.long_call(broker.config.long_calls_per_connection_max))
        .transpose()?;
    let mut read = read_all(broker, &request.partitions, &asked).await?;
    if read.bytes < asked.bytes_min && !read.settled && Instant::now() < asked.until {
        let behind = behind(broker, &request.partitions, read.answers, &asked);
        let enough = enough(behind, asked.bytes_min - read.bytes);
        // Every branch is cancel safe: what was counted is read again.
        tokio::select! {
            () = enough => {}
            () = tokio::time::sleep_until(asked.until) => {}
            () = broker.stopping.requested() => {}
        }
        // Whatever it is now: what was counted may be less, as it is shown, or not all fit.
        read = read_all(broker, &request.partitions, &asked).await?;
    }
    read.delivered(broker);
    let waited_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let refused = read.answers.iter().filter_map(|answer| answer.rest.failure.as_ref());
    let not_led = refused.map(Failure::reason).any(|reason| reason == ErrorReason::NotLeader);
    let mut response = Response::new(Fetched { partitions: read.answers, waited_ms });
    if not_led {
        // For a broker that passes the answer on as it is, and does not look into it.
        let version = MetadataValue::from(broker.cluster.image().version());
        response.metadata_mut().insert(NOT_LED, version);
    }
    Ok(response)
}

/// The version of the metadata by which a part of an answer is a refusal, because another broker leads.
pub(crate) fn not_led(answer: &MetadataMap) -> Option<i64> {
    answer.get(NOT_LED)?.to_str().ok()?.parse().ok()
}

fn check(broker: &Broker, request: &FetchRequest, caller_ends: Option<Instant>) -> Result<Asked, Problem> {
    let count = request.partitions.len();
    if !(1..=PARTITIONS_MAX).contains(&count) {
        return Err(Problem::out_of_range("partitions", count, "a call reads 1 to 1000 partitions"));
    }
    hello::check_route(request.route)?;
    let wait = match request.wait_ms {
        None => broker.config.wait_ms_default,
        Some(ms) => Duration::from_millis(
            u64::try_from(ms).map_err(|_| Problem::out_of_range("wait_ms", ms, "must not be negative"))?,
        )
        .min(broker.config.wait_ms_max),
    };
    let size = |field, given: i32| {
        usize::try_from(given).map_err(|_| Problem::out_of_range(field, given, "must not be negative"))
    };
    let message_bytes_max = message_limit::check(request.message_bytes_max)?;
    let bytes_max = match size("bytes_max", request.bytes_max)? {
        0 => message_bytes_max,
        given => given.min(message_bytes_max),
    };
    for partition in &request.partitions {
        size("partitions.bytes_max", partition.bytes_max)?;
    }
    Ok(Asked {
        bytes_min: size("bytes_min", request.bytes_min)?.clamp(1, bytes_max),
        bytes_max,
        message_bytes_max,
        until: deadline::wait_until(wait, caller_ends),
        limit: reading::limit(request.isolation)?,
        format: RecordFormat::try_from(request.format)
            .map_err(|_| Problem::unknown_enum("format", request.format))?,
        text: request.text,
        rack: request.rack.clone(),
    })
}

/// What was read for an answer.
struct Read {
    answers: Vec<Answer>,
    bytes: usize,
    /// A failure makes waiting pointless.
    settled: bool,
    plain_records: usize,
}

impl Read {
    /// Counts what goes to the reader.
    fn delivered(&self, broker: &Broker) {
        let plain_bytes = self.answers.iter().map(|answer| answer.records.len()).sum();
        broker.metrics.delivered_plain(self.plain_records, plain_bytes);
        for batch in self.answers.iter().flat_map(|answer| &answer.rest.batches) {
            broker.metrics.delivered_batch(batch.record_count, batch.records.len());
        }
    }
}

/// Reads every partition until the answer is full.
async fn read_all(
    broker: &Arc<Broker>,
    partitions: &[FetchPartition],
    asked: &Asked,
) -> Result<Read, Problem> {
    let mut left = asked.bytes_max;
    let mut failed = false;
    let mut plain_records = 0;
    let mut answers = Vec::with_capacity(partitions.len());
    let mut hints = Hints::default();
    for wanted in partitions {
        let topic = broker.topics.get_hinting(&wanted.topic, &mut hints);
        let answer = match read_one(broker, topic, wanted, asked, &mut left, &mut plain_records).await {
            Ok(answer) => answer,
            Err(problem)
                if problem.reason == ErrorReason::MessageLargerThanClientLimit && left < asked.bytes_max =>
            {
                // It may fit the next answer alone.
                Answer::default()
            }
            Err(problem) => {
                failed = true;
                let failure = Some(problem.failure());
                Answer::from(FetchedPartition { failure, ..FetchedPartition::default() })
            }
        };
        answers.push(answer);
    }
    Ok(Read { answers, bytes: asked.bytes_max - left, settled: failed, plain_records })
}

async fn read_one(
    broker: &Arc<Broker>,
    topic: Result<Arc<Topic>, Problem>,
    wanted: &FetchPartition,
    asked: &Asked,
    left: &mut usize,
    plain_records: &mut usize,
) -> Result<Answer, Problem> {
    let topic = topic?;
    let FetchPartition { partition, offset, leader_epoch, .. } = *wanted;
    let mut cursor = Cursor::new(broker, topic, partition, offset, leader_epoch, asked.limit, &asked.rack)?;
    let own_max = match usize::try_from(wanted.bytes_max) {
        Ok(0) | Err(_) => broker.config.fetch_bytes_default,
        Ok(given) => given,
    };
    let bytes_max = own_max.min(*left);
    if asked.format == RecordFormat::Batches {
        let before = *left;
        let read = read_batches(&mut cursor, bytes_max, asked, left).await;
        if cursor.is_over() {
            *left = before;
            return Err(broker.gone(&cursor.topic, partition));
        }
        return read.map(Answer::from);
    }
    let mut reader = PlainReader::new(broker.os.clone(), Origin::Here(cursor), asked.text, RECORDS);
    let mut records = BytesMut::new();
    let mut budget = Budget {
        bytes: bytes_max,
        records: usize::MAX,
        message_bytes_max: asked.message_bytes_max,
        empty: *left == asked.bytes_max,
    };
    match reader.fill(&mut records, &mut budget, Offset::MAX).await {
        // What comes before it is delivered; the next call begins with it.
        Err(_) if !records.is_empty() => {}
        filled => filled?,
    }
    let rest = FetchedPartition { progress: Some(reader.progress()), ..FetchedPartition::default() };
    // Asked last: the epoch of the position was of another history, if the log was cut meanwhile.
    if let Some(cursor) = reader.cursor().filter(|cursor| cursor.is_over()) {
        return Err(broker.gone(&cursor.topic, partition));
    }
    *plain_records += usize::MAX - budget.records;
    *left = left.saturating_sub(records.len());
    Ok(Plain { records, rest })
}

async fn read_batches(
    cursor: &mut Cursor,
    bytes_max: usize,
    asked: &Asked,
    left: &mut usize,
) -> Result<FetchedPartition, Problem> {
    let from = cursor.offset;
    let mut answer = FetchedPartition::default();
    let mut last_timestamp_ms = 0;
    let mut next_offset = from;
    if bytes_max > BATCH_FIELDS_BYTES && cursor.has_more() {
        let chunk = cursor.read(bytes_max).await?;
        next_offset = chunk.next_offset;
        for frame in chunk.frames() {
            let size = frame.payload.len() + BATCH_FIELDS_BYTES;
            if size > asked.message_bytes_max {
                let problem = message_limit::batch_too_large(
                    cursor,
                    frame.header.base_offset,
                    size,
                    asked.message_bytes_max,
                );
                if answer.batches.is_empty() {
                    return Err(problem);
                }
            }
            // Only the first batch of an answer may pass what was asked for.
            if size > *left && (!answer.batches.is_empty() || *left < asked.bytes_max) {
                next_offset = frame.header.base_offset;
                break;
            }
            *left = left.saturating_sub(size);
            last_timestamp_ms = frame.header.max_timestamp_ms;
            answer.batches.push(reading::wire_batch(frame));
        }
    }
    answer.progress = Some(cursor.progress(next_offset.max(from), last_timestamp_ms));
    Ok(answer)
}

/// A partition behind what was answered of it.
struct Behind {
    cursor: Cursor,
    /// What each of its records takes in the answer beside what is stored of it, about, and rather less.
    fields_bytes: usize,
}

/// The partitions that answered without a failure, behind what they answered.
fn behind(
    broker: &Arc<Broker>,
    partitions: &[FetchPartition],
    answers: Vec<Answer>,
    asked: &Asked,
) -> Vec<Behind> {
    partitions
        .iter()
        .zip(answers)
        .filter_map(|(wanted, answer)| {
            let PartitionProgress { next_offset: next, leader_epoch, .. } = answer.rest.progress?;
            let topic = Arc::clone(broker.topics.load().find(&wanted.topic)?);
            let fields_bytes = match asked.format {
                RecordFormat::Batches => 0,
                _ => topic.name.len() + RECORD_FIELDS_BYTES,
            };
            let cursor =
                Cursor::new(broker, topic, wanted.partition, next, leader_epoch, asked.limit, &asked.rack)
                    .ok()?;
            Some(Behind { cursor, fields_bytes })
        })
        .collect()
}

/// Waits until so many bytes more have come, or something that waiting does not mend. Each byte is looked at once and
/// not kept: many calls may wait at the same time, each for much.
async fn enough(mut behind: Vec<Behind>, bytes: usize) {
    let mut missing = bytes;
    let mut arrivals = Arrivals::new();
    for (at, one) in behind.iter().enumerate() {
        arrivals.wait(at, &one.cursor, one.cursor.offset);
    }
    loop {
        let at = arrivals.comes().await;
        let Some(one) = behind.get_mut(at) else { return };
        if one.cursor.is_over() {
            return;
        }
        while one.cursor.has_more() {
            let before = one.cursor.offset;
            // The answer says what is wrong.
            let Ok(chunk) = one.cursor.read(COUNT_BYTES).await else { return };
            let frames =
                chunk.frames().filter(|frame| frame.header.record_count > 0 && !frame.header.control);
            let shown = |frame: Frame| {
                let records = usize::try_from(frame.header.record_count).unwrap_or(0);
                match one.fields_bytes {
                    0 => frame.payload.len() + BATCH_FIELDS_BYTES,
                    fields => frame.header.uncompressed_bytes as usize + records * fields,
                }
            };
            missing = missing.saturating_sub(frames.map(shown).sum());
            if missing == 0 {
                return;
            }
            if one.cursor.offset == before {
                break;
            }
        }
        arrivals.wait(at, &one.cursor, one.cursor.offset);
    }
}
