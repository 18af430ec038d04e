//! `weir partition`: where partitions stand.

mod describe;
mod elect;
mod list;
pub(super) mod waiting;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use weir_proto::v1::{
    BrokerDescription, DescribePartitionsRequest, FollowerDescription, PartitionDescription,
};

use crate::clock;
use crate::commands::broker;
use crate::error::Result;
use crate::output::{self, Column, Table, View};
use crate::session::Session;
use crate::units;

/// Partitions: leaders, ends, sizes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir partition list
  $ weir partition describe flights/3
  $ weir partition describe flights -o json")]
pub(crate) struct Partition {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "ls")]
    List(list::List),
    #[command(alias = "show")]
    Describe(describe::Describe),
    Elect(elect::Elect),
}

impl Partition {
    /// Whether looking again makes sense.
    pub(crate) fn watchable(&self) -> bool {
        !matches!(self.command, Command::Elect(_))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::List(command) => command.run(session).await,
            Command::Describe(command) => command.run(session).await,
            Command::Elect(command) => command.run(session).await,
        }
    }
}

/// Where partitions stand, page by page.
pub(crate) async fn described(
    session: &Session,
    mut request: DescribePartitionsRequest,
) -> Result<Vec<PartitionDescription>> {
    let mut client = session.admin().await?;
    request.page_size = 1_000;
    let mut partitions = Vec::new();
    loop {
        let page = session.read(client.describe_partitions(session.request(request.clone()))).await?;
        partitions.extend(page.partitions);
        if page.next_page_token.is_empty() {
            return Ok(partitions);
        }
        request.page_token = page.next_page_token;
    }
}

/// The same of partitions that are named as `flights/3`.
pub(crate) async fn named(session: &Session, names: &[String]) -> Result<Vec<PartitionDescription>> {
    let mut of_topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, number) in names.iter().filter_map(|name| name.rsplit_once('/')) {
        of_topics.entry(topic).or_default().extend(number.parse::<i32>());
    }
    let mut partitions = Vec::new();
    for (topic, numbers) in of_topics {
        let request = DescribePartitionsRequest {
            topic: topic.to_owned(),
            partitions: numbers,
            ..DescribePartitionsRequest::default()
        };
        partitions.extend(described(session, request).await?);
    }
    Ok(partitions)
}

/// Those whose files have a problem, each with what it is.
pub(crate) async fn damaged(session: &Session) -> Result<Vec<(String, String)>> {
    let request = DescribePartitionsRequest { problems_only: true, ..DescribePartitionsRequest::default() };
    let described = described(session, request).await?;
    // An older server describes them all.
    let damaged = described.into_iter().filter(|partition| !partition.problem.is_empty());
    Ok(damaged.map(|p| (format!("{}/{}", p.topic, p.partition), p.problem)).collect())
}

/// Partitions as a result, with what is wrong with them below the table.
async fn view(session: &Session, partitions: &[PartitionDescription]) -> Result<View> {
    let name = |p: &PartitionDescription| format!("{}/{}", p.topic, p.partition);
    let mut view = View {
        objects: partitions.iter().map(|p| output::proto_json(p, "weir.v1.PartitionDescription")).collect(),
        names: partitions.iter().map(name).collect(),
        ..View::default()
    };
    view.table(table(partitions, true));
    problems(&mut view, partitions, &awaited(session, partitions).await?);
    behind(&mut view, partitions);
    Ok(view)
}

/// The brokers, if one of them is waited for.
pub(crate) async fn awaited(
    session: &Session,
    partitions: &[PartitionDescription],
) -> Result<Vec<BrokerDescription>> {
    if partitions.iter().any(waiting::waits) { broker::all(session).await } else { Ok(Vec::new()) }
}

/// What is wrong with partitions: whole sentences, for which a table has no room. `brokers`: all of them, if one is waited for.
pub(crate) fn problems(view: &mut View, partitions: &[PartitionDescription], brokers: &[BrokerDescription]) {
    for p in partitions.iter().filter(|p| !p.problem.is_empty()) {
        view.line(format!("{}/{}: {}", p.topic, p.partition, p.problem));
    }
    for p in partitions.iter().filter(|p| p.waits_for_a_person) {
        let led = match p.last_known_leader {
            leader if leader < 0 => String::new(),
            leader => format!("; broker {leader} led last"),
        };
        view.line(format!(
            "{0}/{1}: no replica is known to hold every acknowledged record{led}: bring brokers back, or see what would be \
             lost: weir partition elect {0}/{1} --unclean",
            p.topic, p.partition
        ));
    }
    for p in partitions {
        if let Some(said) = waiting::said(p, brokers) {
            view.line(format!("{}/{}: {said}", p.topic, p.partition));
        }
    }
}

