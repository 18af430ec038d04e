//! The SDK against the real thing: a whole Weir in this process, on real sockets and a disk in memory, stopped and
//! started under load.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use weir_client::{
    Acks, AppendOptions, BatchBuilder, Client, Codec, ConsumerConfig, ErrorReason, NO_HEADERS, NewTopic,
    Position, Producer, ProducerConfig, Record, Reset, TopicChange,
};
use weir_io::{Disk, MemDisk};
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs};
use weir_standalone::Standalone;

struct Weir {
    disk: MemDisk,
    running: Option<Standalone>,
    port: u16,
}

impl Weir {
    async fn start() -> Self {
        let mut weir = Self { disk: MemDisk::new(7), running: None, port: 0 };
        weir.start_again().await;
        weir
    }

    async fn start_again(&mut self) {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let os: Arc<dyn Os> = Arc::new(RealOs::with_disk(disk, 4).unwrap());
        let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
        let config = weir_config::Loader::new()
            .flag("--data-dir", "/weir")
            .flag("--listen", format!("127.0.0.1:{}", self.port))
            .flag("--http-listen", "127.0.0.1:0")
            .flag("--controller-listen", "127.0.0.1:0")
            .load::<weir_config::Standalone>()
            .unwrap()
            .config;
        let running = Standalone::start(os, &executors, &config).await.unwrap();
        self.port = running.addr().port();
        self.running = Some(running);
    }

    async fn stop(&mut self) {
        self.running.take().unwrap().stop().await.unwrap();
    }

    async fn client(&self) -> Client {
        Client::connect(&format!("127.0.0.1:{}", self.port)).await.unwrap()
    }
}

