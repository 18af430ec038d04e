//! Directories in which a write or sync has failed: out of use until a person trusts them (correctness rule 35).

use crate::common::*;
use weir_metadata::*;
use weir_types::*;

/// It fails, and its process says so.
fn fail(cluster: &mut Cluster, id: i32, failure: u64) -> Result<Reply, Error> {
    let by = cluster.by(id);
    cluster.run(Command::FailDirectory(FailDirectory { by, directory: directory(id), failure }))
}

/// It is started again on a machine that was not, and finds what it wrote down of failures, if it did.
fn start(cluster: &mut Cluster, id: i32, failures: &[u64]) -> Result<Reply, Error> {
    let epoch = cluster.state.image.broker(BrokerId(id)).map(|broker| broker.persisted_epoch);
    let found = DirectoryFacts { failures: failures.to_vec(), ..found(id, None, epoch, true) };
    cluster.run(register_with(Some(id), found))
}

fn try_to_trust(cluster: &mut Cluster, id: i32, failures: &[u64]) -> Result<Reply, Error> {
    cluster.run(Command::TrustBroker(TrustBroker { broker: BrokerId(id), failures: failures.to_vec() }))
}

/// In spite of all that is on record.
fn trust(cluster: &mut Cluster, id: i32) {
    let failures: Vec<_> = broker(cluster, id).failed.iter().map(|failed| failed.failure).collect();
    assert_eq!(try_to_trust(cluster, id, &failures), Ok(Reply::Done));
}

fn serves(cluster: &mut Cluster, id: i32) -> bool {
    cluster.run(Command::UnfenceBroker(cluster.by(id))).unwrap();
    broker(cluster, id).state == BrokerState::Active
}

fn broker(cluster: &Cluster, id: i32) -> &Broker {
    cluster.state.image.broker(BrokerId(id)).unwrap()
}

/// Whether it was not registered for its disk, whether that was on record before or is from now on.
fn is_refused(answer: &Result<Reply, Error>) -> bool {
    match answer {
        Err(refused) | Ok(Reply::BrokerDistrusted { refused }) => {
            matches!(refused, Error::DirectoryFailed { .. })
        }
        Ok(_) => false,
    }
}

/// Three brokers, all in sync of one partition, which needs two.
fn in_sync() -> (Cluster, TopicId) {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, &[("min_insync_replicas", "2")]);
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    (cluster, id)
}

/// A failure that its process has said, and one that only the next start says.
fn a_failed_directory_is_out_of_use_until_a_person_trusts_it() {
    for told in [true, false] {
        let (mut cluster, id) = in_sync();
        if told {
            assert_eq!(fail(&mut cluster, 1, 77), Ok(Reply::Done));
        }
        // The next start finds what was written down, or not even that, on a disk that loses what it is given.
        let found: &[&[u64]] = if told { &[&[], &[77], &[0]] } else { &[&[77]] };
        for failures in found {
            let refused = start(&mut cluster, 1, failures);
            assert!(is_refused(&refused), "{refused:?}");
        }
        let epoch = cluster.by(1).epoch;
        let failed = FailedDirectory { id: directory(1), failure: 77, epoch, trusted: false };
        assert_eq!(broker(&cluster, 1).failed, [failed]);
        assert_eq!(broker(&cluster, 1).state, BrokerState::Fenced);
        let record = cluster.partition(id, 0);
        assert!(record.leader.is_some() && !record.isr.contains(&BrokerId(1)), "{record:?}");
        assert!(!serves(&mut cluster, 1), "a heartbeat of the process that ends");
        assert!(
            is_refused(&start(&mut cluster, 1, &[])),
            "a restart does not clear it, also without the file"
        );

        trust(&mut cluster, 1);
        assert!(!serves(&mut cluster, 1), "its process is over, if it lives or not");
        let before = cluster.by(1);
        start(&mut cluster, 1, &[77]).unwrap();
        assert!(cluster.by(1).epoch > before.epoch);
        // It is killed before that is on its disk.
        start(&mut cluster, 1, &[77]).unwrap();
        assert!(serves(&mut cluster, 1));
        start(&mut cluster, 1, &[]).unwrap();
        assert_eq!(broker(&cluster, 1).failed, [], "it is over");
        assert!(serves(&mut cluster, 1));
        cluster.alter(id, 0, &[cluster.partition(id, 0).leader.unwrap().0, 1]).unwrap();
    }
}

#[test]
fn a_failed_directory() {
    a_failed_directory_is_out_of_use_until_a_person_trusts_it();
}

