//! A disk that changes what it holds, without a word (correctness rule 36): a byte now and then of one machine, the same for
//! the whole run. Whoever meets it finds it wrong, and somebody else has what was there. While what was damaged is fetched
//! anew others die: nobody may count on a log that is not there yet.
//!
//! What changes is committed, lies on every disk, and is durable by what every checkpoint says: what was written last and is
//! wrong was torn, as far as a start can tell.
//!
//! In the end all machines go down at once, and that disk has lost the end of its logs as well (correctness rule 8).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use weir_io::{Access, Dice, Disk as _, MemDisk, Survival};
use weir_storage::inspect::{self, PartitionFiles, Segment};
use weir_types::PartitionId;

use super::broker::LOGS;
use super::promised::Promised;
use crate::life::{Death, Machine};
use crate::simulation::Simulation;

/// The longest pause between two bytes that change, in milliseconds.
const PAUSE_MS_MAX: u64 = 4_000;
/// Somebody dies so soon after a log was set aside, at the latest.
const SOON_MS_MAX: u64 = 400;

/// Changes bytes.
pub(super) struct Rot {
    dice: Dice,
    victim: Arc<Machine>,
    others: Vec<Arc<Machine>>,
    next: Duration,
    /// How many logs lie beside those in use.
    kept: usize,
    /// Who dies next, and when.
    dies: Option<(Duration, Arc<Machine>)>,
}

/// Where a frame lies, and what is in it.
struct Frame {
    path: PathBuf,
    position: u64,
    bytes: u64,
    payload: Bytes,
}

/// Frames by their partition and first offset.
type Frames = BTreeMap<(PartitionId, i64), Frame>;

impl Rot {
    /// On the disk of one of these.
    pub(super) fn new(dice: &mut Dice, machines: &[Arc<Machine>]) -> Self {
        let mut others = machines.to_vec();
        let victim = others.swap_remove(dice.below(machines.len() as u64) as usize);
        Self { dice: Dice::new(dice.roll()), victim, others, next: Duration::ZERO, kept: 0, dies: None }
    }

    /// To be called before each step.
    pub(super) fn act(&mut self, simulation: &mut Simulation, promised: &mut Promised<'_>) -> Result<()> {
        let now = simulation.now();
        self.kill_meanwhile(simulation, now)?;
        if now < self.next || !promised.covers_rot() {
            return Ok(());
        }
        self.next = now + Duration::from_millis(self.dice.below(PAUSE_MS_MAX));
        let mut frames = safe_on(&self.victim)?;
        for other in &self.others {
            let theirs = safe_on(other)?;
            frames.retain(|place, frame| {
                theirs.get(place).is_some_and(|theirs| theirs.payload == frame.payload)
            });
        }
        // Not what was deleted or set aside a moment ago.
        let now = self.victim.disk_after(Survival::Everything);
        let frames: Vec<Frame> =
            frames.into_values().filter(|frame| now.exists(&frame.path).unwrap_or(false)).collect();
        if frames.is_empty() {
            return Ok(());
        }
        let drawn = self.dice.below(frames.len() as u64) as usize;
        let Some(Frame { path, position, bytes, .. }) = frames.get(drawn) else { return Ok(()) };
        let (at, bits) = (position + self.dice.below(*bytes), 1 << self.dice.below(8));
        Ok(self.victim.rot(path, at, bits)?)
    }

    /// The disk has lost the end of every log that was written last. Nobody runs.
    pub(super) fn lose_ends(&mut self) -> Result<()> {
        let (disk, place) = (self.victim.disk_after(Survival::Everything), Path::new(LOGS));
        for files in inspect::directory(&disk, place)?.partitions {
            let name = files.path.file_name().unwrap_or_default().to_string_lossy();
            let last = files.segments.last().filter(|_| inspect::log_name(&name) == name);
            let Some(base) = last else { continue };
            let path = Segment::open(&disk, &files, *base)?.path().to_owned();
            let len = disk.open(&path, Access::Read)?.len()?;
            self.victim.lose_end(&path, self.dice.below(len.max(1)))?;
        }
        Ok(())
    }

    /// Ends another broker's process soon after a log was set aside.
    fn kill_meanwhile(&mut self, simulation: &mut Simulation, now: Duration) -> Result<()> {
        let kept = kept_on(&self.victim)?;
        if kept > self.kept && self.dies.is_none() && self.dice.percent(70) {
            let other = self.others.get(self.dice.below(self.others.len() as u64) as usize).cloned();
            let soon = Duration::from_millis(self.dice.below(SOON_MS_MAX));
            self.dies = other.map(|other| (now + soon, other));
        }
        self.kept = kept;
        if let Some((_, dies)) = self.dies.take_if(|(at, _)| *at <= now) {
            simulation.end(&dies, Death::Process);
        }
        Ok(())
    }
}

/// How many logs lie beside those in use on a machine's disk: what was damaged, or led nowhere.
fn kept_on(machine: &Machine) -> Result<usize> {
    let entries = machine.list(Path::new(LOGS))?;
    Ok(entries.iter().filter(|entry| inspect::log_name(&entry.name) != entry.name).count())
}

/// The frames on a machine's disk that its checkpoint calls durable and committed.
fn safe_on(machine: &Machine) -> Result<Frames> {
    let (disk, place) = (machine.disk_after(Survival::Nothing), Path::new(LOGS));
    let mut frames = Frames::new();
    // (A process that has not got far has not made it yet.)
    if !disk.exists(place)? || !disk.exists(&place.join("dir.json"))? {
        return Ok(frames);
    }
    for files in inspect::directory(&disk, place)?.partitions {
        let name = files.path.file_name().unwrap_or_default().to_string_lossy();
        // What is kept beside the logs is none.
        if inspect::log_name(&name) != name {
            continue;
        }
        if let Some(said) = files.checkpoint {
            frames.extend(frames_of(&disk, &files, said.recovery_point.min(said.high_watermark))?);
        }
    }
    Ok(frames)
}

/// The sound frames of a log that end before an offset.
fn frames_of(disk: &MemDisk, files: &PartitionFiles, until: i64) -> Result<Frames> {
    let mut frames = Frames::new();
    for base in files.segments.iter().copied().filter(|base| *base < until) {
        let mut segment = Segment::open(disk, files, base)?;
        while let Some(frame) = segment.next_frame()? {
            if frame.header.next_offset() > until {
                break;
            }
            if frame.problem.is_none() {
                let (position, bytes) = (frame.position, frame.header.frame_bytes());
                let path = segment.path().to_owned();
                let found = Frame { path, position, bytes, payload: frame.payload };
                frames.insert((files.id, frame.header.base_offset), found);
            }
        }
    }
    Ok(frames)
}
