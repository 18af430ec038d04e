//! Who leads: the preferred replica when it can, the longest log where a topic allows it, and brokers that are no more.

use crate::common::*;
use weir_metadata::*;
use weir_types::*;

fn refused(reply: Result<Reply, Error>) -> Vec<String> {
    match reply {
        Ok(Reply::Partitions { refused }) => {
            refused.into_iter().map(|(_, error)| error.to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn at(topic: TopicId, partition: i32) -> PartitionId {
    PartitionId { topic, partition }
}

fn restart(cluster: &mut Cluster, id: i32) {
    cluster.run(register(Some(id), id)).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(id))).unwrap();
}

#[test]
fn the_preferred_replica_gets_its_leadership_back_once_it_is_in_sync() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 3, 3, &[]);
    for number in 0..3 {
        cluster.alter(id, number, &[1, 2, 3]).unwrap();
    }
    let preferred = |cluster: &Cluster, number: i32| cluster.partition(id, number).replicas[0].broker;
    let dead = preferred(&cluster, 0);
    cluster.run(Command::FenceBroker(cluster.by(dead.0))).unwrap();
    let moved: Vec<i32> = (0..3).filter(|number| preferred(&cluster, *number) == dead).collect();
    assert_eq!(cluster.state.image.health().not_preferred, moved.len() as i64);
    let elect = |cluster: &mut Cluster| {
        let partitions = (0..3).map(|number| at(id, number)).collect();
        refused(cluster.run(Command::ElectPreferred(ElectPreferred { partitions })))
    };
    restart(&mut cluster, dead.0);
    let before = cluster.state.image.clone();
    assert_eq!(elect(&mut cluster), [""; 0]);
    assert_eq!(cluster.state.image, before, "it serves, and is not in sync yet");
    assert_eq!(before.preferring(10), []);

    for number in 0..3 {
        cluster.alter(id, number, &[1, 2, 3]).unwrap();
    }
    assert_eq!(cluster.state.image.preferring(10), moved.iter().map(|n| at(id, *n)).collect::<Vec<_>>());
    let epoch = cluster.partition(id, moved[0]).leader_epoch;
    assert_eq!(elect(&mut cluster), [""; 0]);
    assert_eq!(cluster.partition(id, moved[0]).leader, Some(dead));
    assert_eq!(cluster.partition(id, moved[0]).leader_epoch, epoch + 1);
    assert_eq!(cluster.partition(id, moved[0]).isr.len(), 3, "nobody leaves");
    assert_eq!(cluster.state.image.health().not_preferred, 0);
    let before = cluster.state.image.clone();
    elect(&mut cluster);
    assert_eq!(cluster.state.image, before, "again: nothing");
    let none = Command::ElectPreferred(ElectPreferred { partitions: vec![at(id, 9)] });
    assert!(refused(cluster.run(none))[0].contains("does not exist"));
}

#[test]
fn a_draining_broker_gets_nothing_back() {
    let mut cluster = Cluster::new(2);
    let id = cluster.topic("a", 1, 2, &[]);
    cluster.alter(id, 0, &[1, 2]).unwrap();
    let first = cluster.partition(id, 0).leader.unwrap();
    cluster.run(Command::DrainBroker(cluster.by(first.0))).unwrap();
    assert_ne!(cluster.partition(id, 0).leader, Some(first));
    assert_eq!(cluster.state.image.preferring(10), []);
}

/// A partition of three replicas that nobody is known to hold whole, after all of them lost power.
fn lost(config: &[(&str, &str)]) -> (Cluster, TopicId) {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, config);
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    (1..=3).for_each(|id| restart(&mut cluster, id));
    assert!(cluster.partition(id, 0).waits_for_a_person());
    assert_eq!(
        cluster.state.image.health(),
        Health { leaderless: 1, waiting: 1, under_replicated: 1, below_min_insync: 1, not_preferred: 0 }
    );
    assert_eq!(cluster.state.image.waiting(10), [at(id, 0)]);
    (cluster, id)
}

fn recover(cluster: &Cluster, topic: TopicId, ends: &[(i32, i32, i64)]) -> Command {
    let end = |(id, last_epoch, log_end): &(i32, i32, i64)| ReplicaEnd {
        by: cluster.by(*id),
        last_epoch: *last_epoch,
        log_end: *log_end,
    };
    let recovery = Recovery {
        partition: at(topic, 0),
        partition_epoch: cluster.partition(topic, 0).partition_epoch,
        ends: ends.iter().map(end).collect(),
    };
    Command::RecoverPartitions(RecoverPartitions { partitions: vec![recovery] })
}

