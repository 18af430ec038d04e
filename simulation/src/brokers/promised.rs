//! What is promised of topics, and so what may happen to their brokers: docs/correctness.md, "What an acknowledgement means".
//!
//! In class `fsync` any number of machines may lose power. A lost disk, and in class `replicated` also the lost memory of a
//! system (by a loss of power, or by a disk that failed), is survived one at a time with min.insync of 2 or more: the next
//! only when everybody lives, those it happened to before have come back as somebody new, and every partition is in sync
//! everywhere.

use std::sync::Arc;

use weir_metadata::Image;
use weir_types::Durability;

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

    /// Whether nothing is missing anywhere.
    fn is_whole(&mut self) -> bool {
        let machines = self.quorum.machines().iter().chain(&self.brokers);
        if !machines.into_iter().all(|machine| machine.life().is_some_and(|life| life.is_on())) {
            return false;
        }
        let Some(image) = self.quorum.settled() else { return false };
        let back = |(machine, life, epoch): &(Arc<Machine>, Arc<Life>, i64)| {
            let lives_again = machine.life().is_some_and(|now| !Arc::ptr_eq(&now, life));
            lives_again && registration(&image, machine) > *epoch
        };
        let mut partitions = image.topics().flat_map(|topic| topic.partitions.iter());
        let whole = self.harmed.iter().all(back)
            && partitions.all(|(_, it)| it.leader.is_some() && it.isr.len() == it.replicas.len());
        if whole {
            self.harmed.clear();
        }
        whole
    }
}

/// The newest registration of a broker.
fn registration(image: &Image, machine: &Machine) -> i64 {
    let of_it = |broker: &&weir_metadata::Broker| {
        broker.endpoints.iter().any(|endpoint| endpoint.host == machine.name())
    };
    image.brokers().filter(of_it).map(|broker| broker.epoch).max().unwrap_or(0)
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
        if !self.is_whole() {
            return Covers::Later;
        }
        let (Some(life), Some(image)) = (broker.life(), self.quorum.settled()) else { return Covers::Later };
        let epoch = registration(&image, &broker);
        self.harmed.push((broker, life, epoch));
        Covers::Now
    }
}
