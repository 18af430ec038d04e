//! Registration, fencing, and what a restart proves (correctness rules 7, 8, 14).

use crate::common::*;
use weir_metadata::*;
use weir_types::*;

const FSYNC: &[(&str, &str)] = &[("durability", "fsync")];
const REPLICATED: &[(&str, &str)] = &[("durability", "replicated")];

/// Broker 1 restarts having found that in its directory; who leads the one partition then?
fn leader_after_restart(
    config: &[(&str, &str)],
    found: impl Fn(BrokerEpoch) -> DirectoryFacts,
) -> Option<BrokerId> {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, config);
    let before = cluster.partition(id, 0).clone();
    let by = cluster.by(1);
    cluster.run(register_with(Some(1), found(by))).unwrap();
    let partition = cluster.partition(id, 0);
    assert_eq!((partition.leader, &partition.isr), (None, &Vec::new()), "the old epoch is over");
    assert_eq!(partition.last_known_leader, Some(BrokerId(1)));
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    let after = cluster.partition(id, 0);
    if after.leader.is_some() {
        assert!(after.leader_epoch > before.leader_epoch);
        assert_eq!(after.isr, ids(&[1]));
    }
    after.leader
}

#[test]
fn the_only_replica_leads_again_if_it_proves_that_it_is_complete() {
    let led = Some(BrokerId(1));
    let epoch = |by: BrokerEpoch| Some(by.epoch);
    for config in [FSYNC, REPLICATED] {
        assert_eq!(leader_after_restart(config, |by| found(1, epoch(by), None, false)), led, "clean stop");
        assert_eq!(leader_after_restart(config, |by| found(1, None, epoch(by), true)), led, "killed");
        assert_eq!(leader_after_restart(config, |_| found(1, None, None, true)), None, "no epoch file");
        assert_eq!(leader_after_restart(config, |_| found(1, None, Some(1), true)), None, "an old copy");
        assert_eq!(
            leader_after_restart(config, |_| found(1, Some(1), None, true)),
            None,
            "an old clean marker"
        );
    }
    assert_eq!(
        leader_after_restart(FSYNC, |by| found(1, None, epoch(by), false)),
        led,
        "power loss, on disk"
    );
    assert_eq!(
        leader_after_restart(REPLICATED, |by| found(1, None, epoch(by), false)),
        None,
        "power loss, in memory"
    );
    let longest = &[("durability", "replicated"), ("unclean_recovery", "longest")];
    assert_eq!(leader_after_restart(longest, |by| found(1, None, epoch(by), false)), led);
}

#[test]
fn a_damaged_replica_proves_nothing() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 2, 1, FSYNC);
    let Command::RegisterBroker(command) =
        register_with(Some(1), found(1, Some(cluster.by(1).epoch), None, true))
    else {
        unreachable!()
    };
    let damaged = vec![PartitionId { topic: id, partition: 1 }];
    cluster.run(Command::RegisterBroker(RegisterBroker { damaged, ..command })).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.partition(id, 0).leader, Some(BrokerId(1)));
    assert_eq!(cluster.partition(id, 1).leader, None);
}

#[test]
fn who_has_stopped_in_order_is_on_record_until_it_is_back() {
    let mut cluster = Cluster::new(3);
    let stopped = |cluster: &Cluster, id| cluster.state.image.broker(BrokerId(id)).unwrap().stopped;
    let ends: [fn(BrokerEpoch) -> Command; 2] = [Command::FenceBroker, Command::StopBroker];
    // The first stops in order; the second dies while it does; the third is taken for dead before its last word comes.
    for (id, [first, last]) in (1..).zip([[1, 1], [0, 0], [0, 1]]) {
        let by = cluster.by(id);
        cluster.run(Command::DrainBroker(by)).unwrap();
        assert!(!stopped(&cluster, id), "it is there still");
        for end in [first, last] {
            cluster.run(ends[end](by)).unwrap();
            assert_eq!(stopped(&cluster, id), end == 1);
            assert_eq!(cluster.state.image.broker(BrokerId(id)).unwrap().state, BrokerState::Fenced);
        }
    }
    // One that comes and is not heard of again has said nothing.
    cluster.run(register_with(Some(1), found(1, None, None, false))).unwrap();
    assert!(!stopped(&cluster, 1));
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    cluster.run(Command::FenceBroker(cluster.by(1))).unwrap();
    assert!(!stopped(&cluster, 1));
}

