//! Stopping: streams are told, what is under way is answered, everything acknowledged is on the disk and marked so;
//! a second signal ends the process at once.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use weir_proto::v1::fetch_stream_request::Frame as FetchIn;
use weir_proto::v1::fetch_stream_response::Frame as FetchOut;
use weir_proto::v1::produce_stream_request::Frame as ProduceIn;
use weir_proto::v1::produce_stream_response::Frame as ProduceOut;
use weir_proto::v1::{
    Applied, BatchAppend, ConsumeRequest, ErrorReason, FetchAssign, FetchHello, FetchPartition, FetchRequest,
    FetchStreamRequest, FetchStreamResponse, ProduceHello, ProduceStreamRequest, ProduceStreamResponse,
    WatchMetadataRequest,
};
use weir_record::Codec;
use weir_tests::api::Api;
use weir_tests::batch::pack_values;
use weir_tests::process::Setup;
use weir_tests::refusal::Refusal;

const TOPIC: &str = "flights";

/// Reads a stream to its planned end: try again, nothing was applied. Says whether there was a goodbye.
async fn drains<T>(stream: &mut Streaming<T>, is_goodbye: impl Fn(&T) -> bool) -> Result<bool> {
    let mut goodbye = false;
    loop {
        match stream.message().await {
            Ok(Some(answer)) => goodbye |= is_goodbye(&answer),
            Ok(None) => anyhow::bail!("it ended as if all were done"),
            Err(status) => {
                let refusal = Refusal::of_status(&status)?;
                ensure!(refusal.reason == ErrorReason::Draining, "{refusal:?}");
                ensure!(refusal.code == Code::Unavailable && refusal.applied == Applied::No, "{refusal:?}");
                return Ok(goodbye);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_say_goodbye_and_the_process_ends_in_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path().join("data"));
    let server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 1, &[]).await?;

    // One stream of each kind, each with its first answer, so that all are open.
    let (produce, queue) = mpsc::channel(4);
    produce.try_send(ProduceStreamRequest { frame: Some(ProduceIn::Hello(ProduceHello::default())) })?;
    let append = BatchAppend {
        topic: TOPIC.to_owned(),
        batch: Some(pack_values(Codec::None, [b"one".as_slice()])?),
        ..BatchAppend::default()
    };
    produce.try_send(ProduceStreamRequest { frame: Some(ProduceIn::Append(append)) })?;
    let mut producing = api.producer().produce_stream(ReceiverStream::new(queue)).await?.into_inner();
    loop {
        let answer = producing.message().await?.context("an answer")?;
        if let Some(ProduceOut::Result(result)) = answer.frame {
            ensure!(result.receipt.is_some(), "{result:?}");
            break;
        }
    }
    let (fetch, queue) = mpsc::channel(4);
    fetch.try_send(FetchStreamRequest { frame: Some(FetchIn::Hello(FetchHello::default())) })?;
    let assign = FetchAssign { generation: 1, topic: TOPIC.to_owned(), ..FetchAssign::default() };
    fetch.try_send(FetchStreamRequest { frame: Some(FetchIn::Assign(assign)) })?;
    let mut fetching = api.consumer().fetch_stream(ReceiverStream::new(queue)).await?.into_inner();
    ensure!(matches!(fetching.message().await?.and_then(|answer| answer.frame), Some(FetchOut::Welcome(_))));
    let request = ConsumeRequest { topics: vec![TOPIC.to_owned()], ..ConsumeRequest::default() };
    let mut consuming = api.consumer().consume(request).await?.into_inner();
    let first = consuming.message().await?.context("the record")?;
    ensure!(first.records.len() == 1, "{first:?}");
    let mut watching = api.metadata().watch_metadata(WatchMetadataRequest::default()).await?.into_inner();
    watching.message().await?.context("the map")?;
    // And a call that waits.
    let partition = FetchPartition { topic: TOPIC.to_owned(), offset: 1, ..FetchPartition::default() };
    let parked =
        FetchRequest { partitions: vec![partition], wait_ms: Some(30_000), ..FetchRequest::default() };
    let waiting = api.clone();
    let parked = tokio::spawn(async move { waiting.consumer().fetch(parked).await });

    server.send(Signal::TERM)?;
    let is_goodbye = |answer: &ProduceStreamResponse| matches!(answer.frame, Some(ProduceOut::Goodbye(_)));
    ensure!(
        drains(&mut producing, is_goodbye).await.context("ProduceStream")?,
        "ProduceStream says no goodbye"
    );
    let is_goodbye = |answer: &FetchStreamResponse| matches!(answer.frame, Some(FetchOut::Goodbye(_)));
    ensure!(drains(&mut fetching, is_goodbye).await.context("FetchStream")?, "FetchStream says no goodbye");
    drains(&mut consuming, |_| false).await.context("Consume")?;
    drains(&mut watching, |_| false).await.context("WatchMetadata")?;
    // The call that waits is answered, unless it came when no new calls were taken.
    match parked.await? {
        Ok(response) => ensure!(response.into_inner().partitions.len() == 1, "one partition was asked for"),
        Err(status) => ensure!(status.code() == Code::Unavailable, "{status:?}"),
    }
    // The clients' ends of the streams are still open; that keeps nobody.
    server.stopped().await?;
    drop((produce, fetch));
    ensure!(setup.data_dir().join("logs/clean").exists(), "no marker of an orderly stop");

    let server = setup.start().await?;
    let records = Api::connect(server.addr()).await?.read_all(TOPIC).await?;
    ensure!(records.len() == 1, "{records:?}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_ctrl_c_ends_the_process_at_once_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path().join("data"));
    let mut server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 1, &[]).await?;
    for _ in 0..40 {
        api.write(TOPIC, 0, [vec![7; 100_000]]).await?;
    }
    // A reader that does not read: an orderly stop waits for it.
    let request = ConsumeRequest { topics: vec![TOPIC.to_owned()], ..ConsumeRequest::default() };
    let stalled = api.consumer().consume(request).await?;
    server.send(Signal::INT)?;
    server.says("SIGINT received").await?;
    server.lives()?;
    server.send(Signal::INT)?;
    let status = server.wait().await?;
    ensure!(status.code() == Some(130), "{status}");
    drop(stalled);

    let server = setup.start().await?;
    let records = Api::connect(server.addr()).await?.read_all(TOPIC).await?;
    ensure!(records.len() == 40, "{} of 40 records", records.len());
    server.stop().await
}
