//! What happens to brokers: each in turn, so that every one is hit as a leader of some partitions and a follower of
//! others. What counts is the partition that was hit hardest.

use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use weir_bench::dev::Node;
use weir_proto::v1::PartitionMetadata;

use crate::cluster::gone;
use crate::figures::{Sample, head, ms, row};
use crate::{RECOVERED_MAX, Stage};

/// Heartbeats and the like come in a rhythm: an event comes anywhere in it.
const RHYTHM: Duration = Duration::from_millis(1_000);

/// Brokers are killed.
pub(crate) async fn kill(stage: &Stage, events: usize) -> anyhow::Result<()> {
    let (failed, mut samples) = (stage.writer.failed(), Vec::new());
    for event in 0..events {
        let (broker, led) = victim(stage, event).await?;
        samples.push(hit(stage, broker, &led, Signal::KILL).await?);
        say("kill", event, broker, samples.last());
        gone(broker).await?;
        stage.cluster.start_again(&[broker]).await?;
    }
    stage.settle().await?;
    head();
    row("leader killed (SIGKILL)", &samples, stage.writer.failed() - failed);
    Ok(())
}

/// Brokers fall silent, and go on.
pub(crate) async fn stop(stage: &Stage, events: usize) -> anyhow::Result<()> {
    let (failed, mut samples) = (stage.writer.failed(), Vec::new());
    for event in 0..events {
        let (broker, led) = victim(stage, event).await?;
        let sample = hit(stage, broker, &led, Signal::STOP).await;
        // Whatever came of it: one that is stopped would not stop in order.
        broker.signal(Signal::CONT)?;
        samples.push(sample?);
        say("stop", event, broker, samples.last());
    }
    stage.settle().await?;
    head();
    row("leader silent (SIGSTOP)", &samples, stage.writer.failed() - failed);
    Ok(())
}

/// Brokers are cut off, and heard again.
pub(crate) async fn cut(stage: &Stage, events: usize) -> anyhow::Result<()> {
    let network = stage.cluster.network.as_ref().context("a network to be cut")?;
    let (failed, mut samples) = (stage.writer.failed(), Vec::new());
    for event in 0..events {
        let (broker, led) = victim(stage, event).await?;
        let end = event % stage.cluster.brokers.len() + 1;
        let at = Instant::now();
        network.cut(end, true)?;
        let sample = recovered(stage, &led.iter().collect::<Vec<_>>(), at).await;
        network.cut(end, false)?;
        samples.push(sample?);
        say("cut", event, broker, samples.last());
    }
    stage.settle().await?;
    head();
    row("leader cut off without a word", &samples, stage.writer.failed() - failed);
    Ok(())
}

/// Brokers stop in order, and are given back what they led.
pub(crate) async fn moved(stage: &Stage, events: usize) -> anyhow::Result<()> {
    let before = stage.writer.failed();
    let (mut drained, mut elected) = (Vec::new(), Vec::new());
    let mut failed = (0, 0);
    for event in 0..events {
        let (broker, led) = victim(stage, event).await?;
        drained.push(hit(stage, broker, &led, Signal::TERM).await?);
        say("drain", event, broker, drained.last());
        gone(broker).await?;
        stage.cluster.start_again(&[broker]).await?;
        let partitions = stage.view.in_sync().await?;
        failed.0 = stage.writer.failed() - before - failed.1;
        let moves: Vec<&PartitionMetadata> = partitions
            .iter()
            .filter(|partition| partition.replicas.first() != Some(&partition.leader))
            .collect();
        let at = Instant::now();
        stage.view.elect_preferred().await?;
        elected.push(recovered(stage, &moves, at).await?);
        say("elect", event, broker, elected.last());
        failed.1 = stage.writer.failed() - before - failed.0;
    }
    stage.settle().await?;
    head();
    row("leader stops in order (SIGTERM)", &drained, failed.0);
    row("preferred leaders elected", &elected, failed.1);
    Ok(())
}

/// Who it is this time, and what it leads, once all is well.
async fn victim(stage: &Stage, event: usize) -> anyhow::Result<(&Node, Vec<PartitionMetadata>)> {
    stage.settle().await?;
    let id = i32::try_from(event % stage.cluster.brokers.len())? + 1;
    // Spread over the rhythm, in steps that do not meet it again.
    sleep(RHYTHM.mul_f64((event as f64 * 0.618).fract())).await;
    let partitions = stage.view.in_sync_and_even().await?;
    let led = partitions.into_iter().filter(|partition| partition.leader == id).collect();
    Ok((stage.cluster.broker(id)?, led))
}

/// A signal, and what it did.
async fn hit(
    stage: &Stage,
    broker: &Node,
    led: &[PartitionMetadata],
    signal: Signal,
) -> anyhow::Result<Sample> {
    let at = Instant::now();
    broker.signal(signal)?;
    recovered(stage, &led.iter().collect::<Vec<_>>(), at).await
}

/// Waits until somebody else acknowledges in all of these; what it was like until then.
async fn recovered(stage: &Stage, led: &[&PartitionMetadata], at: Instant) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    for partition in led {
        let number = usize::try_from(partition.partition)?;
        let until = at + RECOVERED_MAX;
        let first = stage.writer.acknowledged_after(number, partition.leader_epoch, until).await;
        let first = first.with_context(|| format!("the leader was broker {}", partition.leader))?;
        let (gap, waited) = stage.writer.longest(number, at, first.at);
        sample = sample.worst(Sample { gap, after: first.at.saturating_duration_since(at), waited });
    }
    Ok(sample)
}

fn say(what: &str, event: usize, broker: &Node, sample: Option<&Sample>) {
    let Some(Sample { gap, after, waited }) = sample else { return };
    eprintln!(
        "{what} {event}: {}, gap {} ms, first acknowledgement after {} ms, longest wait {} ms",
        broker.name,
        ms(*gap),
        ms(*after),
        ms(*waited)
    );
}
