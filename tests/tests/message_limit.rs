//! The 4 MiB rule: stock clients refuse larger replies, so nobody gets one who has not said that he takes it. Every
//! rpc that reflection lists is driven to its largest reply with such a client.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{FileDescriptorResponse, ServerReflectionRequest};
use weir_proto::v1::fetch_stream_request::Frame as FetchIn;
use weir_proto::v1::fetch_stream_response::Frame as FetchOut;
use weir_proto::v1::{
    ConsumeRequest, DescribePartitionsRequest, ErrorReason, FetchAssign, FetchCredit, FetchHello,
    FetchPartition, FetchRequest, FetchStreamRequest, GetMetadataRequest, GetTopicRequest,
    ListBrokersRequest, ListConfigsRequest, ListTopicsRequest, ListVotersRequest, ProduceRequest,
    RecordBatch, RecordFormat, UpdateTopicRequest, WatchMetadataRequest,
};
use weir_record::Codec;
use weir_tests::api::Api;
use weir_tests::batch::pack_values;
use weir_tests::process::{Process, Setup};
use weir_tests::refusal::Refusal;

/// Holds one batch of 6 MiB: many records of 1 MiB.
const LARGE_BATCH: &str = "large-batch";
/// Holds one record of 6 MiB.
const LARGE_RECORD: &str = "large-record";
/// Holds 40 batches of 1 MiB, less a little, in each of two partitions.
const MUCH: &str = "much";
const MIB: usize = 1 << 20;

struct World {
    _folder: tempfile::TempDir,
    server: Process,
    api: Api,
}

impl World {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = Setup::new(folder.path().join("data")).start().await?;
        let api = Api::connect(server.addr()).await?;
        Ok(Self { _folder: folder, server, api })
    }

    async fn with_data() -> Result<Self> {
        let world = Self::start().await?;
        let api = &world.api;
        for topic in [LARGE_BATCH, LARGE_RECORD] {
            api.create_topic(topic, 1, &[("batch_bytes_max", "8MiB"), ("segment_bytes", "64MiB")]).await?;
        }
        api.create_topic(MUCH, 2, &[]).await?;
        let record = vec![7; MIB];
        world.append(LARGE_BATCH, 0, pack_values(Codec::None, vec![record.as_slice(); 6])?).await?;
        world.append(LARGE_RECORD, 0, pack_values(Codec::None, [vec![7; 6 * MIB].as_slice()])?).await?;
        let little_less = vec![7; MIB - 1_000];
        for _ in 0..40 {
            for partition in [0, 1] {
                world.append(MUCH, partition, pack_values(Codec::None, [little_less.as_slice()])?).await?;
            }
        }
        Ok(world)
    }

    async fn append(&self, topic: &str, partition: i32, batch: RecordBatch) -> Result<()> {
        let (topic, partition) = (topic.to_owned(), Some(partition));
        let request = ProduceRequest { topic, partition, batch: Some(batch), ..ProduceRequest::default() };
        self.api.producer().produce(request).await?;
        Ok(())
    }
}

/// A batch or record that fits no message of this client: which, how large, and what to change in five languages.
fn names_the_way_out(refusal: &Refusal, place: &str) -> Result<()> {
    ensure!(refusal.reason == ErrorReason::MessageLargerThanClientLimit, "{refusal:?}");
    ensure!(refusal.code == Code::FailedPrecondition, "{refusal:?}");
    for word in [place, "Python", "Go", "Java", "Node", "grpcurl", "message_bytes_max"] {
        ensure!(refusal.message.contains(word), "{word:?} is not said: {refusal:?}");
    }
    Ok(())
}

#[tokio::test]
async fn consume_splits_batches_into_records() -> Result<()> {
    let world = World::with_data().await?;
    ensure!(world.api.read_all(LARGE_BATCH).await?.len() == 6, "records are missing");
    ensure!(world.api.read_all(MUCH).await?.len() == 80, "records are missing");
    let error = world.api.read_all(LARGE_RECORD).await.err().context("6 MiB in a message")?;
    let status = error.downcast::<tonic::Status>()?;
    names_the_way_out(&Refusal::of_status(&status)?, "large-record/0@0")?;
    // Whoever says that he takes it gets it.
    let request = ConsumeRequest {
        topics: vec![LARGE_RECORD.to_owned()],
        until_end: true,
        message_bytes_max: 16 << 20,
        ..ConsumeRequest::default()
    };
    let mut stream =
        world.api.consumer().max_decoding_message_size(16 * MIB).consume(request).await?.into_inner();
    let message = stream.message().await?.context("the record")?;
    ensure!(message.records.len() == 1, "{} records", message.records.len());
    world.server.stop().await
}

