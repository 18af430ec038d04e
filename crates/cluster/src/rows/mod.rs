//! Rows: how metadata looks in the raft log, in snapshots and on the wire.
//!
//! Fields may be added to any row; what a reader does not know as a whole (a command, an event) is an error, since
//! whoever skips one goes on with another history than everybody else.

mod command;
mod event;
mod image;
mod record;
mod reply;

use bytes::Bytes;
use weir_proto::internal::v1 as pb;
use weir_types::{BrokerId, ClusterId, DirectoryId, PartitionId, TopicId};

pub use image::{ImageReader, image_rows};

/// A row that cannot be what it claims.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A field that every version writes is not there.
    #[error("the row has no {0}")]
    Missing(&'static str),
    /// A field holds what it cannot.
    #[error("the row's {0} is not possible")]
    Malformed(&'static str),
    /// It was written by a newer version.
    #[error("this version does not know the row's {0}: it was written by a newer one")]
    Unknown(&'static str),
}

/// Something that has a form on disk and on the wire.
pub trait Row: Sized {
    /// That form.
    type Wire;

    /// Into it.
    fn to_wire(&self) -> Self::Wire;

    /// And back.
    ///
    /// # Errors
    /// If a field is missing or has no meaning here: it was written by another version, or damaged.
    fn from_wire(wire: Self::Wire) -> Result<Self, RowError>;
}

macro_rules! id_row {
    ($id:ty, $name:literal) => {
        impl Row for $id {
            type Wire = Bytes;

            fn to_wire(&self) -> Bytes {
                Bytes::copy_from_slice(&self.0.to_be_bytes())
            }

            fn from_wire(wire: Bytes) -> Result<Self, RowError> {
                let bytes: [u8; 16] = wire.as_ref().try_into().map_err(|_| RowError::Malformed($name))?;
                Ok(Self(u128::from_be_bytes(bytes)))
            }
        }
    };
}

id_row!(ClusterId, "cluster id");
id_row!(TopicId, "topic id");
id_row!(DirectoryId, "directory id");

impl Row for PartitionId {
    type Wire = pb::PartitionRef;

    fn to_wire(&self) -> pb::PartitionRef {
        pb::PartitionRef { topic_id: self.topic.to_wire(), partition: self.partition }
    }

    fn from_wire(wire: pb::PartitionRef) -> Result<Self, RowError> {
        Ok(Self { topic: TopicId::from_wire(wire.topic_id)?, partition: wire.partition })
    }
}

/// The process of a registration; nothing: it did not say.
pub(crate) fn incarnation(wire: &Bytes) -> Result<u128, RowError> {
    if wire.is_empty() {
        return Ok(0);
    }
    let bytes: [u8; 16] = wire.as_ref().try_into().map_err(|_| RowError::Malformed("incarnation"))?;
    Ok(u128::from_be_bytes(bytes))
}

pub(crate) fn incarnation_to_wire(incarnation: u128) -> Bytes {
    match incarnation {
        0 => Bytes::new(),
        said => Bytes::copy_from_slice(&said.to_be_bytes()),
    }
}

/// A list, row by row.
pub(crate) fn all<T: Row>(wires: Vec<T::Wire>) -> Result<Vec<T>, RowError> {
    wires.into_iter().map(T::from_wire).collect()
}

pub(crate) fn wires<'a, T: Row + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<T::Wire> {
    values.into_iter().map(T::to_wire).collect()
}

/// A message field that every version writes.
pub(crate) fn required<T: Row>(wire: Option<T::Wire>, name: &'static str) -> Result<T, RowError> {
    T::from_wire(wire.ok_or(RowError::Missing(name))?)
}

pub(crate) fn optional<T: Row>(wire: Option<T::Wire>) -> Result<Option<T>, RowError> {
    wire.map(T::from_wire).transpose()
}

pub(crate) fn broker_ids(ids: Vec<i32>) -> Vec<BrokerId> {
    ids.into_iter().map(BrokerId).collect()
}

pub(crate) fn numbers(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

#[cfg(test)]
mod tests;
