//! Brokers: registration, and who may serve.

use std::collections::BTreeSet;

use weir_types::BrokerId;

use crate::apply::{Decided, current, failures, registered};
use crate::broker::{Broker, BrokerState, DirectoryFacts};
use crate::command::{BrokerEpoch, RegisterBroker, SetSlow};
use crate::event::Event;
use crate::image::Image;
use crate::mutant::Mutant;
use crate::reply::Reply;
use crate::{CLUSTER_LEVEL, DIRECTORIES_MAX, ENDPOINTS_MAX, Error, NAME_BYTES_MAX};

pub(super) fn register(
    image: &Image,
    index: i64,
    at_ms: i64,
    command: &RegisterBroker,
) -> Result<Decided, Error> {
    check_form(command)?;
    if let (Some(ours), Some(theirs)) = (image.cluster_id, command.cluster_id)
        && ours != theirs
    {
        return Err(Error::WrongCluster { ours: ours.to_string(), theirs: theirs.to_string() });
    }
    // Also what its directories say: an epoch is the version of the registration that it came from.
    let persisted = command.directories.iter().filter_map(|found| found.persisted_epoch);
    let seen = persisted.fold(command.metadata_version, i64::max);
    if seen > image.version {
        return Err(Error::Behind { ours: image.version, seen });
    }
    let continues = image.continues(command.metadata_version, command.metadata_author);
    if !continues && !Mutant::AnyHistory.is_planted() {
        return Err(Error::OtherHistory { ours: image.version, seen: command.metadata_version });
    }
    if command.feature_level < image.feature_level {
        return Err(Error::FeatureLevel {
            version: command.version.clone(),
            supported: command.feature_level,
            cluster: image.feature_level,
        });
    }
    let id = identify(image, command)?;
    // Sent again, or late by another way: the same process is registered once, and what it was told holds.
    if let Some(known) = image.broker(id)
        && known.incarnation != 0
        && known.incarnation == command.incarnation
    {
        return Ok(Decided::nothing(Reply::BrokerRegistered { broker: id, epoch: known.epoch }));
    }
    if image.broker(id).is_some_and(|broker| broker.epoch == index) {
        return Err(Error::Busy { what: format!("broker {id}") });
    }
    if let Some(refused) = failures::refuse(image, &command.directories) {
        return refused;
    }
    let directories: BTreeSet<_> = command.directories.iter().map(|found| found.id).collect();
    let mut endpoints = command.endpoints.clone();
    endpoints.sort();
    let broker = Broker {
        id,
        epoch: index,
        state: BrokerState::Registered,
        // What was said before still holds: a directory that is older than that is a copy.
        persisted_epoch: image.broker(id).map_or(0, |broker| broker.persisted_epoch),
        directories: directories.into_iter().collect(),
        rack: command.rack.clone(),
        endpoints,
        version: command.version.clone(),
        registered_ms: at_ms,
        incarnation: if image.feature_level >= CLUSTER_LEVEL { command.incarnation } else { 0 },
        failed: failures::remain(image, id, &command.directories),
        stopped: false,
    };
    let event = Event::BrokerRegistered {
        broker,
        // What became of a failure is in the broker's record.
        facts: command
            .directories
            .iter()
            .map(|found| DirectoryFacts { failures: Vec::new(), ..found.clone() })
            .collect(),
        damaged: command.damaged.clone(),
    };
    Ok(Decided::new(vec![event], Reply::BrokerRegistered { broker: id, epoch: index }))
}

fn check_form(command: &RegisterBroker) -> Result<(), Error> {
    // All zeros is how a record says that a replica has no directory yet.
    let ids = command.directories.iter().map(|found| found.id).filter(|id| id.0 != 0);
    let different = ids.collect::<BTreeSet<_>>().len();
    if different == 0 || different != command.directories.len() || different > DIRECTORIES_MAX {
        return Err(Error::Directories { given: different, max: DIRECTORIES_MAX });
    }
    if command.endpoints.len() > ENDPOINTS_MAX {
        return Err(Error::OutOfRange {
            field: "the number of endpoints",
            given: command.endpoints.len() as i64,
            allowed: "0 to 16",
        });
    }
    let endpoints = command.endpoints.iter().flat_map(|endpoint| [&endpoint.listener, &endpoint.host]);
    let longest = endpoints.chain([&command.rack, &command.version]).map(String::len).max().unwrap_or(0);
    if longest > NAME_BYTES_MAX {
        return Err(Error::OutOfRange {
            field: "the length of rack, version, a listener or a host",
            given: longest as i64,
            allowed: "0 to 255 bytes",
        });
    }
    Ok(())
}

/// Which broker this is. Its directories say so if it does not know: it crashed before it could write down the
/// id it was given.
fn identify(image: &Image, command: &RegisterBroker) -> Result<BrokerId, Error> {
    let mut id = command.broker_id;
    if let Some(claimed) = id
        && image.broker(claimed).is_none()
    {
        return Err(Error::BrokerNotFound(claimed));
    }
    for found in &command.directories {
        let Some(owner) = image.directory_owner(found.id).map(|broker| broker.id) else { continue };
        if *id.get_or_insert(owner) != owner {
            return Err(Error::DirectoryTaken { directory: found.id.to_string(), owner });
        }
    }
    let id = id.unwrap_or(BrokerId(image.next_broker_id));
    match image.broker(id) {
        Some(broker) if broker.state == BrokerState::Removed => Err(Error::BrokerRemoved(id)),
        // Its id is on the disks that it had. Without any of them it is not that broker, whoever says so.
        Some(broker)
            if image.feature_level >= CLUSTER_LEVEL
                && !command.directories.iter().any(|found| broker.has_directory(found.id)) =>
        {
            let directory = command.directories.first().map(|found| found.id.to_string());
            Err(Error::DirectoryUnknown { directory: directory.unwrap_or_default(), broker: id })
        }
        _ => Ok(id),
    }
}

