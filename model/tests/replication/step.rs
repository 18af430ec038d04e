//! What may happen next, and what comes of it.

use std::sync::Arc;

use stateright::{Model, Property};
use weir_metadata::{BrokerEpoch, BrokerState, Command};
use weir_replication::{Attempt, Member, Outcome, Verdict};
use weir_types::{Durability, KnownProducer, Producer, ProducerId};

use crate::bug::{Edge, plant};
use crate::config::Config;
use crate::disk::index;
use crate::faults::Fault;
use crate::node::{Node, id, number};
use crate::properties;
use crate::wire::{Kind, Message};
use crate::world::World;

/// One step. The number is that of the broker that does it, or of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A message arrives.
    Deliver(usize),
    /// A message is lost.
    Lose(usize),
    /// A process begins, and registers.
    Start(usize),
    /// It writes its registration down.
    Persist(usize),
    /// It tells the controller so, or that it is there again.
    Unfence(usize),
    /// It sees a version of the metadata.
    See(usize),
    /// The producer's next record is appended.
    Produce(usize),
    /// The producer sends a record again that is in the log.
    Retry(usize),
    /// What is written is flushed.
    Flush(usize),
    /// A follower subscribes.
    Subscribe(usize),
    /// A leader sends to a follower what that has not said to have.
    Send(usize, usize),
    /// A follower says how far it is.
    Acknowledge(usize),
    /// A leader asks for the change of the in-sync set that is due.
    Propose(usize),
    /// The controller has not heard of a dead process for a session.
    Expire(usize),
    /// Something goes wrong.
    Fault(Fault),
}