/// What is found by a broker whose first epoch and whose last one were these.
type Finds = fn(i64, i64) -> DirectoryFacts;

/// Broker 1 stopped in order in its first epoch and was started again on a machine that was booted since: after these
/// registrations, each with what it finds, and each served if it says so, does it lead?
fn leads_after_registrations(rounds: &[(Finds, bool)]) -> bool {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, REPLICATED);
    let first = cluster.by(1);
    cluster.run(Command::FenceBroker(first)).unwrap();
    for (facts, served) in rounds {
        let facts = facts(first.epoch, cluster.by(1).epoch);
        cluster.run(register_with(Some(1), facts)).unwrap();
        if *served {
            cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
        }
    }
    cluster.partition(id, 0).leader == Some(BrokerId(1))
}

#[test]
fn a_marker_holds_until_the_broker_serves_again() {
    let at_first = |first, _| found(1, Some(first), Some(first), false);
    let at_last = |_, last| found(1, Some(last), Some(last), false);
    let later = |_, last| found(1, Some(last + 1), None, false);
    assert!(leads_after_registrations(&[(at_first, true)]));
    assert!(leads_after_registrations(&[(at_first, false), (at_first, true)]), "the answer was lost");
    assert!(leads_after_registrations(&[(at_first, false), (at_first, false), (at_first, true)]));
    assert!(leads_after_registrations(&[(at_first, false), (at_last, true)]), "a start that failed in order");
    assert!(leads_after_registrations(&[(at_first, true), (at_last, true)]), "stopped in order again");
    assert!(!leads_after_registrations(&[(at_first, true), (at_first, true)]), "a copy from before");
    assert!(!leads_after_registrations(&[(later, true)]), "an epoch that was never given");
}

#[test]
fn a_replica_that_was_damaged_leads_again_when_a_person_says_so() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, FSYNC);
    let restart = |cluster: &mut Cluster, damaged: &[PartitionId]| {
        let epoch = Some(cluster.by(1).epoch);
        let Command::RegisterBroker(command) = register_with(Some(1), found(1, epoch, epoch, true)) else {
            unreachable!()
        };
        let damaged = damaged.to_vec();
        cluster.run(Command::RegisterBroker(RegisterBroker { damaged, ..command })).unwrap();
        cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    };
    restart(&mut cluster, &[PartitionId { topic: id, partition: 0 }]);
    // What had been promised and was not there may still not be: a start that finds no fault proves no more than that
    // what it finds fits together.
    restart(&mut cluster, &[]);
    assert_eq!(cluster.partition(id, 0).leader, None);
    assert!(cluster.partition(id, 0).waits_for_a_person());
    let longest = update("a", &[("unclean_recovery", "longest")]);
    cluster.run(Command::UpdateTopic(longest)).unwrap();
    assert_eq!(cluster.partition(id, 0).leader, Some(BrokerId(1)), "at once, and without a restart");
    assert!(!cluster.partition(id, 0).waits_for_a_person());
    cluster.run(Command::UpdateTopic(update("a", &[("unclean_recovery", "manual")]))).unwrap();
    restart(&mut cluster, &[]);
    assert_eq!(cluster.partition(id, 0).leader, Some(BrokerId(1)), "it proves again what it holds");
}

