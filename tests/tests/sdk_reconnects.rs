//! A program that uses the SDK does not notice that its server was killed and came back: every record is written
//! once, in order, and read once, in order, by a consumer that was there all the time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_client::{Client, ConsumerConfig, Position, ProducerConfig, Record};
use weir_tests::api::Api;
use weir_tests::process::{Setup, free_port};

const TOPIC: &str = "flights";
const CRASHES: usize = 4;
const RECORDS_BETWEEN: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_and_a_consumer_go_on_when_their_server_comes_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let addr = format!("127.0.0.1:{}", free_port()?);
    let setup = Setup::new(folder.path().join("data")).flag("--listen", &addr);
    let mut server = setup.start().await?;
    Api::connect(&addr).await?.create_topic(TOPIC, 1, &[]).await?;
    let client = Client::connect(&addr).await?;

    let mut consumer = client.consumer(ConsumerConfig::new())?;
    consumer.assign_topic(TOPIC, Position::Earliest).await?;
    let total = RECORDS_BETWEEN * (CRASHES + 1);
    let reading = tokio::spawn(async move {
        let mut seen = Vec::new();
        while seen.len() < total {
            if let Some(batch) = consumer.poll(Duration::from_secs(60)).await? {
                for record in batch.records() {
                    let record = record?;
                    let value = record.value.context("a value")?;
                    seen.push((record.offset, String::from_utf8(value.to_vec())?));
                }
            }
        }
        anyhow::Ok(seen)
    });

    let producer = client.producer(ProducerConfig::new())?;
    let mut receipts = Vec::new();
    for round in 0..=CRASHES {
        for number in round * RECORDS_BETWEEN..(round + 1) * RECORDS_BETWEEN {
            receipts.push(producer.send(TOPIC, Record::new(&number.to_string())).await?);
        }
        // Not waited for: some are acknowledged by now, some are on their way, some are still here.
        if round < CRASHES {
            server.kill().await?;
            server = setup.start().await?;
        }
    }
    producer.flush().await?;
    let mut offsets = Vec::new();
    for receipt in receipts {
        offsets.push(receipt.await?.offset.context("an offset")?);
    }
    let seen = reading.await??;
    ensure!(seen.len() == total, "{} of {total} records", seen.len());
    for (number, ((offset, value), told)) in seen.iter().zip(&offsets).enumerate() {
        ensure!(*value == number.to_string(), "{value} instead of {number}");
        ensure!(offset == told, "{number} was told {told} and is at {offset}");
    }
    producer.close().await?;
    server.stop().await
}
