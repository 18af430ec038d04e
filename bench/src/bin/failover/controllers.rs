//! What happens to controllers, which nobody who writes or reads should notice; and how long nothing can be changed.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::time::{Instant, interval, timeout};
use tonic::transport::Endpoint;
use weir_client::{Client, ConsumerConfig, NewTopic, Position, TopicChange};
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{Acks, NewRecord, ProduceRequest};

use crate::cluster::gone;
use crate::figures::{Sample, head, ms, percentiles, row};
use crate::{RECOVERED_MAX, Stage, TOPIC};

/// A topic that is changed while nobody writes to it.
const CHANGED: &str = "changed";
/// A topic that is written to with weaker acknowledgements.
const WEAKER: &str = "weaker";
/// How often a weaker acknowledgement is asked for.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// How long one may take.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// How long a reader waits for something to read before it looks whether it is to stop.
const READ_MAX: Duration = Duration::from_millis(500);

/// Whoever leads the controllers is killed.
pub(crate) async fn kill(stage: &Stage, events: usize) -> anyhow::Result<()> {
    stage.client.topics().create(NewTopic::new(CHANGED)).await?;
    let (failed, mut samples) = (stage.writer.failed(), Vec::new());
    let mut quiet = Vec::new();
    for event in 0..events {
        change(&stage.client, event * 2).await?;
        stage.view.voters_in_sync().await?;
        let from = Instant::now();
        stage.settle().await?;
        quiet.push(longest(stage, from, Instant::now()));
        let voters = stage.view.voters_in_sync().await?;
        let leader = voters.iter().find(|voter| voter.leader).context("a controller that leads")?;
        let mut controllers = stage.cluster.controllers.iter();
        let leader = controllers.find(|node| node.address == leader.endpoint).context("its process")?;
        let at = Instant::now();
        leader.signal(Signal::KILL)?;
        timeout(RECOVERED_MAX, change(&stage.client, event * 2 + 1))
            .await
            .context("nothing can be changed")??;
        let after = at.elapsed();
        // Who writes may feel it later than who changes.
        stage.writer.steady(20, RECOVERED_MAX, Instant::now() + RECOVERED_MAX).await?;
        let Sample { gap, waited, .. } = longest(stage, at, Instant::now());
        samples.push(Sample { gap, after, waited });
        eprintln!(
            "controller {event}: {}, changed after {} ms, gap {} ms, longest wait {} ms",
            leader.name,
            ms(after),
            ms(gap),
            ms(waited)
        );
        gone(leader).await?;
        stage.cluster.start_again(&[leader]).await?;
    }
    stage.settle().await?;
    head();
    row(
        "leading controller killed; \"from the event\" is to a change of a topic",
        &samples,
        stage.writer.failed() - failed,
    );
    println!(
        "\nbefore each: longest gap {} ms, longest wait {} ms",
        percentiles(quiet.iter().map(|sample| sample.gap).collect()),
        percentiles(quiet.iter().map(|sample| sample.waited).collect())
    );
    Ok(())
}

/// All controllers are killed, and come back after a while.
pub(crate) async fn down(stage: &Stage, length: Duration) -> anyhow::Result<()> {
    stage.client.topics().create(NewTopic::new(WEAKER).if_absent()).await?;
    stage.settle().await?;
    let failed = stage.writer.failed();
    let at = Instant::now();
    for controller in &stage.cluster.controllers {
        controller.signal(Signal::KILL)?;
    }
    let until = at + length;
    let (read, weaker) = tokio::join!(read(&stage.client, until), weaker(stage, at, until));
    let Sample { gap, waited, .. } = longest(stage, at, Instant::now());
    let failed_meanwhile = stage.writer.failed() - failed;
    for controller in &stage.cluster.controllers {
        gone(controller).await?;
    }
    let back = Instant::now();
    stage.cluster.start_again(&stage.cluster.controllers.iter().collect::<Vec<_>>()).await?;
    stage.settle().await?;
    head();
    row(
        "no controllers; \"from the event\" is until they are back",
        &[Sample { gap, after: length, waited }],
        failed_meanwhile,
    );
    let (records, silence) = read?;
    println!("\nmeanwhile a reader got {records} records, and nothing for {} ms at most", ms(silence));
    println!("{}", weaker?);
    println!("all as before {} ms after the controllers were started again", ms(back.elapsed()));
    Ok(())
}

/// Changes something that is nowhere but in the metadata.
async fn change(client: &Client, step: usize) -> anyhow::Result<()> {
    let retention = format!("{}h", 24 + step % 100);
    client.topics().update(CHANGED, TopicChange::new().set("retention_ms", retention)).await?;
    Ok(())
}

/// Over all partitions.
fn longest(stage: &Stage, from: Instant, to: Instant) -> Sample {
    let of = |partition| {
        let (gap, waited) = stage.writer.longest(partition, from, to);
        Sample { gap, waited, after: Duration::ZERO }
    };
    (0..stage.writer.logs.len()).map(of).fold(Sample::default(), Sample::worst)
}

/// Reads what is committed from now on: how many records, and the longest time without any.
async fn read(client: &Client, until: Instant) -> anyhow::Result<(usize, Duration)> {
    let mut consumer = client.consumer(ConsumerConfig::new())?;
    consumer.assign_topic(TOPIC, Position::Latest).await?;
    let (mut records, mut silence, mut last) = (0, Duration::ZERO, Instant::now());
    while Instant::now() < until {
        let batch = consumer.poll(READ_MAX).await?;
        silence = silence.max(last.elapsed());
        if let Some(batch) = batch {
            records += batch.records().count();
            last = Instant::now();
        }
    }
    Ok((records, silence))
}

/// Asks for acknowledgements that hang on a session: until when they are given, in words.
async fn weaker(stage: &Stage, at: Instant, until: Instant) -> anyhow::Result<String> {
    let broker = stage.cluster.brokers.first().context("a broker")?;
    let endpoint = Endpoint::from_shared(format!("http://{}", broker.address))?;
    let mut client = ProducerServiceClient::new(endpoint.connect_lazy());
    let mut due = interval(PROBE_EVERY);
    let (mut given, mut refused, mut why) = (None, 0, String::new());
    while Instant::now() < until {
        due.tick().await;
        let request = ProduceRequest {
            topic: WEAKER.to_owned(),
            records: vec![NewRecord {
                value: Some(bytes::Bytes::from_static(b"weaker")),
                ..NewRecord::default()
            }],
            partition: Some(0),
            acks: Acks::Leader.into(),
            ..ProduceRequest::default()
        };
        match timeout(PROBE_MAX, client.produce(request)).await {
            Ok(Ok(_)) => given = Some(at.elapsed()),
            Ok(Err(status)) => {
                refused += 1;
                why = status.message().to_owned();
            }
            Err(_) => {
                refused += 1;
                why = format!("no answer within {PROBE_MAX:?}");
            }
        }
    }
    let given = given.map_or_else(|| "never".to_owned(), |last| format!("until {} ms", ms(last)));
    Ok(format!(
        "acknowledged by the leader alone: {given} after the kill; refused {refused} times, last: {why}"
    ))
}
