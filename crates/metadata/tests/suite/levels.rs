//! Feature levels: what is not written before an upgrade is final, and registrations that come twice.

use crate::common::*;
use weir_metadata::*;
use weir_types::*;

/// A cluster of one broker that an earlier version has made.
fn at_level_1() -> Cluster {
    let mut cluster = Cluster::default();
    let controller = JoinController { directory: DirectoryId(1), endpoint: "localhost:1".into() };
    let settings = pairs(&[("min_insync_replicas", "1")]);
    let create = CreateCluster { cluster_id: CLUSTER, feature_level: 1, settings, controller };
    cluster.run(Command::CreateCluster(create)).unwrap();
    cluster
}

fn by_process(broker_id: Option<i32>, incarnation: u128) -> Command {
    let Command::RegisterBroker(command) = register(broker_id, 1) else { unreachable!() };
    Command::RegisterBroker(RegisterBroker { incarnation, ..command })
}

fn finalize(cluster: &mut Cluster, level: i32, expected: i32) -> Result<Reply, Error> {
    cluster.run(Command::FinalizeLevel(FinalizeLevel { level, expected }))
}

#[test]
fn a_level_only_rises_and_only_from_what_was_seen() {
    let mut cluster = at_level_1();
    assert!(finalize(&mut cluster, 3, 2).unwrap_err().to_string().contains("it changed since it was read"));
    assert_eq!(finalize(&mut cluster, 2, 1), Ok(Reply::Done));
    assert_eq!(cluster.state.image.feature_level(), 2);
    let before = cluster.state.image.clone();
    assert_eq!(finalize(&mut cluster, 2, 1), Ok(Reply::Done), "again");
    assert_eq!(cluster.state.image, before);
    assert!(finalize(&mut cluster, 1, 2).unwrap_err().to_string().contains("cannot become 1"));
    let Command::RegisterBroker(old) = register(None, 1) else { unreachable!() };
    let old = Command::RegisterBroker(RegisterBroker { feature_level: 1, ..old });
    assert!(cluster.run(old).unwrap_err().to_string().contains("upgrade it"));
}

#[test]
fn a_level_beyond_this_version_is_applied_like_everywhere() {
    // Whoever runs it must stop; what it decides until then is what the others decide.
    let mut cluster = at_level_1();
    assert_eq!(finalize(&mut cluster, FEATURE_LEVEL + 1, 1), Ok(Reply::Done));
    assert_eq!(cluster.state.image.feature_level(), FEATURE_LEVEL + 1);
}

#[test]
fn commands_say_which_level_they_need() {
    let config = |expected: &[(&str, &str)]| {
        Command::SetClusterConfig(SetClusterConfig {
            set: pairs(&[("retention_ms", "1d")]),
            unset: Vec::new(),
            expected: pairs(expected),
            request_id: String::new(),
        })
    };
    let by = BrokerEpoch { broker: BrokerId(1), epoch: 1 };
    assert_eq!(Command::SetSlow(SetSlow { by, slow: true }).feature_level(), 2);
    assert_eq!(
        Command::ReportDamage(ReportDamage { by, partitions: vec![], stuck: vec![], unusable: vec![] })
            .feature_level(),
        2
    );
    assert_eq!(Command::LoseBroker(by).feature_level(), 2);
    let failed = FailDirectory { by, directory: DirectoryId(1), failure: 1 };
    assert_eq!(Command::FailDirectory(failed).feature_level(), 2);
    let trust = TrustBroker { broker: BrokerId(1), failures: vec![1] };
    assert_eq!(Command::TrustBroker(trust).feature_level(), 2);
    assert_eq!(config(&[]).feature_level(), 1);
    assert_eq!(config(&[("retention_ms", "7d")]).feature_level(), 2, "earlier versions would not look at it");
    assert_eq!(Command::RemoveController(RemoveController { id: 1 }).feature_level(), 2);
    let finalize = Command::FinalizeLevel(FinalizeLevel { level: 2, expected: 1 });
    assert_eq!(finalize.feature_level(), 1, "it is what leads there");
}

