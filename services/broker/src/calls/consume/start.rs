//! Where a Consume starts: which partitions, from which offsets.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::RegexBuilder;
use weir_proto::v1::{ConsumeRequest, ErrorReason, StartAt, TopicPartitionOffset};
use weir_rpc::Problem;
use weir_storage::{Limit, Partition};
use weir_types::Offset;

use crate::broker::Broker;
use crate::reading::Cursor;
use crate::times;
use crate::topic_map::Topic;

/// How many partitions one stream reads.
const PARTITIONS_MAX: usize = 10_000;
/// The most memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// A partition to be read, with the place where the request says to start, if it does.
type Wanted<'a> = (Arc<Topic>, Option<&'a TopicPartitionOffset>);

/// A cursor for each partition that the request names.
pub(crate) async fn cursors(
    broker: &Arc<Broker>,
    request: &ConsumeRequest,
    limit: Limit,
) -> Result<Vec<Cursor>, Problem> {
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
    let mut cursors = Vec::with_capacity(wanted.len());
    for ((_, partition), (topic, position)) in wanted {
        cursors.push(match position {
            Some(at) => Cursor::new(broker, topic, partition, at.offset, at.leader_epoch, limit)?,
            None => {
                let log = broker.led_here(&topic, partition)?.clone();
                let offset = start.offset(broker, &topic, partition, &log, limit).await?;
                Cursor::new(broker, topic, partition, offset, None, limit)?
            }
        });
    }
    Ok(cursors)
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
