//! Many tiny messages, and somebody who does not read them: no connection ends over it, and everything arrives.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::SeqCst;

use anyhow::{Context, Result, ensure};
use futures::StreamExt as _;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use weir_proto::v1::fetch_stream_request::Frame as FetchIn;
use weir_proto::v1::produce_stream_request::Frame as ProduceIn;
use weir_proto::v1::produce_stream_response::Frame as ProduceOut;
use weir_proto::v1::{
    BatchAppend, ConsumeRequest, FetchCredit, FetchHello, FetchStreamRequest, GetServerInfoRequest,
    ProduceHello, ProduceStreamRequest,
};
use weir_record::Codec;
use weir_runtime::testing::until;
use weir_tests::api::Api;
use weir_tests::batch::pack_values;
use weir_tests::process::{Process, Setup};

const TOPIC: &str = "flights";
const MESSAGES: i64 = 50_000;

async fn server() -> Result<(tempfile::TempDir, Process, Api)> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 1, &[("durability", "replicated")]).await?;
    Ok((folder, server, api))
}

/// The connection is still the one it was, and takes calls.
async fn answers(api: &Api) -> Result<()> {
    api.metadata().get_server_info(GetServerInfoRequest::default()).await.context("the same connection")?;
    Ok(())
}

fn append(correlation_id: i64) -> Result<ProduceStreamRequest> {
    let batch = Some(pack_values(Codec::None, [b"x".as_slice()])?);
    let append = BatchAppend { correlation_id, topic: TOPIC.to_owned(), batch, ..BatchAppend::default() };
    Ok(ProduceStreamRequest { frame: Some(ProduceIn::Append(append)) })
}

/// Sends 50,000 appends of one byte while `meanwhile` is done, then reads the answers. It is given how many of them the
/// connection has taken so far.
async fn append_many(api: &Api, meanwhile: impl AsyncFnOnce(&AtomicI64) -> Result<()>) -> Result<()> {
    let taken = Arc::new(AtomicI64::new(0));
    let counted = Arc::clone(&taken);
    let (requests, queue) = mpsc::unbounded_channel();
    requests.send(ProduceStreamRequest { frame: Some(ProduceIn::Hello(ProduceHello::default())) })?;
    let queue = UnboundedReceiverStream::new(queue).inspect(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let mut answers = api.producer().produce_stream(queue).await?.into_inner();
    for correlation_id in 0..MESSAGES {
        requests.send(append(correlation_id)?)?;
    }
    drop(requests);
    meanwhile(&taken).await?;
    let mut expected = 0;
    while let Some(answer) = answers.message().await.with_context(|| format!("after {expected} answers"))? {
        if let Some(ProduceOut::Result(result)) = answer.frame {
            let receipt = result.receipt.with_context(|| format!("{:?}", result.failure))?;
            ensure!(
                (result.correlation_id, receipt.base_offset) == (expected, expected),
                "{expected}: {receipt:?}"
            );
            expected += 1;
        }
    }
    ensure!(expected == MESSAGES, "{expected} of {MESSAGES} answers");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_appends_whose_answers_nobody_reads_for_a_while() -> Result<()> {
    let (_folder, server, api) = server().await?;
    // While the answers lie unread, other calls of the connection are answered.
    append_many(&api, async |_| answers(&api).await).await?;
    ensure!(api.ends(TOPIC, 1).await? == [MESSAGES], "records are missing");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_appends_at_a_server_that_stands_still() -> Result<()> {
    let (_folder, server, api) = server().await?;
    let standstill = async |taken: &AtomicI64| {
        server.send(Signal::STOP)?;
        let state = format!("/proc/{}/stat", server.pid());
        until("the server stands still", async || {
            fs::read_to_string(&state).is_ok_and(|said| said.contains(") T "))
        })
        .await;
        // All of them, or what there is room for on the way. However far it comes, the result is the same.
        let mut before = -1;
        until("the connection takes no more", async || {
            let now = taken.load(SeqCst);
            std::mem::replace(&mut before, now) == now
        })
        .await;
        server.send(Signal::CONT)
    };
    append_many(&api, standstill).await?;
    answers(&api).await?;
    ensure!(api.ends(TOPIC, 1).await? == [MESSAGES], "records are missing");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_requests_to_a_stream_whose_reader_stands_still() -> Result<()> {
    let (_folder, server, api) = server().await?;
    api.write(TOPIC, 0, [vec![7; 500_000]]).await?;
    let (requests, queue) = mpsc::channel(64);
    requests.send(FetchStreamRequest { frame: Some(FetchIn::Hello(FetchHello::default())) }).await?;
    let mut stalled = api.consumer().fetch_stream(ReceiverStream::new(queue)).await?.into_inner();
    for _ in 0..MESSAGES {
        let credit = FetchCredit { bytes: 1, records: 0 };
        if requests.send(FetchStreamRequest { frame: Some(FetchIn::Credit(credit)) }).await.is_err() {
            // The server has enough of it, and says so below.
            break;
        }
    }
    answers(&api).await?;
    drop(requests);
    let end = loop {
        match stalled.message().await {
            Ok(Some(_)) => {}
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    if let Err(status) = end {
        weir_tests::refusal::Refusal::of_status(&status)
            .context("a stream of the server's own ends in its words")?;
    }
    answers(&api).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_client_that_does_not_read_a_busy_consume() -> Result<()> {
    let (_folder, server, api) = server().await?;
    let reader = Api::connect(server.addr()).await?;
    let request = ConsumeRequest { topics: vec![TOPIC.to_owned()], ..ConsumeRequest::default() };
    let mut stalled = reader.consumer().consume(request).await?.into_inner();
    append_many(&api, async |_| answers(&reader).await).await?;
    answers(&reader).await?;
    let mut next = 0;
    while next < MESSAGES {
        let message =
            stalled.message().await.with_context(|| format!("at {next}"))?.context("more records")?;
        for record in message.records {
            ensure!(record.offset == next, "{} instead of {next}", record.offset);
            next += 1;
        }
    }
    answers(&reader).await?;
    drop(stalled);
    server.stop().await
}
