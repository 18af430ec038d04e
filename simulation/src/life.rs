//! A machine, and its lives: what a process sees of it from its start to its end.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use weir_io::{Access, Dice, DirEntry, Disk, FaultDisk, MemDisk, Rule, RuleId, Survival};
use weir_runtime::{Reason, Signal, Stop};

use crate::doors::START_WALL_NS;
use crate::net::Answers;
use crate::wall_clock::WallClock;
use crate::world::{note, world};

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process ends: what it wrote stays, synced or not, and its connections end.
    Process,
    /// The machine loses power: what was not synced may be lost, and nobody hears of it.
    Power,
    /// The same, and the disk is empty afterwards.
    Disk,
}

/// A machine. It stays when its process ends.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    ip: IpAddr,
    /// What the next life finds.
    disk: Mutex<MemDisk>,
    life: Mutex<Option<Arc<Life>>>,
    dice: Mutex<Dice>,
    clock: Arc<WallClock>,
    boots: AtomicU64,
    /// By how much longer its disk takes to make files durable, in milliseconds, whoever asks it.
    slower_ms: Arc<AtomicU64>,
    /// What its processes draw from here on, if not what its own seed says.
    chance: Mutex<Option<u64>>,
    /// When it last lost what was only in its memory, and when its disk, in microseconds since the simulation began.
    memory_lost_us: Mutex<Option<u64>>,
    disk_lost_us: Mutex<Option<u64>>,
    /// Whether its disk has changed what it held.
    rotten: AtomicBool,
}