#[test]
fn a_person_can_accept_the_loss() {
    let mut cluster = Cluster::new(2);
    let id = cluster.topic("a", 1, 1, REPLICATED);
    let owner = cluster.partition(id, 0).replicas[0].broker;
    cluster.run(register(Some(owner.0), owner.0)).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(owner.0))).unwrap();
    let elect = |cluster: &Cluster, broker, unclean| {
        let partition = PartitionId { topic: id, partition: 0 };
        let partition_epoch = cluster.partition(id, 0).partition_epoch;
        Command::ElectLeader(ElectLeader { partition, broker, partition_epoch, unclean })
    };
    let said = cluster.run(elect(&cluster, owner, false)).unwrap_err().to_string();
    assert!(said.contains("an unclean election would lose some"), "{said}");
    let stranger = BrokerId(3 - owner.0);
    assert!(cluster.run(elect(&cluster, stranger, true)).is_err(), "it holds no replica");
    let stale = elect(&cluster, owner, true);
    cluster.run(elect(&cluster, owner, true)).unwrap();
    assert_eq!(cluster.partition(id, 0).leader, Some(owner));
    assert!(matches!(cluster.run(stale), Err(Error::PartitionEpochStale { .. })));
}

#[test]
fn a_broker_that_lost_its_id_is_known_by_its_directory() {
    let mut cluster = Cluster::new(2);
    let reply = cluster.run(register(None, 2)).unwrap();
    assert_eq!(reply, Reply::BrokerRegistered { broker: BrokerId(2), epoch: cluster.index });
    let reply = cluster.run(register(None, 3)).unwrap();
    assert_eq!(reply, Reply::BrokerRegistered { broker: BrokerId(3), epoch: cluster.index });
}

#[test]
fn strangers_are_refused() {
    let mut cluster = Cluster::new(2);
    let Command::RegisterBroker(base) = register(Some(1), 1) else { unreachable!() };
    let two = |a, b| vec![found(a, None, None, false), found(b, None, None, false)];
    let newer = vec![found(1, None, Some(cluster.index + 1), false)];
    let cases = [
        (RegisterBroker { cluster_id: Some(ClusterId(8)), ..base.clone() }, "belongs to another cluster"),
        (RegisterBroker { broker_id: Some(BrokerId(9)), ..base.clone() }, "started without broker_id"),
        (RegisterBroker { directories: two(1, 2), ..base.clone() }, "belongs to broker 2"),
        (RegisterBroker { directories: two(1, 1), ..base.clone() }, "1 to 64 different log directories"),
        (RegisterBroker { directories: vec![], ..base.clone() }, "0 were named"),
        (RegisterBroker { feature_level: 0, ..base.clone() }, "upgrade it"),
        (RegisterBroker { rack: "r".repeat(256), ..base.clone() }, "0 to 255 bytes"),
        (RegisterBroker { metadata_version: cluster.index + 1, ..base.clone() }, "restored from a backup"),
        (RegisterBroker { directories: newer, ..base.clone() }, "restored from a backup"),
    ];
    for (command, expected) in cases {
        let said = cluster.run(Command::RegisterBroker(command)).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
    assert!(
        Cluster::default()
            .state
            .clone()
            .apply(1, &Entry { at_ms: 0, author: 0, commands: vec![register(None, 1)] })
            .delta
            .is_none()
    );
}

#[test]
fn one_entry_gives_one_broker_one_epoch() {
    let mut cluster = Cluster::new(1);
    let outcomes = cluster.run_all(vec![register(Some(1), 1), register(Some(1), 1), register(None, 2)]);
    assert!(matches!(outcomes[..], [Ok(_), Err(Error::Busy { .. }), Ok(_)]), "{outcomes:?}");
}

#[test]
fn what_a_zombie_says_is_refused() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[]);
    let old = cluster.by(1);
    cluster.run(register(Some(1), 1)).unwrap();
    let partition = PartitionId { topic: id, partition: 0 };
    let commands = [
        Command::FenceBroker(old),
        Command::UnfenceBroker(old),
        Command::DrainBroker(old),
        Command::AllocateProducerIds(old),
        Command::AssignDirectories(AssignDirectories {
            by: old,
            assignments: vec![(partition, directory(1))],
        }),
        Command::AlterPartitions(AlterPartitions { by: old, changes: Vec::new() }),
    ];
    for command in commands {
        assert!(matches!(cluster.run(command), Err(Error::BrokerEpochStale { .. })));
    }
}

