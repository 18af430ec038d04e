//! `weir bench`: how fast this server is, from here. The load generator of the project's own measurements, so that a
//! figure taken here means the same as one in docs/performance.md; every receipt and every byte read is checked.

mod consume;
mod latency;
mod produce;

use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::task::JoinSet;
use tokio::time::Instant;
use weir_load::connect::NewTopic;
use weir_load::leaders::{self, Led, part, shares};
use weir_load::report::{Counts, PERCENTILES, Report};
use weir_load::{machine, payload, produce as load};
use weir_proto::v1::{Acks, CreateTopicRequest, Route};

use crate::error::{Error, Result};
use crate::output::{Column, Table, View};
use crate::prompt;
use crate::session::Session;
use crate::units;

/// How fast this server is, from here
#[derive(Debug, Args)]
#[command(after_help = "\
It writes to a topic of its own (bench) and leaves it there: weir topic delete bench.
It asks before it writes to one that is there already and whose name does not begin with bench.

Examples:
  $ weir bench produce --total 8MiB
  $ weir bench consume
  $ weir bench latency --total 1MiB")]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Produce),
    Consume(consume::Consume),
    Latency(latency::Latency),
}

impl Bench {
    /// Why it has no `--dry-run`, where it writes.
    pub(crate) fn refuses_dry_run(&self) -> Option<String> {
        match self.command {
            Command::Produce(_) | Command::Latency(_) => Some(
                "this measures by writing records, so it has no --dry-run; weir bench consume only reads"
                    .to_owned(),
            ),
            Command::Consume(_) => None,
        }
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Produce(command) => command.run(session).await,
            Command::Consume(command) => command.run(session).await,
            Command::Latency(command) => command.run(session).await,
        }
    }
}

/// The topic and the connections.
#[derive(Debug, Args)]
struct Common {
    /// The topic
    #[arg(long, default_value = "bench", value_name = "NAME")]
    topic: String,
    /// How many connections to each broker that leads some of it, each with a stream of its own; at most one a
    /// partition
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
}

/// What is written.
#[derive(Debug, Args)]
struct Writing {
    #[command(flatten)]
    common: Common,
    /// Partitions of the topic, if it has to be made
    #[arg(short, long, default_value_t = 1, value_name = "N")]
    partitions: i32,
    /// How much to write in all
    #[arg(long, default_value = "1GiB", value_name = "SIZE", value_parser = size)]
    total: usize,
    /// Replicas of each, if it has to be made [default: the cluster's]
    #[arg(short, long, value_name = "N", alias = "replication-factor")]
    replicas: Option<i32>,
    /// How many of them must be in sync for an append, if it has to be made [default: the cluster's]
    #[arg(long, value_name = "N")]
    min_insync: Option<i32>,
    /// The class of the topic, if it has to be made: fsync or replicated
    #[arg(long, default_value = "fsync", value_name = "CLASS")]
    durability: String,
    /// Answer when the leader has it, not when it is committed
    #[arg(long)]
    acks_leader: bool,
    /// Open loop: so many batches a second on each connection, whether or not the server keeps up;
    /// latency counts from when a batch was due
    #[arg(long, value_name = "BATCHES")]
    rate: Option<f64>,
}

/// A size as clap wants it.
fn size(text: &str) -> Result<usize, String> {
    let bytes = weir_types::units::bytes(text)?;
    usize::try_from(bytes)
        .ok()
        .filter(|b| *b > 0)
        .ok_or_else(|| "a size must be more than nothing".to_owned())
}