#[test]
fn the_longest_log_leads_where_the_topic_allows_it() {
    const LONGEST: &[(&str, &str)] = &[("durability", "replicated"), ("unclean_recovery", "longest")];
    let leader = |ends: &[(i32, i32, i64)]| {
        let (mut cluster, id) = lost(LONGEST);
        let command = recover(&cluster, id, ends);
        assert_eq!(refused(cluster.run(command)), [""; 0]);
        let record = cluster.partition(id, 0);
        let leader = record.leader.unwrap();
        assert_eq!((record.isr.clone(), record.elr.clone()), (vec![leader], Vec::new()));
        assert_eq!(record.unclean_epoch, record.leader_epoch);
        leader.0
    };
    assert_eq!(leader(&[(1, 3, 90), (2, 4, 10), (3, 4, 9)]), 2, "the newest epoch before the longest log");
    assert_eq!(leader(&[(1, 3, 90), (3, 3, 91)]), 3, "of those that answer");
    let (cluster, id) = lost(LONGEST);
    let first = cluster.partition(id, 0).replicas[0].broker.0;
    assert_eq!(leader(&[(3, 1, 5), (2, 1, 5), (1, 1, 5)]), first, "of equal ones the preferred");

    let (mut cluster, id) = lost(LONGEST);
    let stale = recover(&cluster, id, &[(1, 1, 5), (2, 1, 9)]);
    restart(&mut cluster, 2);
    let said = refused(cluster.run(stale));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(
        cluster.partition(id, 0).leader,
        Some(BrokerId(1)),
        "2 has another epoch than the one that answered"
    );
    let again = recover(&cluster, id, &[(2, 9, 9)]);
    assert!(refused(cluster.run(again))[0].contains("changed since"), "it is led");

    let (mut cluster, id) = lost(LONGEST);
    (1..=3).for_each(|id| drop(cluster.run(Command::FenceBroker(cluster.by(id)))));
    let command = recover(&cluster, id, &[(1, 1, 5)]);
    assert!(refused(cluster.run(command))[0].contains("no replica that answered is active"));
}

#[test]
fn the_longest_log_does_not_lead_where_a_person_decides() {
    let (mut cluster, id) = lost(&[("durability", "replicated")]);
    let before = cluster.state.image.clone();
    let command = recover(&cluster, id, &[(1, 1, 5), (2, 1, 9)]);
    assert!(refused(cluster.run(command))[0].contains("waits for a person"));
    assert_eq!(cluster.state.image, before);
    let partition_epoch = cluster.partition(id, 0).partition_epoch;
    let elect = ElectLeader { partition: at(id, 0), broker: BrokerId(2), partition_epoch, unclean: true };
    cluster.run(Command::ElectLeader(elect)).unwrap();
    let record = cluster.partition(id, 0).clone();
    assert_eq!((record.leader, record.unclean_epoch), (Some(BrokerId(2)), record.leader_epoch));
    cluster.alter(id, 0, &[1, 2]).unwrap();
    cluster.run(Command::FenceBroker(cluster.by(2))).unwrap();
    let after = cluster.partition(id, 0);
    assert_eq!(
        (after.leader, after.unclean_epoch),
        (Some(BrokerId(1)), record.unclean_epoch),
        "it is remembered"
    );
}

#[test]
fn a_broker_is_removed_when_nothing_is_left_on_it() {
    let mut cluster = Cluster::new(2);
    let id = cluster.topic("a", 1, 1, &[]);
    let holder = cluster.partition(id, 0).replicas[0].broker.0;
    let empty = 3 - holder;
    let remove = |cluster: &mut Cluster, id: i32| cluster.run(Command::RemoveBroker(cluster.by(id)));
    let said = |result: Result<Reply, Error>| result.unwrap_err().to_string();
    assert!(said(remove(&mut cluster, empty)).contains("it serves; stop it first"));
    for id in [holder, empty] {
        cluster.run(Command::FenceBroker(cluster.by(id))).unwrap();
    }
    assert!(said(remove(&mut cluster, holder)).contains("it holds 1 replica, which may be the only one"));
    assert_eq!(remove(&mut cluster, empty), Ok(Reply::Done));
    assert_eq!(remove(&mut cluster, empty), Ok(Reply::Done), "again");
    assert_eq!(cluster.state.image.broker(BrokerId(empty)).unwrap().state, BrokerState::Removed);
    for claimed in [Some(empty), None] {
        assert!(said(cluster.run(register(claimed, empty))).contains("was removed from the cluster"));
    }
    assert!(cluster.run(Command::UnfenceBroker(cluster.by(empty))).is_err());
    let reply = cluster.run(register(None, 9)).unwrap();
    assert_eq!(
        reply,
        Reply::BrokerRegistered { broker: BrokerId(3), epoch: cluster.index },
        "ids are not used again"
    );
}

