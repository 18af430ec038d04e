//! A broker's way: register, write the epoch down, serve, make replicas, fall silent, come back.

use std::time::Duration;

use tonic::Code;
use weir_cluster::{Follower, Row};
use weir_controller::Config;
use weir_io::MemDisk;
use weir_metadata::{BrokerState, DirectoryFacts, RegisterBroker};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_types::{ClusterId, DirectoryId, PartitionId};

use crate::common::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_led_once_its_replicas_are_made() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    let follower = std::sync::Arc::new(Follower::new(0));
    let following = tokio::spawn({
        let (follower, controllers) = (follower.clone(), controllers.clone());
        async move { follower.run(&controllers, None).await }
    });
    let broker = Broker::register(&controllers, registration(77)).await.unwrap();
    assert_eq!(broker.by.broker.0, 1);
    let refused = node.create("early").await.unwrap_err();
    assert!(refused.message().contains("no broker is active"), "{}", refused.message());
    assert_eq!(
        broker.heartbeat(false).await,
        Ok(BrokerState::Registered),
        "its epoch is not on its disk yet"
    );
    assert_eq!(broker.heartbeat(true).await, Ok(BrokerState::Active));

    let topic = node.create("flights").await.unwrap();
    let image = follower.wait_for(topic.revision).await;
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    assert_eq!(image.partition(partition).unwrap().leader, None);
    let version = broker.assign_all(&image).await;
    let image = follower.wait_for(version).await;
    let record = image.partition(partition).unwrap();
    assert_eq!((record.leader, record.leader_epoch), (Some(broker.by.broker), 1));
    assert_eq!(image, node.handle.image(), "what is followed is what is decided");

    // The broker is started again after kill -9, with its disk as it was.
    let found = DirectoryFacts {
        id: DirectoryId(77),
        clean_epoch: None,
        persisted_epoch: Some(broker.by.epoch),
        same_boot: true,
        failures: Vec::new(),
    };
    let again = RegisterBroker { directories: vec![found], ..registration(77) };
    let again = Broker::register(&controllers, again).await.unwrap();
    assert_eq!(again.by.broker, broker.by.broker);
    let zombie = broker.heartbeat(true).await.unwrap_err();
    assert!(zombie.contains("it registered again"), "{zombie}");
    assert_eq!(again.heartbeat(true).await, Ok(BrokerState::Active));
    let record = node.handle.image().partition(partition).unwrap().clone();
    assert_eq!(record.leader, Some(broker.by.broker));
    assert!(record.leader_epoch > 1);

    // It stops in order.
    let request = pb::BrokerHeartbeatRequest { wants_to_stop: true, ..Default::default() };
    let answer = again.say(request).await.unwrap();
    assert!(answer.may_stop);
    assert_eq!(BrokerState::from_wire(answer.state), Ok(BrokerState::Draining));
    let request = pb::BrokerHeartbeatRequest { stopped: true, ..Default::default() };
    let answer = again.say(request).await.unwrap();
    assert_eq!(BrokerState::from_wire(answer.state), Ok(BrokerState::Fenced));
    // Once each: nobody led while it had registered again and did not serve, and nobody does now. While it drained it led,
    // because nobody else could.
    let elections = |cause| format!("weir_cluster_elections_total{{cause=\"{cause}\"}} 1");
    let causes = ["assigned", "registered", "unfenced", "fenced"].map(elections);
    node.until_shown(&causes.each_ref().map(String::as_str)).await;
    following.abort();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_is_fenced_and_may_come_back() {
    // Time is real here, and how much of it passes between two calls is not ours to say: while a session is short,
    // nothing is done that needs the broker alive or fenced at a certain moment.
    let impatient = Config {
        session_timeout: Duration::from_millis(300),
        broker_heartbeat: Duration::from_millis(50),
        ..config()
    };
    let node = Node::start(MemDisk::new(1), config()).await;
    let mut broker = Broker::start(&node.controllers()).await;
    let topic = node.create("flights").await.unwrap();
    broker.assign_all(&node.handle.image()).await;
    let partition = PartitionId { topic: topic_id(&topic), partition: 0 };
    let record = |node: &Node| node.handle.image().partition(partition).unwrap().clone();
    assert_eq!(record(&node).leader, Some(broker.by.broker));

    let node = Node::start(node.stop().await, impatient).await;
    broker.controllers = node.controllers();
    // Its last word, in time or not: either way it is silent then.
    broker.heartbeat(true).await.unwrap();
    until("fenced", async || {
        node.handle.image().broker(broker.by.broker).unwrap().state == BrokerState::Fenced
    })
    .await;
    assert_eq!((record(&node).leader, record(&node).elr.clone()), (None, vec![broker.by.broker]));
    let fenced = node.handle.image();

    let node = Node::start(node.stop().await, config()).await;
    broker.controllers = node.controllers();
    until("the log is applied", async || node.handle.image().version() >= fenced.version()).await;
    assert_eq!(record(&node).leader, None, "silence is remembered");
    assert_eq!(broker.heartbeat(true).await, Ok(BrokerState::Active));
    assert_eq!(record(&node).leader, Some(broker.by.broker));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_why() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    let foreign = RegisterBroker { cluster_id: Some(ClusterId(1)), ..registration(1) };
    let status = Broker::register(&controllers, foreign).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("belongs to another cluster"), "{}", status.message());
    let old = RegisterBroker { feature_level: 0, ..registration(1) };
    let status = Broker::register(&controllers, old).await.err().unwrap();
    assert_eq!(status.code(), Code::Unimplemented);
    let empty = ask(&controllers, |mut client| async move {
        client.register_broker(pb::RegisterBrokerRequest { registration: None }).await
    });
    assert_eq!(empty.await.unwrap_err().code(), Code::InvalidArgument);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_settings_and_leaders_are_given_through_calls() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let controllers = node.controllers();
    let broker = Broker::start(&controllers).await;
    let ids = ask(&controllers, |mut client| {
        let broker = Some(broker.by.to_wire());
        async move { client.allocate_producer_ids(pb::AllocateProducerIdsRequest { broker }).await }
    });
    let ids = ids.await.unwrap();
    assert_eq!((ids.first, ids.count), (1_000, 1_000));

    let change = v1::UpdateConfigsRequest {
        set_config: [("retention_ms".to_owned(), "2d".to_owned())].into(),
        ..v1::UpdateConfigsRequest::default()
    };
    let update = |change: v1::UpdateConfigsRequest| {
        let controllers = controllers.clone();
        async move {
            ask(&controllers, |mut client| {
                let request = Some(change.clone());
                async move { client.update_configs(pb::UpdateConfigsRequest { request }).await }
            })
            .await
        }
    };
    let answer = update(change.clone()).await.unwrap().response.unwrap();
    assert_eq!((answer.before[0].value.as_str(), answer.after[0].value.as_str()), ("604800000", "172800000"));
    let status = update(v1::UpdateConfigsRequest { broker_id: Some(1), ..change }).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);

    let topic = node.create("a").await.unwrap();
    let retention = topic.effective.iter().find(|value| value.name == "retention_ms").unwrap();
    assert_eq!((retention.value.as_str(), retention.source()), ("172800000", v1::ConfigSource::Cluster));
    let elect = weir_metadata::ElectLeader {
        partition: PartitionId { topic: topic_id(&topic), partition: 0 },
        broker: broker.by.broker,
        partition_epoch: 0,
        unclean: false,
    };
    let elected = ask(&controllers, |mut client| {
        let election = Some(elect.to_wire());
        async move { client.elect_leader(pb::ElectLeaderRequest { election }).await }
    });
    assert!(elected.await.unwrap_err().message().contains("directory is not online"));

    let change = |change: v1::UpdateTopicRequest| {
        let controllers = controllers.clone();
        async move {
            ask(&controllers, |mut client| {
                let request = Some(change.clone());
                async move { client.update_topic(pb::UpdateTopicRequest { request }).await }
            })
            .await
        }
    };
    let more = v1::UpdateTopicRequest { name: "a".into(), partitions: Some(3), ..Default::default() };
    let answer = change(more).await.unwrap().response.unwrap();
    assert_eq!((answer.before.unwrap().partitions, answer.after.unwrap().partitions), (1, 3));
    let missing = v1::UpdateTopicRequest { name: "aa".into(), ..Default::default() };
    assert_eq!(change(missing).await.unwrap_err().code(), Code::NotFound);
    let delete = |topic_id: &str| {
        let request =
            v1::DeleteTopicRequest { name: "a".into(), topic_id: topic_id.into(), ..Default::default() };
        let controllers = controllers.clone();
        async move {
            ask(&controllers, |mut client| {
                let request = Some(request.clone());
                async move { client.delete_topic(pb::DeleteTopicRequest { request }).await }
            })
            .await
        }
    };
    assert_eq!(delete("nonsense").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(delete(&DirectoryId(1).to_string()).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(delete(&topic.topic_id).await.unwrap().response.unwrap().topic.unwrap().name, "a");
    assert!(node.topics().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_meant_for_another_cluster_is_refused() {
    let ours = Node::start(MemDisk::new(1), config()).await;
    let theirs = Node::start(MemDisk::new(2), config()).await;
    // In each cluster the first broker, with the same id and the same epoch.
    let broker = Broker::start(&ours.controllers()).await;
    let lost = Broker { controllers: theirs.controllers(), ..Broker::start(&theirs.controllers()).await };
    assert_eq!(broker.by, lost.by);

    lost.controllers.belong_to(ours.handle.cluster_id());
    let refused = lost.heartbeat(true).await.unwrap_err();
    assert!(refused.contains(&format!("this is cluster {}", theirs.handle.cluster_id())), "{refused}");
    let refused = create(&lost.controllers, "flights").await.unwrap_err();
    assert!(weir_cluster::is_for(&refused, v1::ErrorReason::ClusterMismatch), "{refused:?}");
    assert_eq!(theirs.topics(), Vec::<String>::new());

    lost.controllers.belong_to(theirs.handle.cluster_id());
    assert_eq!(lost.heartbeat(true).await, Ok(BrokerState::Active));
    create(&lost.controllers, "flights").await.unwrap();
    theirs.stop().await;
    ours.stop().await;
}

/// A controller that was put back from a backup: what it promises about a broker is no part of what that follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_seen_another_history_is_not_answered_for() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let broker = Broker::start(&node.controllers()).await;
    let image = node.handle.image();
    let (version, author) = (image.version(), image.author());
    let seen = |metadata_version, metadata_author| pb::BrokerHeartbeatRequest {
        epoch_persisted: true,
        metadata_version,
        metadata_author,
        ..Default::default()
    };
    for same in [seen(version, author), seen(version, 0), seen(0, 0)] {
        assert!(broker.say(same).await.is_ok(), "it continues what the broker has seen");
    }
    for other in [seen(version + 1, author), seen(version, author + 1)] {
        let refused = broker.say(other).await.unwrap_err();
        assert!(refused.contains("restored from a backup"), "{refused}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_says_that_its_disk_is_slow_stands_back_until_it_says_otherwise() {
    let node = Node::start(MemDisk::new(1), config()).await;
    let mut brokers = Vec::new();
    for directory in [7, 8, 9] {
        let broker = Broker::register(&node.controllers(), registration(directory)).await.unwrap();
        assert_eq!(broker.heartbeat(true).await, Ok(BrokerState::Active));
        brokers.push(broker);
    }
    let says = async |at: usize, disk_slow, wants_to_stop| {
        let request = pb::BrokerHeartbeatRequest { disk_slow, wants_to_stop, ..Default::default() };
        let answer = brokers[at].say(request).await.unwrap();
        (BrokerState::from_wire(answer.state).unwrap(), answer.may_stop)
    };
    assert_eq!(says(0, true, false).await, (BrokerState::Slow, false));
    let version = node.handle.image().version();
    assert_eq!(says(0, true, false).await, (BrokerState::Slow, false));
    assert_eq!(says(1, true, false).await, (BrokerState::Active, false), "one of three is enough");
    assert_eq!(node.handle.image().version(), version, "nothing is written for what changes nothing");
    assert_eq!(says(0, false, false).await, (BrokerState::Active, false));
    assert_eq!(says(1, true, false).await, (BrokerState::Slow, false));
    assert_eq!(says(1, true, true).await, (BrokerState::Draining, true));
    assert_eq!(says(1, false, true).await, (BrokerState::Draining, true));
    node.stop().await;
}