impl Model for Config {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        plant(self.bug);
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        plant(self.bug);
        for message in 0..world.wire.len() {
            actions.push(Action::Deliver(message));
            // A lost answer to a subscription costs a number.
            if world.left.breaks > 0 || world.wire[message].kind() != Kind::Welcome {
                actions.push(Action::Lose(message));
            }
        }
        for node in 0..self.brokers {
            self.actions_of(world, node, actions);
        }
        self.faults(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        plant(self.bug);
        let mut next = world.clone();
        next.step(self, action)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Config {
    fn actions_of(&self, world: &World, node: usize, actions: &mut Vec<Action>) {
        let broker = &world.nodes[node];
        let registered = world.controller.image.broker(id(node)).map(|broker| (broker.epoch, broker.state));
        let is_alive = registered.is_some_and(|(_, state)| state.is_alive());
        let Some(process) = &broker.process else {
            actions.push(Action::Start(node));
            actions.extend(is_alive.then_some(Action::Expire(node)));
            return;
        };
        if !broker.is_settled_in() {
            actions.push(Action::Persist(node));
            return;
        }
        let waits = matches!(registered, Some((epoch, BrokerState::Registered | BrokerState::Fenced)) if epoch == process.epoch);
        actions.extend(waits.then_some(Action::Unfence(node)));
        actions.extend((process.behind > 0).then_some(Action::See(node)));
        if self.durability == Durability::Fsync && broker.disk.flushed < broker.disk.log.len() {
            actions.push(Action::Flush(node));
        }
        if let Some(following) = broker.following() {
            match (following.granted, following.asked) {
                (Some(_), _) => actions.push(Action::Acknowledge(node)),
                (None, None) => actions.push(Action::Subscribe(node)),
                (None, Some(_)) => {}
            }
        }
        if let Some(leading) = broker.leading() {
            if broker.disk.log.len() < self.records {
                actions.push(Action::Produce(node));
            }
            if self.has(Edge::DuplicateEarly) && !broker.disk.log.is_empty() {
                actions.push(Action::Retry(node));
            }
            actions.extend(leading.streams.keys().map(|follower| Action::Send(node, *follower)));
            actions.push(Action::Propose(node));
        }
    }
}

impl World {
    fn step(&mut self, config: &Config, action: Action) -> Option<()> {
        match action {
            Action::Deliver(message) => {
                let message = self.wire.remove(message);
                return self.deliver(config, message);
            }
            Action::Lose(message) => self.lose(message),
            Action::Start(node) => {
                self.register(config, node).ok()?;
                let has_stale_marker = config.has(Edge::MarkerStays);
                let disk = &mut self.node_mut(node).disk;
                disk.marker &= has_stale_marker;
                if config.durability == Durability::Fsync {
                    // What recovery accepted is on the disk before it is said to be.
                    disk.flush();
                }
            }
            Action::Persist(node) => {
                let epoch = self.by(node).epoch;
                let disk = &mut self.node_mut(node).disk;
                (disk.epoch_file, disk.same_boot) = (Some(epoch), true);
            }
            Action::Unfence(node) => drop(self.command(config, Command::UnfenceBroker(self.by(node))).ok()?),
            Action::Expire(node) => {
                self.command(config, Command::FenceBroker(self.registered(node))).ok()?;
            }
            Action::See(node) => self.see(config, node),
            Action::Produce(node) => self.produce(config, node)?,
            Action::Retry(node) => self.retry(node)?,
            Action::Flush(node) => {
                self.node_mut(node).disk.flush();
                self.node_mut(node).learn();
                self.written(config, node);
            }
            Action::Subscribe(node) => self.subscribe(config, node)?,
            Action::Send(node, follower) => self.send_data(config, node, follower)?,
            Action::Acknowledge(node) => return self.acknowledge_to(config, node),
            Action::Propose(node) => return self.propose(config, node, u64::MAX),
            Action::Fault(fault) => return self.fault(config, fault),
        }
        Some(())
    }

    fn subscribe(&mut self, config: &Config, node: usize) -> Option<()> {
        let by = self.by(node);
        let position = self.nodes[node].disk.position();
        let following = self.node_mut(node).following_mut()?;
        following.subscriptions += 1;
        // Registrations of one broker have different epochs, so no number comes twice in a leadership.
        let prefix = if config.has(Edge::NumberedByProcess) { 0 } else { by.epoch as u64 * 64 };
        let subscription = prefix + following.subscriptions;
        following.asked = Some(subscription);
        let message = Message::Subscribe {
            node: following.leader,
            epoch: following.core.epoch(),
            who: Member { broker: by.broker, epoch: by.epoch },
            subscription,
            position,
        };
        self.send(config, message)
    }

    fn send_data(&mut self, config: &Config, node: usize, to: usize) -> Option<()> {
        let broker = &self.nodes[node];
        let leading = broker.leading()?;
        let (_, ends, _) = leading.core.followers().find(|(member, ..)| number(member.broker) == to)?;
        let from = index(ends.written).min(broker.disk.log.len());
        let high_watermark = index(broker.log().high_watermark);
        let knows = self.nodes[to].process.as_ref().map_or(0, |process| process.high_watermark);
        let start = broker.disk.start;
        if from == broker.disk.log.len() && high_watermark <= knows && start <= self.nodes[to].disk.start {
            return None;
        }
        let message = Message::Data {
            node: to,
            epoch: leading.core.epoch(),
            subscription: *leading.streams.get(&to)?,
            from,
            records: Arc::from(&broker.disk.log[from..]),
            high_watermark,
            start,
        };
        self.send(config, message)
    }

    /// What the core says to a record of the one producer, whose sequences are the offsets.
    fn attempt(&self, node: usize, sequence: usize) -> Option<Verdict> {
        let broker: &Node = &self.nodes[node];
        let batches = broker.batches();
        let known = (!batches.is_empty()).then_some(KnownProducer { epoch: 0, batches: &batches });
        let attempt = Attempt {
            producer: Some(Producer { id: ProducerId(1), epoch: 0 }),
            base_sequence: sequence as i32,
            last_offset_delta: 0,
            expected_next_offset: None,
        };
        Some(broker.leading()?.core.admit(&broker.log(), &attempt, known))
    }

    fn produce(&mut self, config: &Config, node: usize) -> Option<()> {
        let Verdict::Append(epoch) = self.attempt(node, self.nodes[node].disk.log.len())? else {
            return None;
        };
        self.node_mut(node).disk.log.push(epoch);
        self.written(config, node);
        Some(())
    }

    fn retry(&mut self, node: usize) -> Option<()> {
        let last = self.nodes[node].disk.log.len().checked_sub(1)?;
        let epoch = self.nodes[node].leading()?.core.epoch();
        if let Verdict::Duplicate(batch) = self.attempt(node, last)? {
            self.acknowledge(node, epoch, index(batch.last_offset) + 1);
        }
        Some(())
    }

    fn propose(&mut self, config: &Config, node: usize, lag_ms: u64) -> Option<()> {
        let BrokerEpoch { broker, epoch } = self.by(node);
        let by = Member { broker, epoch };
        let leading = self.node_mut(node).leading_mut()?;
        let proposal = leading.core.propose(leading.now_ms, lag_ms)?;
        leading.asked = Some(proposal.clone());
        self.send(config, Message::Alter { by, proposal })
    }

    /// Time has passed: who is not heard of now leaves.
    pub(crate) fn lag(&mut self, config: &Config, node: usize, behind: usize) -> Option<()> {
        let log = self.nodes[node].log();
        let leading = self.node_mut(node).leading_mut()?;
        leading.now_ms += 1;
        let now_ms = leading.now_ms;
        let ends: Vec<_> = leading.core.followers().map(|(member, ends, _)| (member.broker, ends)).collect();
        for (broker, ends) in ends {
            let subscription = leading.streams.get(&number(broker)).copied().unwrap_or(0);
            if behind != node && number(broker) != behind {
                leading.core.acknowledged(broker, subscription, ends, &log, now_ms);
            }
        }
        self.propose(config, node, 0)
    }

    /// The leader hears nothing of its proposal any more.
    pub(crate) fn give_up(&mut self, node: usize) -> Option<()> {
        let leading = self.node_mut(node).leading_mut()?;
        let proposal = leading.asked.take()?;
        leading.core.decided(&proposal, Outcome::Unknown);
        self.settle(node);
        Some(())
    }
}
