//! Bits that rot under a running server: who reads them is refused, and who is on call learns where it is and what to
//! do, from the log, the metrics and the commands, however often a reader comes back. And what a start finds damaged:
//! who writes there is told at once.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_stream::iter;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    ConsumeRequest, DeleteRecordsRequest, DeleteTopicRequest, ErrorReason, FetchAssign, FetchCredit,
    FetchHello, FetchPartition, FetchRequest, FetchStreamRequest, ListOffsetsRequest, OffsetQuery,
    RecordsBefore, TopicPartitionOffset,
};
use weir_runtime::testing::PATIENCE;
use weir_tests::api::Api;
use weir_tests::binary;
use weir_tests::process::{Process, Setup};
use weir_tests::refusal::Refusal;

const TOPIC: &str = "flights";
/// Batches of one record each, all of the same size.
const BATCHES: u64 = 20;
/// How often each reader tries.
const TRIES: usize = 3;

/// The one segment of a partition.
fn segment(setup: &Setup, partition: i32) -> Result<PathBuf> {
    let begins = format!("{TOPIC}-{partition}.");
    let folders = fs::read_dir(setup.data_dir().join("logs"))?.collect::<Result<Vec<_>, _>>()?;
    let folder = folders.iter().find(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
    Ok(folder.context("no folder")?.path().join("00000000000000000000.log"))
}

/// How a file is named to others: without the incarnation that its folder's name ends with.
fn told(file: &Path) -> Result<String> {
    let path = file.display().to_string();
    let (front, file) = path.rsplit_once('/').context("no folder")?;
    let (front, _incarnation) = front.rsplit_once('.').context("no incarnation")?;
    Ok(format!("{front}.*/{file}"))
}

/// Changes a bit of a batch, in place, under the running server.
fn rot(setup: &Setup, partition: i32, batch: u64, at: u64) -> Result<()> {
    let path = segment(setup, partition)?;
    let file = File::options().read(true).write(true).open(&path)?;
    let at = file.metadata()?.len() / BATCHES * batch + at;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 0x10;
    Ok(file.write_all_at(&byte, at)?)
}

/// Reads plain records from an offset until it is refused. Says how many there were.
async fn consume(api: &Api, partition: i32, offset: i64) -> Result<(usize, Refusal)> {
    let position = TopicPartitionOffset { topic: TOPIC.into(), partition, offset, ..Default::default() };
    let request = ConsumeRequest { positions: vec![position], until_end: true, ..ConsumeRequest::default() };
    let mut stream = api.consumer().consume(request).await?.into_inner();
    let mut records = 0;
    loop {
        match stream.message().await {
            Ok(message) => records += message.context("it was read to its end")?.records.len(),
            Err(status) => return Ok((records, Refusal::of_status(&status)?)),
        }
    }
}

/// The same with one call.
async fn fetch(api: &Api, partition: i32, offset: i64) -> Result<Refusal> {
    let wanted = FetchPartition { topic: TOPIC.into(), partition, offset, ..FetchPartition::default() };
    let request = FetchRequest { partitions: vec![wanted], wait_ms: Some(0), ..FetchRequest::default() };
    let answer = api.consumer().fetch(request).await?.into_inner();
    let failure = answer.partitions.first().and_then(|fetched| fetched.failure.clone());
    Refusal::of_failure(&failure.context("it was read")?)
}

/// Reads batches as they are stored until the partition ends with a failure.
async fn stream(api: &Api, partition: i32, offset: i64) -> Result<Refusal> {
    let assign = FetchAssign { subscription_id: 1, generation: 1, partition, offset, ..Default::default() };
    let credit = FetchCredit { bytes: 1 << 20, records: 0 };
    let said = [
        In::Hello(FetchHello { client: "test".into(), credit: Some(credit), ..FetchHello::default() }),
        In::Assign(FetchAssign { topic: TOPIC.into(), ..assign }),
    ];
    let requests = iter(said.map(|frame| FetchStreamRequest { frame: Some(frame) }));
    let mut answers = api.consumer().fetch_stream(requests).await?.into_inner();
    while let Some(message) = answers.message().await? {
        if let Some(Out::End(end)) = message.frame {
            return Refusal::of_failure(&end.failure.context("a failure")?);
        }
    }
    anyhow::bail!("the stream ended well")
}

/// Asks for an offset by a time that only the rotten batch can answer.
async fn by_time(api: &Api, partition: i32) -> Result<Refusal> {
    let query = OffsetQuery { topic: TOPIC.into(), partition, timestamp_ms: Some(1), ..Default::default() };
    let request = ListOffsetsRequest { queries: vec![query], ..ListOffsetsRequest::default() };
    let refused = api.consumer().list_offsets(request).await.err().context("it was answered")?;
    Refusal::of_status(&refused)
}

async fn metric(server: &Process, name: &str) -> Result<f64> {
    let mut http = TcpStream::connect(server.http_addr()).await?;
    http.write_all(b"GET /metrics HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    http.read_to_string(&mut text).await?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("no {name} in {text}"))?.trim().parse()?)
}

/// What the command line says about this server.
async fn weir(server: &Process, arguments: &[&str]) -> Result<String> {
    let asked = Command::new(binary::weir()?).args(["-s", server.addr()]).args(arguments).output();
    let Output { stdout, stderr, .. } = tokio::time::timeout(PATIENCE, asked).await??;
    Ok(String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[tokio::test]
async fn whoever_is_on_call_learns_of_data_that_rots() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path().join("data"));
    let server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 4, &[]).await?;
    for partition in 0..4 {
        for _ in 0..BATCHES {
            api.write(TOPIC, partition, [[7; 1_000]]).await?;
        }
    }
    ensure!(metric(&server, "weir_partitions_damaged").await? == 0.0);
    // A payload, a header, and the first batch of all; the last partition stays whole.
    rot(&setup, 0, 5, 500)?;
    rot(&setup, 1, 3, 20)?;
    rot(&setup, 2, 0, 500)?;

    let file = told(&segment(&setup, 0)?)?;
    for _ in 0..TRIES {
        let (records, refusal) = consume(&api, 0, 0).await?;
        ensure!(refusal.message.contains(&file), "{file} is not named: {refusal:?}");
        ensure!(records == 5, "{records} records before the rotten one");
        ensure!(refusal.reason == ErrorReason::PartitionDamaged, "{refusal:?}");
        for refusal in [
            consume(&api, 0, 5).await?.1,
            fetch(&api, 0, 5).await?,
            stream(&api, 1, 0).await?,
            by_time(&api, 2).await?,
        ] {
            ensure!(refusal.reason == ErrorReason::PartitionDamaged, "{refusal:?}");
        }
    }
    // What is good is read, before, behind and beside it.
    let position = |partition, offset| TopicPartitionOffset {
        topic: TOPIC.into(),
        partition,
        offset,
        ..Default::default()
    };
    let positions = vec![position(0, 6), position(3, 0)];
    let request = ConsumeRequest { positions, until_end: true, ..ConsumeRequest::default() };
    let mut good = api.consumer().consume(request).await?.into_inner();
    while good.message().await?.is_some() {}

    let log = server.log();
    for (partition, offset, what) in [(0, 5, "payload"), (1, 3, "header"), (2, 0, "payload")] {
        let file = told(&segment(&setup, partition)?)?;
        let about: Vec<_> = log.lines().filter(|line| line.contains(&file)).collect();
        ensure!(about.len() == 1, "partition {partition} is named {} times: {log}", about.len());
        for words in [
            "ERROR",
            "topic=\"flights\"",
            &format!("partition={partition} "),
            &format!("offset={offset} "),
            what,
            "weir errors PARTITION_DAMAGED",
        ] {
            ensure!(about[0].contains(words), "{words:?} is not said: {}", about[0]);
        }
    }
    ensure!(!log.contains("a call failed"), "each refusal is one line more: {log}");

    ensure!(metric(&server, "weir_partitions_damaged").await? == 3.0);
    let refused = metric(&server, "weir_reads_failed_total{reason=\"damaged\"}").await?;
    ensure!(refused == 5.0 * TRIES as f64, "{refused} reads");
    let listed = weir(&server, &["topic", "list"]).await?;
    ensure!(listed.contains("3 damaged"), "{listed}");
    let described = weir(&server, &["topic", "describe", TOPIC]).await?;
    ensure!(described.contains("offset 5") && described.contains("offset 3"), "{described}");
    for (command, words) in
        [("status", "3 damaged"), ("doctor", "error: 3 partitions are damaged or offline")]
    {
        let said = weir(&server, &[command]).await?;
        ensure!(said.contains(words), "{command}: {said}");
        ensure!(said.contains("flights/0") && said.contains("flights/1"), "{command}: {said}");
        ensure!(!said.contains("flights/3"), "{command}: {said}");
    }

    // What is gone is damaged no more.
    let before = vec![RecordsBefore { partition: 0, offset: 6 }];
    let request = DeleteRecordsRequest { topic: TOPIC.into(), before };
    api.topics().delete_records(request).await?;
    ensure!(metric(&server, "weir_partitions_damaged").await? == 2.0);
    api.topics().delete_topic(DeleteTopicRequest { name: TOPIC.into(), ..Default::default() }).await?;
    ensure!(metric(&server, "weir_partitions_damaged").await? == 0.0);
    server.stop().await
}

#[tokio::test]
async fn who_writes_to_what_a_start_found_damaged_is_told_at_once_and_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path().join("data"));
    let server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic(TOPIC, 2, &[]).await?;
    api.write(TOPIC, 0, [[7; 10]]).await?;
    server.stop().await?;
    fs::remove_file(segment(&setup, 0)?)?;
    let server = setup.start().await?;

    // What is wrong with one partition is no reason to list none.
    let listed = weir(&server, &["topic", "list"]).await?;
    ensure!(listed.contains(TOPIC) && listed.contains("1 damaged"), "{listed}");
    for (form, said) in [
        ("table", "PARTITION_OFFLINE, not applied; weir errors PARTITION_OFFLINE"),
        ("json", "PARTITION_OFFLINE\""),
    ] {
        let mut writing = Command::new(binary::weir()?);
        writing.args(["-s", server.addr(), "-o", form, "--timeout", "3s", "produce", TOPIC, "-p", "0", "-i"]);
        let output = tokio::time::timeout(PATIENCE, writing.arg("Cargo.toml").output()).await??;
        let stderr = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(5), "{stderr}");
        let told = "refused, and that does not pass by itself: flights/0 is offline on this broker";
        ensure!(stderr.matches(told).count() == 1, "{stderr}");
        ensure!(
            stderr.contains("a batch for flights/0: given up after 3s: flights/0 is offline"),
            "{stderr}"
        );
        ensure!(stderr.contains(said), "{stderr}");
    }
    server.stop().await
}
