//! What operators ask: brokers, controllers, settings, where partitions stand.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_proto::v1;
use weir_proto::v1::admin_service_client::AdminServiceClient;

use crate::Result;
use crate::client::Inner;
use crate::topics::request_id;

/// For operators. From [`Client::admin`](crate::Client::admin).
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admin")
    }
}

/// Whose settings are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigScope {
    /// The whole cluster's.
    Cluster,
    /// One broker's.
    Broker(i32),
}

impl ConfigScope {
    fn broker_id(self) -> Option<i32> {
        match self {
            Self::Cluster => None,
            Self::Broker(id) => Some(id),
        }
    }
}

impl Admin {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// All brokers, also those that are down, by id.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn brokers(&self) -> Result<Vec<v1::BrokerDescription>> {
        let mut brokers = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListBrokersRequest { page_size: 1000, page_token };
            let page = self
                .inner
                .call("ListBrokers", request, |channel, request| async move {
                    AdminServiceClient::new(channel).list_brokers(request).await
                })
                .await?;
            brokers.extend(page.brokers);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(brokers);
            }
        }
    }

    /// The controllers, by id.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn voters(&self) -> Result<Vec<v1::Voter>> {
        let answer = self
            .inner
            .call("ListVoters", v1::ListVotersRequest {}, |channel, request| async move {
                AdminServiceClient::new(channel).list_voters(request).await
            })
            .await?;
        Ok(answer.voters)
    }

    /// The settings of the cluster or of one broker, by name.
    ///
    /// # Errors
    /// BROKER_NOT_FOUND, and those of every call.
    pub async fn configs(&self, scope: ConfigScope) -> Result<Vec<v1::ConfigValue>> {
        let request = v1::ListConfigsRequest { broker_id: scope.broker_id() };
        let answer = self
            .inner
            .call("ListConfigs", request, |channel, request| async move {
                AdminServiceClient::new(channel).list_configs(request).await
            })
            .await?;
        Ok(answer.configs)
    }

    /// Changes settings. The answer is the changed ones, before and after.
    ///
    /// # Errors
    /// CONFIG_UNKNOWN, CONFIG_INVALID, BROKER_NOT_FOUND, and those of every call.
    pub async fn update_configs(
        &self,
        scope: ConfigScope,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
        validate_only: bool,
    ) -> Result<v1::UpdateConfigsResponse> {
        let request = v1::UpdateConfigsRequest {
            broker_id: scope.broker_id(),
            set_config: set,
            unset_config: unset,
            validate_only,
            request_id: request_id(&*self.inner.os),
            ..v1::UpdateConfigsRequest::default()
        };
        self.inner
            .call("UpdateConfigs", request, |channel, request| async move {
                AdminServiceClient::new(channel).update_configs(request).await
            })
            .await
    }

    /// Where the partitions of a topic stand, on the brokers that answer; of all topics for "".
    ///
    /// # Errors
    /// TOPIC_NOT_FOUND, and those of every call.
    pub async fn partitions(&self, topic: &str) -> Result<Vec<v1::PartitionDescription>> {
        let mut partitions = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::DescribePartitionsRequest {
                topic: topic.to_owned(),
                page_size: 1000,
                page_token,
                ..v1::DescribePartitionsRequest::default()
            };
            let page = self
                .inner
                .call("DescribePartitions", request, |channel, request| async move {
                    AdminServiceClient::new(channel).describe_partitions(request).await
                })
                .await?;
            partitions.extend(page.partitions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(partitions);
            }
        }
    }
}
