//! ProduceStream: what a client that does not read costs, and that bounds make clients wait and not fail.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use weir_proto::v1::produce_stream_request::Frame as In;
use weir_proto::v1::produce_stream_response::Frame as Out;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{Acks, BatchAppend, ErrorReason, ProduceHello, ProduceStreamRequest, RecordBatch};

use crate::world::{World, batch, reason};

fn hello() -> ProduceStreamRequest {
    ProduceStreamRequest { frame: Some(In::Hello(ProduceHello::default())) }
}

fn append(correlation_id: i64, topic: &str, batch: RecordBatch) -> ProduceStreamRequest {
    let append =
        BatchAppend { correlation_id, topic: topic.to_owned(), batch: Some(batch), ..BatchAppend::default() };
    ProduceStreamRequest { frame: Some(In::Append(append)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_no_answers_is_read_no_further_and_given_up() {
    const SENT_MAX: i64 = 20_000;
    let small = [("--inflight-bytes-max", "1MiB"), ("--request-bytes-max", "1MiB")];
    let world = World::start(&[small[0], small[1], ("--stream-heartbeat-ms", "100ms")]).await;
    world.create("flights", 1).await;
    let (requests, queue) = mpsc::channel(1);
    let one = batch(b"x", 1);
    tokio::spawn(async move {
        if requests.send(hello()).await.is_err() {
            return;
        }
        for id in 0..SENT_MAX {
            if requests.send(append(id, "flights", one.clone())).await.is_err() {
                return;
            }
        }
    });
    // A connection of its own, on which nearly nothing comes back unread.
    let channel = world.endpoint().initial_stream_window_size(2_000).connect().await.unwrap();
    let mut client = ProducerServiceClient::new(channel);
    let mut answers = client.produce_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
    world.metric_is("weir_slow_readers_total", |count| count == 1.0).await;
    // What it had under way is let go of.
    world.metric_is("weir_inflight_bytes", |bytes| bytes < 2_000.0).await;
    let taken = world.metric("weir_appends_total").await as i64;
    assert!(taken < SENT_MAX / 2, "{taken} were taken of a client that reads nothing");
    let end = loop {
        match answers.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("it ended as if all were well"),
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (tonic::Code::Aborted, "SLOW_READER"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_writers_hold_together_is_bounded_and_makes_them_wait() {
    const STREAMS: i64 = 4;
    const APPENDS: i64 = 32;
    let world =
        World::start(&[("--inflight-total-bytes-max", "1MiB"), ("--inflight-bytes-max", "16MiB")]).await;
    world.create("flights", 1).await;
    let mut all = Vec::new();
    for stream in 0..STREAMS {
        let acks = if stream % 2 == 0 { Acks::All } else { Acks::None };
        let mut client = world.producer();
        all.push(tokio::spawn(async move {
            let large = batch(&[7; 400_000], 1);
            let mut requests = vec![ProduceStreamRequest {
                frame: Some(In::Hello(ProduceHello { acks: acks.into(), ..ProduceHello::default() })),
            }];
            requests.extend((0..APPENDS).map(|id| append(id, "flights", large.clone())));
            let answers = client.produce_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
            let frames = answers.map(|answer| answer.unwrap().frame.unwrap()).collect::<Vec<_>>().await;
            let receipts = frames.iter().filter(|frame| match frame {
                Out::Result(result) => result.receipt.is_some() || panic!("{:?}", result.failure),
                _ => false,
            });
            assert_eq!(receipts.count() as i64, if acks == Acks::All { APPENDS } else { 0 });
        }));
    }
    for stream in all {
        stream.await.unwrap();
    }
    assert_eq!(world.write("flights", 0, b"last").await, STREAMS * APPENDS);
    world.metric_is("weir_inflight_bytes", |bytes| bytes == 0.0).await;
    assert_eq!(world.metric("weir_inflight_limit_bytes").await, 1_048_576.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_half_sent_counts_until_its_sender_goes() {
    const LARGE: usize = 4 << 20;
    let world = World::start(&[]).await;
    let mut sender = TcpStream::connect(world.addr()).await.unwrap();
    // grpc-web says the same as gRPC, over HTTP/1.1.
    let mut half = format!(
        "POST /weir.v1.ProducerService/Produce HTTP/1.1\r\nhost: weir\r\ncontent-type: application/grpc-web+proto\r\n\
         content-length: {}\r\n\r\n\0",
        5 + LARGE
    )
    .into_bytes();
    half.extend((LARGE as u32).to_be_bytes());
    half.extend([7; 1_000]);
    sender.write_all(&half).await.unwrap();
    world.metric_is("weir_inflight_bytes", |bytes| bytes == LARGE as f64).await;
    drop(sender);
    world.metric_is("weir_inflight_bytes", |bytes| bytes == 0.0).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_name_is_refused_in_few_words_and_stops_nothing_else() {
    let world = World::start(&[]).await;
    world.create("flights", 1).await;
    let long = "x".repeat(1 << 20);
    let one = batch(b"x", 1);
    let requests =
        [hello(), append(1, &long, one.clone()), append(2, "flights", one.clone()), append(3, &long, one)];
    let answers = world.producer().produce_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let frames = answers.map(|answer| answer.unwrap().frame.unwrap()).collect::<Vec<_>>().await;
    let mut refused = 0;
    for frame in &frames {
        let Out::Result(result) = frame else { continue };
        match &result.failure {
            None => assert_eq!(result.correlation_id, 2),
            Some(failure) => {
                refused += 1;
                assert!(failure.topic.len() < 300 && failure.message.len() < 300, "{failure:?}");
                assert_eq!(failure.reason(), ErrorReason::FieldMalformed);
            }
        }
    }
    assert_eq!((frames.len(), refused), (4, 2), "{frames:?}");
    world.stop().await;
}
