//! Real data, in and out again: the flights that left New York in 2013, a record for each line, keyed by carrier,
//! over 8 partitions. Every line comes back exactly once, byte for byte, in the order of its carrier's.
//!
//! A few hundred lines go in by every door in every run; the whole file of 31 MB goes in by batches compressed with
//! zstd, and by the command line.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weir_client::{Client, ConsumerConfig, Position, ProducerConfig, Record};
use weir_proto::v1::produce_stream_request::Frame as Request;
use weir_proto::v1::produce_stream_response::Frame as Response;
use weir_proto::v1::{BatchAppend, ProduceHello, ProduceStreamRequest, RecordBatch};
use weir_record::Codec;
use weir_tests::api::Api;
use weir_tests::flights::{Back, EXCERPT, Flight, Flights, PARTITIONS};
use weir_tests::process::{Process, Setup};
use weir_tests::tools::{self, output};
use weir_tests::{batch, binary};

struct World {
    _folder: tempfile::TempDir,
    server: Process,
    api: Api,
}

async fn world() -> Result<World> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic("flights", PARTITIONS, &[]).await?;
    Ok(World { _folder: folder, server, api })
}

impl World {
    async fn come_back(&self) -> Result<Vec<Back>> {
        let records = self.api.read_all("flights").await?;
        let back = |record: weir_proto::v1::StoredRecord| {
            let bytes = |bytes: Option<prost::bytes::Bytes>| Some(bytes?.to_vec());
            Some((bytes(record.key)?, record.partition, bytes(record.value)?))
        };
        records.into_iter().map(|record| back(record).context("a key and a value")).collect()
    }
}

#[tokio::test]
async fn in_batches_over_one_stream() -> Result<()> {
    let world = world().await?;
    stream_in(&world.api, EXCERPT).await?;
    Flights::new(EXCERPT).check(world.come_back().await?)?;
    world.server.stop().await
}

#[tokio::test]
async fn all_of_them_in_batches_over_one_stream() -> Result<()> {
    let Some(file) = tools::flights_csv().await? else { return Ok(()) };
    let csv = std::fs::read(file)?;
    ensure!(csv.iter().filter(|byte| **byte == b'\n').count() == 336_777, "another file than expected");
    let world = world().await?;
    stream_in(&world.api, &csv).await?;
    Flights::new(&csv).check(world.come_back().await?)?;
    world.server.stop().await
}

/// Packs each partition's lines into batches of at most 1,000, zstd, and sends them all over one stream.
async fn stream_in(api: &Api, csv: &[u8]) -> Result<()> {
    let mut lines: BTreeMap<i32, Vec<Flight<'_>>> = BTreeMap::new();
    for (carrier, line) in Flights::new(csv).records() {
        let partition = weir_record::partition_for_key(carrier, PARTITIONS);
        lines.entry(partition).or_default().push((carrier, line));
    }
    let mut batches: Vec<(i32, RecordBatch)> = Vec::new();
    for (partition, lines) in &lines {
        for some in lines.chunks(1_000) {
            batches.push((
                *partition,
                batch::pack(Codec::Zstd, some.iter().map(|(key, value)| (Some(*key), *value)))?,
            ));
        }
    }
    let (requests, queue) = mpsc::channel(4);
    let send = async {
        requests.send(request(Request::Hello(ProduceHello::default()))).await?;
        for (correlation_id, (partition, batch)) in (0..).zip(&batches) {
            let topic = "flights".to_owned();
            let batch = Some(batch.clone());
            let append =
                BatchAppend { correlation_id, topic, partition: *partition, batch, ..Default::default() };
            requests.send(request(Request::Append(append))).await?;
        }
        drop(requests);
        anyhow::Ok(())
    };
    let receive = async {
        let mut answers = api.producer().produce_stream(ReceiverStream::new(queue)).await?.into_inner();
        let mut receipts = 0;
        while let Some(answer) = answers.message().await? {
            if let Some(Response::Result(result)) = answer.frame {
                let receipt = result.receipt.with_context(|| format!("{:?}", result.failure))?;
                ensure!(receipt.committed, "{receipt:?}");
                receipts += 1;
            }
        }
        ensure!(receipts == batches.len(), "{receipts} receipts for {} batches", batches.len());
        Ok(())
    };
    tokio::try_join!(send, receive)?;
    Ok(())
}

fn request(frame: Request) -> ProduceStreamRequest {
    ProduceStreamRequest { frame: Some(frame) }
}

#[tokio::test]
async fn through_the_sdk() -> Result<()> {
    in_and_out_through_the_sdk(EXCERPT).await
}

#[tokio::test]
async fn all_of_them_through_the_sdk() -> Result<()> {
    let Some(file) = tools::flights_csv().await? else { return Ok(()) };
    in_and_out_through_the_sdk(&std::fs::read(file)?).await
}

async fn in_and_out_through_the_sdk(csv: &[u8]) -> Result<()> {
    let world = world().await?;
    let client = Client::connect(world.server.addr()).await?;
    let producer = client.producer(ProducerConfig::new().compression(Codec::Zstd))?;
    let mut receipts = Vec::new();
    for (carrier, line) in Flights::new(csv).records() {
        receipts.push(producer.send("flights", Record::new(line).key(carrier)).await?);
    }
    producer.flush().await?;
    for receipt in receipts {
        let delivery = receipt.await?;
        ensure!(delivery.committed && delivery.offset.is_some(), "{delivery:?}");
    }
    producer.close().await?;

    let mut consumer = client.consumer(ConsumerConfig::new())?;
    consumer.assign_topic("flights", Position::Earliest).await?;
    let mut back = Vec::new();
    let mut until_end = consumer.until_end().await?;
    while let Some(batch) = until_end.next().await? {
        for record in batch.records() {
            let record = record?;
            let (carrier, line) = record.key.zip(record.value).context("a key and a value")?;
            back.push((carrier.to_vec(), batch.partition(), line.to_vec()));
        }
    }
    Flights::new(csv).check(back)?;
    Flights::new(csv).check(world.come_back().await?)?;
    world.server.stop().await
}

