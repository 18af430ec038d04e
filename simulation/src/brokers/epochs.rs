//! Which leader wrote a record: as its writer was told, and as the log says.
//!
//! What nobody acknowledged is sent again to the next leader, and may come to the offset there that it had before, behind
//! others. Where the old log leads again, what it holds there is not what was acknowledged.

use std::collections::BTreeMap;

use anyhow::Result;
use weir_client::Batch;
use weir_tests::history::{Mark, Place};

/// The leader epochs of what was acknowledged, and of what was read at the end.
#[derive(Default)]
pub(super) struct Epochs {
    told: BTreeMap<Mark, i32>,
    read: BTreeMap<Place, BTreeMap<i64, i32>>,
}

impl Epochs {
    /// A writer was told that its record was written in this one.
    pub(super) fn told(&mut self, mark: Mark, epoch: i32) {
        self.told.insert(mark, epoch);
    }

    /// The log says so of these records.
    pub(super) fn read(&mut self, batch: &Batch) -> Result<()> {
        let place = Place { topic: batch.topic().to_owned(), partition: batch.partition() };
        let read = self.read.entry(place).or_default();
        for record in batch {
            read.insert(record?.offset, batch.leader_epoch());
        }
        Ok(())
    }

    /// Whether what is read at an offset is what was acknowledged of this record.
    pub(super) fn are_one(&self, place: &Place, offset: i64, mark: Mark) -> bool {
        self.read.get(place).and_then(|read| read.get(&offset)) == self.told.get(&mark)
    }
}
