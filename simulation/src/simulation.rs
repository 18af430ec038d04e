//! The simulation: machines that run programs, and what happens to them.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use weir_io::Dice;
use weir_runtime::{Os, Stop};

use crate::life::{Death, Machine};
use crate::os::SimOs;
use crate::world::{note, world};

/// No run is longer, in simulated time.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Segments on their way on one connection, and connections that wait to be accepted.
const TCP_CAPACITY: usize = 4_096;

/// How fine time is: links deliver at its steps.
const TICKS_MS: [u64; 3] = [1, 5, 10];
/// How long a message takes at most.
const LATENCIES_MS: [u64; 4] = [1, 5, 20, 50];

fn one_of(dice: &mut Dice, choices: &[u64]) -> u64 {
    choices.get(dice.below(choices.len() as u64) as usize).copied().unwrap_or(1)
}

/// A run.
pub(crate) struct Simulation {
    sim: turmoil::Sim<'static>,
    machines: Vec<Arc<Machine>>,
    pub(crate) dice: Dice,
}

impl Simulation {
    /// A network without machines: how fine time is and how slow links are comes from the seed.
    pub(crate) fn new() -> Self {
        let world = world();
        let mut dice = world.dice();
        let tick_ms = one_of(&mut dice, &TICKS_MS);
        let latency_ms = one_of(&mut dice, &LATENCIES_MS);
        note("-", format_args!("seed {}, tick {tick_ms} ms, latency up to {latency_ms} ms", world.seed), &[]);
        let sim = turmoil::Builder::new()
            .rng_seed(dice.roll())
            .epoch(std::time::UNIX_EPOCH + Duration::from_nanos(crate::doors::START_WALL_NS))
            .simulation_duration(DURATION_MAX)
            .tick_duration(Duration::from_millis(tick_ms))
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(latency_ms))
            .tcp_capacity(TCP_CAPACITY)
            .enable_random_order()
            .build();
        Self { sim, machines: Vec::new(), dice }
    }

    /// A machine that runs a program whenever it is on, until that comes to its end, or is asked to. It is on.
    pub(crate) fn machine<P, F>(&mut self, name: &str, program: P) -> Arc<Machine>
    where
        P: Fn(Arc<dyn Os>, Stop) -> F + 'static,
        F: Future<Output = Result<()>> + 'static,
    {
        let machine = Arc::new(Machine::new(name, self.sim.lookup(name)));
        let here = machine.clone();
        self.sim.host(name, move || {
            let (life, dice) = here.begin_life();
            let running = program(Arc::new(SimOs::new(life.clone(), dice)), life.stop().clone());
            async move {
                let ended = running.await;
                life.end(ended.map_err(|error| format!("{error:#}")));
                // It is dropped with all its tasks after this step.
                pending().await
            }
        });
        self.machines.push(machine.clone());
        machine
    }

    pub(crate) fn now(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets time go on by one tick. Processes that have ended by themselves are gone afterwards.
    pub(crate) fn step(&mut self) -> Result<()> {
        let world = world();
        self.machines.iter().for_each(|machine| machine.look_at_clock(self.sim.elapsed()));
        world.run_from(self.sim.elapsed());
        let stepped = self.sim.step();
        world.stand_at(self.sim.elapsed());
        stepped.map_err(|error| anyhow!("{error}"))?;
        world.net.tick();
        for machine in self.machines.clone() {
            let Some(life) = machine.life() else { continue };
            life.trace();
            if let Some(why) = life.surprise() {
                return Err(anyhow!("{} ended by itself: {why}", machine.name()));
            }
            if !life.is_on() {
                let how = if life.lost_power() { Death::Power } else { Death::Process };
                self.end(&machine, how);
            }
        }
        Ok(())
    }

    /// Ends a machine's process, in one of the ways it can happen.
    pub(crate) fn end(&mut self, machine: &Machine, how: Death) {
        if machine.life().is_none() {
            return;
        }
        machine.die(how);
        let others: Vec<_> =
            self.machines.iter().map(|other| other.ip()).filter(|ip| *ip != machine.ip()).collect();
        if how != Death::Process {
            // So that nobody hears of it.
            others.iter().for_each(|other| self.sim.partition(machine.ip(), *other));
        }
        self.sim.crash(machine.ip());
        if how != Death::Process {
            others.iter().for_each(|other| self.sim.repair(machine.ip(), *other));
        }
    }

    /// Starts a machine's process, if none runs.
    pub(crate) fn start(&mut self, machine: &Machine) {
        if machine.life().is_none() {
            self.sim.bounce(machine.ip());
        }
    }
}
