//! Random operations, a crash after any step, and a plain model of what must be there afterwards.
//!
//! A run is decided by its seed, to the last call to the disk. It is a row of lives: a process opens the directory, the
//! model looks at everything in it, the process does some things, and ends: in order, killed, by a power loss, or at the
//! moment when it has changed the disk so many times, whatever it was doing. What the model holds the log to:
//!
//! - What was acknowledged is there, at its offset, once, byte for byte: after a kill in both classes, after a power
//!   loss in class fsync. What a reader saw below the high watermark stays, likewise.
//! - Nothing is there that was not submitted to this very partition, and no batch of a producer is there twice.
//! - Offsets follow each other without a gap. A start that was moved, or seen, stays moved. What was deleted stays
//!   deleted. Retention, which the keeper does by itself, leaves as much as it is told to, and all that is not committed.
//! - Who is forgotten of the producers follows from the frames, whatever the wall clock has shown; within a log the time goes
//!   back by much, or not at all.
//! - An honest disk damages no partition, and neither does want of room or of descriptors: what cannot be opened for now is
//!   opened later, and what was refused is not there. After a disk that has lied, nothing acknowledged since is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weir_io::{Effect, Event, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_runtime::testing::{Dice, TestOs};
use weir_storage::{
    Acks, Control, Ends, Frame, LogConfig, Mutant, Outcome, OutcomeQuery, Partition, ReadError, UnknownCause,
};
use weir_types::{Durability, LeaderEpoch, Offset, Producer};

use crate::support::{Leader, Process, append, batch, by, id, try_all};

/// What is planted in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// A rule taken out of the product.
    Bug(Mutant),
    /// A call left out: every sync of a file with this ending, or of folders.
    Skip(Op, &'static str),
}

/// Longer than any life takes, by its own clock.
const LIFE_MAX: Duration = Duration::from_secs(3600);

type Checked<T> = Result<T, String>;

macro_rules! require {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+));
        }
    };
}

mod clocks;
mod steps;
mod wants;

use self::clocks::Clock;

/// One partition as it must be.
#[derive(Debug)]
struct Model {
    durability: Durability,
    config: LogConfig,
    exists: Existence,
    /// By offset: what must be there.
    acked: BTreeMap<Offset, Vec<u8>>,
    /// All that may be there.
    submitted: Vec<Vec<u8>>,
    start_acked: Offset,
    start_asked: Offset,
    /// Whether nothing was lost at its end since it was last looked at.
    only_grew: bool,
    epoch: LeaderEpoch,
    producer: Option<(Producer, i32)>,
    /// A batch of the producer whose fate is not known.
    open: Option<(i32, Vec<u8>)>,
    /// It was asked for with a fence, and the answer never came.
    sealing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    No,
    Yes,
    /// Its creation or deletion was under way.
    Maybe,
}

impl Model {
    fn new(config: LogConfig, exists: Existence) -> Self {
        Self {
            durability: config.durability,
            config,
            exists,
            acked: BTreeMap::new(),
            submitted: Vec::new(),
            start_acked: 0,
            start_asked: 0,
            only_grew: true,
            epoch: 0,
            producer: None,
            open: None,
            sealing: false,
        }
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Clean,
    Kill,
    PowerLoss,
    /// There is nothing more to be seen.
    Damaged,
}

pub(crate) struct World {
    seed: u64,
    dice: Dice,
    mem: MemDisk,
    models: BTreeMap<i32, Model>,
    payloads: u64,
    plant: Plant,
    /// Pages of files were lost in this life, and the product was told: what is not durable is gone.
    lied: bool,
    /// The same in any life before.
    lied_before: bool,
    /// Room or descriptors were wanting in this life.
    wants: bool,
    /// What it lost has come to light: there is nothing more to be held to.
    over: bool,
    boots: u64,
    clock: Clock,
    history: Vec<String>,
    /// Every call to the disk, where somebody wants to know.
    trace: Option<Vec<Event>>,
}

/// Runs a seed. What went wrong, with the history.
pub(crate) fn run(seed: u64, plant: Plant) -> Result<(), String> {
    World::new(seed, plant).lives()
}

impl World {
    fn new(seed: u64, plant: Plant) -> Self {
        Self {
            seed,
            dice: Dice::new(seed),
            mem: MemDisk::new(seed),
            models: BTreeMap::new(),
            payloads: 0,
            plant,
            lied: false,
            lied_before: false,
            wants: false,
            over: false,
            boots: 1,
            clock: Clock::new(seed),
            history: Vec::new(),
            trace: None,
        }
    }

