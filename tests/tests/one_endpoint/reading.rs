//! Streams that read partitions of several leaders, at a broker that leads few of them or none.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use weir_proto::v1::fetch_stream_request::Frame as Out;
use weir_proto::v1::fetch_stream_response::Frame as In;
use weir_proto::v1::{
    ConsumeRequest, ConsumeResponse, ErrorReason, FetchAssign, FetchCredit, FetchHello, FetchStreamRequest,
    FetchStreamResponse, Route, TopicPartitionOffset,
};
use weir_runtime::testing::PATIENCE;
use weir_tests::cluster::Cluster;

use crate::said::{cluster_with, consumer, stranger_and_leader, to_one, write};

const TOPIC: &str = "flights";

/// Writes so many records to each partition of a topic, numbered from `first`.
async fn fill(cluster: &Cluster, partitions: i32, first: i64, count: i64) {
    for partition in 0..partitions {
        for number in first..first + count {
            write(cluster, 0, to_one(TOPIC, partition, &number.to_string())).await.unwrap();
        }
    }
}

/// What was read, by partition: offset and value.
type Read = BTreeMap<i32, Vec<(i64, i64)>>;

/// As it is written: by the numbers from 0 on.
fn whole(partitions: i32, count: i64) -> Read {
    (0..partitions)
        .map(|partition| (partition, (0..count).map(|number| (number, number)).collect()))
        .collect()
}

async fn consume(cluster: &Cluster, at: usize, request: ConsumeRequest) -> Streaming<ConsumeResponse> {
    consumer(cluster.channel(at)).consume(request).await.unwrap().into_inner()
}

fn take(read: &mut Read, message: &ConsumeResponse) -> usize {
    for record in &message.records {
        let value = String::from_utf8(record.value.clone().unwrap().into()).unwrap();
        read.entry(record.partition).or_default().push((record.offset, value.parse().unwrap()));
    }
    message.records.len()
}

#[tokio::test]
async fn consume_reads_a_whole_topic_to_its_end_at_any_broker() {
    let cluster = cluster_with(TOPIC, 6).await;
    fill(&cluster, 5, 0, 20).await;
    for at in 0..3 {
        let request =
            ConsumeRequest { topics: vec![TOPIC.to_owned()], until_end: true, ..ConsumeRequest::default() };
        let mut stream = consume(&cluster, at, request).await;
        let (mut read, mut next) = (Read::new(), BTreeMap::new());
        while let Some(message) = stream.message().await.unwrap() {
            take(&mut read, &message);
            next.extend(message.next.iter().map(|next| (next.partition, next.offset)));
        }
        assert_eq!(read, whole(5, 20), "at broker {at}");
        assert_eq!(next, [(0, 20), (1, 20), (2, 20), (3, 20), (4, 20), (5, 0)].into());
    }
    let last = ConsumeRequest {
        topics: vec![TOPIC.to_owned()],
        until_end: true,
        start_last: Some(3),
        ..ConsumeRequest::default()
    };
    let mut stream = consume(&cluster, 0, last).await;
    let mut read = Read::new();
    while let Some(message) = stream.message().await.unwrap() {
        take(&mut read, &message);
    }
    assert!(read.len() == 5 && read.values().all(|read| *read == [(17, 17), (18, 18), (19, 19)]), "{read:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn consume_goes_on_where_it_was_through_the_death_of_every_leader() {
    let mut cluster = cluster_with(TOPIC, 3).await;
    let at = 0;
    let request = ConsumeRequest { topics: vec![TOPIC.to_owned()], ..ConsumeRequest::default() };
    let mut stream = consume(&cluster, at, request).await;
    let mut read = Read::new();
    let mut count = 0;
    for round in 0..3 {
        fill(&cluster, 3, round * 10, 10).await;
        let wanted = usize::try_from((round + 1) * 30).unwrap();
        while count < wanted {
            let message = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap();
            count += take(&mut read, &message.unwrap().unwrap());
        }
        if round < 2 {
            let killed = usize::try_from(round + 1).unwrap();
            cluster.kill_broker(killed).await;
            cluster.start_broker(killed).await;
            cluster.until_led(TOPIC).await;
        }
    }
    assert_eq!(read, whole(3, 30));
    drop(stream);
    cluster.stop().await;
}

#[tokio::test]
async fn a_position_beyond_the_end_of_a_partition_elsewhere_ends_the_stream_with_its_reason() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, _) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let beyond =
        TopicPartitionOffset { topic: TOPIC.to_owned(), offset: 7, ..TopicPartitionOffset::default() };
    let request = ConsumeRequest { positions: vec![beyond], ..ConsumeRequest::default() };
    let mut stream = consume(&cluster, stranger, request).await;
    let refused = stream.message().await.unwrap_err();
    assert_eq!(crate::said::reason(&refused), "OFFSET_OUT_OF_RANGE");
    cluster.stop().await;
}

/// A fetching stream to one broker.
struct Fetching {
    requests: mpsc::UnboundedSender<FetchStreamRequest>,
    answers: Streaming<FetchStreamResponse>,
}