/// A partition whose last complete replica is on a broker that is gone: what a topic of this configuration becomes when a
/// person has said that its disk is gone, too. And who that broker is.
fn lose_the_last(config: &[(&str, &str)]) -> (Cluster, TopicId, i32) {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, config);
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    let last = cluster.partition(id, 0).leader.unwrap().0;
    cluster.alter(id, 0, &[last]).unwrap();
    cluster.run(Command::FenceBroker(cluster.by(last))).unwrap();
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.elr.clone()), (None, ids(&[last])));
    assert!(!record.waits_for_a_person(), "it may come back");
    assert_eq!(record.waited_for().collect::<Vec<_>>(), ids(&[last]));
    assert!(
        refused(cluster.run(recover(&cluster, id, &[(1, 1, 5), (2, 1, 5), (3, 1, 5)])))[0]
            .contains("changed")
    );
    // Its disk is replaced: what comes is another broker, and nothing says that the old one will not.
    cluster.run(register(None, 9)).unwrap();
    assert!(!cluster.partition(id, 0).waits_for_a_person());
    cluster.run(Command::LoseBroker(cluster.by(last))).unwrap();
    assert_eq!(cluster.partition(id, 0).waited_for().count(), 0);
    (cluster, id, last)
}

#[test]
fn who_is_gone_for_good_is_not_waited_for() {
    let (mut cluster, id, last) = lose_the_last(&[("unclean_recovery", "longest")]);
    assert_eq!(cluster.state.image.waiting(10), [at(id, 0)]);
    assert_eq!(cluster.state.image.health().waiting, 1);
    let others: Vec<i32> = (1..=3).filter(|broker| *broker != last).collect();
    let ends = [(others[0], 1, 5), (others[1], 1, 7)];
    assert_eq!(refused(cluster.run(recover(&cluster, id, &ends))), [""; 0]);
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.unclean_epoch), (Some(BrokerId(others[1])), record.leader_epoch));
    assert_eq!(record.waited_for().count(), 0, "it is led");
    let said = cluster.run(register(Some(last), last)).unwrap_err().to_string();
    assert!(said.contains("was removed from the cluster"), "whoever finds the disk after all: {said}");

    let (mut cluster, id, _) = lose_the_last(&[]);
    assert!(cluster.partition(id, 0).waits_for_a_person());
    assert!(refused(cluster.run(recover(&cluster, id, &ends)))[0].contains("waits for a person"));
}

#[test]
fn a_disk_is_not_lost_while_its_broker_serves() {
    let mut cluster = Cluster::new(2);
    cluster.topic("a", 1, 2, &[]);
    let said = cluster.run(Command::LoseBroker(cluster.by(1))).unwrap_err().to_string();
    assert!(said.contains("it serves; stop it first"), "{said}");
    cluster.run(Command::FenceBroker(cluster.by(1))).unwrap();
    let said = cluster.run(Command::RemoveBroker(cluster.by(1))).unwrap_err().to_string();
    assert!(said.contains("weir broker remove 1 --disk-lost"), "{said}");
    cluster.run(Command::LoseBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.state.image.broker(BrokerId(1)).unwrap().state, BrokerState::Removed);
    cluster.topic("b", 1, 1, &[]);
}

