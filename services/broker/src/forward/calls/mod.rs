//! The calls that go on to other brokers, one file each: who is to answer what, and how one answer becomes of several.

pub(super) mod append_outcome;
pub(super) mod delete_records;
pub(super) mod describe;
pub(super) mod fetch;
pub(super) mod list_brokers;
pub(super) mod list_offsets;
pub(super) mod produce;

use std::collections::BTreeMap;

use weir_types::BrokerId;

use crate::broker::Broker;

/// Parts of a call, by their places in it, by who answers them; `None`: this broker.
pub(super) type Shares = BTreeMap<Option<BrokerId>, Vec<usize>>;

/// Whose the parts of a call are.
pub(super) fn shares<'a>(broker: &Broker, parts: impl Iterator<Item = (&'a str, i32)>) -> Shares {
    let topics = broker.topics.load();
    let mut shares = Shares::new();
    for (place, (topic, partition)) in parts.enumerate() {
        let owner = topics.find(topic).and_then(|topic| broker.owner_in(topic, partition));
        shares.entry(owner).or_default().push(place);
    }
    shares
}

/// The one broker that answers all of it, if there is one and it is another.
pub(super) fn only_owner(shares: &Shares) -> Option<BrokerId> {
    match shares.keys().next() {
        Some(Some(owner)) if shares.len() == 1 => Some(*owner),
        _ => None,
    }
}

/// Whether all of it is answered here.
pub(super) fn all_here(shares: &Shares) -> bool {
    shares.keys().all(Option::is_none)
}

/// These parts of a call.
pub(super) fn these<T: Clone>(parts: &[T], places: &[usize]) -> Vec<T> {
    places.iter().filter_map(|place| parts.get(*place)).cloned().collect()
}
