//! What becomes of a command: refused, or a list of events and an answer. Decisions read the image and change
//! nothing; the events change it, here and at every watcher.

mod brokers;
mod cluster;
mod failures;
mod partitions;
mod topics;

use weir_types::TopicId;

use crate::Error;
use crate::broker::{Broker, BrokerState};
use crate::command::{BrokerEpoch, Command};
use crate::event::Event;
use crate::image::Image;
use crate::reply::{REQUEST_ID_BYTES_MAX, Reply};
use crate::topic::TopicSummary;

/// A command that is carried out.
pub(crate) struct Decided {
    pub(crate) events: Vec<Event>,
    pub(crate) reply: Answer,
}

/// An answer, as far as it is known before the events are carried out.
pub(crate) enum Answer {
    /// All of it.
    Ready(Reply),
    /// A topic's change: what it is after is read after.
    Updated { topic_id: TopicId, before: TopicSummary },
}

impl Answer {
    pub(crate) fn resolve(self, image: &Image) -> Reply {
        match self {
            Self::Ready(reply) => reply,
            Self::Updated { topic_id, before } => {
                let after = image.topic(topic_id).map_or_else(|| before.clone(), |topic| topic.summary());
                Reply::TopicUpdated { before, after }
            }
        }
    }
}

impl Decided {
    fn new(events: Vec<Event>, reply: Reply) -> Self {
        Self { events, reply: Answer::Ready(reply) }
    }

    fn nothing(reply: Reply) -> Self {
        Self::new(Vec::new(), reply)
    }
}

/// Decides a command at a raft index.
pub(crate) fn decide(image: &Image, index: i64, at_ms: i64, command: &Command) -> Result<Decided, Error> {
    if image.cluster_id.is_none() && !matches!(command, Command::CreateCluster(_)) {
        return Err(Error::Cluster { exists: false });
    }
    let id_bytes = command.request_id().map_or(0, str::len);
    if id_bytes > REQUEST_ID_BYTES_MAX {
        return Err(Error::OutOfRange {
            field: "the length of request_id",
            given: id_bytes as i64,
            allowed: "0 to 64 bytes",
        });
    }
    match command {
        Command::CreateCluster(command) => cluster::create(image, command),
        Command::JoinController(command) => cluster::join(image, index, command),
        Command::SetClusterConfig(command) => cluster::set_config(image, command),
        Command::AllocateProducerIds(by) => cluster::allocate_producer_ids(image, *by),
        Command::RegisterBroker(command) => brokers::register(image, index, at_ms, command),
        Command::UnfenceBroker(by) => brokers::unfence(image, *by),
        Command::FenceBroker(by) => brokers::fence(image, *by),
        Command::StopBroker(by) => brokers::stop(image, *by),
        Command::DrainBroker(by) => brokers::drain(image, *by),
        Command::SetSlow(command) => brokers::set_slow(image, *command),
        Command::AssignDirectories(command) => partitions::assign_directories(image, command),
        Command::ReportDamage(command) => partitions::report_damage(image, command),
        Command::AlterPartitions(command) => partitions::alter(image, command),
        Command::ElectLeader(command) => partitions::elect_leader(image, command),
        Command::ElectPreferred(command) => Ok(partitions::elect_preferred(image, command)),
        Command::RecoverPartitions(command) => Ok(partitions::recover(image, command)),
        Command::FinalizeLevel(command) => cluster::finalize(image, *command),
        Command::RemoveController(command) => cluster::remove_controller(image, *command),
        Command::RemoveBroker(by) => brokers::remove(image, *by, false),
        Command::LoseBroker(by) => brokers::remove(image, *by, true),
        Command::FailDirectory(command) => failures::fail(image, *command),
        Command::TrustBroker(command) => failures::trust(image, command),
        Command::CreateTopic(command) => topics::create(image, index, at_ms, command),
        Command::UpdateTopic(command) => topics::update(image, index, command),
        Command::DeleteTopic(command) => topics::delete(image, command),
    }
}

/// The broker, if that is its registration and it was not removed in it.
fn current(image: &Image, by: BrokerEpoch) -> Result<&Broker, Error> {
    match registered(image, by)? {
        broker if broker.state == BrokerState::Removed => Err(Error::BrokerRemoved(by.broker)),
        broker => Ok(broker),
    }
}

/// The broker, if that is its registration, also one that was removed.
fn registered(image: &Image, by: BrokerEpoch) -> Result<&Broker, Error> {
    let broker = image.broker(by.broker).ok_or(Error::BrokerNotFound(by.broker))?;
    if broker.epoch != by.epoch {
        return Err(Error::BrokerEpochStale { broker: by.broker, current: broker.epoch, given: by.epoch });
    }
    Ok(broker)
}
