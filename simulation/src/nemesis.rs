//! What goes wrong, and when: drawn from the seed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Dice, Effect, Fault, Op, Rule};

use crate::life::{Death, Machine};
use crate::simulation::Simulation;
use crate::world::{note, world};

/// The longest pause between two things that go wrong, in milliseconds.
const PAUSE_MS_MAX: u64 = 2_500;
/// The shortest time for which something is wrong.
const SHORT_MS: u64 = 50;
/// A link is cut at most this long as a rule ...
const CUT_MS_MAX: u64 = 8_000;
/// ... and sometimes this long: connections end of it.
const CUT_MS_LONG: u64 = 22_000;
/// A machine is dead at most this long.
const DEAD_MS_MAX: u64 = 5_000;
/// A clock jumps at most this far, either way.
const JUMP_MS_MAX: u64 = 3_600_000;
/// A clock goes too fast or too slow by at most so many parts of a million.
const DRIFT_PPM_MAX: u64 = 300_000;

/// A disk is slow for this long at most ...
const SLOW_MS_MAX: u64 = 10_000;
/// ... and then makes files durable by so much later, at least and at most beyond that.
const SLOWER_MS_MIN: u64 = 1_000;
const SLOWER_MS_MORE: u64 = 3_000;

/// What takes more from machines than the processes that run on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// What was not synced may be gone, of all these machines at once.
    Power,
    /// The disk fails once; what it should have synced then may be gone.
    Failure,
    /// The disk is empty.
    Disk,
}

/// How it comes to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Power,
    /// In the middle of a call to the disk.
    PowerInACall,
    Failure,
    Disk,
}

impl Blow {
    fn harm(self) -> Harm {
        match self {
            Self::Power | Self::PowerInACall => Harm::Power,
            Self::Failure => Harm::Failure,
            Self::Disk => Harm::Disk,
        }
    }
}

/// What the cluster under test promises to survive. The nemesis does nothing beyond.
pub(crate) trait Promise {
    /// Whether it survives that this happens to these machines. If it does now, it counts as done, at this moment or a later
    /// one of these lives.
    fn covers(&mut self, harm: Harm, machines: &[Arc<Machine>]) -> Covers;
}

/// What is promised for a harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Covers {
    Now,
    /// Not now, but once it has got over an earlier one.
    Later,
    Never,
}

/// Breaks things, and mends them after a while.
pub(crate) struct Nemesis {
    dice: Dice,
    /// Whose processes, disks and clocks are touched.
    victims: Vec<Arc<Machine>>,
    /// Whose links are cut.
    linked: Vec<IpAddr>,
    /// Those of them that are stopped in order and started again one after the other.
    rolling: Vec<Arc<Machine>>,
    /// Of these, those whose turn is still to come.
    roll: Vec<Arc<Machine>>,
    /// What is to happen as soon as it may.
    waits: Option<(Blow, Arc<Machine>)>,
    next: Duration,
    starts: Vec<(Duration, Arc<Machine>)>,
    mends: Vec<(Duration, IpAddr, IpAddr)>,
    /// Whose disks are slow, until when.
    slow: Vec<(Duration, Arc<Machine>)>,
}

impl Nemesis {
    /// Touches the victims, and the links between them and the others.
    pub(crate) fn new(victims: &[Arc<Machine>], others: &[Arc<Machine>]) -> Self {
        Self {
            dice: world().dice(),
            victims: victims.to_vec(),
            linked: victims.iter().chain(others).map(|machine| machine.ip()).collect(),
            rolling: Vec::new(),
            roll: Vec::new(),
            waits: None,
            next: Duration::ZERO,
            starts: Vec::new(),
            mends: Vec::new(),
            slow: Vec::new(),
        }
    }

    /// These are restarted one after the other now and then.
    pub(crate) fn rolling(mut self, machines: &[Arc<Machine>]) -> Self {
        self.rolling.extend_from_slice(machines);
        self
    }

