//! Spans are for those who look: with the default log filter no call makes one, so none costs anything.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tonic::transport::Channel;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use weir_config::{Loader, Standalone as Config};
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    ConsumeRequest, CreateTopicRequest, FetchPartition, FetchRequest, NewRecord, ProduceRequest, Topic,
};
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs};
use weir_standalone::Standalone;

/// Counts the spans that are made.
#[derive(Clone, Default)]
struct Counting(Arc<Counted>);

#[derive(Default)]
struct Counted {
    /// As with `weir_broker=debug`; else as with `info`.
    debug: AtomicBool,
    spans: AtomicUsize,
}

impl tracing::Subscriber for Counting {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Asked each time: the level changes.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let debug = self.0.debug.load(Ordering::SeqCst) && metadata.target().starts_with("weir_broker");
        *metadata.level() <= if debug { Level::DEBUG } else { Level::INFO }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1 + self.0.spans.fetch_add(1, Ordering::SeqCst) as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

async fn calls(channel: &Channel) {
    let records = vec![NewRecord { value: Some(vec![1].into()), ..NewRecord::default() }];
    let request = ProduceRequest { topic: "a".into(), records, ..ProduceRequest::default() };
    ProducerServiceClient::new(channel.clone()).produce(request).await.unwrap();
    let partition = FetchPartition { topic: "a".into(), ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![partition], wait_ms: Some(0), ..FetchRequest::default() };
    ConsumerServiceClient::new(channel.clone()).fetch(request).await.unwrap();
    let request = ConsumeRequest { topics: vec!["a".into()], until_end: true, ..ConsumeRequest::default() };
    let mut read = ConsumerServiceClient::new(channel.clone()).consume(request).await.unwrap().into_inner();
    while read.message().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_makes_a_span_at_info() {
    let counting = Counting::default();
    tracing::subscriber::set_global_default(counting.clone()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--listen", "--http-listen", "--controller-listen"];
    let loader = flags.into_iter().fold(Loader::new(), |loader, flag| loader.flag(flag, "127.0.0.1:0"));
    let loader = loader.flag("--data-dir", dir.path().to_str().unwrap()).flag("--disk-reserved-bytes", "0");
    let config = loader.load::<Config>().unwrap().config;
    let os: Arc<dyn Os> = Arc::new(RealOs::new(4).unwrap());
    let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
    let weir = Standalone::start(os, &executors, &config).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", weir.addr())).unwrap().connect_lazy();
    let topic = Topic { name: "a".into(), partitions: 1, ..Topic::default() };
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    TopicServiceClient::new(channel.clone()).create_topic(request).await.unwrap();

    let before = counting.0.spans.load(Ordering::SeqCst);
    calls(&channel).await;
    assert_eq!(counting.0.spans.load(Ordering::SeqCst), before, "a span was made that nobody sees");
    counting.0.debug.store(true, Ordering::SeqCst);
    calls(&channel).await;
    assert!(counting.0.spans.load(Ordering::SeqCst) >= before + 3, "who looks sees a span for each call");
    drop(channel);
    weir.stop().await.unwrap();
}
