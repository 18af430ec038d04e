//! What is said of replicas that are not in sync: how far behind they are, and what keeps them from catching up: that their
//! broker is not there, has no room, or does not reach the leader.

use std::slice;
use std::time::Duration;

use weir_proto::v1::{BrokerDescription, BrokerState, FollowerDescription, PartitionDescription};

use crate::commands::{broker, status};
use crate::units;

/// Each replica of a led partition that is not in sync, in a sentence. `brokers`: all of them.
pub(crate) fn said(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> Vec<String> {
    if partition.leader < 0 {
        // What it waits for is said instead.
        return Vec::new();
    }
    let late = partition.replicas.iter().filter(|id| !partition.isr.contains(id));
    let said = late.map(|id| {
        let follower = partition.followers.iter().find(|follower| follower.broker_id == *id);
        let broker = brokers.iter().find(|broker| broker.broker_id == *id);
        match broker.filter(|broker| !status::serves(broker)) {
            Some(broker) => said_of_away(*id, broker.state(), follower),
            None => {
                let held_up =
                    held_up(partition, *id, brokers).map_or_else(String::new, |by| format!(": {by}"));
                format!("{}{held_up}", said_of_late(*id, follower))
            }
        }
    });
    said.collect()
}

/// What keeps a replica from catching up whose broker serves, as far as anybody has said so.
fn held_up(partition: &PartitionDescription, id: i32, brokers: &[BrokerDescription]) -> Option<String> {
    let broker = brokers.iter().find(|broker| broker.broker_id == id)?;
    if broker::full(slice::from_ref(broker)).next().is_some() {
        return Some("the disk of its broker is full".to_owned());
    }
    let leader = broker.unreached.iter().find(|other| other.broker_id == partition.leader)?;
    let (leads, address) = (leader.broker_id, &leader.address);
    Some(format!("its broker does not reach broker {leads}, which leads, at {address}"))
}

/// Of one whose broker serves: it catches up.
fn said_of_late(broker: i32, follower: Option<&FollowerDescription>) -> String {
    let replica = format!("the replica on broker {broker}");
    let Some(follower) = follower else {
        return format!("{replica} is not in sync; the leader has not said how far it is");
    };
    let since = units::elapsed(Duration::from_millis(follower.lag_ms.max(0).unsigned_abs()));
    match (follower.log_end_offset, follower.lag_records) {
        (_, 0) => format!("{replica} has everything, and is not in sync yet"),
        (..0, _) => format!("{replica} is not heard of, for {since}"),
        _ => format!("{replica} is {} behind, for {since}", amount(follower)),
    }
}

/// Of one whose broker is not there: what it had when the leader heard of it last says nothing of how it is.
fn said_of_away(broker: i32, state: BrokerState, follower: Option<&FollowerDescription>) -> String {
    let why = match state {
        BrokerState::Removed => "is gone: its broker was removed".to_owned(),
        BrokerState::Failed => "is out of use: the disk of its broker has failed".to_owned(),
        BrokerState::Registered => "is not in sync: its broker is starting".to_owned(),
        _ => "is away: its broker is fenced".to_owned(),
    };
    let lacks = match follower {
        _ if state == BrokerState::Removed => String::new(),
        Some(heard) if heard.log_end_offset >= 0 && heard.lag_records > 0 => {
            // It may have written more than it could still say.
            format!(", and lacks at most {} by now", amount(heard))
        }
        _ => String::new(),
    };
    format!("the replica on broker {broker} {why}{lacks}")
}

fn amount(follower: &FollowerDescription) -> String {
    let (records, bytes) = (follower.lag_records.max(0), follower.lag_bytes.max(0).unsigned_abs());
    format!("{} ({})", units::counted(records, "record"), units::bytes(bytes))
}

/// What replicas lack that are not in sync, of those whose brokers serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// What is being caught up, in bytes, and for how many milliseconds the last of those has been behind.
    pub(crate) bytes: u64,
    pub(crate) ms: u64,
    /// Replicas that something keeps from it.
    pub(crate) held_up: usize,
}