/// A broker serves once its epoch is on its disks: from then on an older copy of them is recognised.
pub(super) fn unfence(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    let broker = current(image, by)?;
    // Who has said that its directory has failed says this from before, or is about to end.
    if broker.state.is_alive() || broker.is_over() {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerUnfenced { broker: by.broker }], Reply::Done))
}

/// Fencing names the epoch: a broker that registered again meanwhile is not fenced for the silence of its past. One that
/// dies before it serves is fenced, too: else nobody could say of it that it is down.
pub(super) fn fence(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    let broker = current(image, by)?;
    if !broker.state.is_there() {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerFenced { broker: by.broker }], Reply::Done))
}

/// The last word of a broker that was stopped in order. Its stream ends first, so it may be fenced by then.
pub(super) fn stop(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    let broker = current(image, by)?;
    if broker.stopped || broker.is_over() {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerStopped { broker: by.broker }], Reply::Done))
}

pub(super) fn drain(image: &Image, by: BrokerEpoch) -> Result<Decided, Error> {
    let broker = current(image, by)?;
    if !broker.state.serves() {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerDraining { broker: by.broker }], Reply::Done))
}

/// A slow broker stands back as long as at most half of those that live do (correctness rule 41).
pub(super) fn set_slow(image: &Image, command: SetSlow) -> Result<Decided, Error> {
    let SetSlow { by, slow } = command;
    let changes = match current(image, by)?.state {
        BrokerState::Active => slow && image.may_be_slow(),
        BrokerState::Slow => !slow,
        _ => false,
    };
    if !changes {
        return Ok(Decided::nothing(Reply::Done));
    }
    Ok(Decided::new(vec![Event::BrokerSlow { broker: by.broker, slow }], Reply::Done))
}

impl Image {
    /// Whether one more broker may be slow: at most half of those that live are at a time. Where more of them say so it
    /// is the load, or a storage that they share; the others would only get what made these slow, too.
    pub fn may_be_slow(&self) -> bool {
        let count = |of: fn(BrokerState) -> bool| self.brokers().filter(|broker| of(broker.state)).count();
        let (alive, slow) = (count(BrokerState::is_alive), count(|state| state == BrokerState::Slow));
        2 * (slow + 1) <= alive || Mutant::AllSlow.is_planted()
    }
}

/// For good: whoever comes with its disk later is refused. A replica that is still said to be there would never be
/// looked for elsewhere: unless a person says that the disk is gone (`lost`), there must be none. Then nobody waits for
/// what was on it. Said of one registration: whoever registers again has its disk.
pub(super) fn remove(image: &Image, by: BrokerEpoch, lost: bool) -> Result<Decided, Error> {
    let broker = registered(image, by)?;
    let refuse = |why: String| Err(Error::BrokerInUse { broker: by.broker, why });
    if broker.state == BrokerState::Removed {
        return Ok(Decided::nothing(Reply::Done));
    }
    if broker.state.is_there() {
        let does = if broker.state.is_alive() { "serves" } else { "is starting" };
        return refuse(format!("it {does}; stop it first"));
    }
    let replicas = image.load(by.broker).replicas;
    if replicas > 0 && !lost {
        let holds = match replicas {
            1 => "1 replica, which may be the only one that is complete".to_owned(),
            _ => format!("{replicas} replicas, which may be the only ones that are complete"),
        };
        return refuse(format!(
            "it holds {holds}; if its disk is gone for good, say so (weir broker remove {} --disk-lost)",
            by.broker
        ));
    }
    Ok(Decided::new(vec![Event::BrokerRemoved { broker: by.broker }], Reply::Done))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_types::DirectoryId;

    use super::*;

    fn of(states: &[BrokerState]) -> Image {
        let broker = |(id, state): (i32, &BrokerState)| {
            let broker = Broker {
                id: BrokerId(id),
                epoch: 1,
                state: *state,
                persisted_epoch: 1,
                directories: vec![DirectoryId(id.unsigned_abs().into())],
                rack: String::new(),
                endpoints: Vec::new(),
                version: String::new(),
                registered_ms: 0,
                incarnation: 0,
                failed: Vec::new(),
                stopped: false,
            };
            (broker.id, broker)
        };
        Image { brokers: Arc::new((1..).zip(states).map(broker).collect()), ..Image::default() }
    }

    fn at_most_half_are_slow() {
        use BrokerState::{Active, Draining, Fenced, Slow};
        assert!(of(&[Active; 2]).may_be_slow());
        assert!(!of(&[Active]).may_be_slow(), "the only one");
        assert!(!of(&[Active, Fenced, Fenced]).may_be_slow(), "who is dead does not count");
        assert!(!of(&[Slow, Active, Active]).may_be_slow());
        assert!(of(&[Slow, Active, Active, Draining]).may_be_slow());
    }

    #[test]
    fn more_slow_brokers_than_half_are_noticed() {
        assert!(Mutant::AllSlow.is_noticed_by(at_most_half_are_slow));
    }
}
