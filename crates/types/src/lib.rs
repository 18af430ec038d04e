//! The words everything else is said in: ids, epochs, offsets, addresses, and how people write quantities and mistype names.
//! No state, no I/O, no serialisation format.

mod endpoint;
mod ids;
mod mutants;
mod near;
mod nearest;
mod partition;
mod producer;
pub mod units;

pub use endpoint::{Endpoint, EndpointError};
pub use ids::{BrokerId, ClusterId, DirectoryId, Incarnation, ParseIdError, TopicId};
pub use near::near;
pub use nearest::{did_you_mean, nearest};
pub use partition::{Durability, LeaderEpoch, Offset, PartitionId};
pub use producer::{KnownBatch, KnownProducer, Producer, ProducerId, next_sequence, sequence_add};
