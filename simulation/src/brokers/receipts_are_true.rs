//! What a receipt counts is there (correctness rule 43): when it is told, the record is on as many disks as it says, and so many
//! replicas hold it at least in their system's memory. The machines are looked into, not asked.
//!
//! What a machine has lost after the record was sent may have been there when it was counted: a disk, or with the power what was
//! only in memory. Such a machine is believed; so is one whose disk has changed something, for nothing is found behind that.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use weir_io::{Disk as _, MemDisk, Survival};
use weir_storage::inspect::{self, PartitionFiles, Segment};
use weir_tests::history::{Claim, Place};

use super::broker::LOGS;
use crate::life::{Death, Machine};

/// One receipt in so many is looked into: it takes a look at all that is on a disk.
const LOOKED_INTO: u64 = 32;

/// Looks into the machines of the brokers.
pub(super) struct Receipts {
    machines: Vec<Arc<Machine>>,
    told: u64,
    /// How many were looked into.
    pub(super) looked_into: u64,
}

impl Receipts {
    pub(super) fn new(machines: &[Arc<Machine>]) -> Self {
        Self { machines: machines.to_vec(), told: 0, looked_into: 0 }
    }

    /// A receipt was told, of a record that was sent at this time and may not have been deleted since.
    ///
    /// # Errors
    /// It is not so.
    pub(super) fn told(&mut self, place: &Place, offset: i64, claim: Claim, sent_us: u64) -> Result<()> {
        self.told += 1;
        if !self.told.is_multiple_of(LOOKED_INTO) {
            return Ok(());
        }
        self.looked_into += 1;
        let (mut flushed, mut written) = (0, 0);
        for machine in &self.machines {
            let has_lost = |how| machine.has_lost_since(how, sent_us);
            let is_there = |survival| holds(&machine.disk_after(survival), place, offset);
            let is_flushed = machine.has_rotted() || has_lost(Death::Disk) || is_there(Survival::Nothing)?;
            flushed += i32::from(is_flushed);
            written += i32::from(is_flushed || has_lost(Death::Power) || is_there(Survival::Everything)?);
        }
        ensure!(
            claim.flushed <= flushed && claim.written <= written,
            "{place}@{offset} is on {flushed} disks at most, and in {written} replicas: {claim:?}"
        );
        Ok(())
    }
}

/// Whether a record is in a log on a disk.
fn holds(disk: &MemDisk, place: &Place, offset: i64) -> Result<bool> {
    let logs = Path::new(LOGS);
    if !disk.exists(logs)? {
        return Ok(false);
    }
    let front = format!("{}-{}.", place.topic, place.partition);
    for entry in disk.list(logs)?.into_iter().filter(|entry| entry.name.starts_with(&front)) {
        // (What was set aside is no log any more.)
        if let Some(files) = inspect::partition(disk, &logs.join(&entry.name))?
            && is_in(disk, &files, offset).with_context(|| entry.name.clone())?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_in(disk: &MemDisk, files: &PartitionFiles, offset: i64) -> Result<bool> {
    let Some(base) = files.segments.iter().copied().filter(|base| *base <= offset).max() else {
        return Ok(false);
    };
    let mut segment = Segment::open(disk, files, base)?;
    while let Some(frame) = segment.next_frame()? {
        if frame.problem.is_some() {
            return Ok(false);
        }
        if frame.header.next_offset() > offset {
            return Ok(true);
        }
    }
    Ok(false)
}
