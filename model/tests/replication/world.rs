//! The state of a world, and what there is to say of it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use weir_metadata::{Partition, State};

use crate::config::{Config, Faults};
use crate::controller;
use crate::disk::{index, offset};
use crate::node::{Node, View, id};
use crate::wire::Message;

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct World {
    pub(crate) controller: Arc<State>,
    /// The newest version of the partition's record, last, and before it those that somebody has not seen yet.
    pub(crate) views: Vec<Arc<View>>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) wire: Vec<Message>,
    /// What was ever acknowledged, by offset: the record, and the leadership in which that was first done.
    pub(crate) committed: Vec<(i32, i32)>,
    /// Deletions of everything before it were answered.
    pub(crate) deleted: usize,
    /// Whether two different records were acknowledged at one offset.
    pub(crate) contradiction: bool,
    /// What may still go wrong.
    pub(crate) left: Faults,
    /// Whether what only fsync and min.insync of 2 survive has happened.
    pub(crate) has_lost: bool,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.hash(state);
        // On the way there is no order.
        let messages = self.wire.iter().map(|message| {
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            hasher.finish()
        });
        messages.fold(0_u64, u64::wrapping_add).hash(state);
        (&self.committed, self.deleted, self.contradiction, self.left, self.has_lost).hash(state);
        for view in &self.views {
            let Partition { leader, leader_epoch, partition_epoch, min_insync, isr, elr, from_elr, .. } =
                &view.record;
            (leader, leader_epoch, partition_epoch, min_insync, isr, elr, from_elr, &view.epochs).hash(state);
        }
        for broker in self.controller.image.brokers() {
            (broker.epoch, broker.state as u8, broker.persisted_epoch).hash(state);
        }
    }
}

impl World {
    /// A cluster in which everybody serves and nothing was written.
    pub(crate) fn new(config: &Config) -> Self {
        let (controller, nodes) = controller::begin(config);
        let mut world = Self {
            controller: Arc::new(controller),
            views: Vec::new(),
            nodes: nodes.into_iter().map(Arc::new).collect(),
            wire: Vec::new(),
            committed: Vec::new(),
            deleted: 0,
            contradiction: false,
            left: config.faults,
            has_lost: false,
        };
        world.publish(config);
        for node in 0..config.brokers {
            world.see(config, node);
        }
        world
    }

    /// The record, as the controller has it.
    pub(crate) fn record(&self) -> &Partition {
        &self.views[self.views.len() - 1].record
    }

    pub(crate) fn node_mut(&mut self, node: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[node])
    }

    /// Whether a log has all that was acknowledged.
    pub(crate) fn is_complete(&self, log: &[i32]) -> bool {
        log.len() >= self.committed.len()
            && self.committed.iter().zip(log).all(|((committed, _), written)| committed == written)
    }

    /// Nodes that are in the in-sync set, or eligible.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = &Node> {
        let record = self.record();
        let is_candidate = |node: usize| record.isr.contains(&id(node)) || record.elr.contains(&id(node));
        (0..self.nodes.len()).filter(move |node| is_candidate(*node)).map(|node| &*self.nodes[node])
    }

    /// A node takes the next version of the metadata that it has not seen.
    pub(crate) fn see(&mut self, config: &Config, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let at = self.views.len() - process.behind.max(1);
        let view = self.views[at].clone();
        let node_mut = self.node_mut(node);
        if let Some(process) = &mut node_mut.process {
            process.behind = process.behind.saturating_sub(1);
        }
        node_mut.see(node, config, &view);
        self.forget();
        self.settle(node);
    }

    /// Puts a new version of the metadata where brokers will see it.
    pub(crate) fn publish(&mut self, config: &Config) {
        let view = controller::view(&self.controller, config.brokers);
        if self.views.last().is_some_and(|last| **last == view) {
            return;
        }
        self.views.push(Arc::new(view));
        for node in 0..self.nodes.len() {
            if let Some(process) = &mut self.node_mut(node).process {
                process.behind = if config.stepwise { process.behind + 1 } else { 1 };
            }
        }
        self.forget();
    }

    /// Versions that everybody has seen are gone.
    pub(crate) fn forget(&mut self) {
        let behind = self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.behind)).max();
        let kept = behind.unwrap_or(0).max(1);
        self.views.drain(..self.views.len() - kept);
    }

    /// A leader looks how far its log is committed, after anything that could have changed that.
    pub(crate) fn settle(&mut self, node: usize) {
        let log = self.nodes[node].log();
        let node_mut = self.node_mut(node);
        let Some(leading) = node_mut.leading_mut() else { return };
        let high_watermark = index(leading.core.high_watermark(&log));
        let epoch = leading.core.epoch();
        let deleted = leading.deleting.filter(|start| leading.core.begins_everywhere(offset(*start)));
        if deleted.is_some() {
            leading.deleting = None;
        }
        if let Some(process) = &mut node_mut.process {
            process.high_watermark = high_watermark;
        }
        self.deleted = self.deleted.max(deleted.unwrap_or(0));
        self.acknowledge(node, epoch, high_watermark);
    }

    /// Everything below an offset of a leader's log was acknowledged.
    pub(crate) fn acknowledge(&mut self, node: usize, epoch: i32, end: usize) {
        let log = &self.nodes[node].disk.log;
        for (offset, record) in log.iter().enumerate().take(end) {
            match self.committed.get(offset) {
                None => self.committed.push((*record, epoch)),
                Some((committed, _)) if committed != record => self.contradiction = true,
                Some(_) => {}
            }
        }
    }
}