impl Machine {
    pub(crate) fn new(name: &str, ip: IpAddr) -> Self {
        let mut dice = world().dice();
        let disk = Mutex::new(MemDisk::new(dice.roll()));
        world().net.add(name, ip);
        Self {
            name: name.to_owned(),
            ip,
            disk,
            life: Mutex::default(),
            dice: Mutex::new(dice),
            clock: Arc::default(),
            boots: AtomicU64::new(1),
            slower_ms: Arc::default(),
            chance: Mutex::default(),
            memory_lost_us: Mutex::default(),
            disk_lost_us: Mutex::default(),
            rotten: AtomicBool::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A process starts.
    pub(crate) fn begin_life(&self) -> (Arc<Life>, Dice) {
        let own = self.dice.lock().roll();
        let dice = Dice::new(self.chance.lock().unwrap_or(own));
        let faults = FaultDisk::over_mem(&self.disk.lock());
        faults.start_trace();
        if let Some(plant) = world().plant {
            faults.add(plant.rule());
        }
        let life = Arc::new(Life {
            name: self.name.clone(),
            ip: self.ip,
            faults,
            on: AtomicBool::new(true),
            stop: Stop::new(),
            ended: Mutex::default(),
            rules: Mutex::default(),
            clock: self.clock.clone(),
            slower_ms: self.slower_ms.clone(),
            boot_id: format!("{} boot {}", self.name, self.boots.load(Ordering::SeqCst)),
        });
        *self.life.lock() = Some(life.clone());
        world().net.set_answers(self.ip, Answers::Process);
        note(&self.name, format_args!("begins to live"), &[]);
        (life, dice)
    }

    /// The process that runs, if one does.
    pub(crate) fn life(&self) -> Option<Arc<Life>> {
        self.life.lock().clone()
    }

    /// The life ends. What it was doing must be dropped by whoever calls.
    pub(crate) fn die(&self, how: Death) {
        let mut loses_memory = how != Death::Process;
        if let Some(life) = self.life.lock().take() {
            life.trace();
            life.on.store(false, Ordering::SeqCst);
            // Whoever finds that its disk has failed believes its memory no more.
            loses_memory |= life.disk_failed();
        }
        let now_us = world().now_us();
        if loses_memory {
            *self.memory_lost_us.lock() = Some(now_us);
        }
        if how == Death::Disk {
            *self.disk_lost_us.lock() = Some(now_us);
        }
        let mut disk = self.disk.lock();
        let seed = self.dice.lock().roll();
        *disk = match how {
            Death::Process => disk.kill(),
            Death::Power => disk.crash(seed),
            Death::Disk => {
                disk.kill();
                MemDisk::new(seed)
            }
        };
        let answers = if how == Death::Process { Answers::Machine } else { Answers::Nothing };
        if how != Death::Process {
            self.boots.fetch_add(1, Ordering::SeqCst);
        }
        world().net.set_answers(self.ip, answers);
        note(&self.name, format_args!("dies: {how:?}"), &[]);
    }

    /// Its disk as the power would leave it now, with so much of what is not synced. It knows nothing of it.
    pub(crate) fn disk_after(&self, survival: Survival) -> MemDisk {
        self.disk.lock().after_power_loss(survival)
    }

    /// What is in a folder of its disk now; nothing, if there is no such folder.
    pub(crate) fn list(&self, folder: &Path) -> io::Result<Vec<DirEntry>> {
        let disk = self.disk.lock();
        if disk.exists(folder)? { disk.list(folder) } else { Ok(Vec::new()) }
    }

    /// Whether it has lost its disk since then; or, by a loss of power, what was in its memory alone, which is worth nothing
    /// either once its disk has failed.
    pub(crate) fn has_lost_since(&self, how: Death, since_us: u64) -> bool {
        let is_since = |lost_us: &Mutex<Option<u64>>| lost_us.lock().is_some_and(|at| at >= since_us);
        match how {
            Death::Process => false,
            Death::Power => {
                is_since(&self.memory_lost_us) || self.life().is_some_and(|life| life.disk_failed())
            }
            Death::Disk => is_since(&self.disk_lost_us),
        }
    }

    /// Its disk changes a byte of a file, and says nothing.
    pub(crate) fn rot(&self, path: &Path, pos: u64, bits: u8) -> io::Result<()> {
        self.disk.lock().rot(path, pos, bits)?;
        self.rotten.store(true, Ordering::SeqCst);
        note(&self.name, format_args!("byte {pos} of {} rots", path.display()), &[bits]);
        Ok(())
    }

    /// Its disk has lost what a file held from there on, and says nothing.
    pub(crate) fn lose_end(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = self.disk.lock().open(path, Access::Write)?;
        file.set_len(len)?;
        file.sync_all()?;
        self.rotten.store(true, Ordering::SeqCst);
        note(&self.name, format_args!("{} is lost from byte {len} on", path.display()), &[]);
        Ok(())
    }

    /// Whether its disk has ever changed what it held.
    pub(crate) fn has_rotted(&self) -> bool {
        self.rotten.load(Ordering::SeqCst)
    }

    /// From its next start on its processes draw what others draw that are told the same.
    pub(crate) fn draw_as_others(&self, chance: u64) {
        *self.chance.lock() = Some(chance);
    }

    /// From now on its disk takes so much longer to make files durable.
    pub(crate) fn slow_disk(&self, by_ms: u64) {
        self.slower_ms.store(by_ms, Ordering::SeqCst);
        note(&self.name, format_args!("disk takes {by_ms} ms longer"), &[]);
    }

    /// Its wall clock jumps, either way.
    pub(crate) fn jump_clock(&self, by_ms: i64) {
        self.clock.jump(by_ms);
        note(&self.name, format_args!("clock jumps by {by_ms} ms"), &[]);
    }

    /// From now on its wall clock goes too fast by so many parts of a million; too slow, if negative.
    pub(crate) fn set_drift(&self, ppm: i64) {
        self.clock.set_drift(ppm);
        note(&self.name, format_args!("clock drifts by {ppm} parts of a million"), &[]);
    }

    /// Notes how wrong its clock is: to be called at every step.
    pub(crate) fn look_at_clock(&self, now: Duration) {
        self.clock.look(now);
    }

    /// How far behind and how far ahead its clock may have been taken for right so far, in milliseconds.
    pub(crate) fn was_wrong_by_ms(&self) -> (i64, i64) {
        self.clock.was_wrong_by_ms()
    }
}

/// From the start of a process to its end.
pub(crate) struct Life {
    name: String,
    ip: IpAddr,
    faults: FaultDisk,
    on: AtomicBool,
    /// The wish that the process stops in order.
    stop: Stop,
    /// How the process came to its end, if it did: with an error, or without.
    ended: Mutex<Option<Result<(), String>>>,
    /// What was made to fail of its disk.
    rules: Mutex<Vec<RuleId>>,
    clock: Arc<WallClock>,
    slower_ms: Arc<AtomicU64>,
    boot_id: String,
}

impl Life {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.ip
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.faults.clone())
    }

