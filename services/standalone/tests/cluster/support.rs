//! Controllers and brokers as these tests use them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;
use weir_broker::{Options, Running, StartError};
use weir_cluster::Controllers;
use weir_config::{Loaded, Loader, Standalone as Config};
use weir_controller::Controller;
use weir_io::{Disk, MemDisk, Survival};
use weir_proto::internal::v1 as pb;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    CreateTopicRequest, DeleteTopicRequest, DescribePartitionsRequest, Failure, FetchPartition, FetchRequest,
    GetAppendOutcomeRequest, GetAppendOutcomeResponse, ListConfigsRequest, ListOffsetsRequest, NewRecord,
    OffsetQuery, OpenProducerRequest, PartitionDescription, ProduceRequest, ProducerIdentity, Topic,
    UpdateTopicRequest,
};
use weir_runtime::testing::TestOs;
pub(crate) use weir_runtime::testing::{PATIENCE, until};
use weir_runtime::{Executors, ExecutorsConfig, Os, Reason, Stop};

pub(crate) const LOGS: &str = "/logs";

fn os(disk: Arc<dyn Disk>) -> Arc<dyn Os> {
    Arc::new(TestOs::threads(disk).unwrap())
}

/// What a copy that is made now has.
pub(crate) fn copy(disk: &MemDisk) -> MemDisk {
    disk.after_power_loss(Survival::Everything)
}

/// A controller that serves.
pub(crate) struct Node {
    pub(crate) disk: MemDisk,
    pub(crate) addr: SocketAddr,
    stop: Stop,
    served: JoinHandle<Result<(), weir_controller::Error>>,
}

