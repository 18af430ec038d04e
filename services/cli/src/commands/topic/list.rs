//! `weir topic list`.

use std::fmt;
use std::iter::Sum;

use clap::Args;
use weir_proto::v1::{
    ConfigSource, ConfigValue, DescribePartitionsRequest, ListConfigsRequest, ListTopicsRequest,
    PartitionDescription, Topic, TopicMetadata,
};

use super::keeps;
use crate::commands::partition;
use crate::error::Result;
use crate::offsets::{self, Extent};
use crate::output::{self, Column, Format, Table, UNKNOWN, View};
use crate::session::Session;
use crate::units;

/// The settings that the list shows.
const RETENTION: [&str; 2] = ["retention_ms", "retention_bytes"];

/// The topics, their sizes and how they are
#[derive(Debug, Args)]
#[command(after_help = "\
With -o json, `effective` has how long records are kept; weir topic describe has every setting.

Examples:
  $ weir topic list
  $ weir topic list -o name
  $ weir topic list -o json --internal")]
pub(crate) struct List {
    /// The system's own topics too
    #[arg(long)]
    internal: bool,
}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let mut topics = all(session, self.internal).await?;
        if session.format() == Format::Name {
            // One call, for a shell that completes names while somebody waits.
            let names = topics.into_iter().map(|topic| topic.name).collect();
            return Ok(View { names, ..View::default() });
        }
        inherit(session, &mut topics).await?;
        let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
        // With no topics there is nothing more to ask: an empty list of names would mean all.
        let metadata = if names.is_empty() { Vec::new() } else { offsets::topics(session, &names).await? };
        let places: Vec<(String, i32)> = metadata
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
            .filter(|(_, partition)| partition.leader >= 0)
            .map(|(topic, partition)| (topic.name.clone(), partition.partition))
            .collect();
        let extents = offsets::known_extents(session, &places).await?;
        let described = partition::described(session, DescribePartitionsRequest::default()).await?;
        let mut view = View::default();
        let mut table = Table::new(&[
            Column::left("NAME"),
            Column::right("PARTITIONS"),
            Column::right("REPLICAS"),
            Column::right("RECORDS"),
            Column::right("SIZE"),
            Column::left("KEEPS"),
            Column::left("STATUS"),
            Column::left("ID").wide(),
        ]);
        for topic in &topics {
            let known = records(&extents, topic);
            let size = size(&described, topic);
            let of_topic = metadata.iter().find(|m| m.name == topic.name);
            let status = status(of_topic, &described, &topic.name, known.unknown);
            table.row([
                topic.name.clone(),
                topic.partitions.to_string(),
                topic.replication_factor.to_string(),
                known.to_string(),
                size.to_string(),
                keeps(topic).unwrap_or_default(),
                status.clone(),
                topic.topic_id.clone(),
            ]);
            let mut object = output::proto_json(topic, "weir.v1.Topic");
            output::set(&mut object, "records", known.all());
            output::set(&mut object, "sizeBytes", size.all());
            output::set(&mut object, "status", status);
            view.objects.push(object);
            view.names.push(topic.name.clone());
        }
        view.table(table);
        Ok(view)
    }
}

/// Every topic, with what it sets itself.
pub(crate) async fn all(session: &Session, internal: bool) -> Result<Vec<Topic>> {
    let mut client = session.topics().await?;
    let mut request = ListTopicsRequest { page_size: 1_000, internal, ..ListTopicsRequest::default() };
    let mut topics = Vec::new();
    loop {
        let page = session.read(client.list_topics(session.request(request.clone()))).await?;
        topics.extend(page.topics);
        if page.next_page_token.is_empty() {
            return Ok(topics);
        }
        request.page_token = page.next_page_token;
    }
}

/// A list answers only what topics set themselves. How long each keeps records is put together here, with where it
/// comes from, as [`Describe`](super::describe::Describe) has it from the server.
async fn inherit(session: &Session, topics: &mut [Topic]) -> Result<()> {
    let mut client = session.admin().await?;
    let request = session.request(ListConfigsRequest { broker_id: None });
    let cluster = session.read(client.list_configs(request)).await?.configs;
    for topic in topics {
        topic.effective = retention(topic, &cluster);
    }
    Ok(())
}

