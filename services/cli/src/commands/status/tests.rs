use weir_proto::v1::{
    BrokerDescription, BrokerState, FollowerDescription, LogDirectory, PartitionDescription,
    PartitionMetadata, TopicMetadata, Voter, VoterState,
};

use super::seen::Controllers;
use super::*;

fn broker(broker_id: i32, state: BrokerState) -> BrokerDescription {
    let told = LogDirectory { path: "/data".to_owned(), online: true, ..LogDirectory::default() };
    BrokerDescription {
        broker_id,
        state: state.into(),
        endpoints: [("public".to_owned(), format!("b{broker_id}:1"))].into(),
        directories: vec![told],
        ..BrokerDescription::default()
    }
}

fn controllers(leader: bool) -> Controllers {
    let state = VoterState::Up.into();
    Controllers::Told(vec![Voter { voter_id: 1, leader, voting: true, state, ..Voter::default() }])
}

/// `t/0` is led by broker 1, with these of three in sync.
fn with_in_sync(isr: &[i32]) -> Seen {
    let partition = PartitionMetadata {
        leader: if isr.is_empty() { -1 } else { 1 },
        replicas: vec![1, 2, 3],
        isr: isr.to_vec(),
        ..PartitionMetadata::default()
    };
    let partitions = vec![partition];
    Seen {
        brokers: (1..=3).map(|id| broker(id, BrokerState::Active)).collect(),
        controllers: controllers(true),
        topics: vec![TopicMetadata { name: "t".to_owned(), partitions, ..TopicMetadata::default() }],
        ..Seen::default()
    }
}

fn described(isr: &[i32]) -> PartitionDescription {
    PartitionDescription {
        topic: "t".to_owned(),
        leader: if isr.is_empty() { -1 } else { 1 },
        leader_epoch: 3,
        replicas: vec![1, 2, 3],
        isr: isr.to_vec(),
        min_insync_replicas: 2,
        ..PartitionDescription::default()
    }
}

/// What is said of it: the one problem, and the few words.
fn said(seen: &Seen) -> (String, String) {
    let Health { problems, brief, object, .. } = Health::of(seen);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(object["well"], false);
    (problems[0].clone(), brief.join("; "))
}

#[test]
fn what_is_well_is_said_in_one_line() {
    let health = Health::of(&with_in_sync(&[1, 2, 3]));
    assert_eq!(health.sentence, "3 of 3 brokers, 1 of 1 controllers, 0 offline, 0 under-replicated");
    assert!(health.problems.is_empty() && health.brief.is_empty(), "{health:?}");
    assert_eq!(health.object["well"], true);
}

#[test]
fn no_controller_that_leads_is_not_well() {
    let unled = Seen { controllers: controllers(false), ..with_in_sync(&[1, 2, 3]) };
    let (problem, brief) = said(&unled);
    assert!(problem.starts_with("no controller leads: topics and settings cannot change"), "{problem}");
    assert_eq!(brief, "no controller leads");
    let silent = Controllers::Silent("no controller answered in time".to_owned());
    let silent = Seen { controllers: silent, ..with_in_sync(&[1, 2, 3]) };
    let (problem, brief) = said(&silent);
    assert!(problem.contains("no controller answered in time"), "{problem}");
    assert_eq!(brief, "no controller answers");
    assert!(Health::of(&silent).object["controllersUp"].is_null());
}

#[test]
fn a_broker_that_is_down_or_says_nothing_of_its_disk_is_named() {
    let mut seen = with_in_sync(&[1, 2, 3]);
    seen.brokers[1].set_state(BrokerState::Fenced);
    let (problem, brief) = said(&seen);
    assert!(problem.starts_with("broker 2 is fenced") && problem.contains("b2:1"), "{problem}");
    assert!(problem.contains("it has died, or does not reach"), "{problem}");
    assert_eq!(brief, "1 broker is down (weir broker list)");
    seen.brokers[1].stopped = true;
    assert_eq!(said(&seen).0, "broker 2 is fenced: it was stopped in order (it was at b2:1 last)");

    let mut seen = with_in_sync(&[1, 2, 3]);
    seen.brokers[2].directories[0].path.clear();
    let (problem, brief) = said(&seen);
    assert!(problem.starts_with("broker 3 has not said how its disk is"), "{problem}");
    assert_eq!(brief, "1 disk is unknown");
    assert!(Health::of(&seen).sentence.ends_with(", 1 disk unknown"));
}

#[test]
fn the_full_disk_of_whichever_broker_is_named() {
    let mut seen = with_in_sync(&[1, 2, 3]);
    seen.brokers[2].directories[0].reserved_bytes = 1 << 30;
    let (problem, brief) = said(&seen);
    assert!(problem.starts_with("broker 3: /data has 0 B free and keeps 1 GiB"), "{problem}");
    assert_eq!(brief, "1 disk is full: appends are refused");
}

