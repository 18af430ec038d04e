//! In which zone each replica of a partition is: the rack of its broker, at one version of the record.

use std::collections::BTreeMap;

use weir_metadata::{Image, Partition};
use weir_types::BrokerId;

/// See the module. Brokers that name no rack are all in one zone: nothing says that they are apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones(BTreeMap<BrokerId, u64>);

impl Zones {
    pub(crate) fn of(image: &Image, partition: &Partition) -> Self {
        let rack = |broker| image.broker(broker).map_or("", |broker| broker.rack.as_str());
        let brokers = partition.replicas.iter().map(|replica| replica.broker);
        Self::named(brokers.map(|broker| (broker, rack(broker))))
    }

    fn named<'a>(racks: impl Iterator<Item = (BrokerId, &'a str)>) -> Self {
        let mut bits: BTreeMap<&str, u64> = BTreeMap::new();
        let zones = racks.map(|(broker, rack)| {
            // More than 64 replicas have no more than 64 zones: fewer are counted than there may be.
            let next = 1_u64.rotate_left(u32::try_from(bits.len() % 64).unwrap_or(0));
            (broker, *bits.entry(rack).or_insert(next))
        });
        Self(zones.collect())
    }

    /// In how many different ones these are.
    pub(crate) fn count(&self, brokers: impl Iterator<Item = BrokerId>) -> usize {
        let zones = brokers.fold(0, |zones, broker| zones | self.0.get(&broker).copied().unwrap_or(0));
        zones.count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn racks_are_counted_once_and_no_rack_is_one() {
        let racks = [(1, "a"), (2, "b"), (3, "a"), (4, ""), (5, "")];
        let zones = Zones::named(racks.into_iter().map(|(broker, rack)| (BrokerId(broker), rack)));
        let count = |brokers: &[i32]| zones.count(brokers.iter().copied().map(BrokerId));
        assert_eq!(
            (count(&[1, 3]), count(&[1, 2, 3]), count(&[4, 5]), count(&[1, 2, 3, 4, 5])),
            (1, 2, 1, 3)
        );
        assert_eq!((count(&[]), count(&[9])), (0, 0));
    }
}