#[test]
fn the_death_of_a_broker_is_one_event() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 300, 3, &[]);
    for number in 0..300 {
        cluster.alter(id, number, &[1, 2, 3]).unwrap();
    }
    let led = cluster.state.image.load(BrokerId(2)).leaders;
    assert!(led > 0);
    cluster.run(Command::FenceBroker(cluster.by(2))).unwrap();
    assert_eq!(cluster.deltas.last().unwrap().events, [Event::BrokerFenced { broker: BrokerId(2) }]);
    assert_eq!(cluster.state.image.load(BrokerId(2)).leaders, 0);
    assert!((0..300).all(|number| cluster.partition(id, number).leader.is_some()));
}

#[test]
fn only_active_brokers_in_the_right_epoch_join_an_isr() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, &[]);
    let leader = cluster.partition(id, 0).leader.unwrap().0;
    let others: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
    let refused = |reply: Result<Reply, Error>| match reply {
        Ok(Reply::Partitions { refused }) => refused.first().map(|(_, error)| error.to_string()),
        other => panic!("{other:?}"),
    };
    cluster.run(Command::DrainBroker(cluster.by(others[0]))).unwrap();
    let said = refused(cluster.alter(id, 0, &[leader, others[0]])).unwrap();
    assert!(said.contains("it is not active"), "{said}");
    let said = refused(cluster.alter(id, 0, &[others[1]])).unwrap();
    assert!(said.contains("the leader itself must stay"), "{said}");
    let said = refused(cluster.alter(id, 0, &[leader, leader])).unwrap();
    assert!(said.contains("named twice"), "{said}");

    // A join that was judged by an older registration of the member.
    let partition = cluster.partition(id, 0).clone();
    let member = cluster.by(others[1]);
    cluster.run(register(Some(others[1]), others[1])).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(others[1]))).unwrap();
    let change = AlterPartition {
        partition: PartitionId { topic: id, partition: 0 },
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        isr: vec![cluster.by(leader), member],
    };
    let alter = AlterPartitions { by: cluster.by(leader), changes: vec![change] };
    let said = refused(cluster.run(Command::AlterPartitions(alter))).unwrap();
    assert!(said.contains("it registered again"), "{said}");

    assert_eq!(refused(cluster.alter(id, 0, &[leader, others[1]])), None);
    assert_eq!(cluster.partition(id, 0).isr.len(), 2);
}

