//! A full disk: appends are refused in words, reading goes on, nothing acknowledged is lost, and appends go on by
//! themselves when there is room again.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use weir_proto::v1::{Applied, ErrorReason, ListBrokersRequest, ProduceRequest};
use weir_tests::api::{Api, new_record};
use weir_tests::binary;
use weir_tests::docs::world::World;
use weir_tests::process::Setup;
use weir_tests::refusal::Refusal;
use weir_tests::small_disk::SmallDisk;
use weir_tests::tools::skip;

const TOPIC: &str = "flights";
const RECORD_BYTES: usize = 200_000;

/// Writes one record.
async fn write(api: &Api, number: usize) -> Result<Result<i64, Refusal>> {
    let mut value = format!("{number} ").into_bytes();
    value.resize(RECORD_BYTES, b'x');
    let request = ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![new_record(value)],
        ..ProduceRequest::default()
    };
    match api.producer().produce(request).await {
        Ok(response) => Ok(Ok(response.into_inner().receipts.first().context("a receipt")?.base_offset)),
        Err(status) => Ok(Err(Refusal::of_status(&status)?)),
    }
}

/// Writes until it is refused. Gives how many records are there.
async fn write_until_full(api: &Api, mut number: usize) -> Result<(usize, Refusal)> {
    loop {
        match write(api, number).await? {
            Ok(offset) => ensure!(usize::try_from(offset)? == number, "record {number} is at {offset}"),
            Err(refusal) => return Ok((number, refusal)),
        }
        number += 1;
    }
}

async fn holds(api: &Api, records: usize) -> Result<()> {
    let found = api.read_all(TOPIC).await?;
    ensure!(found.len() == records, "{} of {records} records", found.len());
    for (number, record) in found.iter().enumerate() {
        let value = record.value.as_deref().unwrap_or_default();
        ensure!(
            value.len() == RECORD_BYTES && value.starts_with(format!("{number} ").as_bytes()),
            "record {number}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn appends_are_refused_before_the_disk_is_full_and_go_on_when_there_is_room() -> Result<()> {
    fills_and_recovers(8 << 20).await
}

#[tokio::test]
async fn a_disk_that_is_full_to_the_last_block_loses_nothing() -> Result<()> {
    fills_and_recovers(0).await
}

async fn fills_and_recovers(reserved: i64) -> Result<()> {
    let disk = match SmallDisk::mount(96).await {
        Ok(disk) => disk,
        Err(error) => return skip(&format!("no small disk can be mounted: {error:#}")),
    };
    let setup = Setup::new(disk.path().join("data"))
        .log(disk.log())
        .env("WEIR_DISK_RESERVED_BYTES", &reserved.to_string());
    let mut server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 1, &[("segment_bytes", "4MiB")]).await?;
    let in_the_way = disk.fill_but(24 << 20).await?;

    let (records, refusal) = write_until_full(&api, 0).await?;
    ensure!(records > 20, "only {records} records went in");
    ensure!(refusal.reason == ErrorReason::DiskFull, "{refusal:?}");
    ensure!(refusal.code == Code::ResourceExhausted, "{refusal:?}");
    ensure!(refusal.applied == Applied::No, "{refusal:?}");
    ensure!(refusal.message.contains("bytes"), "no figure is named: {refusal:?}");
    // Whoever looks at the broker sees how much is free, and below what appends are refused.
    let brokers = api.admin().list_brokers(ListBrokersRequest::default()).await?.into_inner().brokers;
    let directory = brokers.first().and_then(|broker| broker.directories.first()).context("a directory")?;
    ensure!(directory.reserved_bytes == reserved, "{directory:?}");
    ensure!(directory.missing_bytes > 0, "what it has filled itself is full: {directory:?}");
    // Once that an append is too large for what is left, and once that nothing is left, if it came to that.
    let said = server.log().matches("the disk is full").count();
    ensure!((1..=2).contains(&said), "{}", server.log());
    server.lives()?;
    holds(&api, records).await?;

    std::fs::remove_file(&in_the_way)?;
    // It looks by itself whether there is room again; each answer until then says that nothing was applied.
    let offset = loop {
        match write(&api, records).await? {
            Ok(offset) => break offset,
            Err(refusal) => ensure!(refusal.reason == ErrorReason::DiskFull, "{refusal:?}"),
        }
    };
    ensure!(usize::try_from(offset)? == records, "{offset} after {records} records");
    ensure!(server.log().contains("the disk has room again"), "{}", server.log());
    holds(&api, records + 1).await?;
    server.kill().await?;

    let server = setup.start().await?;
    holds(&Api::connect(server.addr()).await?, records + 1).await?;
    server.stop().await
}

#[tokio::test]
async fn whoever_asks_how_it_is_hears_that_the_disk_is_full() -> Result<()> {
    let world = World::new(binary::weir()?)?;
    // No disk has as much left.
    let setup = Setup::new(world.folder().join("data")).env("WEIR_DISK_RESERVED_BYTES", "1024TiB");
    let server = setup.start().await?;
    let directory = setup.data_dir().join("logs").display().to_string();
    for command in ["status --check", "status --check -o wide", "doctor"] {
        let said = world.refused(&format!("weir -s {} {command}; test $? = 0", server.addr())).await?;
        for words in [&*directory, "1 PiB", "disk_reserved_bytes", "delete records", "full"] {
            ensure!(said.contains(words), "{command} lacks {words}: {said}");
        }
    }
    let status = world.must(&format!("weir -s {} status -o json", server.addr())).await?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(status["well"] == false && status["fullDisks"][0]["path"] == *directory, "{status}");
    ensure!(status["fullDisks"][0]["reservedBytes"] == 1_i64 << 50, "{status}");
    // It serves, so it is ready, and says what it refuses.
    let ready = http_get(server.http_addr(), "/readyz").await?;
    ensure!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("\r\n\r\nready\n"), "{ready}");
    for words in [&*directory, "appends are refused", "disk_reserved_bytes", "delete records"] {
        ensure!(ready.contains(words), "no {words}: {ready}");
    }
    server.stop().await?;
    // With room there is nothing to say.
    let server = setup.env("WEIR_DISK_RESERVED_BYTES", "0").start().await?;
    world.must(&format!("weir -s {} status --check", server.addr())).await?;
    let ready = http_get(server.http_addr(), "/readyz").await?;
    ensure!(ready.ends_with("\r\n\r\nready\n"), "{ready}");
    server.stop().await
}

/// The whole answer to a plain request.
async fn http_get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
