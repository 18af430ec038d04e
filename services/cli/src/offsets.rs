//! Where positions are: partitions of topics, their first and next offsets, and offsets by time.

use weir_proto::v1::{
    ErrorReason, Failure, GetMetadataRequest, Isolation, ListOffsetsRequest, OffsetQuery, StartAt,
    TopicMetadata,
};
use weir_rpc::Problem;

use crate::error::{Error, Result};
use crate::position::Position;
use crate::reference::Reference;
use crate::session::Session;
use weir_types::{did_you_mean, nearest};

/// How many questions go into one call.
const QUERIES: usize = 1_000;

/// A partition and the offsets it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset still there.
    pub start: i64,
    /// The offset of the next record, or [`OPEN`].
    pub end: i64,
}

/// The end of a partition whose leader cannot tell it at the moment: without controllers it goes on reading and writing, and
/// does not know whether another one leads by now.
pub(crate) const OPEN: i64 = i64::MAX;

/// The topics by name, or all of them, with their partitions; a name that is not there is an error that offers
/// the nearest.
pub(crate) async fn topics(session: &Session, names: &[String]) -> Result<Vec<TopicMetadata>> {
    let found = pages(session, names).await?;
    let Some(missing) = names.iter().find(|name| !found.iter().any(|topic| topic.name == **name)) else {
        return Ok(found);
    };
    let names = all_names(session).await;
    let hint = did_you_mean(nearest(missing, names.iter().map(String::as_str)));
    Err(no_topic(missing, &hint))
}

fn no_topic(name: &str, hint: &str) -> Error {
    let message = format!("topic \"{name}\" does not exist{hint} (weir topic list)");
    let problem = Problem::new(ErrorReason::TopicNotFound, message);
    Error::of_problem(&problem.at(name, 0).fact("topic", name))
}

fn no_partition(topic: &str, partition: i32, count: i32) -> Error {
    let there = match count {
        1 => "it has only 0".to_owned(),
        n => format!("it has 0 to {}", n - 1),
    };
    let message = format!("topic \"{topic}\" has no partition {partition}: {there}");
    Error::of_problem(&Problem::new(ErrorReason::PartitionNotFound, message).at(topic, partition))
}

/// The names of all topics, as far as they can be had: for suggestions.
pub(crate) async fn all_names(session: &Session) -> Vec<String> {
    let all = pages(session, &[]).await.unwrap_or_default();
    all.into_iter().map(|topic| topic.name).collect()
}