/// The settings of retention in force for a topic: its own, else the cluster's.
fn retention(topic: &Topic, cluster: &[ConfigValue]) -> Vec<ConfigValue> {
    let of_cluster = RETENTION.iter().filter_map(|name| cluster.iter().find(|setting| setting.name == *name));
    let in_force = |setting: &ConfigValue| match topic.config.get(&setting.name) {
        Some(own) => {
            ConfigValue { value: own.clone(), source: ConfigSource::Topic.into(), ..setting.clone() }
        }
        None => setting.clone(),
    };
    of_cluster.map(in_force).collect()
}

/// What the partitions of a topic come to, as far as they are told.
struct Told<T> {
    sum: T,
    /// Partitions of which it is not known.
    unknown: usize,
    /// For people.
    shown: fn(T) -> String,
}

/// How many records a topic has, as far as its leaders tell: one that nobody leads, or whose leader has not heard of a
/// controller for a session, does not.
fn records(extents: &[Extent], topic: &Topic) -> Told<i64> {
    let of_topic = extents.iter().filter(|extent| extent.topic == topic.name);
    Told::of(of_topic.map(|extent| extent.end - extent.start).collect(), topic, units::count)
}

/// How large the logs of a topic are, as far as brokers that have one tell.
fn size(described: &[PartitionDescription], topic: &Topic) -> Told<u64> {
    let told = described.iter().filter(|p| p.topic == topic.name && partition::is_of_replica(p));
    Told::of(told.map(|p| p.size_bytes.max(0).unsigned_abs()).collect(), topic, units::bytes)
}

impl<T: Copy + Default + PartialEq + Sum> Told<T> {
    fn of(told: Vec<T>, topic: &Topic, shown: fn(T) -> String) -> Self {
        let partitions = usize::try_from(topic.partitions).unwrap_or(0);
        let unknown = partitions.saturating_sub(told.len());
        Self { sum: told.into_iter().sum(), unknown, shown }
    }

    /// All of it, if it is known.
    fn all(&self) -> Option<T> {
        (self.unknown == 0).then_some(self.sum)
    }
}

impl<T: Copy + Default + PartialEq> fmt::Display for Told<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = (self.shown)(self.sum);
        match self.unknown {
            0 => f.write_str(&shown),
            _ if self.sum == T::default() => f.write_str(UNKNOWN),
            _ => write!(f, "{shown} + ?"),
        }
    }
}

