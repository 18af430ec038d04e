//! What is on its way between brokers, and from leaders to the controller. Any message may be lost, come late, come
//! in another order, and come again.

use std::sync::Arc;

use weir_metadata::{AlterPartition, AlterPartitions, BrokerEpoch, Command, Reply};
use weir_replication::{Ends, Member, Outcome, Position, Proposal, Step, Welcome, step};
use weir_types::Durability;

use crate::bug::Edge;
use crate::config::Config;
use crate::controller::PARTITION;
use crate::disk::{index, offset};
use crate::node::{Role, id, number};
use crate::world::World;

/// A message. `node` is the broker that it goes to; the controller, for [`Message::Alter`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    /// A follower asks its leader.
    Subscribe { node: usize, epoch: i32, who: Member, subscription: u64, position: Position },
    /// A leader answers.
    Welcome { node: usize, epoch: i32, subscription: u64, welcome: Welcome },
    /// A leader's records from an offset on, and how far its log is committed.
    Data {
        node: usize,
        epoch: i32,
        subscription: u64,
        from: usize,
        records: Arc<[i32]>,
        high_watermark: usize,
        start: usize,
    },
    /// A follower says how far it is.
    Acknowledge { node: usize, epoch: i32, from: usize, subscription: u64, ends: Ends, start: usize },
    /// A leader proposes an in-sync set.
    Alter { by: Member, proposal: Proposal },
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Subscribe,
    Welcome,
    Data,
    Acknowledge,
    Alter,
}

impl Message {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Subscribe { .. } => Kind::Subscribe,
            Self::Welcome { .. } => Kind::Welcome,
            Self::Data { .. } => Kind::Data,
            Self::Acknowledge { .. } => Kind::Acknowledge,
            Self::Alter { .. } => Kind::Alter,
        }
    }
}

impl World {
    /// Sends a message, if there is room for it on the way.
    pub(crate) fn send(&mut self, config: &Config, message: Message) -> Option<()> {
        if !config.slow.contains(&message.kind()) {
            return self.deliver(config, message);
        }
        (self.wire.len() < config.messages && !self.wire.contains(&message)).then(|| self.wire.push(message))
    }

    /// Whether a leadership of this epoch hears what was sent to another one.
    fn hears(&self, config: &Config, node: usize, epoch: i32) -> bool {
        let leads_in = self.nodes[node].leading().map(|leading| leading.core.epoch());
        leads_in == Some(epoch) || leads_in.is_some() && config.has(Edge::UnequalEpoch)
    }

    /// A message is lost.
    pub(crate) fn lose(&mut self, message: usize) {
        let message = self.wire.remove(message);
        if message.kind() == Kind::Welcome {
            self.left.breaks -= 1;
        }
        self.unanswered(&message);
    }

    /// A subscription that was not answered is asked for again.
    fn unanswered(&mut self, message: &Message) {
        let (node, number, unused) = match message {
            // A number that nobody has seen can be used.
            Message::Subscribe { who, subscription, .. } => (number(who.broker), *subscription, 1),
            Message::Welcome { node, subscription, .. } => (*node, *subscription, 0),
            _ => return,
        };
        if let Some(following) = self.node_mut(node).following_mut()
            && following.asked == Some(number)
        {
            following.asked = None;
            following.subscriptions -= unused;
        }
    }

    /// A message arrives.
    pub(crate) fn deliver(&mut self, config: &Config, message: Message) -> Option<()> {
        match message.clone() {
            Message::Subscribe { node, epoch, who, subscription, position } => {
                if !self.hears(config, node, epoch) {
                    self.unanswered(&message);
                    return Some(());
                }
                let (log, history) = (self.nodes[node].log(), self.nodes[node].disk.clone());
                let leading = self.node_mut(node).leading_mut()?;
                let now_ms = leading.now_ms;
                let welcome = leading.core.subscribe(who, subscription, position, &history, &log, now_ms);
                if welcome == Welcome::Follow {
                    leading.streams.insert(number(who.broker), subscription);
                }
                self.settle(node);
                let node = number(who.broker);
                // (Where there is no room it is lost, and asked again.)
                let answer = Message::Welcome { node, epoch, subscription, welcome };
                self.send(config, answer)?;
            }
            Message::Welcome { node, epoch, subscription, welcome } => {
                self.welcomed(node, epoch, subscription, welcome);
            }
            Message::Data { node, epoch, subscription, from, records, high_watermark, start } => {
                let node_mut = self.node_mut(node);
                let end = node_mut.disk.log.len();
                let heard = node_mut.following_mut().is_some_and(|following| {
                    let is_heard = following.core.hears(epoch, subscription, offset(high_watermark));
                    if is_heard {
                        following.leaders_start = following.leaders_start.max(start);
                    }
                    is_heard
                });
                // In a stream nothing is missing: what does not continue the log belongs to another one.
                if heard && from <= end {
                    let log = &mut node_mut.disk.log;
                    log.extend(records.iter().skip(end - from));
                    self.written(config, node);
                }
            }
            Message::Acknowledge { node, epoch, from, subscription, ends, start } => {
                if !self.hears(config, node, epoch) {
                    return Some(());
                }
                let log = self.nodes[node].log();
                let leading = self.node_mut(node).leading_mut()?;
                leading.core.acknowledged(id(from), subscription, ends, &log, leading.now_ms);
                leading.core.begins(id(from), subscription, offset(start));
                self.settle(node);
            }
            Message::Alter { by, proposal } => self.alter(config, by, &proposal),
        }
        Some(())
    }

