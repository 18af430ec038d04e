//! Plain records, by Consume and by Fetch: the same, wherever in a batch reading begins and ends.

use std::collections::BTreeSet;

use prost::Message;
use tokio_stream::StreamExt;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    ConsumeRequest, ConsumeResponse, FetchPartition, FetchRequest, Header, ListOffsetsRequest, NewRecord,
    OffsetQuery, ProduceRequest, StoredRecord, TopicPartitionOffset,
};

use crate::world::{World, reason};

const COUNT: i64 = 50;

/// Batches of ten, of keys, headers, text, bytes that are none, and tombstones.
async fn written() -> World {
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    for first in (0..COUNT).step_by(10) {
        let record = |at: i64| NewRecord {
            key_text: format!("key {at}"),
            value: (at % 3 != 0).then(|| vec![if at % 2 == 0 { b'x' } else { 0xff }; 10].into()),
            tombstone: at % 3 == 0,
            headers: vec![Header { key: "at".into(), value: at.to_string().into() }],
            timestamp_ms: Some(1_700_000_000_000 + at),
            ..NewRecord::default()
        };
        let request = ProduceRequest {
            topic: "flights".into(),
            partition: Some(0),
            records: (first..first + 10).map(record).collect(),
            codec: weir_proto::v1::Codec::Zstd.into(),
            ..ProduceRequest::default()
        };
        world.producer().produce(request).await.unwrap();
    }
    world
}

async fn consume(world: &World, request: ConsumeRequest) -> Vec<ConsumeResponse> {
    let answers = world.consumer().consume(request).await.unwrap().into_inner();
    answers.map(Result::unwrap).collect().await
}

fn from(offset: i64) -> ConsumeRequest {
    let position =
        TopicPartitionOffset { topic: "flights".into(), offset, ..TopicPartitionOffset::default() };
    ConsumeRequest { positions: vec![position], until_end: true, ..ConsumeRequest::default() }
}

