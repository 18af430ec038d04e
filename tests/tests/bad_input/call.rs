//! A call with its request, made to see how it is refused.

use anyhow::Result;
use futures::stream;
use tonic::{Response, Status, Streaming};
use weir_proto::v1::{
    ConsumeRequest, CreateTopicRequest, DeleteRecordsRequest, DeleteTopicRequest, DescribePartitionsRequest,
    ElectLeadersRequest, Failure, FetchRequest, FetchStreamRequest, GetAppendOutcomeRequest,
    GetMetadataRequest, GetTopicRequest, ListBrokersRequest, ListConfigsRequest, ListOffsetsRequest,
    ListTopicsRequest, OpenProducerRequest, ProduceRequest, ProduceStreamRequest, RemoveBrokerRequest,
    TrustBrokerRequest, UpdateConfigsRequest, UpdateTopicRequest, WatchMetadataRequest,
    fetch_stream_response, produce_stream_response,
};
use weir_tests::api::Api;
use weir_tests::refusal::Refusal;

pub(crate) enum Call {
    Produce(ProduceRequest),
    ProduceStream(Vec<ProduceStreamRequest>),
    OpenProducer(OpenProducerRequest),
    GetAppendOutcome(GetAppendOutcomeRequest),
    Consume(ConsumeRequest),
    Fetch(FetchRequest),
    FetchStream(Vec<FetchStreamRequest>),
    ListOffsets(ListOffsetsRequest),
    GetMetadata(GetMetadataRequest),
    WatchMetadata(WatchMetadataRequest),
    CreateTopic(CreateTopicRequest),
    GetTopic(GetTopicRequest),
    ListTopics(ListTopicsRequest),
    UpdateTopic(UpdateTopicRequest),
    DeleteTopic(DeleteTopicRequest),
    DeleteRecords(DeleteRecordsRequest),
    ListBrokers(ListBrokersRequest),
    ListConfigs(ListConfigsRequest),
    UpdateConfigs(UpdateConfigsRequest),
    DescribePartitions(DescribePartitionsRequest),
    ElectLeaders(ElectLeadersRequest),
    RemoveBroker(RemoveBrokerRequest),
    TrustBroker(TrustBrokerRequest),
}

/// What refused: a status, or a failure inside an answer.
enum Answer {
    Nothing,
    Status(Status),
    Failure(Failure),
}

impl Call {
    /// Makes the call; `None`: it was answered well.
    pub(crate) async fn refusal(self, api: &Api) -> Result<Option<Refusal>> {
        match self.answer(api).await {
            Answer::Nothing => Ok(None),
            Answer::Status(status) => Refusal::of_status(&status).map(Some),
            Answer::Failure(failure) => Refusal::of_failure(&failure).map(Some),
        }
    }

    async fn answer(self, api: &Api) -> Answer {
        match self {
            Self::Produce(request) => unary(api.producer().produce(request).await),
            Self::ProduceStream(requests) => {
                let answers = api.producer().produce_stream(stream::iter(requests)).await;
                last(answers, |answer| match answer.frame? {
                    produce_stream_response::Frame::Result(result) => result.failure,
                    _ => None,
                })
                .await
            }
            Self::OpenProducer(request) => unary(api.producer().open_producer(request).await),
            Self::GetAppendOutcome(request) => unary(api.producer().get_append_outcome(request).await),
            Self::Consume(request) => last(api.consumer().consume(request).await, |_| None).await,
            Self::Fetch(request) => match api.consumer().fetch(request).await {
                Ok(response) => {
                    let mut partitions = response.into_inner().partitions.into_iter();
                    partitions
                        .find_map(|partition| partition.failure)
                        .map_or(Answer::Nothing, Answer::Failure)
                }
                Err(status) => Answer::Status(status),
            },
            Self::FetchStream(requests) => {
                let answers = api.consumer().fetch_stream(stream::iter(requests)).await;
                last(answers, |answer| match answer.frame? {
                    fetch_stream_response::Frame::End(end) => end.failure,
                    _ => None,
                })
                .await
            }
            Self::ListOffsets(request) => unary(api.consumer().list_offsets(request).await),
            Self::GetMetadata(request) => unary(api.metadata().get_metadata(request).await),
            Self::WatchMetadata(request) => first(api.metadata().watch_metadata(request).await).await,
            Self::CreateTopic(request) => unary(api.topics().create_topic(request).await),
            Self::GetTopic(request) => unary(api.topics().get_topic(request).await),
            Self::ListTopics(request) => unary(api.topics().list_topics(request).await),
            Self::UpdateTopic(request) => unary(api.topics().update_topic(request).await),
            Self::DeleteTopic(request) => unary(api.topics().delete_topic(request).await),
            Self::DeleteRecords(request) => unary(api.topics().delete_records(request).await),
            Self::ListBrokers(request) => unary(api.admin().list_brokers(request).await),
            Self::ListConfigs(request) => unary(api.admin().list_configs(request).await),
            Self::UpdateConfigs(request) => unary(api.admin().update_configs(request).await),
            Self::DescribePartitions(request) => unary(api.admin().describe_partitions(request).await),
            Self::ElectLeaders(request) => unary(api.admin().elect_leaders(request).await),
            Self::RemoveBroker(request) => unary(api.admin().remove_broker(request).await),
            Self::TrustBroker(request) => unary(api.admin().trust_broker(request).await),
        }
    }
}

fn unary<T>(answer: Result<Response<T>, Status>) -> Answer {
    answer.map_or_else(Answer::Status, |_| Answer::Nothing)
}

/// Of a stream that goes on for ever, the first answer decides.
async fn first<T>(answers: Result<Response<Streaming<T>>, Status>) -> Answer {
    match answers {
        Ok(answers) => answers.into_inner().message().await.map_or_else(Answer::Status, |_| Answer::Nothing),
        Err(status) => Answer::Status(status),
    }
}

/// The last failure of a stream that ends by itself, or the status that ends it.
async fn last<T>(
    answers: Result<Response<Streaming<T>>, Status>,
    failure: impl Fn(T) -> Option<Failure>,
) -> Answer {
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Answer::Status(status),
    };
    let mut found = Answer::Nothing;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if let Some(failure) = failure(answer) {
                    found = Answer::Failure(failure);
                }
            }
            Ok(None) => return found,
            Err(status) => return Answer::Status(status),
        }
    }
}
