//! Where a Consume starts: which partitions, from which offsets. Of those that other brokers lead, these say where they
//! begin and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::RegexBuilder;
use tokio::time::sleep;
use weir_proto::v1::{
    ConsumeRequest, ErrorReason, ListOffsetsRequest, OffsetQuery, PartitionProgress, StartAt,
    TopicPartitionOffset,
};
use weir_rpc::Problem;
use weir_storage::{Limit, Partition};
use weir_types::Offset;

use crate::broker::Broker;
use crate::forward::Caller;
use crate::plain_reader::{Following, Origin};
use crate::reading::{Cursor, UNKNOWN_END};
use crate::times;
use crate::topic_map::Topic;

/// How many partitions one stream reads.
const PARTITIONS_MAX: usize = 10_000;
/// How long a reader of what there is waits for a new leader to know its end. An ordinary election is over by then; where too few
/// are in sync it lasts until somebody acts, and the reader is to hear of that.
const UNTIL_END_WAIT: Duration = Duration::from_secs(4);
/// The most memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A partition to be read, with the place where the request says to start, if it does.
type Wanted<'a> = (Arc<Topic>, Option<&'a TopicPartitionOffset>);

/// How many partitions others are asked about at a time: three questions each.
const ASKED_MAX: usize = 3_000;

/// Where one partition is read from, and where it ends now.
pub(super) struct Begin {
    pub(super) origin: Origin,
    pub(super) end: Offset,
}

/// A place to begin at for each partition that the request names.
pub(super) async fn places(
    caller: &Caller,
    others: bool,
    request: &ConsumeRequest,
    limit: Limit,
) -> Result<Vec<Begin>, Problem> {
    let broker = &caller.broker;
    let start = Start::of(request)?;
    let topics = topics(broker, request)?;
    let mut wanted: BTreeMap<(Arc<str>, i32), Wanted<'_>> = BTreeMap::new();
    for topic in topics {
        for partition in 0..topic.partition_count() {
            wanted.insert((topic.name.clone(), partition), (topic.clone(), None));
        }
    }
    for position in &request.positions {
        let topic = broker.topics.get(&position.topic)?;
        topic.partition(position.partition)?;
        wanted.insert((topic.name.clone(), position.partition), (topic, Some(position)));
    }
    if wanted.len() > PARTITIONS_MAX {
        return Err(Problem::out_of_range(
            "topics",
            format_args!("{} partitions", wanted.len()),
            "one stream reads at most 10000 partitions; use several",
        ));
    }
    let mut places = Vec::with_capacity(wanted.len());
    let mut there = Vec::new();
    for ((_, partition), (topic, position)) in wanted {
        if others && broker.owner_in(&topic, partition).is_some() {
            there.push((topic, partition, position));
            continue;
        }
        let cursor = match position {
            Some(at) if request.until_end => {
                let log = broker.led_here(&topic, partition)?.clone();
                settled(broker, &topic, partition, &log, UNTIL_END_WAIT).await?;
                Cursor::new(broker, topic, partition, at.offset, at.leader_epoch, limit, "")?
            }
            Some(at) => Cursor::new(broker, topic, partition, at.offset, at.leader_epoch, limit, "")?,
            None => {
                let log = broker.led_here(&topic, partition)?.clone();
                let wait = if request.until_end { UNTIL_END_WAIT } else { Duration::MAX };
                settled(broker, &topic, partition, &log, wait).await?;
                let offset = start.offset(broker, &topic, partition, &log, limit).await?;
                Cursor::new(broker, topic, partition, offset, None, limit, "")?
            }
        };
        places.push(Begin { end: cursor.end(), origin: Origin::Here(cursor) });
    }
    for some in there.chunks(ASKED_MAX) {
        places.extend(elsewhere(caller, request, &start, some).await?);
    }
    Ok(places)
}

/// Waits until the end of a partition is known that has a new leader: until then it may be lower than one that was told
/// before (correctness rule 4).
async fn settled(
    broker: &Broker,
    topic: &Topic,
    partition: i32,
    log: &Partition,
    wait: Duration,
) -> Result<(), Problem> {
    let mut changes = log.watch();
    let wait = sleep(wait.min(broker.config.wait_ms_default));
    tokio::pin!(wait);
    loop {
        let Err(unknown) = topic.check_settled(partition, &log.ends()) else { return Ok(()) };
        tokio::select! {
            changed = changes.changed() => changed.map_err(|_| broker.gone(topic, partition))?,
            () = &mut wait => return Err(unknown),
        }
    }
}

/// A partition that another broker leads, and the place where the request says to start, if it does.
type There<'a> = (Arc<Topic>, i32, Option<&'a TopicPartitionOffset>);

