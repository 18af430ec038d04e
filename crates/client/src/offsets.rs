//! Offsets by place and by time.

use std::sync::Arc;

use weir_proto::v1;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;

use crate::client::Inner;
use crate::{Error, Result};

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is committed, without what was aborted.
    #[default]
    Committed,
    /// Everything that will not be lost, open transactions included.
    Uncommitted,
}

impl From<Isolation> for v1::Isolation {
    fn from(isolation: Isolation) -> Self {
        match isolation {
            Isolation::Committed => Self::Committed,
            Isolation::Uncommitted => Self::Uncommitted,
        }
    }
}

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record still there.
    Earliest,
    /// The end: only what comes from now on.
    Latest,
    /// Exactly here.
    Offset(i64),
    /// The first record of this time or later, milliseconds since 1970 UTC; the end if there is none.
    Timestamp(i64),
    /// So many offsets before the end, but not before the first record.
    Last(i64),
}

/// Asks for offsets. From [`Client::offsets`](crate::Client::offsets).
#[derive(Clone)]
pub struct Offsets {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offsets")
    }
}

impl Offsets {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The first offset still there.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, PARTITION_NOT_FOUND, and those of every call.
    pub async fn earliest(&self, topic: &str, partition: i32) -> Result<i64> {
        self.one(topic, partition, Position::Earliest).await
    }

    /// The end: the offset that the next committed record gets, or a higher one.
    ///
    /// # Errors
    /// As [`Offsets::earliest`], and OFFSET_NOT_AVAILABLE while a new leader does not know it.
    pub async fn latest(&self, topic: &str, partition: i32) -> Result<i64> {
        self.one(topic, partition, Position::Latest).await
    }

    /// The first record of this time or later, in milliseconds since 1970 UTC; the end if there is none.
    ///
    /// # Errors
    /// As [`Offsets::latest`].
    pub async fn at_time(&self, topic: &str, partition: i32, timestamp_ms: i64) -> Result<i64> {
        self.one(topic, partition, Position::Timestamp(timestamp_ms)).await
    }

    async fn one(&self, topic: &str, partition: i32, position: Position) -> Result<i64> {
        let questions = [(topic.to_owned(), partition, position)];
        let offsets = self.inner.resolve(&questions, Isolation::Committed).await?;
        offsets.first().copied().ok_or_else(|| Error::invalid("ListOffsets gave no answer; is this Weir?"))
    }
}

impl Inner {
    /// The offsets of some places, in their order. Asks only for what is not an offset already.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        questions: &[(String, i32, Position)],
        isolation: Isolation,
    ) -> Result<Vec<i64>> {
        let mut queries = Vec::new();
        for (topic, partition, position) in questions {
            let mut ask = |start_at: v1::StartAt, timestamp_ms| {
                queries.push(v1::OffsetQuery {
                    topic: topic.clone(),
                    partition: *partition,
                    start_at: start_at.into(),
                    timestamp_ms,
                });
            };
            match *position {
                Position::Offset(_) => {}
                Position::Earliest => ask(v1::StartAt::Earliest, None),
                Position::Latest => ask(v1::StartAt::Latest, None),
                Position::Timestamp(at) => ask(v1::StartAt::Unspecified, Some(at)),
                Position::Last(_) => {
                    ask(v1::StartAt::Earliest, None);
                    ask(v1::StartAt::Latest, None);
                }
            }
        }
        let mut answers = self.list_offsets(queries, isolation).await?.into_iter();
        let mut answer = || {
            answers.next().ok_or_else(|| Error::invalid("ListOffsets left a question open; is this Weir?"))
        };
        let mut offsets = Vec::with_capacity(questions.len());
        for (_, _, position) in questions {
            offsets.push(match *position {
                Position::Offset(offset) => offset,
                Position::Earliest | Position::Latest | Position::Timestamp(_) => answer()?,
                Position::Last(count) => {
                    let (first, end) = (answer()?, answer()?);
                    end.saturating_sub(count.max(0)).max(first)
                }
            });
        }
        Ok(offsets)
    }

    async fn list_offsets(
        self: &Arc<Self>,
        queries: Vec<v1::OffsetQuery>,
        isolation: Isolation,
    ) -> Result<Vec<i64>> {
        if queries.is_empty() {
            return Ok(Vec::new());
        }
        let request = v1::ListOffsetsRequest {
            queries,
            isolation: v1::Isolation::from(isolation).into(),
            allow_partial: false,
        };
        let answer = self
            .call("ListOffsets", request, |channel, request| async move {
                ConsumerServiceClient::new(channel).list_offsets(request).await
            })
            .await?;
        answer
            .offsets
            .into_iter()
            .map(|answer| match answer.failure {
                Some(failure) => Err(Error::from_failure(&failure)),
                None => Ok(answer.offset),
            })
            .collect()
    }
}
