//! The public calls, one line each: where a call is answered.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use http::HeaderMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use weir_proto::v1::admin_service_server::AdminService;
use weir_proto::v1::metadata_service_server::MetadataService;
use weir_proto::v1::producer_service_server::ProducerService;
use weir_proto::v1::topic_service_server::TopicService;
use weir_proto::v1::*;
use weir_rpc::{ConnectionInfo, LongCall, Problem};

use crate::broker::Broker;
use crate::calls;
use crate::calls::produce_stream::Requests;
use crate::calls::produce_stream::answers::Answers;
use crate::calls::shared::ending::Ending;
use crate::forward::hop::Hop;
use crate::serve::Entrance;

pub(crate) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The public services of one broker, on one of its listeners.
#[derive(Clone)]
pub(crate) struct Public(pub(crate) Arc<Broker>, pub(crate) Entrance);

impl Public {
    /// Counts a call as one of its connection's long ones, or refuses it. Brokers see to that themselves: what they pass on
    /// is counted where it came in.
    pub(crate) fn long_call(&self, of: &http::Extensions) -> Result<Option<LongCall>, Problem> {
        let max = self.0.config.long_calls_per_connection_max;
        let connection = of.get::<ConnectionInfo>().filter(|_| self.1 == Entrance::Public);
        connection.map(|connection| connection.long_call(max)).transpose()
    }

    /// What a call with these headers carries on if it is passed on. `None`: it was, and there is one hop.
    pub(crate) fn hop(&self, headers: &HeaderMap) -> Option<Hop> {
        (self.1 == Entrance::Public).then(|| Hop::of(headers))
    }

    /// Starts what answers a ProduceStream, and returns the answers.
    pub(crate) fn producing(
        &self,
        requests: Requests,
        headers: &HeaderMap,
        long: Option<LongCall>,
    ) -> Messages<ProduceStreamResponse> {
        let broker = self.0.clone();
        let ending = Ending::new(&broker, long.as_ref());
        let (answers, reading) = Answers::new(broker.memory.clone(), broker.config.inflight_bytes_max);
        let hop = self.hop(headers);
        let stream = async move {
            calls::produce_stream::run(broker, requests, answers, ending, hop).await;
            drop(long);
        };
        tokio::spawn(stream.in_current_span());
        Box::pin(reading)
    }
}

#[tonic::async_trait]
impl ProducerService for Public {
    async fn produce(&self, request: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        calls::produce::call(&self.0, request, None).await
    }

    type ProduceStreamStream = Messages<ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let long = self.long_call(request.extensions())?;
        let headers = request.metadata().clone().into_headers();
        Ok(Response::new(self.producing(request.into_inner().boxed(), &headers, long)))
    }

    async fn open_producer(
        &self,
        request: Request<OpenProducerRequest>,
    ) -> Result<Response<OpenProducerResponse>, Status> {
        calls::open_producer::call(&self.0, request).await
    }

    async fn get_append_outcome(
        &self,
        request: Request<GetAppendOutcomeRequest>,
    ) -> Result<Response<GetAppendOutcomeResponse>, Status> {
        calls::append_outcome::call(&self.0, request).await
    }
}

#[tonic::async_trait]
impl MetadataService for Public {
    async fn get_server_info(
        &self,
        _request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(calls::metadata::server_info(&self.0)))
    }

    async fn get_metadata(
        &self,
        request: Request<GetMetadataRequest>,
    ) -> Result<Response<GetMetadataResponse>, Status> {
        calls::metadata::get(&self.0, self.1, request)
    }

    type WatchMetadataStream = Messages<WatchMetadataResponse>;

    async fn watch_metadata(
        &self,
        request: Request<WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let long = self.long_call(request.extensions())?;
        let answers = calls::watch_metadata::call(self.0.clone(), self.1, request.into_inner(), long)?;
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl TopicService for Public {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        calls::topics::create(&self.0, request).await
    }

    async fn get_topic(
        &self,
        request: Request<GetTopicRequest>,
    ) -> Result<Response<GetTopicResponse>, Status> {
        calls::topics::get(&self.0, request)
    }

    async fn list_topics(
        &self,
        request: Request<ListTopicsRequest>,
    ) -> Result<Response<ListTopicsResponse>, Status> {
        calls::topics::list(&self.0, request)
    }

    async fn update_topic(
        &self,
        request: Request<UpdateTopicRequest>,
    ) -> Result<Response<UpdateTopicResponse>, Status> {
        calls::topics::update(&self.0, request).await
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        calls::topics::delete(&self.0, request).await
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        calls::delete_records::call(&self.0, request).await
    }
}

#[tonic::async_trait]
impl AdminService for Public {
    async fn list_brokers(
        &self,
        request: Request<ListBrokersRequest>,
    ) -> Result<Response<ListBrokersResponse>, Status> {
        calls::admin::list_brokers(&self.0, request)
    }

    async fn list_configs(
        &self,
        request: Request<ListConfigsRequest>,
    ) -> Result<Response<ListConfigsResponse>, Status> {
        calls::admin::list_configs(&self.0, request)
    }

    async fn update_configs(
        &self,
        request: Request<UpdateConfigsRequest>,
    ) -> Result<Response<UpdateConfigsResponse>, Status> {
        calls::admin::update_configs(&self.0, request).await
    }

    async fn remove_broker(
        &self,
        request: Request<RemoveBrokerRequest>,
    ) -> Result<Response<RemoveBrokerResponse>, Status> {
        calls::admin::remove_broker(&self.0, request).await
    }

    async fn trust_broker(
        &self,
        request: Request<TrustBrokerRequest>,
    ) -> Result<Response<TrustBrokerResponse>, Status> {
        calls::admin::trust_broker(&self.0, request).await
    }

    async fn update_voters(
        &self,
        request: Request<UpdateVotersRequest>,
    ) -> Result<Response<UpdateVotersResponse>, Status> {
        calls::admin::update_voters(&self.0, request).await
    }

    async fn elect_leaders(
        &self,
        request: Request<ElectLeadersRequest>,
    ) -> Result<Response<ElectLeadersResponse>, Status> {
        calls::admin::elect_leaders(&self.0, request).await
    }

    async fn finalize_feature_level(
        &self,
        request: Request<FinalizeFeatureLevelRequest>,
    ) -> Result<Response<FinalizeFeatureLevelResponse>, Status> {
        calls::admin::finalize_feature_level(&self.0, request).await
    }

    async fn list_voters(
        &self,
        request: Request<ListVotersRequest>,
    ) -> Result<Response<ListVotersResponse>, Status> {
        calls::admin::list_voters(&self.0, request).await
    }

    async fn describe_partitions(
        &self,
        request: Request<DescribePartitionsRequest>,
    ) -> Result<Response<DescribePartitionsResponse>, Status> {
        calls::admin::describe_partitions(&self.0, request)
    }
}
