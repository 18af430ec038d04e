//! Metadata as the public API shows it.

use std::collections::BTreeSet;

use weir_metadata::settings::{CLUSTER_KEYS, Key, Layers, Settings, Source, TOPIC_KEYS, Value, cluster_key};
use weir_metadata::{BrokerState, Image, Topic, TopicSummary};
use weir_proto::v1;

/// A topic, without `effective`.
pub fn topic(topic: &TopicSummary) -> v1::Topic {
    v1::Topic {
        name: topic.name.to_string(),
        topic_id: topic.id.to_string(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        config: topic.config.clone(),
        revision: topic.revision,
        created_ms: topic.created_ms,
        effective: Vec::new(),
    }
}

/// A topic, with every setting and where it comes from.
pub fn topic_in_full(summary: &TopicSummary, cluster: &Settings) -> v1::Topic {
    let layers = Layers { topic: &summary.config, copied: &summary.copied, cluster };
    let none = Settings::new();
    let nobody = Layers { topic: &none, copied: &none, cluster: &none };
    let effective = TOPIC_KEYS.iter().map(|key| {
        let (value, source) = layers.effective(key);
        if !summary.copied.contains_key(key.name) {
            return config_value(key, value, source);
        }
        // What it keeps from the moment it was made is not the cluster's where it is what it had got from nobody.
        let kept = |from: Layers<'_>| from.copied(key, summary.replication_factor);
        let default = kept(nobody);
        let is_clusters = cluster.contains_key(key.name) && kept(Layers { cluster, ..nobody }) == value;
        let source = if value == default && !is_clusters { Source::Default } else { source };
        v1::ConfigValue { default_value: default.to_string(), ..config_value(key, value, source) }
    });
    v1::Topic { effective: effective.collect(), ..topic(summary) }
}

/// The same of a topic in an image.
pub fn image_topic_in_full(image: &Image, topic: &Topic) -> v1::Topic {
    topic_in_full(&topic.summary(), image.cluster_settings())
}

/// Every setting of the cluster: its own, and its values for topics.
pub fn cluster_configs(settings: &Settings) -> Vec<v1::ConfigValue> {
    CLUSTER_KEYS.iter().chain(TOPIC_KEYS).map(|key| cluster_value(key, settings)).collect()
}

/// Settings of the cluster that a change named; unknown names are left out.
pub fn cluster_configs_named<'a>(
    settings: &Settings,
    names: impl Iterator<Item = &'a String>,
) -> Vec<v1::ConfigValue> {
    names.filter_map(|name| cluster_key(name).ok()).map(|key| cluster_value(key, settings)).collect()
}

fn cluster_value(key: &Key, settings: &Settings) -> v1::ConfigValue {
    match settings.get(key.name).and_then(|text| key.parse(text).ok()) {
        Some(value) => config_value(key, value, Source::Cluster),
        None => config_value(key, key.default_value(), Source::Default),
    }
}

fn config_value(key: &Key, value: Value, source: Source) -> v1::ConfigValue {
    let source = match source {
        Source::Default => v1::ConfigSource::Default,
        Source::Cluster => v1::ConfigSource::Cluster,
        Source::Topic => v1::ConfigSource::Topic,
    };
    v1::ConfigValue {
        name: key.name.to_owned(),
        value: value.to_string(),
        source: source.into(),
        default_value: key.default_value().to_string(),
        unit: key.unit().to_owned(),
        help: key.help.to_owned(),
        sensitive: false,
        needs_restart: key.needs_restart,
        origin: String::new(),
    }
}

/// A broker. Paths and space of its directories are known to itself alone, and whom it does not reach.
pub fn broker(image: &Image, broker: &weir_metadata::Broker) -> v1::BrokerDescription {
    let load = image.load(broker.id);
    let count = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    let failed = |id| broker.distrusted().filter(move |failed| failed.id == id);
    let directory = |id: weir_types::DirectoryId| v1::LogDirectory {
        directory_id: id.to_string(),
        online: failed(id).next().is_none(),
        failures: failed(id).map(|failed| failed.failure.cast_signed()).collect(),
        ..v1::LogDirectory::default()
    };
    // Also those that it has come without since.
    let others: BTreeSet<_> = broker.distrusted().map(|failed| failed.id).collect();
    let others = others.into_iter().filter(|id| !broker.has_directory(*id));
    let state = match broker.state {
        BrokerState::Fenced if broker.is_failed() => v1::BrokerState::Failed,
        BrokerState::Registered => v1::BrokerState::Registered,
        BrokerState::Active => v1::BrokerState::Active,
        BrokerState::Slow => v1::BrokerState::Slow,
        BrokerState::Draining => v1::BrokerState::Draining,
        BrokerState::Fenced => v1::BrokerState::Fenced,
        BrokerState::Removed => v1::BrokerState::Removed,
    };
    v1::BrokerDescription {
        broker_id: broker.id.0,
        broker_epoch: broker.epoch,
        state: state.into(),
        rack: broker.rack.clone(),
        endpoints: broker
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.listener.clone(), format!("{}:{}", endpoint.host, endpoint.port)))
            .collect(),
        version: broker.version.clone(),
        directories: broker.directories.iter().copied().chain(others).map(directory).collect(),
        leaders: count(load.leaders),
        replicas: count(load.replicas),
        unreached: Vec::new(),
        stopped: broker.stopped && broker.state == BrokerState::Fenced,
    }
}

#[cfg(test)]
mod tests {
    use weir_types::TopicId;

    use super::*;

    /// What is said of a setting of a topic with one replica: value, source, default.
    fn said(
        name: &str,
        config: &Settings,
        copied: &Settings,
        cluster: &Settings,
    ) -> (String, v1::ConfigSource, String) {
        let summary = TopicSummary {
            name: "t".into(),
            id: TopicId(1),
            partitions: 1,
            replication_factor: 1,
            config: config.clone(),
            copied: copied.clone(),
            revision: 1,
            created_ms: 0,
        };
        let topic = topic_in_full(&summary, cluster);
        let setting = topic.effective.into_iter().find(|setting| setting.name == name).unwrap();
        (setting.value.clone(), setting.source(), setting.default_value)
    }

    #[test]
    fn what_a_topic_keeps_from_its_making_is_the_clusters_only_where_somebody_set_it() {
        use v1::ConfigSource::{Cluster, Default, Topic};
        let settings = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let none = settings(&[]);
        let fsync = settings(&[("durability", "fsync"), ("min_insync_replicas", "1")]);
        let replicated = settings(&[("durability", "replicated"), ("min_insync_replicas", "1")]);
        for (name, config, copied, cluster, value, source, default) in [
            ("durability", &none, &fsync, &none, "fsync", Default, "fsync"),
            ("durability", &none, &fsync, &fsync, "fsync", Cluster, "fsync"),
            ("durability", &none, &replicated, &none, "replicated", Cluster, "fsync"),
            ("durability", &none, &fsync, &replicated, "fsync", Default, "fsync"),
            ("durability", &fsync, &none, &none, "fsync", Topic, "fsync"),
            // Two, cut to the replicas there are.
            ("min_insync_replicas", &none, &fsync, &none, "1", Default, "1"),
            ("min_insync_replicas", &none, &fsync, &fsync, "1", Cluster, "1"),
        ] {
            let expected = (value.to_owned(), source, default.to_owned());
            assert_eq!(
                said(name, config, copied, cluster),
                expected,
                "{name} {config:?} {copied:?} {cluster:?}"
            );
        }
    }
}