#[tokio::test]
async fn fetch_fills_a_message_and_no_more() -> Result<()> {
    let world = World::with_data().await?;
    for format in [RecordFormat::Plain, RecordFormat::Batches] {
        let partition = |partition| FetchPartition {
            topic: MUCH.to_owned(),
            partition,
            bytes_max: i32::MAX,
            ..FetchPartition::default()
        };
        let request = FetchRequest {
            partitions: vec![partition(0), partition(1)],
            format: format.into(),
            bytes_max: i32::MAX,
            bytes_min: i32::MAX,
            wait_ms: Some(0),
            ..FetchRequest::default()
        };
        let response = world.api.consumer().fetch(request).await?.into_inner();
        let got: usize = response.partitions.iter().map(|one| one.records.len() + one.batches.len()).sum();
        ensure!(got >= 3, "{format:?}: {got} of at least 3 that fit");
    }
    for (topic, format, fits) in [
        (LARGE_BATCH, RecordFormat::Plain, true),
        (LARGE_BATCH, RecordFormat::Batches, false),
        (LARGE_RECORD, RecordFormat::Plain, false),
        (LARGE_RECORD, RecordFormat::Batches, false),
    ] {
        let partition =
            FetchPartition { topic: topic.to_owned(), bytes_max: i32::MAX, ..FetchPartition::default() };
        let request = FetchRequest {
            partitions: vec![partition],
            format: format.into(),
            wait_ms: Some(0),
            ..FetchRequest::default()
        };
        let response = world.api.consumer().fetch(request).await?.into_inner();
        let one = response.partitions.first().context("one partition")?;
        match &one.failure {
            None => ensure!(fits && !one.records.is_empty(), "{topic} {format:?}: {:?}", one.progress),
            Some(failure) => {
                ensure!(!fits, "{topic} {format:?}: {failure:?}");
                names_the_way_out(&Refusal::of_failure(failure)?, &format!("{topic}/0@0"))?;
            }
        }
    }
    world.server.stop().await
}

#[tokio::test]
async fn a_stream_ends_the_subscription_whose_batch_does_not_fit() -> Result<()> {
    let world = World::with_data().await?;
    let (requests, queue) = mpsc::channel(8);
    let credit = Some(FetchCredit { bytes: 1 << 30, records: 0 });
    let mut frames = vec![FetchIn::Hello(FetchHello { credit, ..FetchHello::default() })];
    for (subscription_id, topic) in (0..).zip([MUCH, LARGE_BATCH, LARGE_RECORD]) {
        let topic = topic.to_owned();
        frames.push(FetchIn::Assign(FetchAssign {
            subscription_id,
            generation: 1,
            topic,
            ..Default::default()
        }));
    }
    for frame in frames {
        requests.try_send(FetchStreamRequest { frame: Some(frame) })?;
    }
    let mut answers = world.api.consumer().fetch_stream(ReceiverStream::new(queue)).await?.into_inner();
    let (mut delivered, mut ended) = (0, BTreeSet::new());
    while delivered < 40 || ended.len() < 2 {
        match answers.message().await?.context("more")?.frame {
            Some(FetchOut::Delivery(delivery)) => {
                ensure!(delivery.subscription_id == 0, "{}", delivery.subscription_id);
                delivered += 1;
            }
            Some(FetchOut::End(end)) => {
                let refusal = Refusal::of_failure(&end.failure.context("a failure")?)?;
                let topic = if end.subscription_id == 1 { LARGE_BATCH } else { LARGE_RECORD };
                names_the_way_out(&refusal, &format!("{topic}/0@0"))?;
                ended.insert(end.subscription_id);
            }
            _ => {}
        }
    }
    drop(requests);
    world.server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_come_in_pages() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    // As many and as long as a page allows, a thousand at least.
    let name = |number: usize| format!("{number:04}{}", "x".repeat(245));
    let config = [("retention_bytes", "123456789012"), ("segment_ms", "3d"), ("compression", "zstd")];
    let create = (0..1_010).map(|number| {
        let name = name(number);
        async move { api.create_topic(&name, 1, &config).await }
    });
    let mut create: Vec<_> = create.collect();
    while !create.is_empty() {
        try_join_all(create.drain(..create.len().min(101))).await?;
    }
    let page_size = 1_000;

    let topics =
        api.topics().list_topics(ListTopicsRequest { page_size, ..Default::default() }).await?.into_inner();
    ensure!(topics.topics.len() == 1_000 && !topics.next_page_token.is_empty(), "{}", topics.topics.len());
    let map = api
        .metadata()
        .get_metadata(GetMetadataRequest { page_size, ..Default::default() })
        .await?
        .into_inner();
    ensure!(map.topics.len() == 1_000 && !map.next_page_token.is_empty(), "{}", map.topics.len());
    let described = DescribePartitionsRequest { page_size, ..Default::default() };
    let described = api.admin().describe_partitions(described).await?.into_inner();
    ensure!(described.partitions.len() == 1_000 && !described.next_page_token.is_empty());
    let mut watching = api.metadata().watch_metadata(WatchMetadataRequest::default()).await?.into_inner();
    let mut seen = 0;
    while seen < 1_010 {
        seen += watching.message().await?.context("the map")?.topics.len();
    }
    let topic = api.topics().get_topic(GetTopicRequest { name: name(0) }).await?.into_inner().topic;
    ensure!(topic.is_some_and(|topic| !topic.effective.is_empty()));
    api.topics().update_topic(UpdateTopicRequest { name: name(0), ..Default::default() }).await?;
    api.admin().list_brokers(ListBrokersRequest { page_size, ..Default::default() }).await?;
    api.admin().list_configs(ListConfigsRequest::default()).await?;
    api.admin().list_voters(ListVotersRequest::default()).await?;
    world.server.stop().await
}