impl Fetching {
    async fn open(cluster: &Cluster, at: usize, route: Route, credit_bytes: i64) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let credit = Some(FetchCredit { bytes: credit_bytes, records: 0 });
        let hello = FetchHello { credit, route: route.into(), ..FetchHello::default() };
        let mut fetching = Self {
            requests,
            answers: {
                let queue = UnboundedReceiverStream::new(queue);
                let first = tokio_stream::once(FetchStreamRequest { frame: Some(Out::Hello(hello)) });
                let all = tokio_stream::StreamExt::chain(first, queue);
                consumer(cluster.channel(at)).fetch_stream(all).await.unwrap().into_inner()
            },
        };
        assert!(matches!(fetching.next().await, In::Welcome(_)));
        fetching
    }

    fn say(&self, frame: Out) {
        self.requests.send(FetchStreamRequest { frame: Some(frame) }).unwrap();
    }

    fn assign(&self, partition: i32, generation: i64, offset: i64) {
        self.say(Out::Assign(FetchAssign {
            subscription_id: partition.into(),
            generation,
            topic: TOPIC.to_owned(),
            partition,
            offset,
            ..FetchAssign::default()
        }));
    }

    async fn next(&mut self) -> In {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.unwrap();
        answer.unwrap().unwrap().frame.unwrap()
    }
}

#[tokio::test]
async fn a_fetching_stream_reads_all_partitions_by_one_credit() {
    let cluster = cluster_with(TOPIC, 6).await;
    fill(&cluster, 6, 0, 20).await;
    // One byte: what is delivered next uses it up.
    let mut fetching = Fetching::open(&cluster, 0, Route::Forward, 1).await;
    (0..6).for_each(|partition| fetching.assign(partition, 1, 0));
    let mut offsets: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut credit = 1;
    for _ in 0..120 {
        let delivery = loop {
            match fetching.next().await {
                In::Delivery(delivery) => break delivery,
                In::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let batch = delivery.batch.unwrap();
        assert!(credit > 0, "nothing comes without credit");
        credit -= batch.records.len() as i64;
        offsets.entry(delivery.subscription_id).or_default().push(batch.base_offset);
        let more = 1 - credit;
        credit += more;
        fetching.say(Out::Credit(FetchCredit { bytes: more, records: 0 }));
    }
    assert!(offsets.len() == 6 && offsets.values().all(|read| read.iter().copied().eq(0..20)), "{offsets:?}");
    // Another generation begins where it says, and nothing of the one before comes behind it.
    fetching.say(Out::Credit(FetchCredit { bytes: 1 << 20, records: 0 }));
    (0..6).for_each(|partition| fetching.assign(partition, 2, 18));
    let mut again: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    while again.values().map(Vec::len).sum::<usize>() < 12 {
        if let In::Delivery(delivery) = fetching.next().await {
            assert_eq!(delivery.generation, 2);
            again.entry(delivery.subscription_id).or_default().push(delivery.batch.unwrap().base_offset);
        }
    }
    assert!(again.len() == 6 && again.values().all(|read| *read == [18, 19]), "{again:?}");
    drop(fetching);
    cluster.stop().await;
}

#[tokio::test]
async fn a_direct_fetching_stream_is_told_who_leads() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let mut fetching = Fetching::open(&cluster, stranger, Route::Direct, 1).await;
    fetching.assign(0, 1, 0);
    let In::End(end) = fetching.next().await else { panic!("not an end") };
    let failure = end.failure.unwrap();
    assert_eq!(failure.reason(), ErrorReason::NotLeader);
    assert_eq!(failure.metadata["leader_endpoint"], cluster.addr(leader).to_string());
    drop(fetching);
    cluster.stop().await;
}

#[tokio::test]
async fn where_a_leader_dies_its_subscriptions_end_and_can_be_taken_up_again() {
    let mut cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    fill(&cluster, 1, 0, 3).await;
    let mut fetching = Fetching::open(&cluster, stranger, Route::Forward, 1 << 20).await;
    fetching.assign(0, 1, 0);
    let mut next_offset = 0;
    while next_offset < 3 {
        if let In::Delivery(delivery) = fetching.next().await {
            next_offset = delivery.next_offset;
        }
    }
    cluster.kill_broker(leader).await;
    let failure = loop {
        match fetching.next().await {
            In::End(end) => break end.failure.unwrap(),
            In::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(failure.reason(), ErrorReason::NoLeader);
    assert!(failure.retry_after_ms.is_some(), "{failure:?}");
    cluster.start_broker(leader).await;
    cluster.until_led(TOPIC).await;
    fill(&cluster, 1, 3, 1).await;
    let mut generation = 1;
    let read = loop {
        generation += 1;
        fetching.assign(0, generation, next_offset);
        let said = loop {
            match fetching.next().await {
                In::Heartbeat(_) => {}
                said => break said,
            }
        };
        match said {
            In::Delivery(delivery) => break delivery.batch.unwrap().base_offset,
            In::End(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read, 3);
    drop(fetching);
    cluster.stop().await;
}