    /// To be called before each step.
    pub(crate) fn act(&mut self, simulation: &mut Simulation, promise: &mut impl Promise) {
        let now = simulation.now();
        self.start_the_dead(simulation, now);
        let (over, rest) = self.mends.drain(..).partition(|(at, ..)| *at <= now);
        self.mends = rest;
        let over: Vec<_> = over;
        for (_, from, to) in over {
            note("-", format_args!("link {from} to {to} is mended"), &[]);
            world().net.mend(from, to);
        }
        self.slow.retain(|(until, machine)| {
            let lasts = *until > now;
            if !lasts {
                machine.slow_disk(0);
            }
            lasts
        });
        self.roll_on();
        if let Some((blow, victim)) = self.waits.take() {
            self.strike_or_wait(simulation, promise, blow, victim);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.dice.below(PAUSE_MS_MAX));
            self.strike(simulation, now, promise);
        }
    }

    /// Nothing is wrong any more, and everybody lives.
    pub(crate) fn rest(&mut self, simulation: &mut Simulation) {
        note("-", format_args!("everything is mended"), &[]);
        world().net.mend_all();
        self.mends.clear();
        self.starts.clear();
        self.roll.clear();
        self.slow.drain(..).for_each(|(_, machine)| machine.slow_disk(0));
        for machine in &self.victims {
            if let Some(life) = machine.life() {
                life.heal();
                if life.stop().is_requested() || life.disk_failed() {
                    // Nobody waits any more for an end that is on its way.
                    simulation.end(machine, Death::Process);
                }
            }
            simulation.start(machine);
        }
    }

    /// Starts who is dead when its time has come, whoever ended it.
    fn start_the_dead(&mut self, simulation: &mut Simulation, now: Duration) {
        for machine in &self.victims {
            if machine.life().is_none() && !self.starts.iter().any(|(_, waits)| Arc::ptr_eq(waits, machine)) {
                let dead = SHORT_MS + self.dice.below(DEAD_MS_MAX);
                self.starts.push((now + Duration::from_millis(dead), machine.clone()));
            }
        }
        let (due, rest) = self.starts.drain(..).partition(|(at, _)| *at <= now);
        self.starts = rest;
        let due: Vec<_> = due;
        due.iter().for_each(|(_, machine)| simulation.start(machine));
    }

    fn strike(&mut self, simulation: &mut Simulation, now: Duration, promise: &mut impl Promise) {
        let victim = self.dice.below(self.victims.len() as u64) as usize;
        let Some(victim) = self.victims.get(victim).cloned() else { return };
        match self.dice.below(100) {
            0..17 => simulation.end(&victim, Death::Process),
            17..25 => victim.life().iter().for_each(|life| life.ask_to_stop()),
            25..36 => self.strike_or_wait(simulation, promise, Blow::Power, victim),
            36..40 if promise.covers(Harm::Power, &self.victims) == Covers::Now => {
                for machine in self.victims.clone() {
                    simulation.end(&machine, Death::Power);
                }
            }
            40..43 => self.strike_or_wait(simulation, promise, Blow::Disk, victim),
            43..58 => self.cut_pair(now, true),
            58..70 => self.cut_pair(now, false),
            70..78 => self.isolate(now, victim.ip()),
            78..81 => {
                let far = self.dice.below(JUMP_MS_MAX).cast_signed();
                victim.jump_clock(if self.dice.percent(50) { far } else { -far });
            }
            81..83 => {
                let ppm = self.dice.below(DRIFT_PPM_MAX).cast_signed();
                victim.set_drift(if self.dice.percent(50) { ppm } else { -ppm });
            }
            83..87 => self.slow_the_disk(now, victim),
            87..90 if self.roll.is_empty() => self.roll = self.rolling.clone(),
            90..94 => self.strike_or_wait(simulation, promise, Blow::PowerInACall, victim),
            94.. => self.strike_or_wait(simulation, promise, Blow::Failure, victim),
            _ => {}
        }
    }

    /// What may not happen now happens as soon as it may: where little is promised that is seldom.
    fn strike_or_wait(
        &mut self,
        simulation: &mut Simulation,
        promise: &mut impl Promise,
        blow: Blow,
        victim: Arc<Machine>,
    ) {
        match promise.covers(blow.harm(), std::slice::from_ref(&victim)) {
            Covers::Now => {}
            Covers::Later => {
                self.waits.get_or_insert((blow, victim));
                return;
            }
            Covers::Never => return,
        }
        match blow {
            Blow::Power => simulation.end(&victim, Death::Power),
            Blow::PowerInACall => self.die_in_a_call(&victim),
            Blow::Failure => self.fail_the_disk(&victim),
            Blow::Disk => simulation.end(&victim, Death::Disk),
        }
    }

    /// The next of those that are restarted is asked to stop once all live.
    fn roll_on(&mut self) {
        let lives = |machine: &Arc<Machine>| {
            machine.life().is_some_and(|life| life.is_on() && !life.stop().is_requested())
        };
        if self.roll.is_empty() || !self.rolling.iter().all(lives) {
            return;
        }
        if let Some(life) = self.roll.pop().and_then(|machine| machine.life()) {
            life.ask_to_stop();
        }
    }

    fn cut_time(&mut self) -> Duration {
        // Each order of magnitude as likely as the others.
        let longest = if self.dice.percent(5) { CUT_MS_LONG } else { CUT_MS_MAX >> self.dice.below(7) };
        Duration::from_millis(SHORT_MS + self.dice.below(longest))
    }

    fn cut(&mut self, until: Duration, from: IpAddr, to: IpAddr) {
        note("-", format_args!("link {from} to {to} is cut"), &[]);
        world().net.cut(from, to);
        self.mends.push((until, from, to));
    }

    fn cut_pair(&mut self, now: Duration, both_ways: bool) {
        let count = self.linked.len() as u64;
        let (one, other) = (self.dice.below(count) as usize, self.dice.below(count) as usize);
        let (Some(&one), Some(&other)) = (self.linked.get(one), self.linked.get(other)) else { return };
        if one == other {
            return;
        }
        let until = now + self.cut_time();
        self.cut(until, one, other);
        if both_ways {
            self.cut(until, other, one);
        }
    }

    fn isolate(&mut self, now: Duration, who: IpAddr) {
        let until = now + self.cut_time();
        let ways = self.dice.below(3);
        for other in self.linked.clone().into_iter().filter(|other| *other != who) {
            if ways != 0 {
                self.cut(until, who, other);
            }
            if ways != 1 {
                self.cut(until, other, who);
            }
        }
    }

    fn die_in_a_call(&mut self, victim: &Machine) {
        let Some(life) = victim.life() else { return };
        let calls = self.dice.below(60);
        note(victim.name(), format_args!("dies after {calls} more calls to its disk"), &[]);
        life.faults().die_after(calls);
    }

    /// One at a time: where all are slow, nobody stands back.
    fn slow_the_disk(&mut self, now: Duration, victim: Arc<Machine>) {
        let (time, by) = (self.dice.below(SLOW_MS_MAX), SLOWER_MS_MIN + self.dice.below(SLOWER_MS_MORE));
        if self.slow.is_empty() {
            victim.slow_disk(by);
            self.slow.push((now + Duration::from_millis(SHORT_MS + time), victim));
        }
    }

    /// Once: a disk that fails for good is no other case, since nobody tries again.
    fn fail_the_disk(&mut self, victim: &Machine) {
        let Some(life) = victim.life() else { return };
        let (ops, effect) = match self.dice.below(4) {
            0 => (vec![Op::SyncData, Op::SyncAll], Effect::LoseDirty),
            1 => (vec![Op::SyncData, Op::SyncAll, Op::SyncDir], Effect::Fail(Fault::Io)),
            2 => (vec![Op::Write], Effect::Fail(Fault::Io)),
            _ => (vec![Op::Write], Effect::Torn(self.dice.below(6_000) as usize, Fault::Io)),
        };
        let nth = 1 + self.dice.below(40);
        note(victim.name(), format_args!("{effect:?} at call {nth} of {ops:?}"), &[]);
        life.fail(Rule::on(ops, effect).nth(nth).once());
    }
}
