//! What is promised of topics, and so what may happen to their brokers: docs/correctness.md, "What an acknowledgement means".
//!
//! In class `fsync` any number of machines may lose power. A lost disk, and in class `replicated` also the lost memory of a
//! system (by a loss of power, or by a disk that failed), is survived one at a time with min.insync of 2 or more: the next
//! only when everybody lives, those it happened to before have come back as somebody new, and every partition is in sync
//! everywhere.

use std::sync::Arc;

use weir_metadata::{Broker, Image};
use weir_types::{BrokerId, Durability};

use super::subject::Subject;
use crate::life::{Life, Machine};
use crate::nemesis::{Covers, Harm, Promise};
use crate::quorum::Quorum;

/// Holds the nemesis to what is promised.
pub(super) struct Promised<'a> {
    quorum: &'a Quorum,
    brokers: Vec<Arc<Machine>>,
    /// Whether all survive the loss of one disk.
    spare_disk: bool,
    /// Whether there is a topic that counts on the memory of systems ...
    counts_on_memory: bool,
    /// ... and whether it survives the loss of one.
    spare_memory: bool,
    /// To whom something happened that is survived one at a time: the life, and the registration of then.
    harmed: Vec<(Arc<Machine>, Arc<Life>, i64)>,
}

impl<'a> Promised<'a> {
    /// Of these topics; `mins_change`: their min.insync may be 1 at times.
    pub(super) fn new(
        quorum: &'a Quorum,
        brokers: &[Arc<Machine>],
        subjects: &[Subject],
        mins_change: bool,
    ) -> Self {
        let spare = |subject: &Subject| subject.min_insync > 1 && !mins_change;
        // A lost disk is a lost replica: whoever comes back is somebody new. What is left must be enough to go on.
        let spares_a_replica = |subject: &Subject| spare(subject) && subject.replicas > subject.min_insync;
        let replicated = |subject: &&Subject| subject.durability == Durability::Replicated;
        Self {
            quorum,
            brokers: brokers.to_vec(),
            spare_disk: subjects.iter().all(spares_a_replica),
            counts_on_memory: subjects.iter().any(|subject| replicated(&subject)),
            spare_memory: subjects.iter().filter(replicated).all(spare),
            harmed: Vec::new(),
        }
    }

    /// Whether the disk of one machine may change what it holds, the same one whenever it does.
    pub(super) fn covers_rot(&mut self) -> bool {
        self.spare_disk && (self.harmed.is_empty() || self.is_whole())
    }

    /// Whether nothing is missing anywhere.
    fn is_whole(&mut self) -> bool {
        let machines = self.quorum.machines().iter().chain(&self.brokers);
        if !machines.into_iter().all(|machine| machine.life().is_some_and(|life| life.is_on())) {
            return false;
        }
        let Some(image) = self.quorum.settled() else { return false };
        let back = |(machine, life, epoch): &(Arc<Machine>, Arc<Life>, i64)| {
            let lives_again = machine.life().is_some_and(|now| !Arc::ptr_eq(&now, life));
            lives_again && epoch_of(&image, machine) > *epoch
        };
        // Who has lost its disk is in sync under its old id for as long as that is not fenced.
        let now: Vec<_> = self.brokers.iter().filter_map(|machine| registered(&image, machine)).collect();
        let is_there = |id: &BrokerId| now.iter().any(|broker| broker.id == *id);
        let mut partitions = image.topics().flat_map(|topic| topic.partitions.iter());
        let whole = self.harmed.iter().all(back)
            && partitions.all(|(_, it)| {
                it.leader.is_some() && it.isr.len() == it.replicas.len() && it.isr.iter().all(is_there)
            });
        if whole {
            self.harmed.clear();
        }
        whole
    }
}

/// The broker that registered last from a machine.
fn registered<'a>(image: &'a Image, machine: &Machine) -> Option<&'a Broker> {
    let of_it = |broker: &&Broker| broker.endpoints.iter().any(|endpoint| endpoint.host == machine.name());
    image.brokers().filter(of_it).max_by_key(|broker| broker.epoch)
}

/// The epoch of that registration.
fn epoch_of(image: &Image, machine: &Machine) -> i64 {
    registered(image, machine).map_or(0, |broker| broker.epoch)
}

impl Promise for Promised<'_> {
    fn covers(&mut self, harm: Harm, machines: &[Arc<Machine>]) -> Covers {
        let is_broker = |machine: &&Arc<Machine>| self.brokers.iter().any(|it| Arc::ptr_eq(it, machine));
        let mut brokers = machines.iter().filter(is_broker);
        let Some(broker) = brokers.next().cloned() else {
            // A controller: what it has said is synced.
            return if harm == Harm::Disk { Covers::Never } else { Covers::Now };
        };
        if harm != Harm::Disk && !self.counts_on_memory {
            return Covers::Now;
        }
        let spare = if harm == Harm::Disk { self.spare_disk } else { self.spare_memory };
        if !spare || brokers.next().is_some() {
            return Covers::Never;
        }
        // What has changed on a disk may not have been found yet: the next disk is not another one.
        if self.brokers.iter().any(|other| other.has_rotted() && !Arc::ptr_eq(other, &broker)) {
            return Covers::Never;
        }
        if !self.is_whole() {
            return Covers::Later;
        }
        let (Some(life), Some(image)) = (broker.life(), self.quorum.settled()) else { return Covers::Later };
        let epoch = epoch_of(&image, &broker);
        self.harmed.push((broker, life, epoch));
        Covers::Now
    }
}
