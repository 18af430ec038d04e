//! Why somebody waits: what the last attempt for each partition failed with, as long as it is being tried again. For
//! those who wait, and for the error of who has waited too long; nothing is decided by it.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tonic::Code;
use weir_proto::v1;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;

use crate::client::Inner;
use crate::{Error, ErrorReason};

/// By partition, as a producer or a consumer names it.
#[derive(Debug)]
pub(crate) struct Hindrances<P>(Mutex<HashMap<P, Error>>);

impl<P> Default for Hindrances<P> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<P: Eq + Hash> Hindrances<P> {
    /// An attempt failed and will be made again.
    pub(crate) fn note(&self, partition: P, error: Error) {
        self.0.lock().insert(partition, error);
    }

    /// An attempt succeeded, or is not made again. Per batch, so it costs no more than a look.
    pub(crate) fn over(&self, partition: &P) {
        self.0.lock().remove(partition);
    }

    /// What keeps a partition.
    pub(crate) fn of(&self, partition: &P) -> Option<Error> {
        self.0.lock().get(partition).cloned()
    }

    /// What keeps anybody.
    pub(crate) fn any(&self) -> Option<Error> {
        self.0.lock().values().next().cloned()
    }
}

impl Inner {
    /// What the leader of a partition says of an append that is not acknowledged: whom it waits for. Nothing where it waits for
    /// nobody, or the leader does not say.
    pub(crate) async fn why_unacknowledged(&self, topic: &str, partition: i32) -> Option<Error> {
        let partitions = vec![partition];
        let request =
            v1::DescribePartitionsRequest { topic: topic.to_owned(), partitions, ..Default::default() };
        let answer = self
            .call_once("DescribePartitions", request, &|channel, request| async move {
                AdminServiceClient::new(channel).describe_partitions(request).await
            })
            .await;
        let said = answer.ok()?.partitions.into_iter().next()?.appends_wait;
        let reason = ErrorReason::DeadlineExceeded;
        (!said.is_empty()).then(|| {
            Error::from_failure(&v1::Failure {
                code: Code::DeadlineExceeded.into(),
                reason: reason.into(),
                message: format!("{topic}/{partition}: {said}"),
                applied: v1::Applied::Maybe.into(),
                topic: topic.to_owned(),
                partition,
                ..v1::Failure::default()
            })
        })
    }

    /// What a broker says of a partition that the map has no leader for. Nothing where nobody says no: the map is behind,
    /// or no broker is there, and that is heard of elsewhere.
    pub(crate) async fn why_leaderless(&self, topic: &str, partition: i32) -> Option<Error> {
        // Whoever cannot say where a partition ends says why.
        let question = v1::OffsetQuery {
            topic: topic.to_owned(),
            partition,
            start_at: v1::StartAt::Latest.into(),
            timestamp_ms: None,
        };
        let request = v1::ListOffsetsRequest { queries: vec![question], ..Default::default() };
        let answer = self
            .call_once("ListOffsets", request, &|channel, request| async move {
                ConsumerServiceClient::new(channel).list_offsets(request).await
            })
            .await;
        answer.err().filter(|error| {
            matches!(error, Error::Refused(refusal) if refusal.retry_after.is_some() && refusal.reason != ErrorReason::NotLeader)
        })
    }
}
