//! A broker of which there is only what a controller sees.

use tokio::time::Instant;
use weir_cluster::{Follower, Row};
use weir_metadata::{AssignDirectories, BrokerEpoch, DirectoryFacts, FEATURE_LEVEL, RegisterBroker};
use weir_proto::internal::v1 as pb;
use weir_types::{BrokerId, DirectoryId, PartitionId};

use crate::support::*;

const DIRECTORY: DirectoryId = DirectoryId(77);

/// It keeps nothing and serves nobody.
pub(crate) struct Elsewhere {
    by: BrokerEpoch,
}

impl Elsewhere {
    pub(crate) async fn start(controller: &Node) -> Self {
        let found = DirectoryFacts {
            id: DIRECTORY,
            clean_epoch: None,
            persisted_epoch: None,
            same_boot: false,
            failures: Vec::new(),
        };
        let registration = RegisterBroker {
            cluster_id: None,
            broker_id: None,
            directories: vec![found],
            damaged: Vec::new(),
            rack: String::new(),
            endpoints: Vec::new(),
            version: "test".to_owned(),
            feature_level: FEATURE_LEVEL,
            metadata_version: 0,
            metadata_author: 0,
            incarnation: 0,
        };
        let controllers = controller.controllers();
        let registered = controllers.call(Instant::now() + PATIENCE, |mut client| {
            let registration = Some(registration.to_wire());
            async move { client.register_broker(pb::RegisterBrokerRequest { registration }).await }
        });
        let answer = registered.await.unwrap();
        let by = BrokerEpoch { broker: BrokerId(answer.broker_id), epoch: answer.epoch };
        let heartbeat = pb::BrokerHeartbeatRequest {
            broker: Some(by.to_wire()),
            epoch_persisted: true,
            ..pb::BrokerHeartbeatRequest::default()
        };
        let beaten = controllers.call(Instant::now() + PATIENCE, |mut client| {
            let heartbeat = heartbeat.clone();
            async move { client.broker_heartbeat(heartbeat).await }
        });
        beaten.await.unwrap();
        Self { by }
    }

    /// Takes a block of producer ids.
    pub(crate) async fn producer_ids(&self, controller: &Node) {
        let controllers = controller.controllers();
        let request = pb::AllocateProducerIdsRequest { broker: Some(self.by.to_wire()) };
        let given = controllers.call(Instant::now() + PATIENCE, |mut client| async move {
            client.allocate_producer_ids(request).await
        });
        given.await.unwrap();
    }

    /// Says that its replicas of a topic are there.
    pub(crate) async fn assign(&self, controller: &Node, topic: &str) {
        let (controllers, follower) = (controller.controllers(), Follower::new(0));
        let mut versions = follower.versions();
        let has_topic = async {
            // The sender lives as long as the follower.
            let _ = versions.wait_for(|_| follower.image().topic_named(topic).is_some()).await;
        };
        tokio::select! {
            () = follower.run(&controllers, None) => {}
            () = has_topic => {}
        }
        let image = follower.image();
        let topic = image.topic_named(topic).unwrap();
        let here = topic.partitions.iter().filter(|(_, record)| record.replica(self.by.broker).is_some());
        let assignments = here
            .map(|(number, _)| (PartitionId { topic: topic.id, partition: *number }, DIRECTORY))
            .collect();
        let assignments = Some(AssignDirectories { by: self.by, assignments }.to_wire());
        let request = pb::AssignDirectoriesRequest { assignments };
        let assigned = controllers.call(Instant::now() + PATIENCE, |mut client| {
            let request = request.clone();
            async move { client.assign_directories(request).await }
        });
        assert_eq!(assigned.await.unwrap().refused, []);
    }
}
