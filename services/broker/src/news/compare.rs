//! What a change of the metadata means for the partitions that are led here. Pure.

use std::collections::BTreeSet;

use weir_cluster::partition_name;
use weir_metadata::{BrokerState, Image, Partition};
use weir_types::{BrokerId, PartitionId};

use super::{Gathered, Who, Why};

/// The leader epoch of a partition's first leadership.
const FIRST_EPOCH: i32 = 1;

/// An image, and whether it speaks of this process: else nothing is led here by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) image: &'a Image,
    pub(crate) is_mine: bool,
}

impl Seen<'_> {
    /// The record, if this broker leads by it.
    fn led(&self, me: BrokerId, id: PartitionId) -> Option<&Partition> {
        self.image.partition(id).map(AsRef::as_ref).filter(|record| self.is_mine && record.leader == Some(me))
    }
}

/// How a replica stands with this broker, which leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// Whether it has a stream to this broker.
    pub(crate) is_heard: bool,
    /// For how long it has been behind.
    pub(crate) ms: u64,
}

/// Gathers what is new about these partitions for broker `me`. `behind` says how a replica stands; `None`: that is not known
/// here.
pub(crate) fn compare(
    gathered: &mut Gathered,
    me: BrokerId,
    (older, newer): (Seen<'_>, Seen<'_>),
    due: &BTreeSet<PartitionId>,
    behind: impl Fn(PartitionId, BrokerId) -> Option<Behind>,
) {
    for id in due.iter().copied() {
        let (before, now) = (older.led(me, id), newer.led(me, id));
        let leader = |image: &Image| image.partition(id).and_then(|record| record.leader);
        let other =
            |image: &Image| leader(image).filter(|leader| *leader != me).map_or(Who::Nobody, Who::Broker);
        match (before, now) {
            (None, Some(_)) => gathered.came.add(other(older.image), || partition_name(newer.image, id)),
            (Some(_), None) => {
                let is_there = newer.image.partition(id).is_some();
                let who = if is_there { other(newer.image) } else { Who::Deleted };
                gathered.went.add(who, || partition_name(older.image, id));
            }
            _ => {}
        }
        let Some(now) = now else {
            if before.is_some_and(refuses) {
                gathered.refuses_no_more(id);
            }
            continue;
        };
        let name = || partition_name(newer.image, id);
        if let Some(known) = older.image.partition(id) {
            for gone in known.isr.iter().filter(|gone| **gone != me && !now.isr.contains(gone)) {
                let (why, lag_ms) = why((older.image, newer.image), (known, now), *gone, behind(id, *gone));
                let left = gathered.left.entry((*gone, why)).or_default();
                left.names.add(name);
                left.lag_ms = left.lag_ms.max(lag_ms);
            }
            for new in now.isr.iter().filter(|new| **new != me && !known.isr.contains(new)) {
                gathered.joined.entry(*new).or_default().add(name);
            }
        }
        match (before.is_some_and(refuses), refuses(now)) {
            (false, true) => gathered.refuses(id, name(), now.leader_epoch <= FIRST_EPOCH),
            (true, false) if gathered.refuses_no_more(id) => gathered.taken.add(name),
            _ => {}
        }
    }
}

/// Whether appends are refused for want of replicas.
fn refuses(record: &Partition) -> bool {
    record.isr.len() < usize::try_from(record.min_insync).unwrap_or(1)
}

/// Why a replica is not in sync any more, and for how long it has been behind.
fn why(
    (older, newer): (&Image, &Image),
    (before, record): (&Partition, &Partition),
    who: BrokerId,
    behind: Option<Behind>,
) -> (Why, u64) {
    let lag_ms = behind.map_or(0, |behind| behind.ms);
    // Whoever said that it stops, and has: how it was before says more than that it is fenced by now.
    let stopped = older.broker(who).is_some_and(|broker| broker.state == BrokerState::Draining);
    let why = match newer.broker(who) {
        None => Why::Removed,
        Some(_) if record.replica(who).is_none() => Why::Moved,
        Some(broker) if broker.is_failed() => Why::Failed,
        Some(broker) => match broker.state {
            BrokerState::Draining => Why::Stops,
            BrokerState::Fenced if stopped => Why::Stops,
            BrokerState::Fenced | BrokerState::Registered => Why::Fenced,
            BrokerState::Slow => Why::Slow,
            // Nobody else leaves so that another leader epoch begins, and lives on.
            _ if record.leader_epoch > before.leader_epoch
                && record.unclean_epoch == before.unclean_epoch =>
            {
                Why::Damaged
            }
            _ if behind.is_none_or(|behind| !behind.is_heard) => Why::Silent,
            _ => Why::Lags,
        },
    };
    (why, lag_ms)
}