#[test]
fn a_failed_directory_trusted_again_is_noticed() {
    let test = a_failed_directory_is_out_of_use_until_a_person_trusts_it;
    assert!(Mutant::FailedTrusted.is_noticed_by(test));
}

#[test]
fn the_last_complete_replica_is_waited_for() {
    let mut cluster = Cluster::new(3);
    let id = cluster.topic("a", 1, 3, &[("min_insync_replicas", "2"), ("durability", "fsync")]);
    cluster.alter(id, 0, &[1, 2, 3]).unwrap();
    for gone in [2, 3] {
        cluster.run(Command::FenceBroker(cluster.by(gone))).unwrap();
    }
    // The others come back, and cannot catch up: it fails at that moment.
    fail(&mut cluster, 1, 77).unwrap();
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.isr.as_slice()), (None, &[][..]));
    assert!(record.elr.contains(&BrokerId(1)) && !record.waits_for_a_person(), "{record:?}");
    trust(&mut cluster, 1);
    assert_eq!(cluster.partition(id, 0).leader, None, "not before it is there");
    start(&mut cluster, 1, &[77]).unwrap();
    assert!(serves(&mut cluster, 1));
    assert_eq!(cluster.partition(id, 0).leader, Some(BrokerId(1)));
}

#[test]
fn who_knows_that_the_disk_is_gone_says_so() {
    let (mut cluster, _) = in_sync();
    fail(&mut cluster, 1, 77).unwrap();
    cluster.run(Command::LoseBroker(cluster.by(1))).unwrap();
    assert!(!broker(&cluster, 1).is_failed(), "it is removed");
    let removed = Err(Error::BrokerRemoved(BrokerId(1)));
    assert_eq!(try_to_trust(&mut cluster, 1, &[77]), removed);
    assert_eq!(fail(&mut cluster, 1, 78), removed);
    assert_eq!(start(&mut cluster, 1, &[77]), removed);
    // An empty directory on another disk is another broker.
    let joined = cluster.run(register(None, 9));
    assert!(matches!(joined, Ok(Reply::BrokerRegistered { broker: BrokerId(4), .. })), "{joined:?}");
}

/// In class replicated what counts is in the memory of the system, and the page that could not be written is not there any
/// more, whatever the next start believes.
#[test]
fn what_the_system_remembers_proves_nothing_after_a_failure() {
    for (durability, leads) in [("fsync", true), ("replicated", false)] {
        let mut cluster = Cluster::new(1);
        let id = cluster.topic("a", 1, 1, &[("durability", durability)]);
        fail(&mut cluster, 1, 77).unwrap();
        trust(&mut cluster, 1);
        start(&mut cluster, 1, &[]).unwrap();
        assert!(serves(&mut cluster, 1));
        assert_eq!(cluster.partition(id, 0).leader.is_some(), leads, "{durability}");
    }
}

/// What it serves after that is there as always, also while its directory still tells of the failure.
#[test]
fn a_failure_is_held_against_the_epoch_that_it_ended_alone() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[("durability", "replicated"), ("unclean_recovery", "longest")]);
    fail(&mut cluster, 1, 77).unwrap();
    trust(&mut cluster, 1);
    start(&mut cluster, 1, &[77]).unwrap();
    assert!(serves(&mut cluster, 1));
    let unclean = cluster.partition(id, 0).unclean_epoch;
    assert_eq!(unclean, cluster.partition(id, 0).leader_epoch, "what is left of it leads");
    start(&mut cluster, 1, &[77]).unwrap();
    assert!(serves(&mut cluster, 1));
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.unclean_epoch), (Some(BrokerId(1)), unclean));
}