#[test]
fn a_directory_on_record_stays_on_record() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[]);
    let partition = PartitionId { topic: id, partition: 0 };
    let mut assign = |assignments| {
        let by = cluster.by(1);
        match cluster.run(Command::AssignDirectories(AssignDirectories { by, assignments })) {
            Ok(Reply::Partitions { refused }) => refused.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(assign(vec![(partition, directory(1))]), 0, "said again");
    assert_eq!(assign(vec![(partition, DirectoryId(5))]), 1);
    assert_eq!(assign(vec![(PartitionId { partition: 7, ..partition }, directory(1))]), 1);
}

#[test]
fn producer_ids_are_given_once() {
    let mut cluster = Cluster::new(1);
    let mut next = || cluster.run(Command::AllocateProducerIds(cluster.by(1))).unwrap();
    assert_eq!(next(), Reply::ProducerIds { first: 1_000, count: 1_000 });
    assert_eq!(next(), Reply::ProducerIds { first: 2_000, count: 1_000 });
}

#[test]
fn a_controller_gets_the_index_of_its_entry_and_keeps_it() {
    let mut cluster = Cluster::new(0);
    let join = |directory, endpoint: &str| {
        Command::JoinController(JoinController {
            directory: DirectoryId(directory),
            endpoint: endpoint.into(),
        })
    };
    let outcomes = cluster.run_all(vec![join(2, "b:1"), join(3, "c:1")]);
    let id = cluster.index;
    assert_eq!(outcomes[0], Ok(Reply::ControllerJoined { id }));
    assert!(matches!(outcomes[1], Err(Error::Busy { .. })));
    assert_eq!(cluster.run(join(2, "b:2")), Ok(Reply::ControllerJoined { id }));
    assert_eq!(cluster.run(join(1, "a:1")), Ok(Reply::ControllerJoined { id: 1 }));
}

/// Broker 1 with directory 101, where its logs are, and another one; and how it comes back.
fn with_two_directories(cluster: &mut Cluster, finds: &[DirectoryId]) -> (TopicId, Result<Reply, Error>) {
    let registration = |cluster: &Cluster, directories: &[DirectoryId]| {
        let epoch = Some(cluster.by(1).epoch);
        let Command::RegisterBroker(command) = register(Some(1), 1) else { unreachable!() };
        let facts = directories.iter().map(|id| DirectoryFacts { id: *id, ..found(1, epoch, epoch, true) });
        Command::RegisterBroker(RegisterBroker { directories: facts.collect(), ..command })
    };
    cluster.run(registration(cluster, &[directory(1), DirectoryId(8)])).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    let id = cluster.topic("a", 1, 1, FSYNC);
    let reply = cluster.run(registration(cluster, finds));
    (id, reply)
}

#[test]
fn who_comes_back_without_the_directory_is_not_known_to_be_complete() {
    let mut cluster = Cluster::new(1);
    let (id, reply) = with_two_directories(&mut cluster, &[DirectoryId(8), DirectoryId(9)]);
    reply.unwrap();
    assert_eq!(cluster.partition(id, 0).elr, ids(&[]));
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.partition(id, 0).leader, None);
}

#[test]
fn who_claims_an_id_names_one_of_its_directories() {
    let mut cluster = Cluster::new(1);
    let before = cluster.by(1);
    let (id, reply) = with_two_directories(&mut cluster, &[DirectoryId(9)]);
    let said = reply.unwrap_err().to_string();
    assert!(said.contains("is none of those that broker 1 was registered with"), "{said}");
    assert!(said.contains("without broker_id, and it joins as a new broker"), "{said}");
    assert_eq!(cluster.partition(id, 0).leader, Some(BrokerId(1)), "nothing has changed");
    assert!(cluster.by(1).epoch > before.epoch, "the registration with both is the last one");
    // As what it is, it may come.
    let facts = DirectoryFacts { id: DirectoryId(9), ..found(9, None, None, false) };
    let reply = cluster.run(register_with(None, facts)).unwrap();
    assert!(matches!(reply, Reply::BrokerRegistered { broker: BrokerId(2), .. }), "{reply:?}");
}

#[test]
fn a_directory_has_an_id() {
    let mut cluster = Cluster::new(0);
    let unnamed = DirectoryFacts { id: DirectoryId(0), ..found(1, None, None, false) };
    let refused = cluster.run(register_with(None, unnamed));
    assert_eq!(refused, Err(Error::Directories { given: 0, max: DIRECTORIES_MAX }), "zeros mean: none yet");
}

