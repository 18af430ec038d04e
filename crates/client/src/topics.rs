//! Topics: made, changed, looked at, removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_proto::v1;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_runtime::Os;

use crate::client::Inner;
use crate::{Error, Result};

/// Makes, changes and removes topics. From [`Client::topics`](crate::Client::topics).
///
/// Changes carry a request id, by which the cluster recognises a call that had to be repeated: each is carried
/// out once, whatever the connection does.
#[derive(Clone)]
pub struct Topics {
    inner: Arc<Inner>,
}

/// A topic to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication_factor: i32,
    config: BTreeMap<String, String>,
    if_absent: bool,
    validate_only: bool,
}

/// A change to a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    set: BTreeMap<String, String>,
    unset: Vec<String>,
    partitions: Option<i32>,
    expected_revision: Option<i64>,
    validate_only: bool,
}

impl Topics {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Makes a topic. The answer is the topic as it is, and whether this call made it.
    ///
    /// # Errors
    /// TOPIC_ALREADY_EXISTS (unless [`NewTopic::if_absent`]), TOPIC_NAME_INVALID, PARTITION_COUNT_INVALID,
    /// CONFIG_UNKNOWN and the like, and those of every call.
    pub async fn create(&self, topic: NewTopic) -> Result<(v1::Topic, bool)> {
        let request = v1::CreateTopicRequest {
            topic: Some(v1::Topic {
                name: topic.name,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                config: topic.config,
                ..Default::default()
            }),
            if_absent: topic.if_absent,
            validate_only: topic.validate_only,
            request_id: request_id(&*self.inner.os),
        };
        let answer = self
            .inner
            .call("CreateTopic", request, |channel, request| async move {
                TopicServiceClient::new(channel).create_topic(request).await
            })
            .await?;
        Ok((present(answer.topic, "CreateTopic")?, answer.created))
    }

    /// One topic, with every setting and where its value comes from.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, and those of every call.
    pub async fn get(&self, name: &str) -> Result<v1::Topic> {
        let request = v1::GetTopicRequest { name: name.to_owned() };
        let answer = self
            .inner
            .call("GetTopic", request, |channel, request| async move {
                TopicServiceClient::new(channel).get_topic(request).await
            })
            .await?;
        present(answer.topic, "GetTopic")
    }

    /// All topics, by name, without the system's own.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list(&self) -> Result<Vec<v1::Topic>> {
        self.list_with(false).await
    }

    /// All topics, by name; with the system's own if `internal`.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list_with(&self, internal: bool) -> Result<Vec<v1::Topic>> {
        let mut topics = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListTopicsRequest { page_size: 1000, page_token, internal };
            let page = self
                .inner
                .call("ListTopics", request, |channel, request| async move {
                    TopicServiceClient::new(channel).list_topics(request).await
                })
                .await?;
            topics.extend(page.topics);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(topics);
            }
        }
    }

    /// Changes settings, or adds partitions. The answer is the topic before and after.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, CONFIG_INVALID, REVISION_MISMATCH and the like, and those of every call.
    pub async fn update(&self, name: &str, change: TopicChange) -> Result<(v1::Topic, v1::Topic)> {
        let request = v1::UpdateTopicRequest {
            name: name.to_owned(),
            set_config: change.set,
            unset_config: change.unset,
            partitions: change.partitions,
            expected_revision: change.expected_revision,
            validate_only: change.validate_only,
            request_id: request_id(&*self.inner.os),
        };
        let answer = self
            .inner
            .call("UpdateTopic", request, |channel, request| async move {
                TopicServiceClient::new(channel).update_topic(request).await
            })
            .await?;
        Ok((present(answer.before, "UpdateTopic")?, present(answer.after, "UpdateTopic")?))
    }

    /// Removes a topic and its records. The answer is the topic as it was. With `topic_id`, only if the topic of
    /// that name still is that one.
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, TOPIC_ID_MISMATCH, and those of every call.
    pub async fn delete(&self, name: &str, topic_id: Option<&str>) -> Result<v1::Topic> {
        let request = v1::DeleteTopicRequest {
            name: name.to_owned(),
            topic_id: topic_id.unwrap_or_default().to_owned(),
            validate_only: false,
            request_id: request_id(&*self.inner.os),
        };
        let answer = self
            .inner
            .call("DeleteTopic", request, |channel, request| async move {
                TopicServiceClient::new(channel).delete_topic(request).await
            })
            .await?;
        present(answer.topic, "DeleteTopic")
    }

    /// Removes the oldest records: for each `(partition, offset)`, those below the offset; -1 stands for all that
    /// is committed. The answer is where each partition starts now.
    ///
    /// # Errors
    /// OFFSET_OUT_OF_RANGE and the like, and those of every call.
    pub async fn delete_records(&self, topic: &str, before: &[(i32, i64)]) -> Result<Vec<(i32, i64)>> {
        let request = v1::DeleteRecordsRequest {
            topic: topic.to_owned(),
            before: before
                .iter()
                .map(|&(partition, offset)| v1::RecordsBefore { partition, offset })
                .collect(),
        };
        // Deleting what is deleted changes nothing: safe to repeat.
        let answer = self
            .inner
            .call("DeleteRecords", request, |channel, request| async move {
                TopicServiceClient::new(channel).delete_records(request).await
            })
            .await?;
        Ok(answer.log_start.into_iter().map(|start| (start.partition, start.offset)).collect())
    }
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Topics")
    }
}

impl NewTopic {
    /// A topic with one partition, the cluster's replication factor and settings.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// How many partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// How many replicas of each partition.
    #[must_use]
    pub fn replication_factor(mut self, replicas: i32) -> Self {
        self.replication_factor = replicas;
        self
    }

    /// A setting that differs from the cluster's.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.insert(name.into(), value.into());
        self
    }

    /// If the topic exists, that is fine too.
    #[must_use]
    pub fn if_absent(mut self) -> Self {
        self.if_absent = true;
        self
    }

    /// Only say what would happen.
    #[must_use]
    pub fn validate_only(mut self) -> Self {
        self.validate_only = true;
        self
    }
}

impl TopicChange {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a setting.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.insert(name.into(), value.into());
        self
    }

    /// Takes a setting back to the cluster's value.
    #[must_use]
    pub fn unset(mut self, name: impl Into<String>) -> Self {
        self.unset.push(name.into());
        self
    }

    /// The new number of partitions; more than now. Keys map to other partitions from then on.
    #[must_use]
    pub fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Only if the topic is still at this revision.
    #[must_use]
    pub fn expected_revision(mut self, revision: i64) -> Self {
        self.expected_revision = Some(revision);
        self
    }

    /// Only say what would happen.
    #[must_use]
    pub fn validate_only(mut self) -> Self {
        self.validate_only = true;
        self
    }
}

/// A name for a mutation, so that its repetition is recognised.
pub(crate) fn request_id(os: &dyn Os) -> String {
    format!("{:032x}", os.random_u128())
}

pub(crate) fn present<T>(field: Option<T>, call: &str) -> Result<T> {
    field
        .ok_or_else(|| Error::invalid(format!("the answer to {call} lacks what it must have; is this Weir?")))
}