    /// Its disk, which fails when told to.
    pub(crate) fn faults(&self) -> &FaultDisk {
        &self.faults
    }

    /// By how much longer its disk takes to make files durable.
    pub(crate) fn disk_slower(&self) -> Duration {
        Duration::from_millis(self.slower_ms.load(Ordering::SeqCst))
    }

    /// Whether it still does anything. One that is over may be in the middle of a step, from which nobody hears.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst) && !self.faults.is_dead()
    }

    /// The process comes to its end by itself, whatever it is in the middle of.
    pub(crate) fn end(&self, how: Result<(), String>) {
        if !self.is_on() {
            return;
        }
        note(&self.name, format_args!("ends: {how:?}"), &[]);
        self.on.store(false, Ordering::SeqCst);
        *self.ended.lock() = Some(how);
        // What is left of its last step changes nothing any more.
        self.faults.die_after(0);
    }

    /// Asks the process to stop in order.
    pub(crate) fn ask_to_stop(&self) {
        note(&self.name, format_args!("is asked to stop"), &[]);
        self.stop.request(Reason::Signal(Signal::Terminate));
    }

    /// The wish that it stops.
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// How the process ended without a reason that it was given, if it did.
    pub(crate) fn surprise(&self) -> Option<String> {
        match self.ended.lock().clone()? {
            _ if self.disk_failed() => None,
            Ok(()) if self.stop.is_requested() => None,
            Ok(()) => Some("nobody asked for it".to_owned()),
            Err(why) => Some(why),
        }
    }

    /// Makes its disk fail.
    pub(crate) fn fail(&self, rule: Rule) {
        let id = self.faults.add(rule);
        self.rules.lock().push(id);
    }

    /// Whether the power was cut in the middle of a call to its disk.
    pub(crate) fn lost_power(&self) -> bool {
        self.faults.is_dead() && self.ended.lock().is_none()
    }

    /// Whether its disk has failed.
    pub(crate) fn disk_failed(&self) -> bool {
        self.rules.lock().iter().any(|id| self.faults.fired(*id) > 0)
    }

    /// What was to fail and has not yet does not any more. Of what has failed the process may still be about to end.
    pub(crate) fn heal(&self) {
        self.rules.lock().retain(|id| {
            let has_failed = self.faults.fired(*id) > 0;
            if !has_failed {
                self.faults.remove(*id);
            }
            has_failed
        });
        self.faults.die_after(u64::MAX);
    }

    /// Notes what was asked of the disk.
    pub(crate) fn trace(&self) {
        for event in self.faults.take_trace() {
            note(&self.name, format_args!("disk {:?} {} {}", event.op, event.path.display(), event.hit), &[]);
        }
        self.faults.start_trace();
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        let start_us = (START_WALL_NS / 1_000).cast_signed();
        (start_us + world().now_us().cast_signed() + self.clock.ahead_us()) / 1_000
    }

    pub(crate) fn boot_id(&self) -> String {
        self.boot_id.clone()
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Life({})", self.name)
    }
}
