//! The words everything else is said in: ids, epochs, offsets. No behaviour, no I/O, no serialisation format.

mod ids;
mod partition;
mod producer;

pub use ids::{BrokerId, ClusterId, DirectoryId, Incarnation, ParseIdError, TopicId};
pub use partition::{Durability, LeaderEpoch, Offset, PartitionId};
pub use producer::{Producer, ProducerId, next_sequence, sequence_add};
