//! `weir partition`: where partitions stand.

mod describe;
mod elect;
mod list;
mod loss;
pub(super) mod replicas;
mod told;
pub(super) mod waiting;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use weir_proto::v1::{BrokerDescription, DescribePartitionsRequest, PartitionDescription};

use crate::commands::broker;
use crate::error::Result;
use crate::output::View;
use crate::session::Session;

pub(super) use told::{is_of_replica, table};

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

/// Those whose files have a problem, each with what it is; and those whose appends wait, each with whom for.
pub(crate) async fn troubled(session: &Session) -> Result<(Vec<(String, String)>, Vec<(String, String)>)> {
    let request = DescribePartitionsRequest { problems_only: true, ..DescribePartitionsRequest::default() };
    let described = described(session, request).await?;
    // An older server describes them all.
    let named = |said: &dyn Fn(&PartitionDescription) -> &String| {
        let those = described.iter().filter(|partition| !said(partition).is_empty());
        those.map(|partition| (name(partition), said(partition).clone())).collect::<Vec<_>>()
    };
    Ok((named(&|partition| &partition.problem), named(&|partition| &partition.appends_wait)))
}

/// How a partition is named.
pub(crate) fn name(partition: &PartitionDescription) -> String {
    format!("{}/{}", partition.topic, partition.partition)
}

/// Whether it is led, and refuses appends that wait for all: too few replicas are in sync.
pub(crate) fn refuses_appends(partition: &PartitionDescription) -> bool {
    let at_least = usize::try_from(partition.min_insync_replicas).unwrap_or(0);
    partition.leader >= 0 && partition.isr.len() < at_least
}

/// Partitions as a result, with what is wrong with them below the table.
async fn view(session: &Session, partitions: &[PartitionDescription]) -> Result<View> {
    let mut view = View {
        objects: partitions.iter().map(told::object).collect(),
        names: partitions.iter().map(name).collect(),
        ..View::default()
    };
    view.table(table(partitions, true));
    let brokers = awaited(session, partitions).await?;
    problems(&mut view, partitions, &brokers);
    for p in partitions {
        let late = replicas::said(p, &brokers).into_iter();
        late.for_each(|said| view.line(format!("{}: {said}", name(p))));
    }
    Ok(view)
}

/// The brokers, if there is one to be said something of: that is waited for, or whose replica is not in sync.
pub(crate) async fn awaited(
    session: &Session,
    partitions: &[PartitionDescription],
) -> Result<Vec<BrokerDescription>> {
    let is_asked_for = |p: &PartitionDescription| waiting::waits(p) || p.isr.len() < p.replicas.len();
    if partitions.iter().any(is_asked_for) { broker::all(session).await } else { Ok(Vec::new()) }
}

/// What is wrong with partitions: whole sentences, for which a table has no room. `brokers`: all of them, if one is waited for.
pub(crate) fn problems(view: &mut View, partitions: &[PartitionDescription], brokers: &[BrokerDescription]) {
    for p in partitions.iter().filter(|p| !p.problem.is_empty()) {
        view.line(format!("{}: {}", name(p), p.problem));
    }
    for p in partitions.iter().filter(|p| !p.appends_wait.is_empty()) {
        view.line(format!("{}: {}", name(p), p.appends_wait));
    }
    for p in partitions.iter().filter(|p| p.waits_for_a_person) {
        let led = match p.last_known_leader {
            leader if leader < 0 => String::new(),
            leader => format!("; broker {leader} led last"),
        };
        let name = name(p);
        if waiting::is_gone(p, brokers) {
            view.line(format!(
                "{name}: every broker that had a replica of it was removed, and with them what was in it: delete the topic and \
                 make it again, or bring the records back from a copy of them"
            ));
            continue;
        }
        let of_longest = match p.waits_for_the_longest {
            true => "the longest log leads by itself once replicas answer (unclean_recovery = longest): ",
            false => "",
        };
        let what_to_do = waiting::what_to_do(p, brokers);
        view.line(format!(
            "{name}: no replica is known to hold every acknowledged record{led}: {of_longest}{what_to_do}: weir partition elect \
             {name} --unclean"
        ));
    }
    for p in partitions {
        if let Some(said) = waiting::said(p, brokers) {
            view.line(format!("{}: {said}", name(p)));
        }
    }
}