#[test]
fn a_disk_is_not_lost_while_its_broker_starts() {
    let mut cluster = Cluster::new(2);
    let holder = cluster.topic("a", 1, 1, &[("unclean_recovery", "longest")]);
    let holder = cluster.partition(holder, 0).replicas[0].broker.0;
    cluster.run(Command::FenceBroker(cluster.by(holder))).unwrap();
    let seen = cluster.by(holder);
    let found = found(holder, None, Some(seen.epoch), true);
    cluster.run(register_with(Some(holder), found)).unwrap();
    let said = cluster.run(Command::LoseBroker(seen)).unwrap_err().to_string();
    assert!(said.contains("it registered again"), "what is said of the one before: {said}");
    for command in [Command::LoseBroker, Command::RemoveBroker] {
        let said = cluster.run(command(cluster.by(holder))).unwrap_err().to_string();
        assert!(said.contains("it is starting; stop it first"), "it has just come with its disk: {said}");
    }
    // It dies before it serves: it can be said to be silent like any other, and its disk to be lost.
    cluster.run(Command::FenceBroker(cluster.by(holder))).unwrap();
    assert_eq!(cluster.state.image.broker(BrokerId(holder)).unwrap().state, BrokerState::Fenced);
    cluster.run(Command::LoseBroker(cluster.by(holder))).unwrap();
}

/// Whoever was removed says nothing any more, by whichever way it comes.
#[test]
fn what_a_removed_broker_says_is_refused() {
    let mut cluster = Cluster::new(2);
    let id = cluster.topic("a", 1, 1, &[]);
    let removed = cluster.partition(id, 0).replicas[0].broker.0;
    cluster.run(Command::FenceBroker(cluster.by(removed))).unwrap();
    let before = cluster.partition(id, 0).clone();
    cluster.run(Command::LoseBroker(cluster.by(removed))).unwrap();
    let by = cluster.by(removed);
    let commands = [
        Command::AssignDirectories(AssignDirectories {
            by,
            assignments: vec![(at(id, 0), directory(removed))],
        }),
        Command::AlterPartitions(AlterPartitions { by, changes: Vec::new() }),
        Command::AllocateProducerIds(by),
        Command::UnfenceBroker(by),
        Command::DrainBroker(by),
        Command::FenceBroker(by),
        Command::SetSlow(SetSlow { by, slow: true }),
    ];
    for command in commands {
        let refused = cluster.run(command);
        assert_eq!(refused, Err(Error::BrokerRemoved(BrokerId(removed))));
    }
    assert_eq!(cluster.partition(id, 0).replicas, before.replicas);
    assert_eq!(cluster.run(Command::LoseBroker(by)), Ok(Reply::Done), "again");
}

/// One of two directories of a broker is lost: what was in the other one is not.
#[test]
fn what_was_in_a_lost_directory_is_not_waited_for() {
    let mut cluster = Cluster::new(2);
    let Command::RegisterBroker(two) = register(Some(1), 1) else { unreachable!() };
    let epoch = |cluster: &Cluster| Some(cluster.by(1).epoch);
    let with = |cluster: &Cluster, dirs: &[i32]| {
        let dirs = dirs.iter().map(|dir| found(*dir, None, epoch(cluster), true)).collect();
        Command::RegisterBroker(RegisterBroker { directories: dirs, ..two.clone() })
    };
    cluster.run(with(&cluster, &[1, 50])).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    cluster.run(Command::FenceBroker(cluster.by(2))).unwrap();
    let create =
        |name: &str| CreateTopic { config: pairs(&[("unclean_recovery", "longest")]), ..create(name, 1, 1) };
    let (kept, lost) = (create("kept"), create("lost"));
    for (topic, dir) in [(&kept, 1), (&lost, 50)] {
        cluster.run(Command::CreateTopic(topic.clone())).unwrap();
        let assignments = vec![(at(topic.topic_id, 0), directory(dir))];
        cluster
            .run(Command::AssignDirectories(AssignDirectories { by: cluster.by(1), assignments }))
            .unwrap();
    }
    cluster.run(with(&cluster, &[1])).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.partition(kept.topic_id, 0).leader, Some(BrokerId(1)));
    assert!(cluster.partition(lost.topic_id, 0).waits_for_a_person());
}

#[test]
fn a_controller_is_forgotten_but_not_the_last_one() {
    let mut cluster = Cluster::new(0);
    let join = JoinController { directory: DirectoryId(2), endpoint: "b:1".into() };
    cluster.run(Command::JoinController(join)).unwrap();
    let remove = |cluster: &mut Cluster, id| cluster.run(Command::RemoveController(RemoveController { id }));
    assert_eq!(remove(&mut cluster, 99), Ok(Reply::Done), "it is not there");
    remove(&mut cluster, 1).unwrap();
    let left: Vec<i64> = cluster.state.image.controllers().map(|controller| controller.id).collect();
    assert_eq!(left, [2]);
    assert!(remove(&mut cluster, 2).unwrap_err().to_string().contains("it is the only one"));
}

