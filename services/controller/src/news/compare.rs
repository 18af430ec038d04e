//! What a committed change means to an operator.

use weir_cluster::partition_name;
use weir_metadata::settings::Settings;
use weir_metadata::{Broker, Event, Image};
use weir_types::{BrokerId, PartitionId, TopicId};

use super::Gathered;

/// The longest value of a setting that is shown.
const VALUE_CHARS_MAX: usize = 64;
/// How many brokers are named that one partition waits for.
const WAITED_FOR_MAX: usize = 5;

impl Gathered {
    /// What has happened is said, or gathered to be. The images are those before and after the whole change.
    pub(super) fn happened(&mut self, older: &Image, newer: &Image, event: &Event) {
        let named = |id: TopicId| {
            let topic = newer.topic(id).or_else(|| older.topic(id));
            topic.map_or_else(|| id.to_string(), |topic| topic.name.to_string())
        };
        match event {
            Event::BrokerRegistered { broker, .. } => registered(older.broker(broker.id), broker),
            Event::BrokerUnfenced { broker } => {
                let (epoch, partitions) = (epoch(newer, *broker), newer.load(*broker).replicas);
                tracing::info!(broker = broker.0, epoch, partitions, "broker is active: it serves");
            }
            Event::BrokerFenced { broker } | Event::BrokerStopped { broker } => fenced(older, *broker),
            Event::BrokerDraining { broker } => {
                // As it was: what others lead from then on they get with the same change.
                let (epoch, leads) = (epoch(newer, *broker), older.load(*broker).leaders);
                tracing::info!(
                    broker = broker.0,
                    epoch,
                    leads,
                    "broker is about to stop: others lead what they can"
                );
            }
            Event::BrokerSlow { broker, slow: false } => {
                let epoch = epoch(newer, *broker);
                tracing::info!(broker = broker.0, epoch, "broker's disk is quick again: it leads again");
            }
            Event::BrokerRemoved { broker } => {
                tracing::warn!(broker = broker.0, "broker was taken out of the cluster for good");
            }
            Event::BrokerTrusted { broker, .. } => {
                let what = "broker may use its log directories again in spite of what has failed there";
                tracing::warn!(broker = broker.0, "{what}");
            }
            Event::TopicCreated { topic, partitions } => {
                self.created.add(|| format!("{} ({})", topic.name, counted(partitions.len())));
            }
            Event::TopicDeleted { topic_id } => self.deleted.add(|| named(*topic_id)),
            Event::PartitionsAdded { topic_id, .. } => self.grown.add(|| {
                let count = |image: &Image| image.topic(*topic_id).map_or(0, |topic| topic.partition_count());
                format!("{} ({} to {} partitions)", named(*topic_id), count(older), count(newer))
            }),
            Event::TopicConfigured { topic_id, config, .. } => self.configured.add(|| {
                let none = Settings::new();
                let before = older.topic(*topic_id).map_or(&none, |topic| &topic.config);
                format!("{} ({})", named(*topic_id), settings(before, config))
            }),
            Event::ClusterConfigured { settings: now } => {
                let changed = settings(older.cluster_settings(), now);
                tracing::info!(changed, "the cluster's settings were changed");
            }
            Event::ControllerJoined { controller } => {
                let (id, endpoint) = (controller.id, &controller.endpoint);
                tracing::info!(controller = id, endpoint, "a controller has its place in the quorum");
            }
            // Said where they are asked for, or nothing that a person waits for.
            Event::ClusterCreated { .. }
            | Event::BrokerSlow { slow: true, .. }
            | Event::DirectoryFailed { .. }
            | Event::ControllerRemoved { .. }
            | Event::LevelFinalized { .. }
            | Event::PartitionsChanged { .. }
            | Event::ProducerIdsAllocated { .. } => {}
        }
    }

    /// Partitions that nobody leads any more, and that are led again.
    pub(super) fn led_or_not(&mut self, older: &Image, newer: &Image) {
        for id in newer.partitions_changed_since(older) {
            let (Some(before), Some(now)) = (older.partition(id), newer.partition(id)) else { continue };
            // Of one that nobody has ever led nobody knows anything yet, and it was said that its topic was made.
            if before.is_fresh() {
                continue;
            }
            match (before.leader, now.leader) {
                (Some(_), None) => {
                    self.lost.add(|| partition_name(newer, id));
                    *self.waits_for.entry(waits_for(newer, id)).or_default() += 1;
                }
                (None, Some(_)) => self.led.add(|| partition_name(newer, id)),
                _ => {}
            }
        }
    }
}

/// "1 partition", "3 partitions".
fn counted(partitions: usize) -> String {
    format!("{partitions} partition{}", if partitions == 1 { "" } else { "s" })
}

/// Whom a partition waits for that nobody leads.
fn waits_for(image: &Image, id: PartitionId) -> String {
    let mut brokers: Vec<_> = image
        .partition(id)
        .into_iter()
        .flat_map(|record| record.waited_for())
        .map(|broker| broker.0)
        .collect();
    brokers.sort_unstable();
    let named: Vec<_> =
        brokers.iter().take(WAITED_FOR_MAX).map(|broker| format!("broker {broker}")).collect();
    match named.is_empty() {
        true => "a person: no replica is known to have all that was acknowledged".to_owned(),
        false => named.join(" or "),
    }
}

fn epoch(image: &Image, broker: BrokerId) -> i64 {
    image.broker(broker).map_or(0, |broker| broker.epoch)
}

fn registered(before: Option<&Broker>, now: &Broker) {
    let (broker, epoch, rack) = (now.id.0, now.epoch, &now.rack);
    let addresses: Vec<_> = now
        .endpoints
        .iter()
        .map(|endpoint| format!("{} {}:{}", endpoint.listener, endpoint.host, endpoint.port))
        .collect();
    let addresses = addresses.join(", ");
    match before {
        None => tracing::info!(broker, epoch, rack, addresses, "broker registered, for the first time"),
        Some(before) => {
            let was = before.state.to_string();
            tracing::info!(broker, epoch, rack, addresses, was, "broker registered again");
        }
    }
}

/// Why it is fenced is said by whoever found out; here, what becomes of what it led.
fn fenced(older: &Image, broker: BrokerId) {
    let (epoch, led) = (epoch(older, broker), older.load(broker).leaders);
    if led > 0 {
        let what = "a broker that led is fenced: others lead its partitions, where one was in sync";
        tracing::info!(broker = broker.0, epoch, led, "{what}");
    }
}

/// What differs, by name.
fn settings(before: &Settings, now: &Settings) -> String {
    let names: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    let value = |settings: &Settings, name: &String| match settings.get(name) {
        Some(value) => value.chars().take(VALUE_CHARS_MAX).collect(),
        None => "not set".to_owned(),
    };
    let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let each = changed.map(|name| format!("{name}: {} to {}", value(before, name), value(now, name)));
    each.collect::<Vec<_>>().join(", ")
}