#[test]
fn whoever_has_seen_another_history_is_refused_also_once_this_one_has_caught_up() {
    let mut cluster = Cluster { author: 7, ..Cluster::new(2) };
    let set = |cluster: &mut Cluster, value: i64| {
        let set = pairs(&[("retention_ms", &value.to_string())]);
        let (unset, expected, request_id) = (Vec::new(), pairs(&[]), String::new());
        cluster
            .run(Command::SetClusterConfig(SetClusterConfig { set, unset, expected, request_id }))
            .unwrap();
    };
    set(&mut cluster, 1);
    let backup = cluster.clone();
    set(&mut cluster, 2);
    let seen = (cluster.state.image.version(), cluster.state.image.author());
    assert_eq!(seen.1, 7);
    // The same controller goes on, and another one after it.
    set(&mut cluster, 3);
    cluster.author = 8;
    set(&mut cluster, 4);

    // The backup goes on as another process.
    let mut restored = Cluster { author: 9, ..backup };
    set(&mut restored, 5);
    set(&mut restored, 6);
    let come = |cluster: &mut Cluster, (metadata_version, metadata_author)| {
        let Command::RegisterBroker(command) = register(Some(1), 1) else { unreachable!() };
        let command = RegisterBroker { metadata_version, metadata_author, ..command };
        cluster.run(Command::RegisterBroker(command))
    };
    come(&mut cluster, seen).unwrap();
    let said = come(&mut restored, seen).unwrap_err().to_string();
    assert!(said.contains("is not the one that the caller has seen"), "{said}");
    assert!(said.contains("restored from a backup"), "{said}");
    come(&mut restored, (seen.0 - 1, 7)).unwrap();
    come(&mut restored, (seen.0, 0)).unwrap();

    // Whoever follows by deltas knows the same as who begins with an image.
    let mut follower = Image::default();
    for delta in &restored.deltas {
        follower.follow(delta).unwrap();
    }
    assert!(follower == restored.state.image && !follower.continues(seen.0, seen.1));
}

fn set_slow(cluster: &mut Cluster, id: i32, slow: bool) -> Result<Reply, Error> {
    cluster.run(Command::SetSlow(SetSlow { by: cluster.by(id), slow }))
}

fn state(cluster: &Cluster, id: i32) -> BrokerState {
    cluster.state.image.broker(BrokerId(id)).unwrap().state
}

#[test]
fn a_broker_whose_disk_is_slow_stands_back_and_comes_back() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 6, 3, &[("min_insync_replicas", "2")]);
    (0..6).for_each(|number| drop(cluster.alter(id, number, &[1, 2, 3]).unwrap()));
    let led: Vec<i32> = (0..6).filter(|n| cluster.partition(id, *n).leader == Some(BrokerId(1))).collect();
    assert!(!led.is_empty());
    set_slow(&mut cluster, 1, true).unwrap();
    let event = Event::BrokerSlow { broker: BrokerId(1), slow: true };
    assert_eq!(cluster.deltas.last().unwrap().events, [event], "one event, however many partitions");
    assert_eq!((state(&cluster, 1), cluster.state.image.load(BrokerId(1)).leaders), (BrokerState::Slow, 0));
    let in_sync = |cluster: &Cluster, number: i32| {
        let mut isr = cluster.partition(id, number).isr.clone();
        isr.sort();
        isr
    };
    assert!((0..6).all(|number| in_sync(&cluster, number) == ids(&[2, 3])));
    assert_eq!(cluster.state.image.preferring(10), [], "it gets nothing back meanwhile");

    let refused = |reply: Result<Reply, Error>| match reply {
        Ok(Reply::Partitions { refused }) => refused.first().map(|(_, error)| error.to_string()),
        other => panic!("{other:?}"),
    };
    let said = refused(cluster.alter(id, 0, &[1, 2, 3])).unwrap();
    assert!(said.contains("its disk is slow, and enough are in sync"), "{said}");
    // Where it is needed it is let in, and it gives way when the other one is back.
    cluster.run(Command::FenceBroker(cluster.by(3))).unwrap();
    assert_eq!(refused(cluster.alter(id, 0, &[1, 2])), None);
    assert_eq!((in_sync(&cluster, 0), cluster.partition(id, 0).leader), (ids(&[1, 2]), Some(BrokerId(2))));
    let elect = |broker: i32, epoch| {
        let (partition, broker) = (PartitionId { topic: id, partition: 0 }, BrokerId(broker));
        Command::ElectLeader(ElectLeader { partition, broker, partition_epoch: epoch, unclean: false })
    };
    let epoch = cluster.partition(id, 0).partition_epoch;
    let said = cluster.run(elect(1, epoch)).unwrap_err().to_string();
    assert!(said.contains("its disk is slow"), "{said}");
    cluster.run(Command::UnfenceBroker(cluster.by(3))).unwrap();
    assert_eq!(refused(cluster.alter(id, 0, &[1, 2, 3])), None);
    assert_eq!(in_sync(&cluster, 0), ids(&[2, 3]));

    let before = cluster.state.image.clone();
    set_slow(&mut cluster, 1, true).unwrap();
    assert_eq!(cluster.state.image, before, "again: nothing");
    set_slow(&mut cluster, 1, false).unwrap();
    assert_eq!(state(&cluster, 1), BrokerState::Active);
    assert_eq!(refused(cluster.alter(id, led[0], &[1, 2, 3])), None);
    assert_eq!(cluster.partition(id, led[0]).isr.len(), 3);
    let its = PartitionId { topic: id, partition: led[0] };
    assert_eq!(cluster.state.image.preferring(10), [its], "from here on it gets back what it led");
}