#[test]
fn the_next_failure_is_another_one() {
    let (mut cluster, _) = in_sync();
    fail(&mut cluster, 1, 77).unwrap();
    assert_eq!(fail(&mut cluster, 1, 77), Ok(Reply::Done), "said again");
    assert_eq!(fail(&mut cluster, 1, 76), Ok(Reply::Done), "nobody has looked at the disk yet");
    assert_eq!(broker(&cluster, 1).failed.len(), 1);
    trust(&mut cluster, 1);
    assert_eq!(fail(&mut cluster, 1, 77), Ok(Reply::Done), "said again, and late");
    assert_eq!(broker(&cluster, 1).distrusted().count(), 0);
    // It fails again while it is started: nobody heard of it. What is noted down of the first is there until it is over.
    assert!(is_refused(&start(&mut cluster, 1, &[77, 78])));
    assert!(is_refused(&start(&mut cluster, 1, &[77, 78])), "it is on record");
    assert!(is_refused(&start(&mut cluster, 1, &[77])), "also where the disk has lost it");
    assert_eq!(try_to_trust(&mut cluster, 1, &[77]), Ok(Reply::Done), "asked again, and late");
    assert!(is_refused(&start(&mut cluster, 1, &[77, 78])), "the second one was not meant");
    let unknown = Error::FailureUnknown { broker: BrokerId(1), given: 79, current: vec![77, 78] };
    assert_eq!(try_to_trust(&mut cluster, 1, &[78, 79]), Err(unknown));
    assert!(is_refused(&start(&mut cluster, 1, &[77, 78])), "all or none of what was named");
    assert_eq!(try_to_trust(&mut cluster, 1, &[78]), Ok(Reply::Done));
    start(&mut cluster, 1, &[77, 78]).unwrap();
    let old = cluster.by(2);
    start(&mut cluster, 2, &[]).unwrap();
    let late = FailDirectory { by: old, directory: directory(2), failure: 1 };
    let stale = cluster.run(Command::FailDirectory(late)).unwrap_err().to_string();
    assert!(stale.contains("it registered again"), "a word of the process before: {stale}");
    let of_another = FailDirectory { by: cluster.by(2), directory: directory(3), failure: 1 };
    assert!(matches!(cluster.run(Command::FailDirectory(of_another)), Err(Error::DirectoryUnknown { .. })));
}

/// One of two directories fails: the broker comes back with the other one, and without what was in it.
#[test]
fn one_of_two_directories() {
    let mut cluster = Cluster::new(1);
    let Command::RegisterBroker(one) = register(Some(1), 1) else { unreachable!() };
    let with = |cluster: &Cluster, dirs: &[i32]| {
        let epoch = Some(cluster.by(1).epoch);
        let directories = dirs.iter().map(|dir| found(*dir, None, epoch, true)).collect();
        Command::RegisterBroker(RegisterBroker { directories, ..one.clone() })
    };
    cluster.run(with(&cluster, &[1, 2])).unwrap();
    assert!(serves(&mut cluster, 1));
    let by = cluster.by(1);
    cluster.run(Command::FailDirectory(FailDirectory { by, directory: directory(2), failure: 7 })).unwrap();
    assert!(is_refused(&cluster.run(with(&cluster, &[1, 2]))));
    cluster.run(with(&cluster, &[1])).unwrap();
    assert!(
        serves(&mut cluster, 1)
            && broker(&cluster, 1).distrusted().map(|failed| failed.id).eq([directory(2)])
    );
    assert!(is_refused(&cluster.run(with(&cluster, &[1, 2]))), "it is remembered");
    assert!(is_refused(&cluster.run(register(None, 2))), "whoever comes with it");
    trust(&mut cluster, 1);
    cluster.run(with(&cluster, &[1, 2])).unwrap();
    assert_eq!(broker(&cluster, 1).failed, []);
}

/// What nobody was ever registered with holds nothing that is to be believed.
#[test]
fn a_directory_that_fails_before_it_is_anybodys_is_taken() {
    let mut cluster = Cluster::new(1);
    let found = DirectoryFacts { failures: vec![7], ..found(9, None, None, false) };
    let joined = cluster.run(register_with(None, found));
    assert!(matches!(joined, Ok(Reply::BrokerRegistered { broker: BrokerId(2), .. })), "{joined:?}");
    assert_eq!(broker(&cluster, 2).failed, []);
}

/// A copy of its disk from before the registration with which it serves: what failed then was got over, and is gone from its
/// record. Nothing happens to who serves.
#[test]
fn an_old_copy_of_a_disk_that_had_failed_harms_nobody() {
    let (mut cluster, _) = in_sync();
    let old = Some(cluster.by(1).epoch);
    fail(&mut cluster, 1, 77).unwrap();
    trust(&mut cluster, 1);
    start(&mut cluster, 1, &[]).unwrap();
    assert!(serves(&mut cluster, 1));
    let before = broker(&cluster, 1).clone();
    let copy = DirectoryFacts { failures: vec![77], ..found(1, None, old, true) };
    let copied = Error::DirectoryCopied { directory: directory(1).to_string(), broker: BrokerId(1) };
    assert_eq!(cluster.run(register_with(Some(1), copy.clone())), Err(copied));
    assert_eq!(*broker(&cluster, 1), before);
    // Nobody serves with it any more: it may have failed before its registration was on the disk.
    cluster.run(Command::FenceBroker(cluster.by(1))).unwrap();
    assert!(is_refused(&cluster.run(register_with(Some(1), copy))));
    assert_eq!(broker(&cluster, 1).distrusted().map(|failed| failed.failure).collect::<Vec<_>>(), [77]);
}