#[tokio::test]
async fn by_the_command_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("flights.csv");
    std::fs::write(&file, EXCERPT)?;
    through_the_command_line(&file, EXCERPT).await
}

#[tokio::test]
async fn all_of_them_by_the_command_line() -> Result<()> {
    let Some(file) = tools::flights_csv().await? else { return Ok(()) };
    through_the_command_line(&file, &std::fs::read(&file)?).await
}

async fn through_the_command_line(file: &std::path::Path, csv: &[u8]) -> Result<()> {
    let world = world().await?;
    let weir = binary::weir()?;
    let mut produce = Command::new(&weir);
    produce.args(["-s", world.server.addr(), "produce", "flights", "--csv", "--key-column", "carrier"]);
    output(produce.args(["--compression", "zstd", "-i"]).arg(file)).await?;
    Flights::new(csv).check(world.come_back().await?)?;

    let mut consume = Command::new(&weir);
    consume.args(["-s", world.server.addr(), "consume", "flights", "--until", "end", "-f", "%k %p %v\\n"]);
    let printed = output(&mut consume).await?;
    Flights::new(csv).check(lines(&printed)?)?;
    world.server.stop().await
}

/// `CARRIER PARTITION LINE` on each line.
fn lines(printed: &[u8]) -> Result<Vec<Back>> {
    let line = |line: &[u8]| {
        let mut words = line.splitn(3, |byte| *byte == b' ');
        let partition = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
        Some((words.next()?.to_vec(), partition(words.next()?)?, words.next()?.to_vec()))
    };
    let all = printed.split(|byte| *byte == b'\n').filter(|one| !one.is_empty());
    all.map(|one| line(one).with_context(|| format!("{:?}", String::from_utf8_lossy(one)))).collect()
}

#[tokio::test]
async fn from_python_with_plain_stubs_and_a_default_channel() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("flights.csv");
    std::fs::write(&file, EXCERPT)?;
    through_python(&file, EXCERPT).await
}

#[tokio::test]
async fn all_of_them_from_python_with_plain_stubs_and_a_default_channel() -> Result<()> {
    let Some(file) = tools::flights_csv().await? else { return Ok(()) };
    through_python(&file, &std::fs::read(&file)?).await
}

async fn through_python(file: &std::path::Path, csv: &[u8]) -> Result<()> {
    let Some(mut python) = tools::python()? else { return Ok(()) };
    let world = world().await?;
    python.args([concat!(env!("CARGO_MANIFEST_DIR"), "/python/flights.py"), world.server.addr(), "flights"]);
    let printed = output(python.arg(file)).await?;
    Flights::new(csv).check(lines(&printed)?)?;
    Flights::new(csv).check(world.come_back().await?)?;
    world.server.stop().await
}

#[tokio::test]
async fn by_grpcurl() -> Result<()> {
    let Some(grpcurl) = tools::grpcurl().await? else { return Ok(()) };
    let world = world().await?;
    let call = |method: &str, request: serde_json::Value| {
        let mut command = Command::new(&grpcurl);
        command.args(["-plaintext", "-d", &request.to_string(), world.server.addr()]);
        command.arg(format!("weir.v1.{method}"));
        command
    };
    let records: Vec<_> = Flights::new(EXCERPT)
        .records()
        .map(|(carrier, line)| {
            serde_json::json!({
                "key_text": String::from_utf8_lossy(carrier),
                "value_text": String::from_utf8_lossy(line),
            })
        })
        .collect();
    let request = serde_json::json!({ "topic": "flights", "records": records });
    output(&mut call("ProducerService/Produce", request)).await?;
    let request = serde_json::json!({ "topics": ["flights"], "until_end": true, "text": true });
    let printed = output(&mut call("ConsumerService/Consume", request)).await?;
    let mut back = Vec::new();
    for message in serde_json::Deserializer::from_slice(&printed).into_iter::<serde_json::Value>() {
        for record in message?.get("records").and_then(serde_json::Value::as_array).into_iter().flatten() {
            let text = |name: &str| Some(record.get(name)?.as_str()?.as_bytes().to_vec());
            // JSON leaves out what is 0.
            let partition = record.get("partition").and_then(serde_json::Value::as_i64).unwrap_or(0);
            let (carrier, line) = (text("keyText").context("a key")?, text("valueText").context("a value")?);
            back.push((carrier, i32::try_from(partition)?, line));
        }
    }
    Flights::new(EXCERPT).check(back)?;

    // A refusal is shown in words, its details included: reflection knows their types.
    let request = serde_json::json!({ "topics": ["flihgts"], "until_end": true });
    let refused = call("ConsumerService/Consume", request).output().await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("TOPIC_NOT_FOUND"), "{said}");
    ensure!(said.contains("google.rpc.ErrorInfo") && !said.contains("is not recognized"), "{said}");
    Flights::new(EXCERPT).check(world.come_back().await?)?;
    world.server.stop().await
}