    /// Something was appended, or flushed: who follows says so.
    pub(crate) fn written(&mut self, config: &Config, node: usize) {
        // (In class replicated nobody waits for it, so it is as late as can be.)
        if !config.slow_flush && config.durability == Durability::Fsync {
            self.node_mut(node).disk.flush();
        }
        self.node_mut(node).learn();
        self.settle(node);
        if self.nodes[node].lacks_its_end && self.is_complete(self.nodes[node].safe(config)) {
            self.node_mut(node).lacks_its_end = false;
        }
        if !config.slow.contains(&Kind::Acknowledge) {
            let _ = self.acknowledge_to(config, node);
        }
    }

    /// A follower says how far it is.
    pub(crate) fn acknowledge_to(&mut self, config: &Config, node: usize) -> Option<()> {
        let broker = &self.nodes[node];
        let following = broker.following()?;
        let (to, ends) = (following.leader, broker.disk.ends());
        // (What the leader knows already is not worth a state.)
        let is_known = self.nodes[to].leading().is_some_and(|leading| {
            let mut followers = leading.core.followers();
            leading.core.epoch() == following.core.epoch()
                && followers.any(|(member, known, _)| member.broker == id(node) && known == ends)
                && broker.disk.start == 0
        });
        let message = Message::Acknowledge {
            node: to,
            epoch: following.core.epoch(),
            from: node,
            subscription: following.granted?,
            ends,
            start: broker.disk.start,
        };
        if is_known { None } else { self.send(config, message) }
    }

    fn welcomed(&mut self, node: usize, epoch: i32, subscription: u64, welcome: Welcome) {
        let (log, history) = (self.nodes[node].log(), self.nodes[node].disk.clone());
        let node_mut = self.node_mut(node);
        let Some(following) = node_mut.following_mut() else { return };
        if following.core.epoch() != epoch || following.asked != Some(subscription) {
            return;
        }
        following.asked = None;
        let leader = following.leader;
        match step(welcome, &history, &log) {
            Step::Follow => {
                following.core.subscribed(subscription);
                following.granted = Some(subscription);
            }
            Step::Cut { to } => node_mut.cut(to),
            Step::StartOver { at } => {
                let before = Vec::from(&self.nodes[leader].disk.log[..index(at)]);
                self.node_mut(node).begin_anew(before);
            }
            // (A number that nobody has seen can be used.)
            Step::AskAgain => following.subscriptions -= 1,
            Step::Leave => {
                if let Some(process) = &mut node_mut.process {
                    process.role = Role::Idle;
                }
            }
        }
    }

    fn alter(&mut self, config: &Config, by: Member, proposal: &Proposal) {
        let named = |member: &Member| BrokerEpoch { broker: member.broker, epoch: member.epoch };
        let change = AlterPartition {
            partition: PARTITION,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal.isr.iter().map(named).collect(),
        };
        let command = Command::AlterPartitions(AlterPartitions { by: named(&by), changes: vec![change] });
        let refused = match self.command(config, command) {
            Ok(Reply::Partitions { refused }) => !refused.is_empty(),
            _ => true,
        };
        let node = number(by.broker);
        let is_asked = self.nodes[node].process.as_ref().is_some_and(|process| process.epoch == by.epoch);
        let Some(leading) = self.node_mut(node).leading_mut().filter(|_| refused && is_asked) else { return };
        // (Asked once only: what was given up on, and comes now, is not asked for any more.)
        if leading.asked.as_ref() == Some(proposal) {
            leading.asked = None;
            leading.core.decided(proposal, Outcome::Refused);
        }
        self.settle(node);
    }
}
