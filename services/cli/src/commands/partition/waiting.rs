//! What partitions wait for that nobody leads, in words.

use weir_proto::v1::{BrokerDescription, BrokerState, PartitionDescription};

use crate::commands::broker;

/// The brokers that a partition waits for, any of which would do. None of one that is led, or waits for a person, or that
/// nobody has ever led.
fn waited_for(partition: &PartitionDescription) -> Vec<i32> {
    if partition.leader >= 0 || partition.leader_epoch == 0 {
        return Vec::new();
    }
    partition.isr.iter().chain(&partition.eligible).copied().collect()
}

/// Whether it is for the brokers to say how those are that it waits for.
pub(crate) fn waits(partition: &PartitionDescription) -> bool {
    !waited_for(partition).is_empty()
}

/// The brokers that a partition waits for, with how each is; `None`: it waits for none.
pub(crate) fn whom(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> Option<String> {
    let named = waited_for(partition).into_iter().map(|id| match state_of(id, brokers) {
        Some(state) => format!("broker {id} ({})", broker::state(state)),
        None => format!("broker {id}"),
    });
    let named = named.collect::<Vec<_>>();
    (!named.is_empty()).then(|| named.join(" or "))
}

/// The same, with why, and what to do.
pub(crate) fn said(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> Option<String> {
    let whom = whom(partition, brokers)?;
    // Only of a broker that is down its disk can be said to be gone.
    let mut down = waited_for(partition);
    down.retain(|id| state_of(*id, brokers) == Some(BrokerState::Fenced));
    let what_to_do = match *down {
        [] => String::new(),
        [id] => format!(": start it, or, if its disk is gone for good, weir broker remove {id} --disk-lost"),
        _ => {
            ": start one of them, or, of each whose disk is gone for good, weir broker remove ID --disk-lost"
                .to_owned()
        }
    };
    Some(format!("it waits for {whom}; nobody else is known to hold every acknowledged record{what_to_do}"))
}

/// Whether every broker that had a replica was removed: nobody can bring one back, and there is nobody to elect.
pub(crate) fn is_gone(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> bool {
    let is_removed = |id: &i32| state_of(*id, brokers) == Some(BrokerState::Removed);
    !partition.replicas.is_empty() && partition.replicas.iter().all(is_removed)
}

/// Whether every broker that had a replica was removed but this one, so that nobody is left to elect once it is removed as well.
pub(crate) fn is_gone_without(
    partition: &PartitionDescription,
    id: i32,
    brokers: &[BrokerDescription],
) -> bool {
    let is_removed = |other: &i32| state_of(*other, brokers) == Some(BrokerState::Removed);
    partition.replicas.iter().all(|other| *other == id || is_removed(other))
}

/// What a person can do of a partition that waits for one, in words: whoever was removed is not to be brought back.
pub(crate) fn what_to_do(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> String {
    let those = |wanted: &dyn Fn(Option<BrokerState>) -> bool| -> Vec<String> {
        let those = partition.replicas.iter().filter(|id| wanted(state_of(**id, brokers)));
        those.map(ToString::to_string).collect()
    };
    let removed = those(&|state| state == Some(BrokerState::Removed));
    let down = those(&|state| {
        let is_there =
            |state| matches!(state, BrokerState::Active | BrokerState::Slow | BrokerState::Removed);
        !state.is_some_and(is_there)
    });
    let brokers_of = |ids: &[String]| match ids {
        [one] => format!("broker {one}"),
        several => format!("brokers {}", several.join(", ")),
    };
    let lost = match removed.is_empty() {
        true => String::new(),
        false => {
            let (who, was) = (brokers_of(&removed), if removed.len() == 1 { "was" } else { "were" });
            format!("{who} {was} removed, and what others lack of it is lost: ")
        }
    };
    match (down.is_empty(), removed.is_empty()) {
        (false, _) => format!("{lost}bring {} back, or see what would be lost", brokers_of(&down)),
        (true, true) if !partition.problem.is_empty() => {
            "all its brokers run, so what is wrong is in the logs: see what is whole, and what would be lost"
                .to_owned()
        }
        (true, true) => {
            "all its brokers run, and nothing is known to be wrong with their logs, but none can prove that its own is complete \
             (as after controllers that were restored, or a directory that lost what it says of its last stop): see how far \
             each goes, and elect the one that goes furthest"
                .to_owned()
        }
        (true, false) => format!("{lost}see what is left, and elect a leader for that"),
    }
}

fn state_of(id: i32, brokers: &[BrokerDescription]) -> Option<BrokerState> {
    brokers.iter().find(|broker| broker.broker_id == id).map(BrokerDescription::state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(isr: &[i32], eligible: &[i32]) -> PartitionDescription {
        PartitionDescription {
            leader: -1,
            leader_epoch: 7,
            isr: isr.to_vec(),
            eligible: eligible.to_vec(),
            ..PartitionDescription::default()
        }
    }

    fn brokers() -> Vec<BrokerDescription> {
        let broker = |broker_id, state: BrokerState| BrokerDescription {
            broker_id,
            state: state.into(),
            ..BrokerDescription::default()
        };
        vec![
            broker(1, BrokerState::Active),
            broker(2, BrokerState::Fenced),
            broker(3, BrokerState::Fenced),
            broker(4, BrokerState::Registered),
        ]
    }

    #[test]
    fn who_is_waited_for_is_named_with_what_to_do_if_it_is_gone_for_good() {
        let said = |isr: &[i32], eligible: &[i32]| said(&partition(isr, eligible), &brokers()).unwrap();
        assert_eq!(
            said(&[], &[2]),
            "it waits for broker 2 (fenced); nobody else is known to hold every acknowledged record: start it, or, if its \
             disk is gone for good, weir broker remove 2 --disk-lost"
        );
        let two = said(&[], &[2, 3]);
        assert!(two.starts_with("it waits for broker 2 (fenced) or broker 3 (fenced); nobody else"), "{two}");
        assert!(two.ends_with("of each whose disk is gone for good, weir broker remove ID --disk-lost"));
        let starting = said(&[4], &[]);
        assert!(starting.starts_with("it waits for broker 4 (registered); "), "{starting}");
        assert!(!starting.contains("--disk-lost"), "it is coming: {starting}");
        assert!(said(&[], &[9]).starts_with("it waits for broker 9; "), "whom nobody has heard of");
    }

    #[test]
    fn only_where_every_broker_was_removed_is_nothing_left() {
        let mut brokers = brokers();
        brokers[1].set_state(BrokerState::Removed);
        let on = |replicas: &[i32]| {
            let replicas = replicas.to_vec();
            is_gone(&PartitionDescription { replicas, ..partition(&[], &[]) }, &brokers)
        };
        assert!(on(&[2]));
        assert!(!on(&[2, 3]), "that one may come back");
        assert!(!on(&[]) && !on(&[9]), "nobody has said of which");
        let without_three = |replicas: &[i32]| {
            let replicas = replicas.to_vec();
            is_gone_without(&PartitionDescription { replicas, ..partition(&[], &[]) }, 3, &brokers)
        };
        assert!(without_three(&[3]) && without_three(&[2, 3]));
        assert!(!without_three(&[1, 3]), "that one may be elected");
    }

    #[test]
    fn nobody_is_told_to_bring_a_broker_back_that_was_removed() {
        let mut brokers = brokers();
        let on = |replicas: &[i32], brokers: &[BrokerDescription]| {
            let replicas = replicas.to_vec();
            what_to_do(&PartitionDescription { replicas, ..partition(&[], &[]) }, brokers)
        };
        assert_eq!(on(&[1, 2, 3], &brokers), "bring brokers 2, 3 back, or see what would be lost");
        // Metadata that was restored knows of no complete replica, and all may be whole.
        let unproven = on(&[1], &brokers);
        assert!(
            unproven.starts_with("all its brokers run, and nothing is known to be wrong with their logs")
        );
        assert!(unproven.ends_with("and elect the one that goes furthest"), "{unproven}");
        let problem = "on broker 1: cannot be read at offset 3".to_owned();
        let damaged = PartitionDescription { replicas: vec![1], problem, ..partition(&[], &[]) };
        let damaged = what_to_do(&damaged, &brokers);
        assert!(damaged.starts_with("all its brokers run, so what is wrong is in the logs"), "{damaged}");
        brokers[1].set_state(BrokerState::Removed);
        assert_eq!(
            on(&[1, 2], &brokers),
            "broker 2 was removed, and what others lack of it is lost: see what is left, and elect a leader for that"
        );
        let both = on(&[2, 3], &brokers);
        assert!(both.ends_with("is lost: bring broker 3 back, or see what would be lost"), "{both}");
    }

    #[test]
    fn who_waits_for_a_person_or_is_led_waits_for_no_broker() {
        let fresh = PartitionDescription { leader_epoch: 0, ..partition(&[], &[2]) };
        let led = PartitionDescription { leader: 1, ..partition(&[1], &[2]) };
        for partition in [partition(&[], &[]), fresh, led] {
            assert_eq!((waits(&partition), said(&partition, &brokers())), (false, None), "{partition:?}");
        }
    }
}