    fn lives(&mut self) -> Result<(), String> {
        let lives = 2 + self.dice.below(4);
        for life in 0..=lives {
            self.history.push(format!("life {life}"));
            match self.life(life == lives) {
                Ok(true) => {}
                Ok(false) => break,
                Err(what) => {
                    return Err(format!("seed {}: {what}\n  {}", self.seed, self.history.join("\n  ")));
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// Whether another life follows.
    fn life(&mut self, last: bool) -> Checked<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let disk = FaultDisk::over_mem(&self.mem);
        if let Plant::Skip(op, ending) = self.plant {
            disk.add(Rule::on([op], Effect::Skip).ends_with(ending));
        }
        if !last && self.dice.percent(70) {
            let changes = if self.dice.percent(30) { self.dice.below(20) } else { self.dice.below(150) };
            self.history.push(format!("dies after {changes} changes"));
            disk.die_after(changes);
        }
        (self.lied, self.wants) = (false, false);
        if self.trace.is_some() {
            disk.start_trace();
        }
        let lived = runtime.block_on(async { timeout(LIFE_MAX, self.live(&disk, last)).await });
        drop(runtime);
        let lived = lived.unwrap_or_else(|_| Err(format!("in {LIFE_MAX:?} something is waited for in vain")));
        if let Some(trace) = &mut self.trace {
            trace.extend(disk.take_trace());
        }
        let end = lived?;
        self.history.push(format!("{end:?}"));
        if end == End::Damaged || (end != End::Clean && last) {
            return Ok(false);
        }
        self.mem = match end {
            End::Clean | End::Kill | End::Damaged => self.mem.kill(),
            End::PowerLoss => {
                let survival = match self.dice.below(8) {
                    0 => Survival::Nothing,
                    1 => Survival::Everything,
                    _ => Survival::Drawn(self.dice.roll()),
                };
                self.mem.power_loss(survival)
            }
        };
        self.lied_before |= self.lied;
        if end == End::PowerLoss {
            self.boots += 1;
        }
        if end == End::PowerLoss || self.lied {
            for model in self.models.values_mut().filter(|model| model.durability == Durability::Replicated) {
                model.acked.clear();
                // What the log knew of its producer may be gone with its batches.
                model.producer = None;
                model.open = None;
                model.sealing = false;
            }
        }
        Ok(true)
    }

    async fn live(&mut self, disk: &FaultDisk, last: bool) -> Checked<End> {
        let os = TestOs::new(Arc::new(disk.clone()));
        // Of the same seed, and taking nothing from what follows.
        os.set_seed(self.dice.clone().roll());
        os.set_boot_id(&format!("boot-{}", self.boots));
        let open_files_max = 1 + self.dice.below(3) as usize;
        let preallocate_from_bytes = if self.dice.percent(50) { 0 } else { 1 << 20 };
        let note_every_bytes = if self.dice.percent(70) { 100 } else { 64 << 20 };
        // A fourth of the time so small that nothing may be left for the sync.
        let writeback_bytes = if self.dice.percent(25) { 8 } else { 200 };
        let checkpoint_every_bytes = if self.dice.percent(30) { 1000 } else { 64 << 20 };
        let retention_interval = Duration::from_secs(1 + self.dice.below(3));
        let retention_pause = self.clock.begin(&os);
        let plant = self.plant;
        let hindrance = self.hinder_the_start(disk);
        let started = Process::start_on(os, |options| {
            options.open_files_max = open_files_max;
            options.preallocate_from_bytes = preallocate_from_bytes;
            options.checkpoint_interval = Duration::from_secs(3);
            options.note_every_bytes = note_every_bytes;
            options.writeback_bytes = writeback_bytes;
            options.checkpoint_every_bytes = checkpoint_every_bytes;
            options.retention_interval = retention_interval;
            options.retention_pause = retention_pause;
            if let Plant::Bug(mutant) = plant {
                options.mutant = Some(mutant);
            }
        });
        let process = match started {
            Ok(process) => process,
            Err(_) if disk.is_dead() => return Ok(self.unplanned_end()),
            Err(error) => return Err(format!("the directory does not open: {error}")),
        };
        if let Some(rule) = hindrance {
            self.reopen(&process, disk, rule)?;
        }
        if !self.is_over(&process, disk)? {
            let damaged = process.dir.unusable();
            require!(damaged.iter().all(|one| self.may_be_damaged(one.id.partition)), "damaged: {damaged:?}");
            if !damaged.is_empty() {
                return Ok(End::Damaged);
            }
            if self.dice.percent(80) {
                // It says when the machine was started.
                let _ = process.dir.write_broker_epoch(1);
            }
            self.look_at_all(&process, disk).await?;
            if self.over {
                return Ok(End::Damaged);
            }
        }
        let steps = if last { 0 } else { 3 + self.dice.below(15) };
        for _ in 0..steps {
            if self.is_over(&process, disk)? {
                break;
            }
            self.step(&process, disk).await?;
            if !self.is_over(&process, disk)? {
                self.jump(&process).await?;
            }
        }
        if self.is_over(&process, disk)? || self.lied {
            return Ok(self.unplanned_end());
        }
        if self.dice.percent(30) || last {
            let closed = process.dir.close().await;
            if disk.is_dead() {
                return Ok(self.unplanned_end());
            }
            return match closed {
                Ok(()) => Ok(End::Clean),
                Err(_) if self.wants => Ok(self.unplanned_end()),
                Err(error) => Err(format!("the directory does not close: {error}")),
            };
        }
        Ok(self.unplanned_end())
    }

    /// Whether the process has died, or ended by itself, which it may if its disk lies or is full, and never by a panic.
    fn is_over(&self, process: &Process, disk: &FaultDisk) -> Checked<bool> {
        let fatal = process.fatal.lock();
        let panicked = fatal.iter().any(|fatal| fatal.error == "it panicked");
        let may_end = !panicked && (disk.is_dead() || self.lied || self.wants);
        require!(fatal.is_empty() || may_end, "the process ends: {fatal:?}");
        Ok(disk.is_dead() || !fatal.is_empty())
    }

    /// A disk that has failed may have lost what was never read from it again: in class replicated that shows when the
    /// power has gone, and is said.
    fn may_be_damaged(&self, partition: i32) -> bool {
        let model = self.models.get(&partition);
        self.lied_before && model.is_some_and(|model| model.durability == Durability::Replicated)
    }

    fn unplanned_end(&mut self) -> End {
        if self.dice.percent(30) { End::Kill } else { End::PowerLoss }
    }

    /// Looks at every partition right after a start.
    async fn look_at_all(&mut self, process: &Process, disk: &FaultDisk) -> Checked<()> {
        let partitions: Vec<i32> = self.models.keys().copied().collect();
        for partition in partitions {
            let Some(model) = self.models.get_mut(&partition) else { continue };
            let found = process.dir.partition(id(partition));
            match (model.exists, &found) {
                (Existence::Yes, None) => return Err(format!("partition {partition} is gone")),
                (Existence::No, Some(_)) => return Err(format!("partition {partition} is back")),
                (Existence::Maybe, None) => *model = Model::new(model.config.clone(), Existence::No),
                _ => {}
            }
            let Some(log) = found else { continue };
            model.exists = Existence::Yes;
            model.only_grew = false;
            // A process that is dying may not answer.
            let _ = log.control(Control::Configure(model.config.clone())).await;
            self.check(&log, partition, disk).await?;
            if self.over {
                return Ok(());
            }
            self.lead(&log, partition, None).await;
            if !disk.is_dead() {
                self.resolve(&log, partition).await?;
                if self.dice.percent(50) {
                    // What it knew of its producer it knows again.
                    self.sequence(&log, partition).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes over in the next epoch.
    async fn lead(&mut self, log: &Partition, partition: i32, holds_at: Option<Offset>) {
        let Some(model) = self.models.get_mut(&partition) else { return };
        model.epoch += 1;
        let leader = Leader { epoch: model.epoch, holds_at };
        // A process that is dying may not answer.
        let _ = log.control(Control::SetAdmission(Box::new(leader))).await;
    }

    /// Compares a log with its model, and remembers what may be seen of it.
    async fn check(&mut self, log: &Partition, partition: i32, disk: &FaultDisk) -> Checked<()> {
        let (ends, read) = look(log).await;
        let frames = match read {
            Ok(frames) => frames,
            Err(_) if disk.is_dead() || self.lied => return Ok(()),
            Err(_) if self.may_be_damaged(partition) => {
                self.over = true;
                return Ok(());
            }
            Err(ReadError::Unreadable(_)) if self.wants => return Ok(()),
            Err(error) => return Err(format!("partition {partition} cannot be read: {error}")),
        };
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        compare(model, &ends, &frames).map_err(|what| format!("partition {partition}: {what}"))?;
        model.start_acked = model.start_acked.max(ends.log_start);
        model.only_grew = true;
        let visible = frames.iter().filter(|frame| frame.header.next_offset() <= ends.high_watermark);
        for frame in visible.filter(|frame| !frame.header.control) {
            model.acked.insert(frame.header.base_offset, frame.payload.to_vec());
        }
        if self.clock.jumps && ends.log_start == 0 {
            self.check_producers(log, &frames, disk)
                .await
                .map_err(|what| format!("partition {partition}: {what}"))?;
        }
        Ok(())
    }

    /// Sends a batch again whose fate is not known: it must end up in the log once.
    async fn resolve(&mut self, log: &Partition, partition: i32) -> Checked<()> {
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        let (Some((producer, _)), Some((sequence, payload))) = (model.producer, model.open.clone()) else {
            return Ok(());
        };
        // Forgotten meanwhile, a producer is taken for new if it begins.
        let may_be_forgotten = self.clock.jumps && sequence == 0;
        if model.sealing || may_be_forgotten || self.dice.percent(30) {
            model.sealing = true;
            return self.seal(log, partition, producer, sequence).await;
        }
        let again = by(producer.id.0, producer.epoch, sequence, batch(payload.clone(), 1));
        let (append, answer) = append(again, Acks::All);
        log.submit(vec![append]);
        self.settle(log, partition, vec![(answer, payload, Some(sequence))]).await
    }

    /// Asks for the fate of a batch and makes sure that it does not come later.
    async fn seal(
        &mut self,
        log: &Partition,
        partition: i32,
        producer: Producer,
        sequence: i32,
    ) -> Checked<()> {
        let query = OutcomeQuery { producer, base_sequence: sequence, seal: true };
        let Ok(Ok(Ok(outcome))) = timeout(Duration::from_secs(5), log.append_outcome(query)).await else {
            return Ok(());
        };
        self.history.push(format!("p{partition} seal: {outcome:?}"));
        if self.clock.jumps && outcome == Outcome::Unknown(UnknownCause::Expired) {
            return self.forgotten(log, partition).await;
        }
        let Some(model) = self.models.get_mut(&partition) else { return Ok(()) };
        model.sealing = matches!(outcome, Outcome::Pending(_) | Outcome::Unknown(_));
        match outcome {
            Outcome::Never { next_epoch } => {
                let present = model.open.take().map(|(_, payload)| payload);
                if let Some(payload) = present {
                    model.submitted.retain(|other| *other != payload);
                }
                model.producer = Some((Producer { epoch: next_epoch, ..producer }, 0));
            }
            Outcome::Appended(known) => {
                if let Some((_, payload)) = model.open.take() {
                    model.acked.insert(known.base_offset, payload);
                }
                model.producer = Some((producer, sequence + 1));
            }
            Outcome::Pending(_) | Outcome::Unknown(_) => {}
            Outcome::NotSoFar => return Err("a sealed question was answered NotSoFar".to_owned()),
        }
        Ok(())
    }
}

/// A log at one moment: retention may be faster.
async fn look(log: &Partition) -> (Ends, Result<Vec<Frame>, ReadError>) {
    loop {
        let ends = log.ends();
        let read = try_all(log).await;
        if log.ends().log_start == ends.log_start {
            return (ends, read);
        }
    }
}

/// Holds a log to its model.
fn compare(model: &Model, ends: &Ends, frames: &[Frame]) -> Checked<()> {
    let log_start = ends.log_start;
    let asked = model.start_asked.max(model.start_acked);
    let most = model.config.retention_bytes.map_or(asked, |_| ends.last_stable.max(asked));
    require!(
        (model.start_acked..=most).contains(&log_start),
        "it starts at {log_start}, moved to {} at least and {most} at most",
        model.start_acked
    );
    if let Some(least) = model.config.retention_bytes.filter(|_| log_start > asked && model.only_grew) {
        let left: u64 = frames.iter().map(|frame| frame.header.frame_bytes()).sum();
        require!(left >= least, "retention has left {left} bytes behind {log_start}, told to leave {least}");
    }
    clocks::compare_times(frames)?;
    let mut next = frames.first().map_or(log_start, |frame| frame.header.base_offset);
    require!(next <= log_start, "offsets {log_start} to {next} are missing");
    let mut there: BTreeMap<Offset, &[u8]> = BTreeMap::new();
    for frame in frames {
        require!(frame.header.base_offset == next, "offset {} follows {next}", frame.header.base_offset);
        next = frame.header.next_offset();
        if frame.header.control {
            continue;
        }
        let submitted = model.submitted.iter().any(|payload| **payload == *frame.payload);
        require!(submitted, "offset {}: nobody submitted that", frame.header.base_offset);
        let twice = there.values().any(|payload| **payload == *frame.payload);
        require!(!twice, "offset {}: it is there twice", frame.header.base_offset);
        there.insert(frame.header.base_offset, &frame.payload);
    }
    for (offset, payload) in model.acked.iter().filter(|(offset, _)| **offset >= log_start) {
        match there.get(offset) {
            Some(found) => require!(*found == payload.as_slice(), "offset {offset} holds something else"),
            None => {
                return Err(format!("offset {offset} was acknowledged and is gone; the log ends at {next}"));
            }
        }
    }
    Ok(())
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World(seed {})", self.seed)
    }
}

#[test]
fn no_crash_loses_or_changes_what_was_acknowledged() {
    let seeds = std::env::var("WEIR_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let from = std::env::var("WEIR_FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let first = std::env::var("WEIR_SEED").ok().and_then(|n| n.parse().ok());
    for seed in first.map_or(from..from + seeds, |seed| seed..seed + 1) {
        if let Err(what) = run(seed, Plant::Nothing) {
            panic!("{what}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World { trace: Some(Vec::new()), ..World::new(seed, Plant::Nothing) };
        world.lives().unwrap();
        (world.history, world.trace.unwrap())
    };
    let mut calls = 0;
    for seed in 0..20 {
        let (once, again) = (run(seed), run(seed));
        assert_eq!(once.0, again.0, "seed {seed}");
        let differs = once.1.iter().zip(&again.1).position(|(one, other)| one != other);
        let at = differs.map(|at| (&once.1[at], &again.1[at]));
        assert!(at.is_none() && once.1.len() == again.1.len(), "seed {seed}, call {differs:?}: {at:?}");
        calls += once.1.len();
    }
    assert!(calls > 10_000, "{calls} calls are too few to say anything");
}