/// Where these begin, as their leaders say.
async fn elsewhere(
    caller: &Caller,
    request: &ConsumeRequest,
    start: &Start,
    wanted: &[There<'_>],
) -> Result<Vec<Begin>, Problem> {
    let query = |(topic, partition, _): &There<'_>, at: StartAt, timestamp_ms| OffsetQuery {
        topic: topic.name.to_string(),
        partition: *partition,
        start_at: at.into(),
        timestamp_ms,
    };
    let first = wanted.iter().map(|there| query(there, StartAt::Earliest, None));
    let of_time = wanted.iter().filter_map(|there| match start {
        Start::Timestamp(ms) => Some(query(there, StartAt::Unspecified, Some(*ms))),
        _ => None,
    });
    // A leader that has just begun does not know its end: whoever can do without is served.
    let from_the_end = matches!(start, Start::Latest | Start::Last(_));
    let ends_matter = request.until_end || from_the_end && wanted.iter().any(|there| there.2.is_none());
    let end = wanted.iter().filter(|_| ends_matter).map(|there| query(there, StartAt::Latest, None));
    let asked = ListOffsetsRequest {
        queries: first.chain(of_time).chain(end).collect(),
        isolation: request.isolation,
        allow_partial: true,
    };
    let answers = caller.offsets(asked).await.map_err(|status| {
        let heard = Problem::heard_of_call(&status).and_then(|problems| problems.into_iter().next());
        heard.unwrap_or_else(|| Problem::new(ErrorReason::Internal, status.message()))
    })?;
    if let Some(failure) = answers.iter().find_map(|answer| answer.failure.as_ref()) {
        return Err(Problem::heard(failure));
    }
    let asked_times = if matches!(start, Start::Timestamp(_)) { wanted.len() } else { 0 };
    let offset = |before: usize, place: usize| answers.get(before + place).map(|answer| answer.offset);
    let begin = |(place, (topic, partition, position)): (usize, &There<'_>)| {
        let log_start = offset(0, place).unwrap_or_default();
        let end = offset(wanted.len() + asked_times, place).unwrap_or(UNKNOWN_END);
        let next_offset = match (position, start) {
            (Some(at), _) => at.offset,
            (None, Start::Earliest) => log_start,
            (None, Start::Latest) => end,
            (None, Start::Last(count)) => end.saturating_sub(*count).max(log_start),
            (None, Start::Timestamp(_)) => offset(wanted.len(), place).unwrap_or_default(),
        };
        let progress = PartitionProgress {
            next_offset,
            log_start_offset: log_start,
            high_watermark: end,
            last_stable_offset: end,
            leader_epoch: position.and_then(|at| at.leader_epoch),
            ..PartitionProgress::default()
        };
        let following = Following::new(topic.clone(), *partition, progress);
        Begin { origin: Origin::There(following), end }
    };
    Ok(wanted.iter().enumerate().map(begin).collect())
}

fn topics(broker: &Broker, request: &ConsumeRequest) -> Result<Vec<Arc<Topic>>, Problem> {
    let pattern = request.topic_pattern.as_str();
    match (request.topics.is_empty(), pattern.is_empty()) {
        (false, false) => {
            Err(Problem::conflict("topics", "topic_pattern", "a call names its topics or matches them"))
        }
        (true, true) if request.positions.is_empty() => {
            Err(Problem::required("topics", "a call names topics, a topic_pattern or positions"))
        }
        (_, true) => request.topics.iter().map(|name| broker.topics.get(name)).collect(),
        (true, false) => {
            let matcher = RegexBuilder::new(&format!("^(?:{pattern})$"))
                .size_limit(PATTERN_BYTES_MAX)
                .build()
                .map_err(|error| {
                    let error: String = error.to_string().chars().take(200).collect();
                    Problem::new(
                        ErrorReason::FieldMalformed,
                        format!("topic_pattern is not a pattern: {error}"),
                    )
                    .fact("field", "topic_pattern")
                })?;
            let map = broker.topics.load();
            let found: Vec<_> = map
                .iter()
                .filter(|topic| !topic.is_internal() && matcher.is_match(&topic.name))
                .cloned()
                .collect();
            if found.is_empty() {
                let shown: String = pattern.chars().take(100).collect();
                return Err(Problem::new(
                    ErrorReason::TopicNotFound,
                    format!("no topic matches \"{shown}\" (weir topic list)"),
                ));
            }
            Ok(found)
        }
    }
}

/// Where partitions without a position of their own start.
enum Start {
    Earliest,
    Latest,
    Timestamp(i64),
    /// So many offsets before the end.
    Last(i64),
}

impl Start {
    fn of(request: &ConsumeRequest) -> Result<Self, Problem> {
        let at = StartAt::try_from(request.start_at)
            .map_err(|_| Problem::unknown_enum("start_at", request.start_at))?;
        let given = [
            ("start_at", at != StartAt::Unspecified),
            ("start_timestamp_ms", request.start_timestamp_ms.is_some()),
            ("start_last", request.start_last.is_some()),
        ];
        let mut set = given.iter().filter(|(_, set)| *set).map(|(field, _)| *field);
        if let (Some(field), Some(other)) = (set.next(), set.next()) {
            return Err(Problem::conflict(field, other, "there is one place to start"));
        }
        match (request.start_timestamp_ms, request.start_last) {
            (Some(ms), _) if ms < 0 => {
                Err(Problem::out_of_range("start_timestamp_ms", ms, "must not be negative"))
            }
            (_, Some(count)) if count < 0 => {
                Err(Problem::out_of_range("start_last", count, "must not be negative"))
            }
            (Some(ms), _) => Ok(Self::Timestamp(ms)),
            (_, Some(count)) => Ok(Self::Last(count)),
            _ if at == StartAt::Latest => Ok(Self::Latest),
            _ => Ok(Self::Earliest),
        }
    }

    async fn offset(
        &self,
        broker: &Broker,
        topic: &Topic,
        partition: i32,
        log: &Partition,
        limit: Limit,
    ) -> Result<Offset, Problem> {
        let ends = log.ends();
        let end = ends.end(limit);
        Ok(match self {
            Self::Earliest => ends.log_start,
            Self::Latest => end,
            Self::Last(count) => end.saturating_sub(*count).max(ends.log_start),
            Self::Timestamp(ms) => times::first_since(broker, topic, partition, log, *ms, limit)
                .await?
                .map_or(end, |found| found.offset),
        })
    }
}