async fn pages(session: &Session, names: &[String]) -> Result<Vec<TopicMetadata>> {
    let mut client = session.metadata().await?;
    let mut request =
        GetMetadataRequest { topics: names.to_vec(), page_size: 1_000, ..GetMetadataRequest::default() };
    let mut found = Vec::new();
    loop {
        let page = session.read(client.get_metadata(session.request(request.clone()))).await?;
        found.extend(page.topics);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// The partitions that references name: all of a topic's where none is named.
pub(crate) async fn partitions(session: &Session, references: &[Reference]) -> Result<Vec<(String, i32)>> {
    let mut names: Vec<String> = references.iter().map(|reference| reference.topic.clone()).collect();
    names.sort();
    names.dedup();
    let topics = topics(session, &names).await?;
    let count = |name: &str| topics.iter().find(|topic| topic.name == name).map_or(0, |t| t.partition_count);
    let mut out = Vec::new();
    for reference in references {
        let count = count(&reference.topic);
        match reference.partition {
            Some(partition) if partition < count => out.push((reference.topic.clone(), partition)),
            Some(partition) => {
                return Err(no_partition(&reference.topic, partition, count));
            }
            None => out.extend((0..count).map(|partition| (reference.topic.clone(), partition))),
        }
    }
    out.sort();
    out.dedup();
    Ok(out)
}

/// The first and the next offset of each partition.
pub(crate) async fn extents(session: &Session, partitions: &[(String, i32)]) -> Result<Vec<Extent>> {
    extents_of(session, partitions, Untold::Fails).await
}

/// The same for who can do without the ends: one that is not told is [`OPEN`].
pub(crate) async fn extents_from_start(
    session: &Session,
    partitions: &[(String, i32)],
) -> Result<Vec<Extent>> {
    extents_of(session, partitions, Untold::HasNoEnd).await
}

/// The same of those that answer: to list what there is, one that does not is no reason to show none.
pub(crate) async fn known_extents(session: &Session, partitions: &[(String, i32)]) -> Result<Vec<Extent>> {
    extents_of(session, partitions, Untold::IsLeftOut).await
}

/// What becomes of a partition that does not tell where it begins or ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Untold {
    Fails,
    IsLeftOut,
    /// If it tells where it begins; otherwise it fails.
    HasNoEnd,
}

async fn extents_of(session: &Session, partitions: &[(String, i32)], untold: Untold) -> Result<Vec<Extent>> {
    let starts = ask(session, partitions, StartAt::Earliest, None, untold == Untold::IsLeftOut).await?;
    let ends = ask(session, partitions, StartAt::Latest, None, untold != Untold::Fails).await?;
    let (extents, _) = put_together(session, partitions, starts, ends, untold == Untold::HasNoEnd)?;
    Ok(extents)
}

/// The same for who reads what there is, of those that tell; and those that do not. Unless the ends are needed, one that is not
/// told is [`OPEN`].
pub(crate) async fn told_extents(
    session: &Session,
    partitions: &[(String, i32)],
    needs_ends: bool,
) -> Result<(Vec<Extent>, Vec<Left>)> {
    let starts = ask(session, partitions, StartAt::Earliest, None, true).await?;
    let ends = ask(session, partitions, StartAt::Latest, None, true).await?;
    put_together(session, partitions, starts, ends, !needs_ends)
}

/// A partition that does not tell what it was asked, and why.
#[derive(Debug)]
pub(crate) struct Left {
    /// As people write it.
    pub name: String,
    /// What its leader said, or whoever was asked where it has none.
    pub error: Error,
}

impl Left {
    pub(crate) fn new(session: &Session, topic: &str, partition: i32, failure: &Failure) -> Result<Self> {
        let said = weir_client::Error::from_failure(failure).of_a_read();
        Ok(Self { name: format!("{topic}/{partition}"), error: Error::of(&said, &session.address()?) })
    }
}

fn put_together(
    session: &Session,
    partitions: &[(String, i32)],
    starts: Vec<Told>,
    ends: Vec<Told>,
    open: bool,
) -> Result<(Vec<Extent>, Vec<Left>)> {
    let (mut extents, mut left) = (Vec::with_capacity(partitions.len()), Vec::new());
    for ((topic, partition), (start, end)) in partitions.iter().zip(starts.into_iter().zip(ends)) {
        let end = if open { Ok(end.unwrap_or(OPEN)) } else { end };
        match (start, end) {
            (Ok(start), Ok(end)) => {
                let (topic, partition, end) = (topic.clone(), *partition, end.max(start));
                extents.push(Extent { topic, partition, start, end });
            }
            (Err(failure), _) | (_, Err(failure)) => {
                left.push(Left::new(session, topic, *partition, &failure)?);
            }
        }
    }
    Ok((extents, left))
}

/// Where a position is in each of the partitions.
pub(crate) async fn resolve(
    session: &Session,
    extents: &[Extent],
    position: Position,
    now_ms: i64,
) -> Result<Vec<i64>> {
    let resolved = resolve_each(session, extents, position, now_ms, false).await?;
    // Without all of them it failed.
    Ok(resolved.into_iter().flatten().collect())
}

/// The same. Unless `partly`, one that does not tell fails all.
pub(crate) async fn resolve_each(
    session: &Session,
    extents: &[Extent],
    position: Position,
    now_ms: i64,
    partly: bool,
) -> Result<Vec<Told>> {
    let each = |f: fn(&Extent, i64) -> i64, n: i64| extents.iter().map(|e| Ok(f(e, n))).collect();
    Ok(match position {
        Position::Start => each(|e, _| e.start, 0),
        Position::End => each(|e, _| e.end, 0),
        Position::Offset(offset) => each(|_, n| n, offset),
        Position::Last(count) => each(|e, n| e.end.saturating_sub(n).max(e.start), count),
        Position::Time(when) => {
            let partitions: Vec<(String, i32)> =
                extents.iter().map(|e| (e.topic.clone(), e.partition)).collect();
            let at = Some(when.resolve(now_ms));
            ask(session, &partitions, StartAt::Unspecified, at, partly).await?
        }
    })
}

/// An offset, or why it is not told.
pub(crate) type Told = Result<i64, Box<Failure>>;

/// One answer for each. Unless `partly`, one that is missing fails all.
async fn ask(
    session: &Session,
    partitions: &[(String, i32)],
    start_at: StartAt,
    timestamp_ms: Option<i64>,
    partly: bool,
) -> Result<Vec<Told>> {
    let mut client = session.consumer().await?;
    let mut out = Vec::with_capacity(partitions.len());
    for part in partitions.chunks(QUERIES) {
        let query = |(topic, partition): &(String, i32)| OffsetQuery {
            topic: topic.clone(),
            partition: *partition,
            start_at: start_at.into(),
            timestamp_ms,
        };
        let request = ListOffsetsRequest {
            queries: part.iter().map(query).collect(),
            isolation: Isolation::Committed.into(),
            allow_partial: partly,
        };
        let answer = session.read(client.list_offsets(session.request(request))).await?;
        if answer.offsets.len() != part.len() {
            let got = answer.offsets.len();
            return Err(Error::Failed(format!("the server answered {got} of {} questions", part.len())));
        }
        out.extend(answer.offsets.into_iter().map(|answer| match answer.failure {
            None => Ok(answer.offset),
            Some(failure) => Err(Box::new(failure)),
        }));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_has_the_servers_reason_and_ends_as_not_found() {
        let missing = no_topic("nope", "; did you mean \"rope\"?");
        assert_eq!(missing.reason(), Some(ErrorReason::TopicNotFound));
        assert_eq!(
            missing.to_string(),
            "topic \"nope\" does not exist; did you mean \"rope\"? (weir topic list)"
        );
        assert!(!missing.is_a_strangers());
        assert_eq!(no_partition("t", 9, 1).to_string(), "topic \"t\" has no partition 9: it has only 0");
        let beyond = no_partition("t", 9, 2);
        assert_eq!(beyond.reason(), Some(ErrorReason::PartitionNotFound));
        assert_eq!(beyond.to_string(), "topic \"t\" has no partition 9: it has 0 to 1");
        assert_eq!((missing.exit_code(), beyond.exit_code()), (3, 3));
    }
}
