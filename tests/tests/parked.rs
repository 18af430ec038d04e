//! Calls that wait for data: an answer that there is none is an answer, not an error; it comes before the caller's
//! deadline.

use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use prost::Message;
use tokio::net::TcpStream;
use weir_proto::v1::{ConsumeRequest, FetchPartition, FetchRequest, FetchResponse};
use weir_tests::api::Api;
use weir_tests::process::{Process, Setup};

const TOPIC: &str = "flights";

async fn server() -> Result<(tempfile::TempDir, Process, Api)> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 2, &[]).await?;
    Ok((folder, server, api))
}

fn fetch(wait_ms: Option<i64>) -> FetchRequest {
    let partition =
        |partition| FetchPartition { topic: TOPIC.to_owned(), partition, ..FetchPartition::default() };
    FetchRequest { partitions: vec![partition(0), partition(1)], wait_ms, ..FetchRequest::default() }
}

fn records(response: &FetchResponse) -> usize {
    response.partitions.iter().map(|partition| partition.records.len()).sum()
}

/// One call as HTTP/2 carries it. Stock clients give up at the deadline by a timer of their own, which on a busy
/// machine may be first; what the server answers is seen without one.
async fn fetch_with_deadline(addr: &str, deadline_ms: i64, request: &FetchRequest) -> Result<FetchResponse> {
    let (client, connection) = h2::client::handshake(TcpStream::connect(addr).await?).await?;
    let connection = tokio::spawn(connection);
    let call = http::Request::post(format!("http://{addr}/weir.v1.ConsumerService/Fetch"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", format!("{deadline_ms}m"))
        .body(())?;
    let (response, mut body) = client.ready().await?.send_request(call, false)?;
    let mut message = BytesMut::new();
    message.put_u8(0);
    message.put_u32(u32::try_from(request.encoded_len())?);
    request.encode(&mut message)?;
    body.send_data(message.freeze(), true)?;
    let (head, mut body) = response.await?.into_parts();
    let mut answer = BytesMut::new();
    while let Some(data) = body.data().await {
        answer.extend_from_slice(&data?);
    }
    let trailers = body.trailers().await?.unwrap_or(head.headers);
    let status = trailers.get("grpc-status").context("a status")?;
    ensure!(status == "0", "{trailers:?}");
    connection.abort();
    Ok(FetchResponse::decode(answer.get(5..).context("a message")?)?)
}

#[tokio::test]
async fn a_fetch_that_finds_nothing_answers_before_its_callers_deadline() -> Result<()> {
    let (_folder, server, _api) = server().await?;
    for (deadline_ms, wait_ms) in [(500, None), (500, Some(30_000)), (1_500, Some(i64::MAX))] {
        let what = format!("deadline {deadline_ms} ms, wait {wait_ms:?}");
        let response =
            fetch_with_deadline(server.addr(), deadline_ms, &fetch(wait_ms)).await.context(what)?;
        ensure!(records(&response) == 0 && response.partitions.len() == 2, "{response:?}");
        for partition in &response.partitions {
            ensure!(partition.failure.is_none() && partition.progress.is_some(), "{partition:?}");
        }
    }
    server.stop().await
}

#[tokio::test]
async fn a_fetch_that_must_not_wait_answers_at_once_and_one_that_may_when_its_time_is_up() -> Result<()> {
    let (_folder, server, api) = server().await?;
    for wait_ms in [0, 1, 300] {
        let response = api.consumer().fetch(fetch(Some(wait_ms))).await?.into_inner();
        ensure!(records(&response) == 0, "{response:?}");
        ensure!(response.waited_ms >= wait_ms, "waited {} ms of {wait_ms}", response.waited_ms);
    }
    server.stop().await
}

#[tokio::test]
async fn a_parked_fetch_answers_when_a_record_comes() -> Result<()> {
    let (_folder, server, api) = server().await?;
    let (first, second) = (api.clone(), api.clone());
    let parked = async move { anyhow::Ok(first.consumer().fetch(fetch(Some(30_000))).await?.into_inner()) };
    let write = async move { second.write(TOPIC, 1, ["hello"]).await };
    // Whichever comes first: the record is found at once, or wakes the call.
    let (response, _) = tokio::try_join!(parked, write)?;
    ensure!(records(&response) == 1, "{response:?}");
    server.stop().await
}

#[tokio::test]
async fn an_idle_consume_shows_that_it_lives_and_where_it_stands() -> Result<()> {
    let (_folder, server, api) = server().await?;
    api.write(TOPIC, 0, ["one"]).await?;
    let request =
        ConsumeRequest { topics: vec![TOPIC.to_owned()], heartbeat_ms: 100, ..ConsumeRequest::default() };
    let mut stream = api.consumer().consume(request).await?.into_inner();
    let first = stream.message().await?.context("the record")?;
    ensure!(first.records.len() == 1, "{first:?}");
    for _ in 0..3 {
        let idle = stream.message().await?.context("a heartbeat")?;
        ensure!(idle.records.is_empty(), "{idle:?}");
        let at = idle.next.iter().find(|position| position.partition == 0).context("a position")?;
        ensure!(at.offset == 1, "{idle:?}");
    }
    drop(stream);
    server.stop().await
}