#[test]
fn at_most_half_of_the_brokers_stand_back() {
    let mut cluster = Cluster::new(5);
    for id in 1..=5 {
        set_slow(&mut cluster, id, true).unwrap();
    }
    let slow: Vec<i32> = (1..=5).filter(|id| state(&cluster, *id) == BrokerState::Slow).collect();
    assert_eq!(slow, [1, 2], "more of them are the load, or a storage that they share");
    set_slow(&mut cluster, 1, false).unwrap();
    set_slow(&mut cluster, 4, true).unwrap();
    assert_eq!((state(&cluster, 1), state(&cluster, 4)), (BrokerState::Active, BrokerState::Slow));
    let mut alone = Cluster::new(1);
    set_slow(&mut alone, 1, true).unwrap();
    assert_eq!(state(&alone, 1), BrokerState::Active);
}

#[test]
fn a_slow_broker_is_stopped_and_fenced_as_any_other() {
    let mut cluster = Cluster::new(3);
    set_slow(&mut cluster, 1, true).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    assert_eq!(state(&cluster, 1), BrokerState::Slow, "it serves already");
    cluster.run(Command::DrainBroker(cluster.by(1))).unwrap();
    assert_eq!(state(&cluster, 1), BrokerState::Draining);
    set_slow(&mut cluster, 1, true).unwrap();
    set_slow(&mut cluster, 1, false).unwrap();
    assert_eq!(state(&cluster, 1), BrokerState::Draining, "it stops all the same");
    set_slow(&mut cluster, 2, true).unwrap();
    cluster.run(Command::FenceBroker(cluster.by(2))).unwrap();
    set_slow(&mut cluster, 2, false).unwrap();
    assert_eq!(state(&cluster, 2), BrokerState::Fenced);
    cluster.run(Command::UnfenceBroker(cluster.by(2))).unwrap();
    assert_eq!(state(&cluster, 2), BrokerState::Active, "it says again if it is slow");
    let old = cluster.by(3);
    cluster.run(register(Some(3), 3)).unwrap();
    assert!(cluster.run(Command::SetSlow(SetSlow { by: old, slow: true })).is_err());
}

#[test]
fn another_history_that_nobody_looks_at_is_noticed() {
    for bug in [Mutant::AnyHistory, Mutant::Unsigned] {
        let test = whoever_has_seen_another_history_is_refused_also_once_this_one_has_caught_up;
        assert!(bug.is_noticed_by(test), "{bug:?}");
    }
}
