//! Where the replicas of new partitions go. A pure function: the same brokers, the same seed, the same answer.
//!
//! Each partition gets its leader where the fewest leaders are, and its followers where the fewest followers are,
//! in racks that it does not have yet as long as there are any. Ties go round from the seed on, so that many
//! small topics do not all begin at the first broker.
//!
//! It does not move what exists, and it does not keep pairs of brokers few; a planner that does belongs beside it.

use std::collections::BTreeSet;

use weir_types::BrokerId;

use crate::Error;
use crate::image::Load;

/// A broker that can take replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The broker.
    pub(crate) id: BrokerId,
    /// Its rack. Empty: unknown; all such brokers count as one rack.
    pub(crate) rack: String,
    /// What it carries already.
    pub(crate) load: Load,
    /// Whether its disk is slow: of a rack the others come first. The rack counts more: disks become quick again, and
    /// replicas stay where they are.
    pub(crate) is_slow: bool,
}

/// The brokers of each new partition; the first of each is to lead.
///
/// # Errors
/// [`Error::ReplicationFactor`] if there are fewer candidates than that, or it is not positive.
pub(crate) fn place(
    candidates: &[Candidate],
    partitions: i32,
    replication_factor: i32,
    seed: u64,
) -> Result<Vec<Vec<BrokerId>>, Error> {
    let count = candidates.len();
    let wanted = usize::try_from(replication_factor).unwrap_or(0);
    if wanted == 0 || wanted > count {
        return Err(Error::ReplicationFactor {
            given: replication_factor,
            why: match count {
                0 => "no broker is active".to_owned(),
                1 => "1 broker is active".to_owned(),
                _ => format!("{count} brokers are active"),
            },
        });
    }
    let mut loads: Vec<Load> = candidates.iter().map(|candidate| candidate.load).collect();
    let mut placed = Vec::new();
    for number in 0..partitions {
        // Where this partition starts to look. Every value of it is below `count`.
        let start = (seed % count as u64) as usize + number as usize;
        let turn = |index: usize| (index + count - start % count) % count;
        let mut chosen: Vec<usize> = Vec::with_capacity(wanted);
        let mut racks: BTreeSet<&str> = BTreeSet::new();
        while chosen.len() < wanted {
            let next = candidates
                .iter()
                .zip(&loads)
                .enumerate()
                .filter(|(index, _)| !chosen.contains(index))
                .min_by_key(|(index, (candidate, load))| {
                    // Followers are balanced by themselves: who has few leaders gets his replicas with them.
                    let first = chosen.is_empty();
                    let amount = if first { load.leaders } else { load.replicas - load.leaders };
                    let amount = (amount, load.replicas);
                    (racks.contains(candidate.rack.as_str()), candidate.is_slow, amount, turn(*index))
                });
            // There are at least `wanted` candidates, so one is left.
            let Some((index, (candidate, _))) = next else { break };
            racks.insert(&candidate.rack);
            chosen.push(index);
        }
        for (rank, index) in chosen.iter().enumerate() {
            if let Some(load) = loads.get_mut(*index) {
                load.replicas += 1;
                load.leaders += i64::from(rank == 0);
            }
        }
        placed.push(chosen.iter().filter_map(|index| candidates.get(*index)).map(|c| c.id).collect());
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn candidates(racks: &[u8]) -> Vec<Candidate> {
        let candidate = |(id, rack): (i32, &u8)| Candidate {
            id: BrokerId(id),
            rack: format!("rack-{rack}"),
            load: Load::default(),
            is_slow: false,
        };
        (1..).zip(racks).map(candidate).collect()
    }

    fn spread(counts: &BTreeMap<BrokerId, i64>, brokers: usize) -> i64 {
        let least = if counts.len() < brokers { 0 } else { counts.values().min().copied().unwrap_or(0) };
        counts.values().max().copied().unwrap_or(0) - least
    }

    proptest! {
        #[test]
        fn it_is_even_and_knows_racks(
            racks in prop::collection::vec(0u8..4, 1..12),
            partitions in 1i32..60,
            factor in 1usize..6,
            seed in any::<u64>(),
        ) {
            let candidates = candidates(&racks);
            let factor = factor.min(candidates.len());
            let placed = place(&candidates, partitions, factor as i32, seed).unwrap();
            prop_assert_eq!(placed.len(), partitions as usize);
            let distinct_racks = racks.iter().collect::<BTreeSet<_>>().len();
            let (mut leaders, mut replicas) = (BTreeMap::new(), BTreeMap::new());
            for brokers in &placed {
                prop_assert_eq!(brokers.len(), factor);
                prop_assert_eq!(brokers.iter().collect::<BTreeSet<_>>().len(), factor, "nobody twice");
                let used = brokers.iter().map(|b| racks[b.0 as usize - 1]).collect::<BTreeSet<_>>().len();
                prop_assert_eq!(used, factor.min(distinct_racks), "as many racks as possible");
                *leaders.entry(brokers[0]).or_insert(0i64) += 1;
                for broker in brokers {
                    *replicas.entry(*broker).or_insert(0i64) += 1;
                }
            }
            prop_assert!(spread(&leaders, candidates.len()) <= 1, "leaders are even: {:?}", leaders);
            // Replicas are even where racks do not stand in the way.
            if distinct_racks == 1 || distinct_racks == racks.len() {
                prop_assert!(spread(&replicas, candidates.len()) <= 2, "replicas are even: {:?}", replicas);
            }
            prop_assert_eq!(placed, place(&candidates, partitions, factor as i32, seed).unwrap());
        }
    }

    /// Places more partitions, and puts them on the candidates. The brokers of each.
    fn grow(candidates: &mut [Candidate], partitions: i32, factor: i32, seed: u64) -> Vec<Vec<BrokerId>> {
        let placed = place(candidates, partitions, factor, seed).unwrap();
        for brokers in &placed {
            for (rank, id) in brokers.iter().enumerate() {
                let load = &mut candidates[id.0 as usize - 1].load;
                load.replicas += 1;
                load.leaders += i64::from(rank == 0);
            }
        }
        placed
    }

    fn between<'a>(of: impl Iterator<Item = &'a Candidate> + Clone, count: fn(&Load) -> i64) -> i64 {
        let counts = of.map(|candidate| count(&candidate.load));
        counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn leaders_become_more_even_after_brokers_have_joined(
            joins in prop::collection::vec((prop::collection::vec(0u8..4, 1..4), 1i32..40), 1..8),
            factor in 1i32..4,
            seed in any::<u64>(),
        ) {
            let mut all: Vec<Candidate> = Vec::new();
            for (racks, partitions) in joins {
                for rack in racks {
                    let id = BrokerId(all.len() as i32 + 1);
                    all.push(Candidate { id, rack: format!("rack-{rack}"), load: Load::default(), is_slow: false });
                }
                let before = between(all.iter(), |load| load.leaders);
                let racks = all.iter().map(|one| one.rack.clone()).collect::<BTreeSet<_>>().len();
                let factor = factor.min(all.len() as i32);
                for brokers in grow(&mut all, partitions, factor, seed) {
                    let used = brokers.iter().map(|id| all[id.0 as usize - 1].rack.clone());
                    prop_assert_eq!(used.collect::<BTreeSet<_>>().len(), racks.min(factor as usize));
                }
                let after = between(all.iter(), |load| load.leaders);
                prop_assert!(after <= (before - i64::from(partitions) / all.len() as i64).max(1), "{} to {}", before, after);
            }
        }
    }

    #[test]
    fn a_hundred_brokers_in_three_racks_carry_alike_and_new_ones_catch_up() {
        let racks: Vec<u8> = (0..100).map(|broker| broker % 3).collect();
        let mut all = candidates(&racks);
        let placed = grow(&mut all, 3_000, 3, 7);
        let racks_of = |brokers: &[BrokerId]| {
            brokers.iter().map(|id| racks[id.0 as usize - 1]).collect::<BTreeSet<_>>().len()
        };
        assert!(placed.iter().all(|brokers| racks_of(brokers) == 3), "a rack may be lost");
        assert_eq!(between(all.iter(), |load| load.leaders), 0);
        for rack in ["rack-0", "rack-1", "rack-2"] {
            let of_rack = all.iter().filter(|candidate| candidate.rack == rack);
            assert!(between(of_rack, |load| load.replicas) <= 1, "{rack}");
        }
        // Ten of them were replaced by empty ones.
        for candidate in all.iter_mut().take(10) {
            candidate.load = Load::default();
        }
        grow(&mut all, 1_000, 3, 8);
        assert!(between(all.iter(), |load| load.leaders) <= 1, "they got what the others have");
    }

    #[test]
    fn what_is_there_already_counts() {
        let mut candidates = candidates(&[0, 0, 0]);
        candidates[0].load = Load { replicas: 10, leaders: 10 };
        candidates[2].load = Load { replicas: 9, leaders: 0 };
        assert_eq!(place(&candidates, 1, 1, 0), Ok(vec![vec![BrokerId(2)]]));
    }

    #[test]
    fn slow_brokers_get_what_there_is_nobody_else_for() {
        let of = |racks: &[u8], factor, seed| {
            let mut candidates = candidates(racks);
            candidates[2].is_slow = true;
            place(&candidates, 1, factor, seed).unwrap().remove(0)
        };
        for seed in 0..3 {
            assert!(!of(&[0, 0, 0], 2, seed).contains(&BrokerId(3)));
            assert_eq!(of(&[0, 0, 0], 3, seed).last(), Some(&BrokerId(3)));
            assert_eq!(of(&[0, 0, 1], 2, seed).last(), Some(&BrokerId(3)), "a rack may be lost");
        }
    }

    #[test]
    fn small_topics_begin_at_different_brokers() {
        let candidates = candidates(&[0, 0, 0]);
        let first = |seed| place(&candidates, 1, 1, seed).unwrap()[0][0];
        assert_eq!([first(0), first(1), first(2)], [BrokerId(1), BrokerId(2), BrokerId(3)]);
    }

    #[test]
    fn too_many_replicas_are_refused_with_the_number_of_brokers() {
        let error = place(&candidates(&[0]), 1, 3, 0).unwrap_err().to_string();
        assert_eq!(error, "3 replicas are not possible: 1 broker is active");
    }
}