/// Everything in a topic, by partition: offset and value.
async fn read_all(client: &Client, topic: &str) -> BTreeMap<i32, Vec<(i64, String)>> {
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    consumer.assign_topic(topic, Position::Earliest).await.unwrap();
    let mut reading = consumer.until_end().await.unwrap();
    let mut all: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    while let Some(batch) = reading.next().await.unwrap() {
        let partition = all.entry(batch.partition()).or_default();
        for record in &batch {
            let record = record.unwrap();
            partition.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    all
}

async fn make(client: &Client, topic: &str, partitions: i32) {
    client.topics().create(NewTopic::new(topic).partitions(partitions)).await.unwrap();
}

/// Sends numbers to one partition, and checks that each is acknowledged at its own offset.
async fn send_numbers(producer: &Producer, topic: &str, numbers: std::ops::Range<i64>) {
    let mut receipts = Vec::new();
    for i in numbers {
        receipts.push((i, producer.send(topic, Record::new(&i.to_string()).partition(0)).await.unwrap()));
    }
    for (i, receipt) in receipts {
        let delivery = receipt.await.unwrap();
        assert_eq!(delivery.offset, Some(i));
        assert!(delivery.committed);
    }
}

fn numbered(numbers: std::ops::Range<i64>) -> Vec<(i64, String)> {
    numbers.map(|i| (i, i.to_string())).collect()
}

#[tokio::test]
async fn every_codec_goes_in_and_comes_out() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    for codec in Codec::ALL {
        let topic = format!("codec-{codec}");
        make(&client, &topic, 1).await;
        let producer = client.producer(ProducerConfig::new().compression(codec).batch_bytes(20_000)).unwrap();
        send_numbers(&producer, &topic, 0..5_000).await;
        assert_eq!(read_all(&client, &topic).await[&0], numbered(0..5_000), "{codec}");
    }
    drop(client);
    weir.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_and_starts_loses_and_doubles_nothing() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    make(&client, "a", 1).await;
    let producer = client.producer(ProducerConfig::new().batch_bytes(500)).unwrap();
    let sending = tokio::spawn({
        let producer = producer.clone();
        async move {
            for round in 0..20 {
                send_numbers(&producer, "a", round * 500..(round + 1) * 500).await;
            }
        }
    });
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    consumer.assign("a", 0, Position::Earliest).await.unwrap();
    let mut seen = Vec::new();
    for stop_at in [1_000, 4_000, 7_000, 10_000] {
        while seen.len() < stop_at {
            let batch = consumer.next().await.unwrap();
            for record in &batch {
                let record = record.unwrap();
                seen.push((record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            }
        }
        if seen.len() < 10_000 {
            weir.stop().await;
            weir.start_again().await;
        }
    }
    sending.await.unwrap();
    assert_eq!(seen, numbered(0..10_000));
    assert_eq!(read_all(&client, "a").await[&0], numbered(0..10_000));
    weir.stop().await;
}

#[tokio::test]
async fn a_topic_that_grows_is_heard_of_without_asking() {
    let mut weir = Weir::start().await;
    let never = Duration::from_secs(100 * 3600);
    let address = format!("127.0.0.1:{}", weir.port);
    let client = Client::builder().metadata_age_max(never).connect(&address).await.unwrap();
    make(&client, "a", 1).await;
    let producer = client.producer(ProducerConfig::new()).unwrap();
    send_numbers(&producer, "a", 0..1).await;
    client.topics().update("a", TopicChange::new().partitions(3)).await.unwrap();
    let heard = async {
        while client.partition_count("a").await.unwrap() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.expect("it hears of the partitions");
    let delivery = producer.send("a", Record::new("v").partition(2)).await.unwrap().await.unwrap();
    assert_eq!((delivery.partition, delivery.offset), (2, Some(0)));
    drop((client, producer));
    weir.stop().await;
}

#[tokio::test]
async fn keys_keep_their_order_over_many_partitions() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    make(&client, "keyed", 8).await;
    let producer = client.producer(ProducerConfig::new().compression(Codec::Zstd)).unwrap();
    for i in 0..8_000 {
        let (key, value) = (format!("key{}", i % 50), format!("key{} {i}", i % 50));
        let _receipt = producer.send("keyed", Record::new(&value).key(&key)).await.unwrap();
    }
    producer.close().await.unwrap();
    let all = read_all(&client, "keyed").await;
    assert_eq!(all.values().map(Vec::len).sum::<usize>(), 8_000);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for (_, value) in all.values().flatten() {
        let (key, i) = value.split_once(' ').unwrap();
        let i: i64 = i.parse().unwrap();
        let before = last.insert(key.to_owned(), i);
        assert!(before.is_none_or(|before| before + 50 == i), "{key}: {before:?} then {i}");
    }
    weir.stop().await;
}

#[tokio::test]
async fn limits_conditions_and_positions_as_the_real_broker_has_them() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    let topics = client.topics();
    topics.create(NewTopic::new("small").config("batch_bytes_max", "10000")).await.unwrap();
    let producer = client.producer(ProducerConfig::new()).unwrap();
    let error = producer.send("small", &*"x".repeat(20_000)).await.unwrap_err();
    assert_eq!(error.reason(), Some(ErrorReason::RecordTooLarge));
    for _ in 0..100 {
        let _receipt = producer.send("small", &*"x".repeat(1_000)).await.unwrap();
    }
    producer.flush().await.unwrap();

    let mut builder = BatchBuilder::new();
    builder.push(1, None, Some(b"v"), NO_HEADERS).unwrap();
    let batch = builder.finish(Codec::None).unwrap();
    let at = |offset| AppendOptions { expected_next_offset: Some(offset), ..Default::default() };
    let error = producer.send_batch("small", 0, batch.clone(), at(7)).await.unwrap().await.unwrap_err();
    assert!(error.is(ErrorReason::OffsetMismatch), "{error:?}");
    let done = producer.send_batch("small", 0, batch, at(100)).await.unwrap().await.unwrap();
    assert_eq!(done.offset, Some(100));

    topics.delete_records("small", &[(0, 50)]).await.unwrap();
    assert_eq!(client.offsets().earliest("small", 0).await.unwrap(), 50);
    let mut strict = client.consumer(ConsumerConfig::new()).unwrap();
    strict.assign("small", 0, Position::Offset(3)).await.unwrap();
    let error = strict.next().await.unwrap_err();
    assert!(error.is(ErrorReason::OffsetOutOfRange), "{error:?}");
    let mut lenient = client.consumer(ConsumerConfig::new().out_of_range(Reset::Earliest)).unwrap();
    lenient.assign("small", 0, Position::Offset(3)).await.unwrap();
    let first = lenient.next().await.unwrap().records().next().unwrap().unwrap().offset;
    assert_eq!(first, 50);

    let error = topics.get("smal").await.unwrap_err();
    assert!(error.is(ErrorReason::TopicNotFound) && error.to_string().contains("small"), "{error}");
    weir.stop().await;
}

#[tokio::test]
async fn weaker_acknowledgements() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    make(&client, "a", 1).await;
    let leader = client.producer(ProducerConfig::new().acks(Acks::Leader)).unwrap();
    let delivery = leader.send("a", "1").await.unwrap().await.unwrap();
    assert_eq!(delivery.offset, Some(0));
    let none = client.producer(ProducerConfig::new().acks(Acks::None)).unwrap();
    assert_eq!(none.send("a", "2").await.unwrap().await.unwrap().offset, None);
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    consumer.assign("a", 0, Position::Offset(1)).await.unwrap();
    let batch = consumer.poll(Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(batch.records().next().unwrap().unwrap().value, Some(&b"2"[..]));
    weir.stop().await;
}

/// What only the log has a use for: the partition is fenced against a producer that it does not know.
async fn fence(weir: &Weir, topic: &str) {
    use weir_proto::v1;
    let address = format!("http://127.0.0.1:{}", weir.port);
    let mut raw = v1::producer_service_client::ProducerServiceClient::connect(address).await.unwrap();
    let question = v1::GetAppendOutcomeRequest {
        topic: topic.into(),
        producer: Some(v1::ProducerIdentity { id: 5, epoch: 0 }),
        seal: true,
        wait_ms: 10_000,
        ..Default::default()
    };
    let answer = raw.get_append_outcome(question).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), v1::AppendOutcome::Never);
}

#[tokio::test]
async fn a_fence_of_a_new_epoch_is_not_taken_for_a_truncation() {
    let mut weir = Weir::start().await;
    let client = weir.client().await;
    make(&client, "a", 1).await;
    let producer = client.producer(ProducerConfig::new()).unwrap();
    producer.send("a", "1").await.unwrap().await.unwrap();
    let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
    consumer.assign("a", 0, Position::Earliest).await.unwrap();
    let of_first = consumer.next().await.unwrap().leader_epoch();
    weir.stop().await;
    weir.start_again().await;
    fence(&weir, "a").await;
    // Behind the fence there is nothing to read.
    let mut reading = consumer.until_end().await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(60), reading.next()).await.expect("it ends");
    assert!(read.unwrap().is_none());
    let position = consumer.positions().pop().unwrap();
    assert_eq!(position.offset, 2);
    assert!(position.leader_epoch > Some(of_first), "the fence is of a newer epoch: {position:?}");
    consumer.pause("a", 0).unwrap();
    consumer.resume("a", 0).unwrap();
    producer.send("a", "2").await.unwrap().await.unwrap();
    let batch = tokio::time::timeout(Duration::from_secs(60), consumer.next()).await.expect("it is there");
    assert_eq!(batch.unwrap().records().next().unwrap().unwrap().value, Some(&b"2"[..]));
    weir.stop().await;
}
