//! The cluster: its beginning, its controllers, its settings, its producer ids.

use crate::apply::{Decided, current};
use crate::command::{
    BrokerEpoch, CreateCluster, FinalizeLevel, JoinController, RemoveController, SetClusterConfig,
};
use crate::event::{Controller, Event};
use crate::image::Image;
use crate::reply::Reply;
use crate::settings::{Layers, Settings, TOPIC_KEYS, TopicSettings, cluster_key};
use crate::{Error, FEATURE_LEVEL, PRODUCER_ID_BLOCK};

/// The id of the controller that makes the cluster. No other one can get it: raft index 1 is that leader's own
/// first entry.
const FIRST_CONTROLLER: i64 = 1;

pub(super) fn create(image: &Image, command: &CreateCluster) -> Result<Decided, Error> {
    if let Some(ours) = image.cluster_id {
        // Asked again after a crash between the write and its answer.
        return match ours == command.cluster_id {
            true => Ok(Decided::nothing(Reply::Done)),
            false => Err(Error::Cluster { exists: true }),
        };
    }
    if !(1..=FEATURE_LEVEL).contains(&command.feature_level) {
        return Err(Error::OutOfRange {
            field: "feature_level",
            given: command.feature_level.into(),
            allowed: "1 to the level of this version",
        });
    }
    let settings = changed(&Settings::new(), &command.settings, &[])?;
    let JoinController { directory, endpoint } = command.controller.clone();
    let controller = Controller { id: FIRST_CONTROLLER, directory, endpoint };
    let created = Event::ClusterCreated {
        cluster_id: command.cluster_id,
        feature_level: command.feature_level,
        settings,
    };
    Ok(Decided::new(vec![created, Event::ControllerJoined { controller }], Reply::Done))
}

pub(super) fn join(image: &Image, index: i64, command: &JoinController) -> Result<Decided, Error> {
    let known = image.controllers().find(|controller| controller.directory == command.directory);
    let id = known.map_or(index, |controller| controller.id);
    let reply = Reply::ControllerJoined { id };
    if known.is_some_and(|controller| controller.endpoint == command.endpoint) {
        return Ok(Decided::nothing(reply));
    }
    if known.is_none() && image.controllers.contains_key(&index) {
        // Two joined in one entry: the second asks again and gets another index.
        return Err(Error::Busy { what: "another controller".to_owned() });
    }
    let controller = Controller { id, directory: command.directory, endpoint: command.endpoint.clone() };
    Ok(Decided::new(vec![Event::ControllerJoined { controller }], reply))
}

/// Who has left the quorum is forgotten. The last one stays: somebody keeps this very record.
pub(super) fn remove_controller(image: &Image, command: RemoveController) -> Result<Decided, Error> {
    let RemoveController { id } = command;
    if !image.controllers.contains_key(&id) {
        return Ok(Decided::nothing(Reply::Done));
    }
    if image.controllers.len() == 1 {
        return Err(Error::ControllerNotRemovable { id, why: "it is the only one" });
    }
    Ok(Decided::new(vec![Event::ControllerRemoved { id }], Reply::Done))
}

/// Any level that is higher is taken: whether everybody understands it was found out by whoever proposed it, and a
/// version that does not must stop rather than decide otherwise than the others.
pub(super) fn finalize(image: &Image, command: FinalizeLevel) -> Result<Decided, Error> {
    let (current, FinalizeLevel { level, expected }) = (image.feature_level, command);
    let refuse = |why| Err(Error::Level { current, given: level, why });
    if current == level {
        return Ok(Decided::nothing(Reply::Done));
    }
    if current != expected {
        return refuse("it changed since it was read");
    }
    if level < current {
        return refuse("what was written since cannot be read at a lower one");
    }
    Ok(Decided::new(vec![Event::LevelFinalized { level }], Reply::Done))
}

pub(super) fn set_config(image: &Image, command: &SetClusterConfig) -> Result<Decided, Error> {
    let before = image.settings.as_ref().clone();
    for (name, expected) in &command.expected {
        let key = cluster_key(name)?;
        let set = before.get(key.name).and_then(|text| key.parse(text).ok());
        let (current, expected) = (set.unwrap_or_else(|| key.default_value()), key.parse(expected)?);
        if current != expected {
            let (current, expected) = (current.to_string(), expected.to_string());
            return Err(Error::ConfigMismatch { name: key.name.to_owned(), current, expected });
        }
    }
    let after = changed(&before, &command.set, &command.unset)?;
    let reply = Reply::ClusterConfigSet { before: before.clone(), after: after.clone() };
    if before == after {
        return Ok(Decided::nothing(reply));
    }
    // A cluster value reaches every topic that does not set it: none of them may end up impossible. Only
    // settings that are not copied at creation can do that.
    let follows =
        TOPIC_KEYS.iter().any(|key| !key.copied_at_creation && before.get(key.name) != after.get(key.name));
    if follows {
        for topic in image.topics() {
            let layers = Layers { cluster: &after, ..image.layers(topic) };
            TopicSettings::resolve(layers).check(topic.replication_factor)?;
        }
    }
    Ok(Decided::new(vec![Event::ClusterConfigured { settings: after }], reply))
}

pub(super) fn allocate_producer_ids(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    current(image, by)?;
    let first = image.next_producer_id;
    let next = first.saturating_add(PRODUCER_ID_BLOCK);
    Ok(Decided::new(
        vec![Event::ProducerIdsAllocated { next }],
        Reply::ProducerIds { first, count: PRODUCER_ID_BLOCK },
    ))
}

/// The cluster's settings after a change, in canonical form.
fn changed(before: &Settings, set: &Settings, unset: &[String]) -> Result<Settings, Error> {
    let mut after = before.clone();
    for name in unset {
        after.remove(cluster_key(name)?.name);
    }
    for (name, value) in set {
        let key = cluster_key(name)?;
        after.insert(key.name.to_owned(), key.parse(value)?.to_string());
    }
    Ok(after)
}
