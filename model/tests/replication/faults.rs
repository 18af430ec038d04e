//! What may go wrong, as often as the world allows.

use weir_metadata::{BrokerState, Command, ElectLeader, SetSlow};

use crate::config::{Config, Faults};
use crate::controller::{PARTITION, set_min_insync};
use crate::disk::Disk;
use crate::node::id;
use crate::step::Action;
use crate::wire::Kind;
use crate::world::World;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process dies; the page cache stays.
    Die(usize),
    /// A broker stops in order.
    Stop(usize),
    /// A broker is about to stop.
    Drain(usize),
    /// A machine loses power, and so much of its log survives.
    Power(usize, usize),
    /// All machines lose power at once, and so much of each one's log survives.
    Blackout(Vec<usize>),
    /// A disk is lost; what is there instead is new.
    LoseDisk(usize),
    /// A machine goes down, and of what was on its disk so much is left. Nothing on it says so.
    LoseEnd(usize, usize),
    /// Somebody copies a disk.
    Copy(usize),
    /// The copy is put in its place.
    Restore(usize),
    /// A process that lives is fenced.
    Fence(usize),
    /// The controller hands the leadership over.
    Move(usize),
    /// A leader finds a follower behind, or (with its own number) all of them.
    Lag(usize, usize),
    /// A leader gives up waiting for the controller.
    Timeout(usize),
    /// A message arrives, and will arrive again.
    Repeat(usize),
    /// A follower's stream breaks.
    Break(usize),
    /// min.insync gets this value.
    MinInsync(i32),
    /// Somebody has all records deleted that are committed.
    Delete(usize),
    /// A person elects a replica.
    ElectUnclean(usize),
    /// A broker's disk is slow from now on, or quick again.
    Slow(usize),
}

/// Takes one from a budget.
fn spend(left: &mut u8) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
}

/// What may survive of all logs if all machines lose power now.
fn survivals(world: &World) -> Vec<Vec<usize>> {
    world.nodes.iter().fold(vec![Vec::new()], |some, node| {
        let kept = node.disk.flushed..=node.disk.log.len();
        kept.flat_map(|kept| some.iter().map(move |some| [some.as_slice(), &[kept]].concat())).collect()
    })
}

impl Config {
    pub(crate) fn faults(&self, world: &World, actions: &mut Vec<Action>) {
        let left = world.left;
        let mut add = |budget: u8, fault: Fault| {
            if budget > 0 {
                actions.push(Action::Fault(fault));
            }
        };
        for (at, message) in world.wire.iter().enumerate() {
            // (A proposal is sent once: that is what `Outcome::Refused` asks of whoever plugs the core in.)
            add(if message.kind() == Kind::Alter { 0 } else { left.repeats }, Fault::Repeat(at));
        }
        if left.blackouts > 0 {
            for kept in survivals(world) {
                add(left.blackouts, Fault::Blackout(kept));
            }
        }
        for node in 0..self.brokers {
            let broker = &world.nodes[node];
            let disk = &broker.disk;
            for kept in disk.flushed..=disk.log.len() {
                add(left.powers, Fault::Power(node, kept));
            }
            add(left.disks, Fault::LoseDisk(node));
            for kept in 0..disk.flushed {
                add(left.tails, Fault::LoseEnd(node, kept));
            }
            match &broker.copy {
                // (Only of one: any other's would be the same again, at twice the states.)
                None if node == 0 => add(left.copies, Fault::Copy(node)),
                None => {}
                Some(_) => add(left.copies, Fault::Restore(node)),
            }
            if broker.process.is_none() {
                continue;
            }
            add(left.deaths, Fault::Die(node));
            add(left.stops, Fault::Stop(node));
            add(left.drains, Fault::Drain(node));
            add(left.fences, Fault::Fence(node));
            add(left.moves, Fault::Move(node));
            add(left.slows, Fault::Slow(node));
            add(left.unclean, Fault::ElectUnclean(node));
            add(if broker.following().is_some() { left.breaks } else { 0 }, Fault::Break(node));
            if let Some(leading) = broker.leading() {
                for follower in 0..self.brokers {
                    add(left.lags, Fault::Lag(node, follower));
                }
                add(left.deletes, Fault::Delete(node));
                add(if leading.asked.is_some() { left.timeouts } else { 0 }, Fault::Timeout(node));
            }
        }
        for min in self.mins {
            add(left.mins, Fault::MinInsync(*min));
        }
    }
}