#[test]
fn asking_for_the_set_that_there_is_ends_whatever_was_asked_before() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, &[]);
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    let before = cluster.partition(id, 0).clone();
    let leader = before.leader.unwrap().0;
    let delayed = AlterPartition {
        partition: at(id, 0),
        leader_epoch: before.leader_epoch,
        partition_epoch: before.partition_epoch,
        isr: vec![cluster.by(leader)],
    };
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    let after = cluster.partition(id, 0).clone();
    assert_eq!((&after.isr, after.partition_epoch), (&before.isr, before.partition_epoch + 1));
    let command = AlterPartitions { by: cluster.by(leader), changes: vec![delayed] };
    assert_eq!(refused(cluster.run(Command::AlterPartitions(command))).len(), 1);
    assert_eq!(*cluster.partition(id, 0), after);
}

/// A topic of three replicas of which two are needed, led by its first replica, which is alone in sync; and the replicas.
fn led_alone(cluster: &mut Cluster) -> (TopicId, Vec<i32>) {
    let command = CreateTopic { config: pairs(&[("min_insync_replicas", "2")]), ..create("a", 1, 3) };
    let id = command.topic_id;
    cluster.run(Command::CreateTopic(command)).unwrap();
    let replicas: Vec<i32> =
        cluster.partition(id, 0).replicas.iter().map(|replica| replica.broker.0).collect();
    cluster.assign(id, replicas[0]);
    let partition = cluster.partition(id, 0);
    assert_eq!((partition.leader, &partition.isr), (Some(BrokerId(replicas[0])), &ids(&replicas[..1])));
    (id, replicas)
}

#[test]
fn a_first_leader_that_is_lost_before_enough_were_in_sync_takes_nothing_with_it() {
    // It is lost before the others have their logs, or after.
    for assigned_before in [0, 1, 2] {
        let mut cluster = Cluster::new(3);
        let (id, replicas) = led_alone(&mut cluster);
        for replica in &replicas[1..1 + assigned_before] {
            cluster.assign(id, *replica);
        }
        cluster.run(Command::FenceBroker(cluster.by(replicas[0]))).unwrap();
        for replica in &replicas[1 + assigned_before..] {
            // Started again: what it does not have yet it cannot have lost.
            restart(&mut cluster, *replica);
            cluster.assign(id, *replica);
        }
        let partition = cluster.partition(id, 0);
        assert_eq!(partition.leader, Some(BrokerId(replicas[1])), "{assigned_before}: {partition:?}");
        assert_eq!(partition.unclean_epoch, 0, "nothing was given up");
        cluster.alter(id, 0, &replicas[1..]).unwrap();
        assert_eq!(cluster.partition(id, 0).elr, ids(&[]), "from here on records are acknowledged");
    }
}

#[test]
fn who_has_its_log_only_after_enough_were_in_sync_is_not_known_to_be_complete() {
    let mut cluster = Cluster::new(3);
    let (id, replicas) = led_alone(&mut cluster);
    cluster.assign(id, replicas[1]);
    cluster.alter(id, 0, &replicas[..2]).unwrap();
    // One is enough no more, and something may have been acknowledged.
    cluster.run(Command::FenceBroker(cluster.by(replicas[1]))).unwrap();
    cluster.assign(id, replicas[2]);
    cluster.run(Command::FenceBroker(cluster.by(replicas[0]))).unwrap();
    let partition = cluster.partition(id, 0);
    assert_eq!((partition.leader, &partition.elr), (None, &ids(&[replicas[1], replicas[0]])));

    // The same where one is enough from the beginning.
    let mut cluster = Cluster::new(3);
    let (id, replicas) = led_alone(&mut cluster);
    cluster.run(Command::UpdateTopic(update("a", &[("min_insync_replicas", "1")]))).unwrap();
    cluster.assign(id, replicas[1]);
    cluster.run(Command::FenceBroker(cluster.by(replicas[0]))).unwrap();
    assert_eq!(cluster.partition(id, 0).leader, None);
}
