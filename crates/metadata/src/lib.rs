//! Cluster metadata as a pure state machine: what the raft log of the controllers adds up to, and what every
//! broker follows.
//!
//! A [`Command`] carries facts and expected versions. [`State::apply`] decides it, the same way on every
//! controller, and says what changed as a [`Delta`]; whoever has the [`Image`] before it gets the image after it
//! by [`Image::follow`]. Placement of replicas, elections of leaders and the settings of topics are decided here
//! and nowhere else.
//!
//! It knows no clock, no socket, no file, no task and no serialisation: services put those around it.

mod apply;
mod authors;
mod broker;
mod check;
mod command;
mod error;
mod event;
mod expand;
mod image;
mod isr;
mod mutant;
mod names;
mod parts;
mod placement;
mod reply;
mod rotten;
pub mod settings;
mod shared_map;
mod state;
mod topic;

pub use authors::{Author, Authors};
pub use broker::{Broker, BrokerState, DirectoryFacts, Endpoint, FailedDirectory};
pub use command::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, Command, CreateCluster, CreateTopic,
    DeleteTopic, ElectLeader, ElectPreferred, Entry, FailDirectory, FinalizeLevel, JoinController,
    RecoverPartitions, Recovery, RegisterBroker, RemoveController, ReplicaEnd, ReportDamage,
    SetClusterConfig, SetSlow, StuckReplica, TrustBroker, UpdateTopic,
};
pub use error::Error;
pub use event::{Controller, Delta, Event, SharedDelta};
pub use expand::Gap;
pub use image::{Health, Image, Load};
pub use mutant::Mutant;
pub use names::{TOPIC_NAME_BYTES_MAX, is_internal};
pub use parts::{ImageHead, ImageParts};
pub use reply::{REPLIES_MAX, Remembered, Replies, Reply};
pub use rotten::GivesUp;
pub use shared_map::SharedMap;
pub use state::{Applied, State};
pub use topic::{Partition, Replica, Topic, TopicSummary};

/// The highest feature level this version understands.
///
/// | level | what it allows to be written |
/// |---|---|
/// | 1 | one broker, one controller |
/// | 2 | the process of a registration, and whether it stopped in order; the epoch of unclean elections, leaders from the ELR, expected values of settings; removing brokers and controllers, preferred and recovered leaders, slow disks, lost and failed ones |
pub const FEATURE_LEVEL: i32 = 2;
/// The level from which on registrations are known by their process, and unclean elections by their epoch.
pub(crate) const CLUSTER_LEVEL: i32 = 2;
/// Partitions of one topic at most.
pub const PARTITIONS_PER_TOPIC_MAX: i32 = 10_000;
/// Partitions of a cluster at most.
pub const PARTITIONS_MAX: i64 = 1_000_000;
/// Replicas of a partition at most.
pub const REPLICATION_FACTOR_MAX: i32 = 9;
/// Log directories of a broker at most.
pub const DIRECTORIES_MAX: usize = 64;
/// Endpoints of a broker at most.
pub const ENDPOINTS_MAX: usize = 16;
/// Longest rack, listener, host or version, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The first producer id that is given out; those below are the system's own.
pub const PRODUCER_ID_FIRST: i64 = 1_000;
/// Producer ids given out at once.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;
