//! Metadata as the public API shows it.

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
    let effective = TOPIC_KEYS.iter().map(|key| {
        let (value, source) = layers.effective(key);
        config_value(key, value, source)
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

/// A broker. Paths and space of its directories are known to itself alone.
pub fn broker(image: &Image, broker: &weir_metadata::Broker) -> v1::BrokerDescription {
    let load = image.load(broker.id);
    let count = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    let directory = |id: &weir_types::DirectoryId| v1::LogDirectory {
        directory_id: id.to_string(),
        online: true,
        ..v1::LogDirectory::default()
    };
    let state = match broker.state {
        BrokerState::Registered => v1::BrokerState::Registered,
        BrokerState::Active => v1::BrokerState::Active,
        BrokerState::Draining => v1::BrokerState::Draining,
        BrokerState::Fenced => v1::BrokerState::Fenced,
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
        directories: broker.directories.iter().map(directory).collect(),
        leaders: count(load.leaders),
        replicas: count(load.replicas),
    }
}