#[tokio::test]
async fn every_rpc_that_reflection_lists_has_its_place_here() -> Result<()> {
    // What was driven above, and what cannot grow.
    let driven = [
        "Consume",
        "Fetch",
        "FetchStream",
        "ListTopics",
        "GetMetadata",
        "DescribePartitions",
        "WatchMetadata",
        "GetTopic",
        "UpdateTopic",
        "ListBrokers",
        "ListConfigs",
        "ListVoters",
        "Produce",
        "ListOffsets",
        "DeleteRecords",
        "CreateTopic",
    ];
    let small = [
        "ProduceStream",
        "OpenProducer",
        "GetAppendOutcome",
        "GetServerInfo",
        "DeleteTopic",
        "UpdateConfigs",
        "RemoveBroker",
        "TrustBroker",
        "UpdateVoters",
        // A thousand elections at most.
        "ElectLeaders",
        "FinalizeFeatureLevel",
    ];
    let world = World::start().await?;
    let mut listed = BTreeSet::new();
    for service in services(&world.api).await? {
        if service.starts_with("weir.") {
            listed.extend(methods(&world.api, &service).await?);
        }
    }
    let known: BTreeSet<String> = driven.iter().chain(&small).map(|&name| name.to_owned()).collect();
    ensure!(
        listed == known,
        "only in one of both: {:?}",
        listed.symmetric_difference(&known).collect::<Vec<_>>()
    );
    world.server.stop().await
}

async fn reflect(api: &Api, request: MessageRequest) -> Result<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(api.channel());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    answers.message().await?.and_then(|answer| answer.message_response).context("no answer")
}

async fn services(api: &Api) -> Result<Vec<String>> {
    match reflect(api, MessageRequest::ListServices(String::new())).await? {
        MessageResponse::ListServicesResponse(list) => {
            Ok(list.service.into_iter().map(|one| one.name).collect())
        }
        other => anyhow::bail!("{other:?}"),
    }
}

async fn methods(api: &Api, service: &str) -> Result<Vec<String>> {
    let MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto }) =
        reflect(api, MessageRequest::FileContainingSymbol(service.to_owned())).await?
    else {
        anyhow::bail!("no descriptor of {service}")
    };
    let mut found = Vec::new();
    for file in file_descriptor_proto {
        let file = <prost_types::FileDescriptorProto as prost::Message>::decode(file.as_slice())?;
        for described in
            file.service.iter().filter(|one| format!("{}.{}", file.package(), one.name()) == service)
        {
            found.extend(described.method.iter().map(|method| method.name().to_owned()));
        }
    }
    Ok(found)
}