/// `ok`, or what is wrong with how many partitions; `unknown` ones did not tell where they end.
fn status(
    topic: Option<&TopicMetadata>,
    described: &[PartitionDescription],
    name: &str,
    unknown: usize,
) -> String {
    let partitions = topic.map(|topic| topic.partitions.as_slice()).unwrap_or_default();
    let offline = partitions.iter().filter(|p| p.leader < 0).count();
    let thin = partitions.iter().filter(|p| p.leader >= 0 && p.isr.len() < p.replicas.len()).count();
    let of_topic = || described.iter().filter(|p| p.topic == name);
    let damaged = of_topic().filter(|p| !p.problem.is_empty()).count();
    let below_min = of_topic().filter(|p| partition::refuses_appends(p)).count();
    let waiting = of_topic().filter(|p| !p.appends_wait.is_empty()).count();
    // What is offline tells nothing, and is counted as that.
    let unknown = unknown.saturating_sub(offline);
    let parts: Vec<String> = [
        (offline, "offline"),
        (damaged, "damaged"),
        (unknown, "with an end that is not told"),
        (below_min, "below min_insync_replicas"),
        (waiting, "whose appends wait"),
        (thin, "under-replicated"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, word)| format!("{count} {word}"))
    .collect();
    if parts.is_empty() { "ok".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::v1::PartitionMetadata;

    #[test]
    fn what_is_in_force_says_where_it_comes_from() {
        let setting = |name: &str, value: &str, source: ConfigSource| ConfigValue {
            name: name.into(),
            value: value.into(),
            source: source.into(),
            default_value: "604800000".into(),
            unit: "ms".into(),
            ..ConfigValue::default()
        };
        let week = setting("retention_ms", "604800000", ConfigSource::Default);
        let (day, all) = (
            setting("retention_ms", "86400000", ConfigSource::Cluster),
            setting("retention_bytes", "-1", ConfigSource::Default),
        );
        let other = setting("compression", "zstd", ConfigSource::Cluster);
        let plain = Topic::default();
        assert_eq!(retention(&plain, &[week.clone(), all.clone()]), [week.clone(), all.clone()]);
        let own =
            Topic { config: [("retention_ms".to_owned(), "1000".to_owned())].into(), ..Topic::default() };
        let cluster = [other, all.clone(), day.clone()];
        assert_eq!(retention(&plain, &cluster), [day, all.clone()]);
        assert_eq!(retention(&own, &cluster), [setting("retention_ms", "1000", ConfigSource::Topic), all]);
    }

    #[test]
    fn the_status_counts_what_is_wrong() {
        let partition = |leader, isr: &[i32]| PartitionMetadata {
            leader,
            replicas: vec![1, 2],
            isr: isr.to_vec(),
            ..PartitionMetadata::default()
        };
        let topic = |partitions| TopicMetadata { partitions, ..TopicMetadata::default() };
        assert_eq!(status(Some(&topic(vec![partition(1, &[1, 2])])), &[], "t", 0), "ok");
        let untold = status(Some(&topic(vec![partition(1, &[1, 2])])), &[], "t", 1);
        assert_eq!(untold, "1 with an end that is not told");
        let waits = PartitionDescription {
            topic: "t".into(),
            appends_wait: "appends wait for broker 2".into(),
            ..Default::default()
        };
        let whole = topic(vec![partition(1, &[1, 2])]);
        assert_eq!(status(Some(&whole), &[waits], "t", 0), "1 whose appends wait");
        let bad = topic(vec![partition(-1, &[]), partition(1, &[1]), partition(2, &[2])]);
        let damaged =
            PartitionDescription { topic: "t".into(), problem: "bad frame".into(), ..Default::default() };
        assert_eq!(status(Some(&bad), &[damaged], "t", 1), "1 offline, 1 damaged, 2 under-replicated");
        let refuses = PartitionDescription {
            topic: "t".into(),
            leader: 1,
            isr: vec![1],
            min_insync_replicas: 2,
            ..Default::default()
        };
        let thin = topic(vec![partition(1, &[1])]);
        assert_eq!(
            status(Some(&thin), &[refuses], "t", 0),
            "1 below min_insync_replicas, 1 under-replicated"
        );
    }

    #[test]
    fn logs_that_nobody_tells_of_are_not_empty() {
        let topic = Topic { name: "t".into(), partitions: 2, ..Topic::default() };
        let described = |local, size_bytes| PartitionDescription {
            topic: "t".into(),
            local,
            size_bytes,
            ..PartitionDescription::default()
        };
        let size = |described: &[PartitionDescription]| {
            let size = super::size(described, &topic);
            (size.to_string(), size.all())
        };
        assert_eq!(size(&[described(true, 40), described(true, 2)]), ("42 B".to_owned(), Some(42)));
        assert_eq!(size(&[described(true, 40), described(false, 0)]), ("40 B + ?".to_owned(), None));
        assert_eq!(size(&[described(false, 0), described(false, 0)]), ("unknown".to_owned(), None));
    }

    #[test]
    fn records_that_nobody_tells_are_not_none() {
        let extent = |partition, end| Extent { topic: "t".into(), partition, start: 5, end };
        let topic = Topic { name: "t".into(), partitions: 2, ..Topic::default() };
        let known = |extents: &[Extent]| {
            let known = records(extents, &topic);
            (known.to_string(), known.all())
        };
        assert_eq!(known(&[extent(0, 7), extent(1, 5)]), ("2".to_owned(), Some(2)));
        assert_eq!(known(&[extent(1, 9)]), ("4 + ?".to_owned(), None));
        assert_eq!(known(&[]), ("unknown".to_owned(), None));
    }
}