async fn fetch(world: &World, offset: i64, bytes_max: i32) -> (Vec<StoredRecord>, i64) {
    let partition =
        FetchPartition { topic: "flights".into(), offset, bytes_max, ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![partition], wait_ms: Some(0), ..FetchRequest::default() };
    let fetched = world.consumer().fetch(request).await.unwrap().into_inner().partitions.remove(0);
    assert_eq!(fetched.failure, None);
    (fetched.records, fetched.progress.unwrap().next_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_inside_a_batch_is_its_first_record_that_is_not_older() {
    let world = written().await;
    let base_ms = 1_700_000_000_000;
    for (timestamp_ms, offset) in [(0, 0), (base_ms + 10, 10), (base_ms + 27, 27), (base_ms + 49, 49)] {
        let query =
            OffsetQuery { topic: "flights".into(), timestamp_ms: Some(timestamp_ms), ..Default::default() };
        let request = ListOffsetsRequest { queries: vec![query], ..ListOffsetsRequest::default() };
        let answer = world.consumer().list_offsets(request).await.unwrap().into_inner().offsets.remove(0);
        assert_eq!((answer.offset, answer.timestamp_ms), (offset, base_ms + offset));
        let request = ConsumeRequest {
            topics: vec!["flights".into()],
            start_timestamp_ms: Some(timestamp_ms),
            until_end: true,
            ..ConsumeRequest::default()
        };
        let messages = consume(&world, request).await;
        let first = messages.iter().flat_map(|message| &message.records).next().unwrap();
        assert_eq!(first.offset, offset);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_those_that_were_written_from_any_offset_on() {
    let world = written().await;
    let messages = consume(&world, from(0)).await;
    let all: Vec<_> = messages.into_iter().flat_map(|message| message.records).collect();
    assert_eq!(all.len() as i64, COUNT);
    for (at, record) in (0..).zip(&all) {
        assert_eq!((record.topic.as_str(), record.partition, record.offset), ("flights", 0, at));
        assert_eq!(record.timestamp_ms, 1_700_000_000_000 + at);
        assert_eq!(record.key.as_deref(), Some(format!("key {at}").as_bytes()));
        assert_eq!((record.tombstone, record.value.is_none()), (at % 3 == 0, at % 3 == 0));
        assert_eq!(record.headers[0].value, at.to_string());
        assert!(record.leader_epoch > 0);
    }
    for offset in [0, 7, 10, 33, COUNT] {
        let messages = consume(&world, from(offset)).await;
        let last = messages.last().unwrap();
        assert_eq!(last.next[0].offset, COUNT);
        let got: Vec<_> = messages.into_iter().flat_map(|message| message.records).collect();
        assert_eq!(got, all[offset as usize..]);
        let (got, next) = fetch(&world, offset, 0).await;
        assert_eq!((&got[..], next), (&all[offset as usize..], COUNT));
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_in_the_middle_of_a_batch() {
    let world = written().await;
    let messages = consume(&world, ConsumeRequest { records_max: 4, text: true, ..from(8) }).await;
    let got: Vec<_> = messages.iter().flat_map(|message| &message.records).collect();
    assert_eq!(got.iter().map(|record| record.offset).collect::<Vec<_>>(), [8, 9, 10, 11]);
    assert_eq!((got[0].key_text.as_str(), got[0].value_text.as_str()), ("key 8", "xxxxxxxxxx"));
    assert!(got[0].key.is_none() && got[3].value.is_some() && got[3].value_text.is_empty());
    assert_eq!(messages.last().unwrap().next[0].offset, 12);

    // A few records at a time: none twice, none left out, and always at least one.
    let mut next = 0;
    while next < COUNT {
        let (records, after) = fetch(&world, next, 150).await;
        assert_eq!(
            records.iter().map(|record| record.offset).collect::<Vec<_>>(),
            (next..after).collect::<Vec<_>>()
        );
        assert!((1..4).contains(&records.len()), "{} records of 150 bytes", records.len());
        next = after;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_larger_than_the_clients_messages_is_named_and_what_comes_before_it_delivered() {
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    world.write("flights", 0, b"small").await;
    world.write("flights", 0, &[7; 300_000]).await;
    let request = ConsumeRequest { message_bytes_max: 200_000, ..from(0) };
    let mut answers = world.consumer().consume(request).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().records.len(), 1);
    let refused = answers.next().await.unwrap().unwrap_err();
    assert_eq!(reason(&refused), "MESSAGE_LARGER_THAN_CLIENT_LIMIT");
    assert!(refused.message().contains("flights/0@1"), "{refused}");
    // One that takes it gets it, though it is more than a message usually holds.
    let messages = consume(&world, ConsumeRequest { message_bytes_max: 400_000, ..from(0) }).await;
    assert_eq!(messages.iter().map(|message| message.records.len()).sum::<usize>(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_many_partitions_stand_fits_the_clients_messages_and_each_is_told() {
    const PARTITIONS: i32 = 300;
    let limit = 128 << 10;
    let world = World::start(&[]).await;
    let topic = "t".repeat(249);
    world.create(&topic, PARTITIONS).await;
    for partition in 0..PARTITIONS {
        world.write(&topic, partition, b"x").await;
    }
    let request = ConsumeRequest {
        topics: vec![topic],
        until_end: true,
        message_bytes_max: limit,
        ..ConsumeRequest::default()
    };
    let messages = consume(&world, request).await;
    for message in &messages {
        assert!(message.encoded_len() <= limit as usize, "{} bytes", message.encoded_len());
    }
    let read = messages.iter().flat_map(|message| &message.records).map(|record| record.partition);
    assert_eq!(read.collect::<BTreeSet<_>>().len(), PARTITIONS as usize);
    let told = messages.iter().filter(|message| message.records.is_empty()).flat_map(|message| &message.next);
    let told: BTreeSet<_> = told.map(|next| (next.partition, next.offset)).collect();
    assert_eq!(told, (0..PARTITIONS).map(|partition| (partition, 1)).collect());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_to_any_of_many_partitions_is_delivered_also_after_a_wait() {
    const PARTITIONS: i32 = 200;
    let world = World::start(&[]).await;
    world.create("flights", PARTITIONS).await;
    let request =
        ConsumeRequest { topics: vec!["flights".into()], heartbeat_ms: 100, ..ConsumeRequest::default() };
    let mut answers = world.consumer().consume(request).await.unwrap().into_inner();
    // All are waited for by the time of the first heartbeat, which is two messages.
    for _ in 0..2 {
        assert!(answers.next().await.unwrap().unwrap().records.is_empty());
    }
    for round in 0..3 {
        for partition in [PARTITIONS - 1, 0, 77] {
            world.write("flights", partition, b"x").await;
            let record = loop {
                if let Some(record) = answers.next().await.unwrap().unwrap().records.pop() {
                    break record;
                }
            };
            assert_eq!((record.partition, record.offset), (partition, round));
        }
    }
    // The end of one that is waited for is heard of, too.
    let request = weir_proto::v1::DeleteTopicRequest { name: "flights".into(), ..Default::default() };
    TopicServiceClient::new(world.channel.clone()).delete_topic(request).await.unwrap();
    let refused = loop {
        if let Err(status) = answers.next().await.unwrap() {
            break status;
        }
    };
    // The log is closed a moment before the topic is gone.
    assert!(["TOPIC_NOT_FOUND", "NO_LEADER"].contains(&&*reason(&refused)), "{refused}");
    drop(answers);
    world.stop().await;
}