impl World {
    pub(crate) fn fault(&mut self, config: &Config, fault: Fault) -> Option<()> {
        let mut left = self.left;
        let Faults { deaths, stops, drains, powers, disks, copies, fences, .. } = &mut left;
        match fault {
            Fault::Die(node) => {
                spend(deaths)?;
                self.end(node);
            }
            Fault::Stop(node) => {
                spend(stops)?;
                if !self.nodes[node].is_settled_in() {
                    return None;
                }
                let high_watermark = self.nodes[node].process.as_ref()?.high_watermark;
                self.end(node);
                let disk = &mut self.node_mut(node).disk;
                disk.flush();
                disk.checkpoint = high_watermark;
                disk.marker = true;
            }
            Fault::Drain(node) => {
                spend(drains)?;
                self.command(config, Command::DrainBroker(self.by(node))).ok()?;
            }
            Fault::Power(node, kept) => {
                spend(powers)?;
                if config.durability == weir_types::Durability::Replicated {
                    self.lose_copy(config)?;
                }
                self.lose_power(config, node, kept);
            }
            Fault::Blackout(kept) => {
                spend(&mut left.blackouts)?;
                if config.durability == weir_types::Durability::Replicated && !config.beyond {
                    return None;
                }
                for (node, kept) in kept.into_iter().enumerate() {
                    self.lose_power(config, node, kept);
                }
            }
            Fault::LoseDisk(node) => {
                spend(disks)?;
                self.lose_copy(config)?;
                self.end(node);
                let node = self.node_mut(node);
                node.lost = true;
                node.disk = Disk::new(node.disk.directory + 100);
            }
            Fault::LoseEnd(node, kept) => {
                spend(&mut left.tails)?;
                self.lose_copy(config)?;
                self.lose_power(config, node, kept);
                self.node_mut(node).lacks_its_end = true;
            }
            Fault::Copy(node) => {
                let node = self.node_mut(node);
                let mut copy = node.disk.clone();
                copy.cut(copy.flushed as i64);
                copy.same_boot = false;
                node.copy = Some(copy);
            }
            Fault::Restore(node) => {
                spend(copies)?;
                // One of this registration is put back under a new directory id: nothing else tells it apart.
                let persisted = self.controller.image.broker(id(node))?.persisted_epoch;
                let mut copy = self.node_mut(node).copy.take()?;
                if copy.epoch_file.is_some_and(|epoch| epoch >= persisted) {
                    copy.directory += 100;
                }
                self.lose_copy(config)?;
                self.end(node);
                let node = self.node_mut(node);
                node.lost = true;
                node.disk = copy;
            }
            Fault::Fence(node) => {
                spend(fences)?;
                self.command(config, Command::FenceBroker(self.by(node))).ok()?;
            }
            Fault::Repeat(message) => {
                spend(&mut left.repeats)?;
                let message = self.wire[message].clone();
                self.deliver(config, message)?;
            }
            Fault::Break(node) => {
                spend(&mut left.breaks)?;
                let following = self.node_mut(node).following_mut()?;
                following.core.unsubscribed();
                (following.asked, following.granted) = (None, None);
            }
            Fault::Lag(node, follower) => {
                spend(&mut left.lags)?;
                self.left = left;
                return self.lag(config, node, follower);
            }
            Fault::Timeout(node) => {
                spend(&mut left.timeouts)?;
                self.give_up(node)?;
            }
            Fault::Delete(node) => {
                spend(&mut left.deletes)?;
                let high_watermark = self.nodes[node].process.as_ref()?.high_watermark;
                if high_watermark <= self.nodes[node].disk.start {
                    return None;
                }
                let node_mut = self.node_mut(node);
                node_mut.disk.start = high_watermark;
                node_mut.leading_mut()?.deleting = Some(high_watermark);
                self.settle(node);
            }
            Fault::MinInsync(value) => {
                spend(&mut left.mins)?;
                self.command(config, set_min_insync(value)).ok()?;
            }
            Fault::Move(node) => {
                spend(&mut left.moves)?;
                self.elect(config, node, false)?;
            }
            Fault::Slow(node) => {
                spend(&mut left.slows)?;
                let slow = match self.controller.image.broker(id(node))?.state {
                    BrokerState::Active => self.controller.image.may_be_slow().then_some(true)?,
                    BrokerState::Slow => false,
                    _ => return None,
                };
                self.command(config, Command::SetSlow(SetSlow { by: self.by(node), slow })).ok()?;
            }
            Fault::ElectUnclean(node) => {
                spend(&mut left.unclean)?;
                if !self.record().waits_for_a_person() {
                    return None;
                }
                self.elect(config, node, true)?;
                // What it lacks is lost, and that was said.
                let disk = &self.nodes[node].disk;
                let log = match config.durability {
                    weir_types::Durability::Fsync => &disk.log[..disk.flushed],
                    weir_types::Durability::Replicated => &disk.log[..],
                };
                let kept = self
                    .committed
                    .iter()
                    .zip(log)
                    .take_while(|((committed, _), written)| committed == *written);
                let kept = kept.count();
                self.committed.truncate(kept);
            }
        }
        self.left = left;
        Some(())
    }

    fn elect(&mut self, config: &Config, node: usize, unclean: bool) -> Option<()> {
        let partition_epoch = self.record().partition_epoch;
        let elect = ElectLeader { partition: PARTITION, broker: id(node), partition_epoch, unclean };
        self.command(config, Command::ElectLeader(elect)).ok().map(drop)
    }

    /// A machine loses power, and so much of its log survives.
    fn lose_power(&mut self, config: &Config, node: usize, kept: usize) {
        self.end(node);
        let node = self.node_mut(node);
        node.lost |= kept < node.disk.log.len() && config.durability == weir_types::Durability::Replicated;
        node.disk.cut(kept as i64);
        node.disk.flush();
        node.disk.same_boot = false;
    }

    /// A process is gone, with all that is only in its memory.
    fn end(&mut self, node: usize) {
        let node = self.node_mut(node);
        node.process = None;
        node.disk.checkpoint = 0;
        self.forget();
    }

    /// What only more than one copy survives, as far as that is promised: one at a time, the next when everybody is
    /// back and two are in sync, and nothing with a min.insync of 1.
    fn lose_copy(&mut self, config: &Config) -> Option<()> {
        if config.beyond {
            return Some(());
        }
        let record = self.record();
        let is_back = |node: usize| {
            let broker = self.controller.image.broker(id(node));
            let epoch = self.nodes[node].process.as_ref().map(|process| process.epoch);
            broker.is_some_and(|broker| broker.state.is_alive() && Some(broker.epoch) == epoch)
        };
        let was_never_one = config.min_insync >= 2 && config.mins.iter().all(|min| *min >= 2);
        let is_first = was_never_one && !self.has_lost;
        let is_next = record.isr.len() >= 2 && (0..config.brokers).all(is_back);
        let may = record.min_insync >= 2 && (is_first || is_next);
        self.has_lost = true;
        may.then_some(())
    }
}