impl Writing {
    /// Makes the topic if it is not there, and writes.
    async fn run(&self, session: &Session, batch_bytes: usize, inflight: u64) -> Result<Report> {
        let partitions = led(session, &self.common.topic, &self.topic(session).await?).await?;
        // Enough different batches to leave the processor's caches, few enough to stay out of the way.
        let count = ((32 << 20) / batch_bytes.max(1)).clamp(1, 1024);
        let payload: Arc<[_]> = payload::ready_batches(batch_bytes, count).into();
        let batches = (self.total / batch_bytes.max(1)) as u64;
        let shares = shares(&partitions, usize::from(self.common.clients));
        let plans = shares.into_iter().map(|(server, mine)| load::Plan {
            server,
            route: Route::Direct,
            topic: self.common.topic.clone(),
            batches: part(batches, mine.len(), partitions.len()),
            partitions: mine,
            inflight: inflight.max(1),
            acks: if self.acks_leader { Acks::Leader } else { Acks::All },
            payload: Arc::clone(&payload),
            every: self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate.max(0.001))),
        });
        timed(plans, load::Producer::open, load::Producer::run).await
    }

    async fn topic(&self, session: &Session) -> Result<Vec<i32>> {
        let mut client = session.topics().await?;
        let topic = NewTopic {
            name: self.common.topic.clone(),
            partitions: self.partitions,
            durability: self.durability.clone(),
            replicas: self.replicas,
            min_insync: self.min_insync,
        };
        let request = CreateTopicRequest {
            topic: Some(topic.into()),
            if_absent: true,
            request_id: session.request_id(),
            ..CreateTopicRequest::default()
        };
        let answer = session.change(client.create_topic(session.request(request))).await?;
        let name = &self.common.topic;
        if !answer.created && !name.starts_with("bench") {
            let size = units::bytes(self.total as u64);
            let question = format!("{name} is there already: write {size} of made-up records to it?");
            prompt::confirm(session, &question).await?;
        }
        Ok((0..answer.topic.unwrap_or_default().partitions).collect())
    }
}

/// Who leads these partitions: whichever broker was named, the load goes to leaders.
async fn led(session: &Session, topic: &str, partitions: &[i32]) -> Result<Vec<Led>> {
    let server = session.address()?.to_string();
    let led = leaders::leaders(&server, topic, partitions).await.map_err(failed)?;
    for (partition, leader) in &led {
        session.say(1, &format!("{topic}/{partition} is led by {leader}"));
    }
    Ok(led)
}

fn failed(error: anyhow::Error) -> Error {
    Error::Failed(format!("{error:#}"))
}

/// Opens every connection, lets them all run at once, and times that.
async fn timed<P, O, T, OF, R, RF>(plans: impl Iterator<Item = P>, open: O, run: R) -> Result<Report>
where
    O: Fn(P) -> OF,
    OF: Future<Output = anyhow::Result<T>>,
    R: Fn(T) -> RF,
    RF: Future<Output = anyhow::Result<Counts>> + Send + 'static,
{
    let mut opened = Vec::new();
    for plan in plans {
        opened.push(open(plan).await.map_err(failed)?);
    }
    let cpu = || machine::cpu_ms(std::process::id());
    let (before, started) = (cpu(), Instant::now());
    let mut running = JoinSet::new();
    for one in opened {
        running.spawn(run(one));
    }
    let mut counts = Counts::default();
    while let Some(result) = running.join_next().await {
        let one = result.map_err(|error| Error::Failed(format!("a connection's task: {error}")))?;
        counts.add(&one.map_err(failed)?);
    }
    Ok(counts.report(started.elapsed(), cpu() - before, 0))
}

/// The figures: a sentence, and the latencies if there are any.
fn view(what: &str, report: &Report) -> View {
    let time = Duration::from_secs_f64(report.seconds);
    let line = format!(
        "{what}: {} in {}, {}, {}/s, {} ms of processor time here a GB",
        units::bytes(report.bytes),
        units::counted(report.batches, "batch"),
        units::elapsed(time),
        units::bytes((report.gb_per_s * 1e9) as u64),
        units::count(report.client_cpu_ms_per_gb as u64),
    );
    let latency = |at: usize| report.latency_us.get(at);
    let latency = (!report.latency_us.is_empty()).then(|| {
        serde_json::json!({
            "p50": latency(0), "p90": latency(1), "p99": latency(2), "p999": latency(3), "max": latency(4),
        })
    });
    let object = serde_json::json!({
        "bench": what, "bytes": report.bytes, "batches": report.batches, "records": report.records,
        "durationUs": time.as_micros() as u64, "gbPerS": report.gb_per_s,
        "clientCpuMsPerGb": report.client_cpu_ms_per_gb, "latencyUs": latency,
    });
    let mut view = View::sentence(line, what, object);
    if !report.latency_us.is_empty() {
        let mut table = Table::new(&[
            Column::right("P50"),
            Column::right("P90"),
            Column::right("P99"),
            Column::right("P99.9"),
            Column::right("MAX"),
        ]);
        debug_assert_eq!(report.latency_us.len(), PERCENTILES.len() + 1);
        table.row(report.latency_us.iter().map(|us| units::elapsed(Duration::from_secs_f64(us / 1e6))));
        view.table(table);
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_more_than_nothing() {
        assert_eq!(size("4KiB"), Ok(4096));
        assert!(size("0").is_err());
        assert!(size("unlimited").is_err());
    }
}