#[test]
fn a_partition_is_named_once_by_the_worst_of_it() {
    let thin = |isr: &[i32]| Seen { thin: vec![described(isr)], ..with_in_sync(isr) };
    assert_eq!(said(&thin(&[1, 2])).0, "t/0 is under-replicated");
    let (problem, brief) = said(&thin(&[1]));
    assert_eq!(problem, "t/0 refuses appends: fewer replicas are in sync than min_insync_replicas");
    assert_eq!(brief, "1 partition refuses appends; 1 partition is under-replicated");

    let leaderless = |waits_for_a_person, damaged: &[(&str, &str)]| Seen {
        leaderless: vec![PartitionDescription {
            waits_for_a_person,
            eligible: if waits_for_a_person { Vec::new() } else { vec![2] },
            ..described(&[])
        }],
        damaged: damaged.iter().map(|(name, why)| ((*name).to_owned(), (*why).to_owned())).collect(),
        ..with_in_sync(&[])
    };
    let (problem, brief) = said(&leaderless(true, &[("t/0", "bad frame")]));
    assert!(problem.starts_with("t/0 waits for a person (weir partition describe t/0"), "{problem}");
    assert!(problem.ends_with(": it is damaged: bad frame"), "{problem}");
    assert_eq!(brief, "1 partition is damaged or offline (weir topic list)");
    assert!(said(&leaderless(false, &[])).0.starts_with("t/0 is offline: it waits for broker 2 (active)"));
    let led = Seen { damaged: vec![("t/0".to_owned(), "bad frame".to_owned())], ..with_in_sync(&[1, 2, 3]) };
    assert_eq!(said(&led).0, "t/0 is damaged: bad frame");
}

#[test]
fn appends_that_wait_are_not_well_though_all_are_in_sync() {
    let whom = "appends wait for the replica on broker 3, which has taken nothing for 12.0 s";
    let waiting = vec![("t/0".to_owned(), whom.to_owned())];
    for isr in [&[1, 2, 3][..], &[1, 3]] {
        let seen = Seen { waiting: waiting.clone(), thin: vec![described(isr)], ..with_in_sync(isr) };
        let (problem, brief) = said(&seen);
        assert_eq!(problem, format!("t/0: {whom}"));
        assert!(brief.starts_with("appends to 1 partition wait"), "{brief}");
        let health = Health::of(&seen);
        assert!(health.sentence.ends_with(" under-replicated, 1 whose appends wait"), "{}", health.sentence);
        assert_eq!(health.object["appendsWait"], serde_json::json!(["t/0"]));
    }
}

#[test]
fn many_are_counted_and_not_named() {
    let mut seen = with_in_sync(&[1, 2]);
    let first = seen.topics[0].partitions[0].clone();
    let numbered = |partition| PartitionMetadata { partition, ..first.clone() };
    seen.topics[0].partitions = (0..12).map(numbered).collect();
    let problems = Health::of(&seen).problems;
    assert_eq!((problems.len(), problems[0].as_str()), (11, "t/0 is under-replicated"));
    assert_eq!(problems[10], "and 2 more of these (weir topic list)");
}

#[test]
fn what_is_to_be_caught_up_and_what_is_refused_is_counted() {
    let behind = FollowerDescription {
        broker_id: 3,
        lag_bytes: 1_200_000_000,
        lag_ms: 10_000,
        ..FollowerDescription::default()
    };
    let thin = |isr: &[i32]| {
        let thin = vec![PartitionDescription { followers: vec![behind], ..described(isr) }];
        Health::of(&Seen { thin, ..with_in_sync(isr) }).sentence
    };
    assert!(thin(&[1, 2]).ends_with(", 1 under-replicated (catching up 1.2 GB, 10.0 s)"));
    let said = thin(&[1]);
    assert!(said.ends_with(" (1 of them below min_insync_replicas; catching up 1.2 GB, 10.0 s)"), "{said}");
    let mut held_up = Seen {
        thin: vec![PartitionDescription { followers: vec![behind], ..described(&[1, 2]) }],
        ..with_in_sync(&[1, 2])
    };
    held_up.brokers[2].directories[0].reserved_bytes = 1 << 30;
    let said = Health::of(&held_up).sentence;
    assert!(said.ends_with(", 1 under-replicated (1 replica held up), 1 disk full"), "{said}");
}

#[test]
fn a_broker_that_says_nothing_may_be_dead_while_no_controller_decides() {
    let mut seen = with_in_sync(&[1, 2, 3]);
    seen.brokers[1].directories.clear();
    assert_eq!(said(&seen).1, "1 disk is unknown");
    seen.controllers = Controllers::Silent("no controller answered".to_owned());
    let Health { sentence, problems, brief, .. } = Health::of(&seen);
    assert!(sentence.starts_with("3 of 3 brokers as last known, controllers unknown, "), "{sentence}");
    assert!(
        sentence.ends_with(", 0 offline as last known, 0 under-replicated, 1 broker silent"),
        "{sentence}"
    );
    assert!(
        problems[0].starts_with("broker 2 does not answer now: it may be dead, and nobody else leads for it")
    );
    assert_eq!(brief, ["1 broker is silent", "no controller answers"]);

    // Nobody can say that what it leads is offline, nor that it is not.
    seen.brokers[0].directories.clear();
    let Health { sentence, problems, brief, object } = Health::of(&seen);
    let words =
        ", 0 offline as last known, 1 whose leader does not answer, 0 under-replicated, 2 brokers silent";
    assert!(sentence.ends_with(words), "{sentence}");
    assert!(
        problems[0].contains("broker 1 does not answer now") && problems[0].contains("what it leads (t/0)")
    );
    assert_eq!(brief[0], "1 partition is led by a silent broker");
    assert_eq!(object["leaderSilent"], serde_json::json!(["t/0"]));
}
