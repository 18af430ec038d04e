//! FetchStream and Consume: turns, generations, ends.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    ConsumeRequest, ErrorReason, FetchAssign, FetchCredit, FetchHello, FetchPartition, FetchRelease,
    FetchRequest, FetchStreamRequest, FetchStreamResponse, GetAppendOutcomeRequest, ProducerIdentity,
    RecordFormat, TopicPartitionOffset,
};

use crate::world::{World, reason};

fn request(frame: In) -> FetchStreamRequest {
    FetchStreamRequest { frame: Some(frame) }
}

fn hello(credit_bytes: i64) -> FetchStreamRequest {
    let credit = Some(FetchCredit { bytes: credit_bytes, records: 0 });
    request(In::Hello(FetchHello { credit, ..FetchHello::default() }))
}

fn assign(subscription_id: i64, generation: i64, partition: i32, offset: i64) -> FetchStreamRequest {
    let topic = "flights".to_owned();
    request(In::Assign(FetchAssign {
        subscription_id,
        generation,
        topic,
        partition,
        offset,
        ..FetchAssign::default()
    }))
}

fn release(subscription_id: i64) -> FetchStreamRequest {
    request(In::Release(FetchRelease { subscription_id }))
}

/// A stream to which no more is said than this.
async fn said(world: &World, requests: Vec<FetchStreamRequest>) -> Streaming<FetchStreamResponse> {
    world.consumer().fetch_stream(tokio_stream::iter(requests)).await.unwrap().into_inner()
}

async fn next(answers: &mut Streaming<FetchStreamResponse>) -> Out {
    answers.next().await.unwrap().unwrap().frame.unwrap()
}

