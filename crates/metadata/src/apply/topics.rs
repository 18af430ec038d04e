//! Topics: made, changed, deleted.

use weir_types::{BrokerId, TopicId};

use crate::apply::{Answer, Decided};
use crate::broker::BrokerState;
use crate::command::{CreateTopic, DeleteTopic, UpdateTopic};
use crate::event::Event;
use crate::image::Image;
use crate::mutant::{self, Mutant};
use crate::names::{check_topic_name, is_internal};
use crate::placement::{Candidate, place};
use crate::reply::Reply;
use crate::settings::{Layers, Settings, TOPIC_KEYS, TopicSettings, cluster_key, topic_key};
use crate::topic::{Partition, Topic, TopicSummary};
use crate::{Error, PARTITIONS_MAX, PARTITIONS_PER_TOPIC_MAX, REPLICATION_FACTOR_MAX};

pub(super) fn create(image: &Image, index: i64, at_ms: i64, command: &CreateTopic) -> Result<Decided, Error> {
    check_topic_name(&command.name)?;
    if is_internal(&command.name) != command.internal {
        return Err(Error::TopicInternal(command.name.clone()));
    }
    if let Some(topic) = image.topic_named(&command.name) {
        return match command.if_absent {
            true => Ok(Decided::nothing(Reply::TopicCreated { topic: topic.summary(), created: false })),
            false => Err(Error::TopicExists(command.name.clone())),
        };
    }
    if image.topic(command.topic_id).is_some() {
        return Err(Error::TopicIdTaken(command.topic_id));
    }
    let partitions = or_default(image, "default_partitions", command.partitions);
    check_partition_count(image, partitions, partitions)?;
    let replication_factor = or_default(image, "default_replication_factor", command.replication_factor);
    if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
        return Err(Error::ReplicationFactor {
            given: replication_factor,
            why: format!("1 to {REPLICATION_FACTOR_MAX} are allowed"),
        });
    }
    let config = canonical(&command.config)?;
    let copied = copied(image, &config, replication_factor);
    let settings =
        TopicSettings::resolve(Layers { topic: &config, copied: &copied, cluster: &image.settings });
    settings.check(replication_factor)?;
    let placed = placed(image, command.topic_id, partitions, replication_factor)?;
    let topic = TopicSummary {
        id: command.topic_id,
        name: command.name.as_str().into(),
        partitions,
        replication_factor,
        config,
        copied,
        revision: index,
        created_ms: if Mutant::ByProcess.is_planted() { at_ms + mutant::of_this_process() } else { at_ms },
    };
    let reply = Reply::TopicCreated { topic: topic.clone(), created: true };
    let partitions = new_partitions(placed, settings.min_insync_replicas);
    Ok(Decided::new(vec![Event::TopicCreated { topic, partitions }], reply))
}

pub(super) fn update(image: &Image, index: i64, command: &UpdateTopic) -> Result<Decided, Error> {
    let topic = image.find_topic(&command.name)?;
    if is_internal(&topic.name) {
        return Err(Error::TopicInternal(command.name.clone()));
    }
    if let Some(expected) = command.expected_revision
        && expected != topic.revision
    {
        return Err(Error::RevisionMismatch {
            name: command.name.clone(),
            current: topic.revision,
            expected,
        });
    }
    let mut config = topic.config.clone();
    for name in &command.unset_config {
        config.remove(changeable(name)?);
    }
    for (name, value) in canonical(&command.set_config)? {
        changeable(&name)?;
        config.insert(name, value);
    }
    let settings = TopicSettings::resolve(Layers { topic: &config, ..image.layers(topic) });
    settings.check(topic.replication_factor)?;

    let mut events = Vec::new();
    if config != topic.config {
        events.push(Event::TopicConfigured { topic_id: topic.id, config, revision: index });
    }
    if let Some(partitions) = command.partitions.filter(|wanted| *wanted != topic.partition_count()) {
        events.push(added(image, index, topic, partitions, settings.min_insync_replicas)?);
    }
    Ok(Decided { events, reply: Answer::Updated { topic_id: topic.id, before: topic.summary() } })
}