impl Node {
    pub(crate) async fn start(disk: &MemDisk) -> Self {
        Self::start_at(disk, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(disk: &MemDisk, listen: SocketAddr) -> Self {
        // Nobody is fenced here for being slow.
        Self::start_with(disk, listen, 10 * PATIENCE).await
    }

    /// Where brokers are to be heard of within a session.
    pub(crate) async fn start_with(disk: &MemDisk, listen: SocketAddr, session: Duration) -> Self {
        let config = weir_controller::Config {
            session_timeout: session,
            broker_heartbeat: Duration::from_millis(50),
            ..weir_controller::Config::new(PathBuf::from("/controller"), listen).standalone()
        };
        let controller = Controller::build(os(Arc::new(disk.clone())), config).await.unwrap();
        let (addr, handle, stop) = (controller.local_addr(), controller.handle(), Stop::new());
        let served = tokio::spawn(controller.serve(stop.clone()));
        handle.ready().await;
        Self { disk: disk.clone(), addr, stop, served }
    }

    pub(crate) async fn stop(self) -> MemDisk {
        self.stop.request(Reason::Asked("the test".to_owned()));
        self.served.await.unwrap().unwrap();
        self.disk
    }

    pub(crate) fn controllers(&self) -> Controllers {
        Controllers::new(os(Arc::new(MemDisk::new(0))), vec![self.addr.to_string()])
    }

    /// Makes a topic without a broker's help.
    pub(crate) async fn create(&self, name: &str, partitions: i32, replicas: i32) {
        let topic =
            Topic { name: name.to_owned(), partitions, replication_factor: replicas, ..Topic::default() };
        let request = CreateTopicRequest {
            topic: Some(topic),
            request_id: format!("create {name}"),
            ..CreateTopicRequest::default()
        };
        let request = pb::CreateTopicRequest { request: Some(request), internal: false };
        let controllers = self.controllers();
        let made = controllers.call(Instant::now() + PATIENCE, |mut client| {
            let request = request.clone();
            async move { client.create_topic(request).await }
        });
        made.await.unwrap();
    }
}

/// A broker that serves, and the way to it.
pub(crate) struct Broker {
    pub(crate) running: Running,
    channel: Channel,
}

impl Broker {
    pub(crate) async fn start(disk: impl Disk, controller: SocketAddr) -> Self {
        Self::try_start(disk, controller).await.unwrap()
    }

    pub(crate) async fn try_start(disk: impl Disk, controller: SocketAddr) -> Result<Self, StartError> {
        Self::start_seen_at(disk, controller, "127.0.0.1:0".parse().unwrap()).await
    }

    /// With its HTTP listener at an address that is known before it serves.
    pub(crate) async fn start_seen_at(
        disk: impl Disk,
        controller: SocketAddr,
        http_listen: SocketAddr,
    ) -> Result<Self, StartError> {
        Self::start_by(os(Arc::new(disk)), controller, http_listen, &[], Stop::new()).await
    }

    /// With more settings, as flags.
    pub(crate) async fn start_set(
        disk: impl Disk,
        controller: SocketAddr,
        flags: &[(&str, &str)],
    ) -> Result<Self, StartError> {
        let http_listen = "127.0.0.1:0".parse().unwrap();
        Self::start_by(os(Arc::new(disk)), controller, http_listen, flags, Stop::new()).await
    }

    /// On an operating system of the test's own, and unless it is to end.
    pub(crate) async fn start_unless(
        os: Arc<dyn Os>,
        controller: SocketAddr,
        over: Stop,
    ) -> Result<Self, StartError> {
        Self::start_by(os, controller, "127.0.0.1:0".parse().unwrap(), &[], over).await
    }

    async fn start_by(
        os: Arc<dyn Os>,
        controller: SocketAddr,
        http_listen: SocketAddr,
        flags: &[(&str, &str)],
        over: Stop,
    ) -> Result<Self, StartError> {
        let always = [("--listen", "127.0.0.1:0"), ("--disk-reserved-bytes", "0")];
        let all = always.iter().chain(flags);
        let loader = all.fold(Loader::new(), |loader, (flag, value)| loader.flag(flag, *value));
        let Loaded { config, settings } = loader.load::<Config>().unwrap();
        let options = Options {
            data_dir: LOGS.into(),
            http_listen,
            drain: Duration::from_secs(1),
            alone: false,
            config: weir_config::Broker { controllers: vec![controller.to_string()], ..config.broker },
            settings,
        };
        let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
        let running = weir_broker::start(os, &executors, options, over).await?;
        let channel = channel(running.addr());
        Ok(Self { running, channel })
    }

    /// The way to its public listener.
    pub(crate) fn public(&self) -> Channel {
        self.channel.clone()
    }

    /// The way to its listener for other brokers.
    pub(crate) fn internal(&self) -> Channel {
        channel(self.running.internal_addr().unwrap())
    }

    pub(crate) async fn create(&self, name: &str, partitions: i32) -> Result<(), Status> {
        let topic = Topic { name: name.to_owned(), partitions, ..Topic::default() };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        TopicServiceClient::new(self.channel.clone()).create_topic(request).await.map(drop)
    }

    pub(crate) async fn set(&self, name: &str, key: &str, value: &str) {
        let set_config = [(key.to_owned(), value.to_owned())].into();
        let request =
            UpdateTopicRequest { name: name.to_owned(), set_config, ..UpdateTopicRequest::default() };
        TopicServiceClient::new(self.channel.clone()).update_topic(request).await.unwrap();
    }

    /// Where the values of its settings come from, by name.
    pub(crate) async fn origins(&self) -> BTreeMap<String, String> {
        let request = ListConfigsRequest { broker_id: Some(1) };
        let answer = AdminServiceClient::new(self.channel.clone()).list_configs(request).await.unwrap();
        answer.into_inner().configs.into_iter().map(|setting| (setting.name, setting.origin)).collect()
    }

    pub(crate) async fn delete(&self, name: &str) {
        let request = DeleteTopicRequest { name: name.to_owned(), ..DeleteTopicRequest::default() };
        TopicServiceClient::new(self.channel.clone()).delete_topic(request).await.unwrap();
    }

    /// A producer id for somebody who writes exactly once.
    pub(crate) async fn open_producer(&self) -> Result<i64, Status> {
        let mut client = ProducerServiceClient::new(self.channel.clone());
        let opened = client.open_producer(OpenProducerRequest::default()).await?;
        Ok(opened.into_inner().producer.unwrap().id)
    }

    /// Writes one record; says its offset.
    pub(crate) async fn produce(&self, topic: &str, partition: i32) -> Result<i64, Status> {
        let record = NewRecord { value: Some(vec![1, 2, 3].into()), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records: vec![record],
            ..ProduceRequest::default()
        };
        let answer = ProducerServiceClient::new(self.channel.clone()).produce(request).await?;
        Ok(answer.into_inner().receipts[0].base_offset)
    }

    /// Writes one record as the first batch of a producer; says its offset.
    pub(crate) async fn produce_as(&self, producer: i64, topic: &str) -> Result<i64, Status> {
        let record = NewRecord { value: Some(vec![1, 2, 3].into()), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(0),
            records: vec![record],
            producer: Some(ProducerIdentity { id: producer, epoch: 0 }),
            sequence: Some(0),
            ..ProduceRequest::default()
        };
        let answer = ProducerServiceClient::new(self.channel.clone()).produce(request).await?;
        Ok(answer.into_inner().receipts[0].base_offset)
    }

    /// What became of that one.
    pub(crate) async fn outcome(
        &self,
        producer: i64,
        topic: &str,
        wait_ms: i64,
    ) -> Result<GetAppendOutcomeResponse, Status> {
        let request = GetAppendOutcomeRequest {
            topic: topic.to_owned(),
            producer: Some(ProducerIdentity { id: producer, epoch: 0 }),
            seal: true,
            wait_ms,
            ..GetAppendOutcomeRequest::default()
        };
        let answer = ProducerServiceClient::new(self.channel.clone()).get_append_outcome(request).await?;
        Ok(answer.into_inner())
    }

    /// The high watermark, as a reader sees it.
    pub(crate) async fn end(&self, topic: &str, partition: i32) -> i64 {
        let wanted =
            FetchPartition { topic: topic.to_owned(), partition, offset: 0, ..FetchPartition::default() };
        let request = FetchRequest { partitions: vec![wanted], wait_ms: Some(0), ..FetchRequest::default() };
        let answer = ConsumerServiceClient::new(self.channel.clone()).fetch(request).await.unwrap();
        answer.into_inner().partitions[0].progress.as_ref().unwrap().high_watermark
    }

    /// The end that it promises to be the latest.
    pub(crate) async fn latest(&self, topic: &str, partition: i32) -> Result<i64, Status> {
        let query = OffsetQuery { topic: topic.to_owned(), partition, ..OffsetQuery::default() };
        let request = ListOffsetsRequest { queries: vec![query], ..ListOffsetsRequest::default() };
        let answer = ConsumerServiceClient::new(self.channel.clone()).list_offsets(request).await?;
        Ok(answer.into_inner().offsets[0].offset)
    }

    /// Reads a partition from its beginning: how many records, or why not.
    pub(crate) async fn fetch(&self, topic: &str, partition: i32) -> Result<usize, Failure> {
        let wanted = FetchPartition { topic: topic.to_owned(), partition, ..FetchPartition::default() };
        let request = FetchRequest { partitions: vec![wanted], wait_ms: Some(0), ..FetchRequest::default() };
        let answer = ConsumerServiceClient::new(self.channel.clone()).fetch(request).await.unwrap();
        let fetched = answer.into_inner().partitions.remove(0);
        fetched.failure.map_or(Ok(fetched.records.len()), Err)
    }

    /// The partitions with a problem.
    pub(crate) async fn problems(&self) -> Vec<PartitionDescription> {
        let request = DescribePartitionsRequest { problems_only: true, ..Default::default() };
        let mut client = AdminServiceClient::new(self.channel.clone());
        client.describe_partitions(request).await.unwrap().into_inner().partitions
    }

    /// What the HTTP listener answers, head and all.
    pub(crate) async fn http(&self, path: &str) -> String {
        get(self.running.http_addr(), path).await.unwrap()
    }

    /// One of its metrics.
    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let metrics = self.http("/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.trim().parse().unwrap()
    }
}

pub(crate) fn channel(addr: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{addr}")).unwrap().connect_lazy()
}

/// What an HTTP listener answers, head and all.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Waits until a write is taken.
pub(crate) async fn until_written(broker: &Broker, topic: &str, partition: i32) {
    let what = format!("a write to {topic}/{partition}");
    until(&what, async || broker.produce(topic, partition).await.is_ok()).await;
}

/// Somebody waits here until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn wait(&self) {
        let (open, opened) = &*self.0;
        drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// The folders of logs, by name.
pub(crate) fn folders(disk: &impl Disk) -> Vec<String> {
    let mut names: Vec<_> = disk
        .list(Path::new(LOGS))
        .unwrap()
        .into_iter()
        .filter(|entry| entry.is_dir)
        .map(|entry| entry.name)
        .collect();
    names.sort();
    names
}