/// The next delivery: subscription and offset.
async fn delivery(answers: &mut Streaming<FetchStreamResponse>) -> (i64, i64) {
    loop {
        match next(answers).await {
            Out::Delivery(delivery) => {
                return (delivery.subscription_id, delivery.batch.unwrap().base_offset);
            }
            Out::Welcome(_) | Out::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The frames until the stream ends well.
async fn rest(answers: Streaming<FetchStreamResponse>) -> Vec<Out> {
    answers.map(|answer| answer.unwrap().frame.unwrap()).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_always_has_something_does_not_keep_another_from_its_turn() {
    const MANY: usize = 400;
    let world = World::start(&[]).await;
    world.create("flights", 2).await;
    for _ in 0..MANY {
        world.write("flights", 0, &[7; 4_000]).await;
    }
    let (requests, queue) = mpsc::channel(8);
    requests.send(hello(1)).await.unwrap();
    requests.send(assign(1, 1, 1, 0)).await.unwrap();
    let channel = world.endpoint().initial_stream_window_size(65_535).connect().await.unwrap();
    let mut client = ConsumerServiceClient::new(channel);
    let mut answers = client.fetch_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
    // The empty one waits from here on.
    while !matches!(next(&mut answers).await, Out::Heartbeat(_)) {}
    requests.send(request(In::Credit(FetchCredit { bytes: 1 << 30, records: 0 }))).await.unwrap();
    requests.send(assign(2, 1, 0, 0)).await.unwrap();
    assert_eq!(delivery(&mut answers).await, (2, 0));
    // Not read meanwhile: no more is on its way than the connection takes.
    world.write("flights", 1, b"new").await;
    let mut before = 0;
    while delivery(&mut answers).await.0 == 2 {
        before += 1;
    }
    // What was on its way, and at most one more portion of the log.
    assert!(before < MANY / 2, "it came after {before} batches of the other one");
    drop((requests, answers, client));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_was_released_and_taken_up_again_has_one_turn() {
    let world = World::start(&[]).await;
    world.create("flights", 2).await;
    for _ in 0..6 {
        world.write("flights", 0, &[7; 200_000]).await;
        world.write("flights", 1, &[7; 200_000]).await;
    }
    // All of this is heard before there is credit for the first delivery.
    let mut requests = vec![hello(0)];
    for generation in 1..4 {
        requests.extend([assign(1, generation, 0, 0), release(1)]);
    }
    requests.extend([assign(2, 1, 1, 0), assign(1, 9, 0, 0)]);
    requests.push(request(In::Credit(FetchCredit { bytes: 1 << 30, records: 0 })));
    let (to, queue) = mpsc::channel(32);
    for request in requests {
        to.send(request).await.unwrap();
    }
    let mut answers = world.consumer().fetch_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
    let mut order = Vec::new();
    for _ in 0..12 {
        order.push(delivery(&mut answers).await);
    }
    // A portion holds one batch of this size or two: whoever has two turns is ahead soon.
    for part in order.chunks(4) {
        let of_first = part.iter().filter(|(id, _)| *id == 1).count();
        assert_eq!(of_first, 2, "{order:?}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_names_subscription_and_generation() {
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    let (requests, queue) = mpsc::channel(8);
    requests.send(hello(1_000)).await.unwrap();
    requests.send(assign(7, 3, 0, 0)).await.unwrap();
    let mut answers = world.consumer().fetch_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
    for generation in [3, 4] {
        let said = loop {
            if let Out::Heartbeat(heartbeat) = next(&mut answers).await {
                break heartbeat.progress;
            }
        };
        let [only] = &said[..] else { panic!("{said:?}") };
        assert_eq!((only.subscription_id, only.generation), (7, generation));
        assert_eq!(only.progress.as_ref().unwrap().topic, "flights");
        requests.send(assign(7, generation + 1, 0, 0)).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_position_comes_with_the_epoch_of_what_is_before_it() {
    let world = World::start(&[]).await;
    world.create("flights", 2).await;
    world.write("flights", 0, &[7; 100]).await;
    // A fence, which nobody is given: it is behind the batch, and the position behind both.
    let question = GetAppendOutcomeRequest {
        topic: "flights".into(),
        producer: Some(ProducerIdentity { id: 5, epoch: 0 }),
        seal: true,
        wait_ms: 10_000,
        ..GetAppendOutcomeRequest::default()
    };
    world.producer().get_append_outcome(question).await.unwrap();

    let frames = rest(said(&world, vec![hello(1), assign(1, 1, 0, 0)]).await).await;
    let delivered = frames.iter().find_map(|frame| match frame {
        Out::Delivery(delivery) => Some(delivery.clone()),
        _ => None,
    });
    let delivered = delivered.unwrap();
    let epoch = Some(delivered.batch.unwrap().leader_epoch);
    assert_eq!((delivered.next_offset, delivered.next_leader_epoch), (2, epoch));

    for (partition, expected) in [(0, (2, epoch)), (1, (0, None))] {
        let (requests, queue) = mpsc::channel(8);
        requests.send(hello(1_000)).await.unwrap();
        requests.send(assign(1, 1, partition, 0)).await.unwrap();
        let mut answers =
            world.consumer().fetch_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let progress = loop {
            if let Out::Heartbeat(heartbeat) = next(&mut answers).await {
                let progress = heartbeat.progress[0].progress.clone().unwrap();
                if progress.next_offset == expected.0 {
                    break progress;
                }
            }
        };
        assert_eq!((progress.next_offset, progress.leader_epoch), expected);
    }

    let topic = || "flights".to_owned();
    let wanted = FetchPartition { topic: topic(), ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![wanted], ..FetchRequest::default() };
    let fetched = world.consumer().fetch(request).await.unwrap().into_inner();
    assert_eq!(fetched.partitions[0].progress.as_ref().unwrap().leader_epoch, epoch);
    let request = ConsumeRequest { topics: vec![topic()], until_end: true, ..ConsumeRequest::default() };
    let consumed = world.consumer().consume(request).await.unwrap().into_inner();
    let said: Vec<_> = consumed.map(|message| message.unwrap()).collect().await;
    let position = said.iter().flat_map(|message| &message.next).rfind(|next| next.partition == 0).unwrap();
    assert_eq!((position.offset, position.leader_epoch), (2, epoch));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_closed_stream_ends_when_nothing_more_can_come() {
    let world = World::start(&[]).await;
    world.create("flights", 2).await;
    world.write("flights", 0, &[7; 1_000]).await;
    world.write("flights", 0, &[7; 1_000]).await;

    // Its only partition is taken away.
    let answers = said(&world, vec![hello(1), assign(1, 1, 5, 0)]).await;
    let frames = rest(answers).await;
    assert!(
        matches!(&frames[..], [Out::Welcome(_), Out::End(end)] if end.subscription_id == 1),
        "{frames:?}"
    );

    // Its credit is used up.
    let frames = rest(said(&world, vec![hello(1), assign(1, 1, 0, 0)]).await).await;
    let delivered = frames.iter().filter(|frame| matches!(frame, Out::Delivery(_))).count();
    assert_eq!(delivered, 1, "{frames:?}");

    // Nothing was ever asked for.
    assert!(matches!(&rest(said(&world, vec![hello(1)]).await).await[..], [Out::Welcome(_)]));

    // While something can come it goes on.
    let mut answers = said(&world, vec![hello(1_000_000), assign(1, 1, 1, 0)]).await;
    while !matches!(next(&mut answers).await, Out::Heartbeat(_)) {}
    world.write("flights", 1, b"late").await;
    assert_eq!(delivery(&mut answers).await, (1, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_end_is_out_of_range_wherever_it_is_read() {
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    world.write("flights", 0, b"one").await;
    for until_end in [true, false] {
        let at = |offset| ConsumeRequest {
            positions: vec![TopicPartitionOffset { topic: "flights".into(), offset, ..Default::default() }],
            until_end,
            ..ConsumeRequest::default()
        };
        let refused = world.consumer().consume(at(2)).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (tonic::Code::OutOfRange, "OFFSET_OUT_OF_RANGE")
        );
        use tonic_types::StatusExt;
        let facts = refused.get_details_error_info().unwrap().metadata;
        for (name, value) in [("offset", "2"), ("log_start_offset", "0"), ("end_offset", "1")] {
            assert_eq!(facts.get(name).map(String::as_str), Some(value), "{facts:?}");
        }
        world.consumer().consume(at(1)).await.unwrap();
    }
    let partition = FetchPartition { topic: "flights".into(), offset: 2, ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![partition], ..FetchRequest::default() };
    let fetched = world.consumer().fetch(request).await.unwrap().into_inner();
    assert_eq!(fetched.partitions[0].failure.as_ref().unwrap().reason(), ErrorReason::OffsetOutOfRange);
    let frames = rest(said(&world, vec![hello(1), assign(1, 1, 0, 2)]).await).await;
    let Some(Out::End(end)) = frames.last() else { panic!("{frames:?}") };
    assert_eq!(end.failure.as_ref().unwrap().reason(), ErrorReason::OffsetOutOfRange);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_waits_for_much_reads_it_once_it_is_there() {
    const BATCHES: i64 = 100;
    const BATCH_BYTES: usize = 2_000;
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    for format in [RecordFormat::Batches, RecordFormat::Plain] {
        let offset = world.write("flights", 0, b"first").await + 1;
        let (delivered, read) =
            (world.metric("weir_delivered_bytes_total").await, world.metric("weir_read_bytes_total").await);
        let partition = FetchPartition { topic: "flights".into(), offset, ..FetchPartition::default() };
        let request = FetchRequest {
            partitions: vec![partition],
            bytes_min: i32::try_from(BATCHES).unwrap() * i32::try_from(BATCH_BYTES).unwrap(),
            wait_ms: Some(30_000),
            format: format.into(),
            ..FetchRequest::default()
        };
        let mut consumer = world.consumer();
        let fetch = tokio::spawn(async move { consumer.fetch(request).await.unwrap().into_inner() });
        for _ in 0..BATCHES {
            world.write("flights", 0, &[7; BATCH_BYTES]).await;
        }
        let fetched = fetch.await.unwrap();
        let answer = &fetched.partitions[0];
        assert!(answer.failure.is_none(), "{answer:?}");
        let batches: usize = answer.batches.iter().map(|batch| batch.records.len()).sum();
        let records: usize = answer.records.iter().map(|record| record.value.as_ref().unwrap().len()).sum();
        let answered = (batches + records) as f64;
        assert!(answered > 0.9 * (BATCHES as usize * BATCH_BYTES) as f64, "{answered}");
        let delivered = world.metric("weir_delivered_bytes_total").await - delivered;
        assert!(delivered < 1.1 * answered, "{delivered} were counted for {answered}");
        let read = world.metric("weir_read_bytes_total").await - read;
        assert!(read < 3.0 * answered, "{read} were read for {answered}");
    }
    world.stop().await;
}