/// Replicas that are not in sync, with what they have to catch up.
fn behind(view: &mut View, partitions: &[PartitionDescription]) {
    for p in partitions {
        for follower in p.followers.iter().filter(|follower| !follower.in_sync) {
            view.line(format!("{}/{}: {}", p.topic, p.partition, said_of(follower)));
        }
    }
}

fn said_of(follower: &FollowerDescription) -> String {
    let broker = follower.broker_id;
    let since = units::elapsed(Duration::from_millis(follower.lag_ms.max(0).unsigned_abs()));
    match (follower.log_end_offset, follower.lag_records) {
        (_, 0) => format!("the replica on broker {broker} has everything, and is not in sync yet"),
        (-1, _) => format!("the replica on broker {broker} is not heard of, for {since}"),
        (_, records) => format!(
            "the replica on broker {broker} is {} ({}) behind, for {since}",
            units::counted(records.max(0).unsigned_abs(), "record"),
            units::bytes(follower.lag_bytes.max(0).unsigned_abs()),
        ),
    }
}

/// What replicas that are not in sync have to catch up, in bytes, and for how many milliseconds the last of them has been
/// behind.
pub(crate) fn to_catch_up(partitions: &[PartitionDescription]) -> (u64, u64) {
    let late = partitions.iter().flat_map(|p| &p.followers).filter(|follower| !follower.in_sync);
    late.fold((0, 0), |(bytes, ms), follower| {
        let (more, since) = (follower.lag_bytes.max(0).unsigned_abs(), follower.lag_ms.max(0).unsigned_abs());
        (bytes.saturating_add(more), ms.max(since))
    })
}

/// Partitions as a table, named in full or by their numbers.
pub(crate) fn table(partitions: &[PartitionDescription], full_names: bool) -> Table {
    let mut table = Table::new(&[
        if full_names { Column::left("PARTITION") } else { Column::right("PARTITION") },
        Column::right("LEADER"),
        Column::left("REPLICAS"),
        Column::left("IN SYNC"),
        Column::left("ELIGIBLE").wide(),
        Column::right("MIN").wide(),
        Column::right("START"),
        Column::right("END"),
        Column::right("RECORDS"),
        Column::right("SIZE"),
        Column::left("LAST APPEND"),
        Column::left("STATUS"),
        Column::right("EPOCH").wide(),
        Column::right("CHANGES").wide(),
        Column::right("STABLE").wide(),
        Column::right("ON DISK").wide(),
        Column::right("LOG END").wide(),
        Column::right("SEGMENTS").wide(),
        Column::left("DIRECTORY").wide(),
    ]);
    for p in partitions {
        table.row([
            if full_names { format!("{}/{}", p.topic, p.partition) } else { p.partition.to_string() },
            if p.leader < 0 { "none".to_owned() } else { p.leader.to_string() },
            ids(&p.replicas),
            ids(&p.isr),
            ids(&p.eligible),
            p.min_insync_replicas.to_string(),
            p.log_start_offset.to_string(),
            end(p.high_watermark),
            if p.high_watermark < 0 {
                String::new()
            } else {
                units::count(p.high_watermark - p.log_start_offset)
            },
            units::bytes(p.size_bytes.max(0).unsigned_abs()),
            if p.last_append_ms > 0 { clock::show(p.last_append_ms) } else { String::new() },
            status(p),
            p.leader_epoch.to_string(),
            p.partition_epoch.to_string(),
            end(p.last_stable_offset),
            p.flushed_offset.to_string(),
            p.log_end_offset.to_string(),
            p.segments.to_string(),
            p.directory_id.clone(),
        ]);
    }
    table
}

fn ids(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// An end of a log, which a leader that has just begun may not know.
fn end(offset: i64) -> String {
    if offset < 0 { "unknown".to_owned() } else { offset.to_string() }
}

fn status(partition: &PartitionDescription) -> String {
    if partition.waits_for_a_person {
        "waits for a person".to_owned()
    } else if partition.leader < 0 {
        "offline".to_owned()
    } else if !partition.problem.is_empty() {
        "damaged".to_owned()
    } else if partition.isr.len() < partition.replicas.len() {
        "under-replicated".to_owned()
    } else {
        "ok".to_owned()
    }
}
