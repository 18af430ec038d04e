//! Connections: how old they get, and what strangers are told.

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use weir_proto::v1::fetch_stream_response::Frame as Fetched;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::produce_stream_request::Frame as In;
use weir_proto::v1::produce_stream_response::Frame as Out;
use weir_proto::v1::{
    ConsumeRequest, ErrorReason, FetchHello, FetchStreamRequest, GetServerInfoRequest, ProduceHello,
    ProduceStreamRequest, WatchMetadataRequest,
};
use weir_runtime::testing::until;

use crate::world::{World, get, reason};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_an_old_connection_say_goodbye_and_may_be_opened_again() {
    let world =
        World::start(&[("--connection-age-ms-max", "1s"), ("--connection-age-grace-ms", "30s")]).await;
    world.create("flights", 1).await;
    for _ in 0..2 {
        let (writes, queue) = mpsc::channel(1);
        let hello = ProduceStreamRequest { frame: Some(In::Hello(ProduceHello::default())) };
        writes.send(hello).await.unwrap();
        let mut writing =
            world.producer().produce_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let (reads, queue) = mpsc::channel(1);
        let hello = weir_proto::v1::fetch_stream_request::Frame::Hello(FetchHello::default());
        reads.send(FetchStreamRequest { frame: Some(hello) }).await.unwrap();
        let mut fetching =
            world.consumer().fetch_stream(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let request = ConsumeRequest { topics: vec!["flights".into()], ..ConsumeRequest::default() };
        let mut consuming = world.consumer().consume(request).await.unwrap().into_inner();
        let mut watching = MetadataServiceClient::new(world.channel.clone())
            .watch_metadata(WatchMetadataRequest::default())
            .await
            .unwrap()
            .into_inner();

        let end = loop {
            match writing.next().await.unwrap() {
                Ok(answer) => {
                    if let Some(Out::Goodbye(goodbye)) = answer.frame {
                        assert_eq!(goodbye.cause.unwrap().reason(), ErrorReason::MaxAge);
                    }
                }
                Err(status) => break status,
            }
        };
        let ends = [
            end,
            loop {
                match fetching.next().await.unwrap() {
                    Ok(answer) => {
                        if let Some(Fetched::Goodbye(goodbye)) = answer.frame {
                            assert_eq!(goodbye.cause.unwrap().reason(), ErrorReason::MaxAge);
                        }
                    }
                    Err(status) => break status,
                }
            },
            loop {
                if let Err(status) = consuming.next().await.unwrap() {
                    break status;
                }
            },
            loop {
                if let Err(status) = watching.next().await.unwrap() {
                    break status;
                }
            },
        ];
        for end in &ends {
            assert_eq!((end.code(), reason(end).as_str()), (tonic::Code::Unavailable, "MAX_AGE"), "{end}");
        }
        // The same channel dials again. (hyper notices that a connection was ended when it is given the next call,
        // which it then hands back as cancelled, unsent.)
        let mut metadata = MetadataServiceClient::new(world.channel.clone());
        if let Err(unsent) = metadata.get_server_info(GetServerInfoRequest {}).await {
            assert_eq!(unsent.code(), tonic::Code::Cancelled, "{unsent}");
            metadata.get_server_info(GetServerInfoRequest {}).await.unwrap();
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_at_the_grpc_port_gets_one_line() {
    let world = World::start(&[]).await;
    let answer = get(world.addr(), "/").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.lines().count(), 1, "{answer}");
    let metrics = format!("http://{}/", world.http_addr());
    assert!(body.starts_with("Weir ") && body.contains("gRPC") && body.contains(&metrics), "{body}");
    let answer = get(world.addr(), "/favicon.ico").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_quiet_topics_hears_that_the_stream_lives_while_others_change() {
    let world = World::start(&[("--stream-heartbeat-ms", "500ms")]).await;
    world.create("quiet", 1).await;
    let request = WatchMetadataRequest { topics: vec!["quiet".into()], ..WatchMetadataRequest::default() };
    let mut watching =
        MetadataServiceClient::new(world.channel.clone()).watch_metadata(request).await.unwrap().into_inner();
    assert!(watching.next().await.unwrap().unwrap().snapshot);
    let heartbeat = tokio::spawn(async move { watching.next().await.unwrap().unwrap() });
    let mut changes = 0;
    until("the stream says something", async || {
        world.create(&format!("loud-{changes}"), 1).await;
        changes += 1;
        heartbeat.is_finished()
    })
    .await;
    let heartbeat = heartbeat.await.unwrap();
    assert!(heartbeat.topics.is_empty() && heartbeat.version > 0, "{heartbeat:?}");
}