#[test]
fn what_an_earlier_version_cannot_write_is_not_in_the_records_before() {
    let mut cluster = at_level_1();
    let by_process = |cluster: &mut Cluster, id, incarnation| {
        cluster.run(by_process(id, incarnation)).unwrap();
        cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
        cluster.state.image.broker(BrokerId(1)).unwrap().incarnation
    };
    assert_eq!(by_process(&mut cluster, None, 7), 0);
    // A failure is got over by going by the disk alone, as that version does.
    let failed = DirectoryFacts { failures: vec![1], ..found(1, None, Some(cluster.by(1).epoch), false) };
    cluster.run(register_with(Some(1), failed)).unwrap();
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.state.image.broker(BrokerId(1)).unwrap().failed, []);
    let config = &[("durability", "replicated"), ("unclean_recovery", "longest")];
    let id = cluster.topic("a", 1, 1, config);
    by_process(&mut cluster, Some(1), 7);
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.unclean_epoch), (Some(BrokerId(1)), 0));
    finalize(&mut cluster, 2, 1).unwrap();
    assert_eq!(by_process(&mut cluster, Some(1), 8), 8);
    let record = cluster.partition(id, 0);
    assert_eq!((record.leader, record.unclean_epoch), (Some(BrokerId(1)), record.leader_epoch));
}

/// For people alone, but in the records: those of the controllers differ if one of them does not know it.
#[test]
fn whether_a_broker_was_stopped_in_order_is_not_on_record_before() {
    let mut cluster = at_level_1();
    cluster.run(register(None, 1)).unwrap();
    let stopped = |cluster: &mut Cluster, last: fn(BrokerEpoch) -> Command| {
        for command in [Command::UnfenceBroker, Command::DrainBroker, last] {
            cluster.run(command(cluster.by(1))).unwrap();
        }
        cluster.state.image.broker(BrokerId(1)).unwrap().stopped
    };
    assert!(!stopped(&mut cluster, Command::FenceBroker));
    finalize(&mut cluster, 2, 1).unwrap();
    assert!(stopped(&mut cluster, Command::StopBroker));
}

/// The registrations of one process: sent again because the answer was lost, and one that took a longer way, over
/// another controller, and comes after the broker has served.
#[test]
fn a_process_is_registered_once_however_often_it_is_sent() {
    let mut cluster = Cluster::new(1);
    let id = cluster.topic("a", 1, 1, &[]);
    let first = by_process(Some(1), 7);
    let registered = cluster.run(first.clone()).unwrap();
    let Reply::BrokerRegistered { epoch, .. } = registered else { panic!("{registered:?}") };
    assert_eq!(cluster.run(first.clone()), Ok(registered.clone()));
    cluster.run(Command::UnfenceBroker(cluster.by(1))).unwrap();
    let serving = cluster.state.image.clone();
    assert_eq!(cluster.run(first.clone()), Ok(registered.clone()), "late");
    assert_eq!(cluster.state.image, serving, "it goes on serving, in its epoch");
    cluster.run(Command::FenceBroker(cluster.by(1))).unwrap();
    assert_eq!(cluster.run(first), Ok(registered));
    assert_eq!(cluster.state.image.broker(BrokerId(1)).unwrap().state, BrokerState::Fenced);

    let next = cluster.run(by_process(Some(1), 8)).unwrap();
    assert!(matches!(next, Reply::BrokerRegistered { epoch: newer, .. } if newer > epoch), "another process");
    assert_eq!(cluster.partition(id, 0).leader, None);
    // Two copies of one registration in one entry, from a broker that is new.
    let new = |incarnation| {
        let Command::RegisterBroker(command) = register(None, 5) else { unreachable!() };
        Command::RegisterBroker(RegisterBroker { incarnation, ..command })
    };
    let outcomes = cluster.run_all(vec![new(9), new(9), new(0)]);
    assert_eq!(outcomes[0], outcomes[1]);
    assert!(matches!(outcomes[2], Err(Error::Busy { .. })), "{outcomes:?}");
}
