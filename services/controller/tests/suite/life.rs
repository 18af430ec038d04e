//! A controller starts, stops, is killed, loses power, and has what it acknowledged.

use std::path::{Path, PathBuf};

use weir_controller::{Config, Controller, Error};
use weir_io::{Disk, MemDisk};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_stop_kill_and_power_loss() {
    let mut node = Node::start(MemDisk::new(1), config()).await;
    let cluster = node.handle.cluster_id();
    let mut expected = Vec::new();
    for round in 0..9 {
        let broker = Broker::start(&node.controllers()).await;
        let name = format!("topic-{round}");
        let topic = node.create(&name).await.unwrap();
        assert_eq!((topic.partitions, topic.replication_factor), (1, 1));
        expected.push(name);
        let epoch = broker.by.epoch;
        let disk = match round % 3 {
            0 => node.stop().await,
            1 => node.kill(),
            _ => node.lose_power(round),
        };
        node = Node::start(disk, config()).await;
        until("the log is applied", async || node.topics() == expected).await;
        assert_eq!(node.handle.cluster_id(), cluster);
        assert!(node.handle.image().broker(broker.by.broker).is_some_and(|known| known.epoch == epoch));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_may_go_at_any_moment_of_the_first_start() {
    let mut seed = 0;
    for changes in 0.. {
        let disk = MemDisk::new(7);
        let faults = weir_io::FaultDisk::over_mem(&disk);
        faults.die_after(changes);
        let os = std::sync::Arc::new(
            weir_runtime::testing::TestOs::threads(std::sync::Arc::new(faults.clone())).unwrap(),
        );
        let first = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            let controller = Controller::build(os, config()).await?;
            let handle = controller.handle();
            let stop = weir_runtime::Stop::new();
            tokio::select! {
                ended = controller.serve(stop) => ended,
                () = handle.ready() => Ok(()),
            }
        })
        .await;
        let whole = matches!(first, Ok(Ok(()))) && !faults.is_dead();
        seed += 1;
        let node = Node::start(disk.crash(seed), config()).await;
        until("a cluster", async || node.handle.image().cluster_id().is_some()).await;
        Broker::start(&node.controllers()).await;
        node.create("works").await.unwrap();
        node.stop().await;
        if whole {
            assert!(changes > 10, "the first start makes many changes");
            break;
        }
    }
}

#[tokio::test]
async fn an_empty_folder_begins_nothing_by_itself() {
    let disk = MemDisk::new(1);
    let config = Config::new(PathBuf::from("/controller"), "127.0.0.1:0".parse().unwrap());
    let error = Controller::build(test_os(&disk), config).await.err().unwrap();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    assert!(!disk.exists(Path::new("/controller/raft.redb")).unwrap());
}

#[tokio::test]
async fn one_that_was_given_no_place_is_told_so_at_its_next_start() {
    let disk = MemDisk::new(1);
    let empty = Config::new(PathBuf::from("/controller"), "127.0.0.1:0".parse().unwrap());
    let joining = Config { join: vec!["127.0.0.1:1".to_owned()], ..empty.clone() };
    tokio::select! {
        built = Controller::build(test_os(&disk), joining) => panic!("nobody is there: {:?}", built.err()),
        () = until("the folder is its own", async || disk.exists(Path::new("/controller/raft.redb")).unwrap()) => {}
    }
    let founding = Config { bootstrap: true, ..empty.clone() };
    let disk = disk.kill();
    for config in [empty, founding] {
        let error = Controller::build(test_os(&disk), config).await.err().unwrap();
        assert!(matches!(error, Error::Unplaced { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_second_process_is_refused_by_the_first_ones_id() {
    let disk = MemDisk::new(1);
    let _first = Controller::build(test_os(&disk), config()).await.unwrap();
    let error = Controller::build(test_os(&disk), config()).await.err().unwrap();
    let Error::Locked { owner, .. } = &error else { panic!("{error}") };
    assert_eq!(*owner, std::process::id().to_string());
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let cases = [
        Config { snapshot_commands: 1, ..config() },
        Config { session_timeout: std::time::Duration::from_millis(600), ..config() },
        Config { advertise: Some("nowhere".into()), ..config() },
        Config { election_timeout_min: std::time::Duration::from_millis(50), ..config() },
    ];
    for config in cases {
        let error = Controller::build(test_os(&MemDisk::new(1)), config).await.err().unwrap();
        assert!(matches!(error, Error::Config { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_ends_the_controller() {
    let disk = MemDisk::new(1);
    let faults = weir_io::FaultDisk::over_mem(&disk);
    let os = std::sync::Arc::new(
        weir_runtime::testing::TestOs::threads(std::sync::Arc::new(faults.clone())).unwrap(),
    );
    let controller = Controller::build(os, config()).await.unwrap();
    let handle = controller.handle();
    let endpoint = controller.local_addr().to_string();
    let mut serving = tokio::spawn(controller.serve(weir_runtime::Stop::new()));
    handle.ready().await;
    faults.die_after(0);
    let controllers = weir_cluster::Controllers::new(test_os(&MemDisk::new(2)), vec![endpoint]);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        // Who asked may hear of it before the server has ended; never that it was done.
        answer = Broker::register(&controllers, registration(1)) => {
            let status = answer.err().expect("nothing could be written");
            assert!(weir_cluster::is_for(&status, v1::ErrorReason::OutcomeUnknown), "{status}");
            serving.await
        }
    };
    let error = ended.unwrap().unwrap_err();
    assert!(matches!(error, Error::Raft(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_gather_into_entries() {
    let node = Node::start(MemDisk::new(1), config()).await;
    Broker::start(&node.controllers()).await;
    let log_index = async || {
        let controllers = node.controllers();
        let answer =
            ask(&controllers, |mut client| async move { client.list_voters(pb::ListVotersRequest {}).await });
        let voters = answer.await.unwrap().voters;
        assert!(voters[0].leader && voters[0].voting && voters[0].endpoint == node.endpoint);
        voters[0].log_index
    };
    let before = log_index().await;
    let controllers = node.controllers();
    let created = futures::future::join_all((0..500).map(|number| {
        let controllers = controllers.clone();
        async move { create(&controllers, &format!("topic-{number}")).await }
    }));
    assert!(created.await.into_iter().all(|created| created.is_ok()));
    assert_eq!(node.handle.image().topics().count(), 500);
    let entries = log_index().await - before;
    assert!(entries < 250, "500 topics in {entries} entries");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_says_what_would_happen_and_changes_nothing() {
    let node = Node::start(MemDisk::new(1), config()).await;
    Broker::start(&node.controllers()).await;
    let version = node.handle.image().version();
    let try_out = async |name: &str| {
        let mut request = create_request(name);
        request.request.as_mut().unwrap().validate_only = true;
        let controllers = node.controllers();
        let answer = ask(&controllers, |mut client| {
            let request = request.clone();
            async move { client.create_topic(request).await }
        });
        answer.await
    };
    let topic: v1::Topic = try_out("a").await.unwrap().response.unwrap().topic.unwrap();
    assert_eq!(topic.partitions, 1);
    let status = try_out("a/b").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("not one of a-z"), "{}", status.message());
    assert_eq!(node.handle.image().version(), version);
    node.stop().await;
}