/// What replicas of partitions lack.
pub(crate) fn behind(partitions: &[PartitionDescription], brokers: &[BrokerDescription]) -> Behind {
    let serves = |id: i32| brokers.iter().any(|broker| broker.broker_id == id && status::serves(broker));
    let late = partitions.iter().flat_map(|p| p.followers.iter().map(move |follower| (p, follower)));
    let late = late.filter(|(_, follower)| !follower.in_sync && serves(follower.broker_id));
    late.fold(Behind::default(), |behind, (partition, follower)| {
        if held_up(partition, follower.broker_id, brokers).is_some() {
            return Behind { held_up: behind.held_up + 1, ..behind };
        }
        let (more, since) = (follower.lag_bytes.max(0).unsigned_abs(), follower.lag_ms.max(0).unsigned_abs());
        Behind { bytes: behind.bytes.saturating_add(more), ms: behind.ms.max(since), ..behind }
    })
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{LogDirectory, UnreachedBroker};

    use super::*;

    fn broker(broker_id: i32, state: BrokerState) -> BrokerDescription {
        BrokerDescription { broker_id, state: state.into(), ..BrokerDescription::default() }
    }

    fn follower(broker_id: i32, log_end_offset: i64, lag_records: i64) -> FollowerDescription {
        FollowerDescription {
            broker_id,
            log_end_offset,
            lag_records,
            lag_bytes: lag_records * 100,
            lag_ms: 4_200,
            ..FollowerDescription::default()
        }
    }

    fn led(followers: &[FollowerDescription]) -> PartitionDescription {
        PartitionDescription {
            leader: 1,
            replicas: vec![1, 2, 3],
            isr: vec![1, 3],
            followers: followers.to_vec(),
            ..PartitionDescription::default()
        }
    }

    #[test]
    fn a_replica_whose_broker_is_not_there_neither_has_everything_nor_catches_up() {
        let said = |state, follower: FollowerDescription| {
            let brokers = [broker(1, BrokerState::Active), broker(2, state), broker(3, BrokerState::Active)];
            let said = said(&led(&[follower]), &brokers);
            assert_eq!(said.len(), 1, "{said:?}");
            let catches_up = behind(&[led(&[follower])], &brokers).bytes > 0;
            (said[0].strip_prefix("the replica on broker 2 ").unwrap().to_owned(), catches_up)
        };
        let is = |words: &str, catches_up| (words.to_owned(), catches_up);
        let (even, late, unheard) = (|| follower(2, 9, 0), || follower(2, 4, 5), || follower(2, -1, 9));
        use BrokerState as State;
        assert_eq!(said(State::Fenced, even()), is("is away: its broker is fenced", false));
        let lacks = "is away: its broker is fenced, and lacks at most 5 records (500 B) by now";
        assert_eq!(said(State::Fenced, late()), is(lacks, false));
        assert_eq!(said(State::Fenced, unheard()), is("is away: its broker is fenced", false));
        assert_eq!(said(State::Removed, late()), is("is gone: its broker was removed", false));
        let failed = "is out of use: the disk of its broker has failed";
        assert_eq!(said(State::Failed, even()), is(failed, false));
        assert_eq!(said(State::Active, even()), is("has everything, and is not in sync yet", false));
        let behind = is("is 5 records (500 B) behind, for 4.2 s", true);
        assert_eq!(said(State::Slow, late()), behind);
        assert_eq!(said(State::Active, unheard()), is("is not heard of, for 4.2 s", true));
    }

    #[test]
    fn what_keeps_a_replica_from_catching_up_is_said_and_it_is_not_counted_as_catching_up() {
        let full = LogDirectory {
            path: "/data".into(),
            online: true,
            reserved_bytes: 1 << 30,
            ..LogDirectory::default()
        };
        let cut_off =
            |id| UnreachedBroker { broker_id: id, address: format!("b{id}:1"), ..Default::default() };
        let active = || broker(2, BrokerState::Active);
        let late = led(&[follower(2, 4, 5)]);
        for (follower, by) in [
            (BrokerDescription { directories: vec![full], ..active() }, "the disk of its broker is full"),
            (
                BrokerDescription { unreached: vec![cut_off(3), cut_off(1)], ..active() },
                "its broker does not reach broker 1, which leads, at b1:1",
            ),
        ] {
            let said = said(&late, slice::from_ref(&follower));
            let words = "the replica on broker 2 is 5 records (500 B) behind, for 4.2 s: ";
            assert_eq!(said, [format!("{words}{by}")]);
            assert_eq!(
                behind(slice::from_ref(&late), &[follower]),
                Behind { held_up: 1, ..Behind::default() },
                "{by}"
            );
        }
        let reaches_the_leader = BrokerDescription { unreached: vec![cut_off(3)], ..active() };
        let catches_up = Behind { bytes: 500, ms: 4_200, held_up: 0 };
        assert_eq!(behind(&[late], &[reaches_the_leader]), catches_up);
    }

    #[test]
    fn what_the_leader_has_not_said_is_not_made_up() {
        let brokers = [broker(2, BrokerState::Active)];
        let words = "the replica on broker 2 is not in sync; the leader has not said how far it is";
        assert_eq!(said(&led(&[]), &brokers), [words]);
        assert!(said(&PartitionDescription { leader: -1, ..led(&[]) }, &brokers).is_empty());
    }
}