fn added(image: &Image, index: i64, topic: &Topic, wanted: i32, min_insync: i32) -> Result<Event, Error> {
    let more = wanted.saturating_sub(topic.partition_count());
    if more < 0 {
        return Err(Error::PartitionCount {
            given: wanted,
            why: format!(
                "the topic has {}, and partitions cannot be taken away (records would be lost)",
                topic.partition_count()
            ),
        });
    }
    check_partition_count(image, wanted, more)?;
    let placed = placed(image, topic.id, more, topic.replication_factor)?;
    Ok(Event::PartitionsAdded {
        topic_id: topic.id,
        partitions: new_partitions(placed, min_insync),
        revision: index,
    })
}

pub(super) fn delete(image: &Image, command: &DeleteTopic) -> Result<Decided, Error> {
    let topic = image.find_topic(&command.name)?;
    if is_internal(&topic.name) {
        return Err(Error::TopicInternal(command.name.clone()));
    }
    if let Some(given) = command.topic_id
        && given != topic.id
    {
        return Err(Error::TopicIdMismatch { name: command.name.clone(), current: topic.id, given });
    }
    let reply = Reply::TopicDeleted { topic: topic.summary() };
    Ok(Decided::new(vec![Event::TopicDeleted { topic_id: topic.id }], reply))
}

/// What was asked for, or the cluster's default for 0.
fn or_default(image: &Image, name: &str, asked: i32) -> i32 {
    if asked != 0 {
        return asked;
    }
    let default = cluster_key(name).map_or(1, |key| {
        let set = image.settings.get(name).and_then(|text| key.parse(text).ok());
        set.unwrap_or_else(|| key.default_value()).number()
    });
    i32::try_from(default).unwrap_or(1)
}

fn check_partition_count(image: &Image, given: i32, more: i32) -> Result<(), Error> {
    if !(1..=PARTITIONS_PER_TOPIC_MAX).contains(&given) {
        let why = format!("1 to {PARTITIONS_PER_TOPIC_MAX} are allowed in a topic");
        return Err(Error::PartitionCount { given, why });
    }
    let total = image.partition_count.saturating_add(more.into());
    if total > PARTITIONS_MAX {
        let why = format!("the cluster would have {total}, at most {PARTITIONS_MAX} are allowed");
        return Err(Error::PartitionCount { given, why });
    }
    Ok(())
}

/// Settings in the form they are stored in.
fn canonical(config: &Settings) -> Result<Settings, Error> {
    let one =
        |(name, value): (&String, &String)| Ok((name.clone(), topic_key(name)?.parse(value)?.to_string()));
    config.iter().map(one).collect()
}

/// The name of a setting that may change while the topic exists.
fn changeable(name: &str) -> Result<&'static str, Error> {
    let key = topic_key(name)?;
    if key.fixed_at_creation {
        return Err(Error::ConfigFixed { name: key.name.to_owned() });
    }
    Ok(key.name)
}

/// The cluster's values that a new topic keeps. One that was asked for this topic is not cut to what its replicas can
/// fulfil, and then refused.
fn copied(image: &Image, config: &Settings, replication_factor: i32) -> Settings {
    let none = Settings::new();
    let layers = Layers { topic: config, copied: &none, cluster: &image.settings };
    TOPIC_KEYS
        .iter()
        .filter(|key| key.copied_at_creation && !config.contains_key(key.name))
        .map(|key| (key.name.to_owned(), layers.copied(key, replication_factor).to_string()))
        .collect()
}

fn placed(
    image: &Image,
    topic_id: TopicId,
    partitions: i32,
    replication_factor: i32,
) -> Result<Vec<Vec<BrokerId>>, Error> {
    let candidates: Vec<Candidate> = image
        .brokers()
        .filter(|broker| broker.state.serves())
        .map(|broker| Candidate {
            id: broker.id,
            rack: broker.rack.clone(),
            load: image.load(broker.id),
            is_slow: broker.state == BrokerState::Slow,
        })
        .collect();
    // A topic id is random: its low half is as good a seed as any.
    place(&candidates, partitions, replication_factor, topic_id.0 as u64)
}

fn new_partitions(placed: Vec<Vec<BrokerId>>, min_insync: i32) -> Vec<Partition> {
    placed.into_iter().map(|brokers| Partition::new(brokers, min_insync)).collect()
}
