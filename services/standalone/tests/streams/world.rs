//! A whole Weir in this process, and what the tests say to it.

use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use weir_config::{Loader, Standalone as Config};
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, NewRecord, ProduceRequest, RecordBatch, Topic};
use weir_record::{BatchBuilder, Codec, NO_HEADERS};
use weir_runtime::testing::until;
use weir_runtime::{ExecutorsConfig, Os, RealOs};
use weir_standalone::Standalone;

pub(crate) struct World {
    weir: Standalone,
    pub(crate) channel: Channel,
    _dir: TempDir,
}

impl World {
    pub(crate) async fn start(flags: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut loader = Loader::new()
            .flag("--data-dir", dir.path().to_str().unwrap())
            .flag("--listen", "127.0.0.1:0")
            .flag("--http-listen", "127.0.0.1:0")
            .flag("--controller-listen", "127.0.0.1:0")
            .flag("--disk-reserved-bytes", "0");
        for (flag, value) in flags {
            loader = loader.flag(flag, *value);
        }
        let config = loader.load::<Config>().unwrap().config;
        let os: Arc<dyn Os> = Arc::new(RealOs::new(4).unwrap());
        let executors =
            weir_runtime::Executors::current(&ExecutorsConfig { data_runtimes: 2, control_threads: 1 });
        let weir = Standalone::start(os, &executors, &config).await.unwrap();
        let channel = endpoint(&weir).connect().await.unwrap();
        Self { weir, channel, _dir: dir }
    }

    /// Where gRPC is served.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.weir.addr()
    }

    /// Where HTTP is served.
    pub(crate) fn http_addr(&self) -> SocketAddr {
        self.weir.http_addr()
    }

    /// Another connection, as the stock client makes it.
    pub(crate) fn endpoint(&self) -> Endpoint {
        endpoint(&self.weir)
    }

    pub(crate) fn producer(&self) -> ProducerServiceClient<Channel> {
        ProducerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn consumer(&self) -> ConsumerServiceClient<Channel> {
        ConsumerServiceClient::new(self.channel.clone())
    }

    pub(crate) async fn create(&self, name: &str, partitions: i32) {
        let config = [("durability".to_owned(), "replicated".to_owned())].into();
        let topic = Topic { name: name.to_owned(), partitions, config, ..Topic::default() };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        TopicServiceClient::new(self.channel.clone()).create_topic(request).await.unwrap();
    }

    /// Writes one record by itself; gives its offset.
    pub(crate) async fn write(&self, topic: &str, partition: i32, value: &[u8]) -> i64 {
        let record = NewRecord { value: Some(value.to_vec().into()), ..NewRecord::default() };
        let request = ProduceRequest {
            topic: topic.to_owned(),
            partition: Some(partition),
            records: vec![record],
            ..ProduceRequest::default()
        };
        self.producer().produce(request).await.unwrap().into_inner().receipts[0].base_offset
    }

    /// What the HTTP listener says there.
    pub(crate) async fn http(&self, path: &str) -> String {
        get(self.weir.http_addr(), path).await
    }

    /// What the gRPC listener answers to a POST over HTTP/1.1.
    pub(crate) async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> String {
        let mut connection = TcpStream::connect(self.addr()).await.unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: weir\r\ncontent-type: {content_type}\r\naccept: {content_type}\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        connection.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The value of a metric, with its labels if it has some.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.http("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).trim().parse().unwrap()
    }

    /// Waits until a metric says so.
    pub(crate) async fn metric_is(&self, name: &str, holds: impl Fn(f64) -> bool) {
        until(name, async || holds(self.metric(name).await)).await;
    }

    pub(crate) async fn stop(self) {
        drop(self.channel);
        self.weir.stop().await.unwrap();
    }
}

fn endpoint(weir: &Standalone) -> Endpoint {
    Endpoint::from_shared(format!("http://{}", weir.addr())).unwrap()
}

/// A plain HTTP/1.1 GET: the whole answer.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

/// One batch of so many records with this value.
pub(crate) fn batch(value: &[u8], records: usize) -> RecordBatch {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(1_700_000_000_000, None, Some(value), NO_HEADERS).unwrap();
    }
    let batch = builder.finish(Codec::None).unwrap();
    let declared = batch.declared();
    RecordBatch {
        last_offset_delta: declared.last_offset_delta,
        record_count: declared.record_count,
        base_timestamp_ms: declared.base_timestamp_ms,
        max_timestamp_ms: declared.max_timestamp_ms,
        codec: weir_proto::v1::Codec::None.into(),
        uncompressed_bytes: declared.uncompressed_bytes,
        crc: declared.crc,
        records: batch.payload,
        ..RecordBatch::default()
    }
}

/// The reason that a status names.
pub(crate) fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt;
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
