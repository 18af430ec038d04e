//! Leaderships go back to the preferred replicas by themselves, now and then.

use std::time::Duration;

use weir_metadata::{
    AlterPartition, AlterPartitions, AssignDirectories, BrokerEpoch, CreateTopic, DirectoryFacts,
    ElectLeader, Partition, RegisterBroker,
};
use weir_types::{PartitionId, TopicId};

use super::*;

const ID: PartitionId = PartitionId { topic: TopicId(7), partition: 0 };
const EVERY: Duration = Duration::from_secs(5);

/// A controller that looks so often; brokers never fall silent to it.
async fn giving_back_every(leader_rebalance: Duration) -> Controller {
    let session_timeout = 1_000 * PATIENCE;
    leader_as(|config| Config { leader_rebalance, session_timeout, ..config }).await
}

async fn run(controller: &Controller, command: Command) {
    controller.parts.proposer.propose(command).await.unwrap();
}

fn by(controller: &Controller, id: i32) -> BrokerEpoch {
    let broker = BrokerId(id);
    BrokerEpoch { broker, epoch: controller.handle().image().broker(broker).unwrap().epoch }
}

fn record(controller: &Controller) -> Partition {
    (**controller.handle().image().partition(ID).unwrap()).clone()
}

fn registration(directory: u128) -> Command {
    let id = DirectoryId(directory);
    Command::RegisterBroker(RegisterBroker {
        cluster_id: None,
        broker_id: None,
        directories: vec![DirectoryFacts {
            id,
            clean_epoch: None,
            persisted_epoch: None,
            same_boot: false,
            failures: Vec::new(),
        }],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: Vec::new(),
        version: String::new(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    })
}

/// Brokers 1 and 2 serve, and have a replica each of the partition, in sync. Gives the preferred one, which leads, and the
/// other one.
async fn led(controller: &Controller) -> (BrokerId, BrokerId) {
    for id in [1, 2] {
        run(controller, registration(id)).await;
    }
    for id in [1, 2] {
        run(controller, Command::UnfenceBroker(by(controller, id))).await;
    }
    let create = CreateTopic {
        name: "orders".to_owned(),
        topic_id: ID.topic,
        partitions: 1,
        replication_factor: 2,
        config: Default::default(),
        if_absent: false,
        internal: false,
        request_id: String::new(),
    };
    run(controller, Command::CreateTopic(create)).await;
    for (id, directory) in [(1, DirectoryId(1)), (2, DirectoryId(2))] {
        let assign = AssignDirectories { by: by(controller, id), assignments: vec![(ID, directory)] };
        run(controller, Command::AssignDirectories(assign)).await;
    }
    let preferred = record(controller).replicas[0].broker;
    elect(controller, preferred).await;
    let Partition { leader_epoch, partition_epoch, .. } = record(controller);
    let isr = [1, 2].map(|id| by(controller, id)).to_vec();
    let change = AlterPartition { partition: ID, leader_epoch, partition_epoch, isr };
    let alter = AlterPartitions { by: by(controller, preferred.0), changes: vec![change] };
    run(controller, Command::AlterPartitions(alter)).await;
    (preferred, BrokerId(3 - preferred.0))
}

async fn elect(controller: &Controller, broker: BrokerId) {
    let Partition { leader, partition_epoch, .. } = record(controller);
    if leader != Some(broker) {
        let elect = ElectLeader { partition: ID, broker, partition_epoch, unclean: false };
        run(controller, Command::ElectLeader(elect)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leadership_goes_back_to_the_preferred_replica_by_itself() {
    let controller = giving_back_every(EVERY).await;
    let (preferred, other) = led(&controller).await;
    let elections = |cause: &str| {
        let name = format!("weir_cluster_elections_total{{cause=\"{cause}\"}}");
        shown(&controller, &name)
    };
    elect(&controller, other).await;
    assert_eq!(record(&controller).leader, Some(other));
    assert_eq!(shown(&controller, "weir_cluster_partitions_not_preferred"), 1.0);
    until("it is given back", async || record(&controller).leader == Some(preferred)).await;
    assert_eq!(shown(&controller, "weir_cluster_partitions_not_preferred"), 0.0);
    until("it is counted", async || elections("preferred") == 1.0).await;
    assert_eq!((elections("assigned"), elections("other"), elections("fenced")), (1.0, 1.0, 0.0));
}

#[test]
fn leaderships_that_nobody_gives_back_are_noticed() {
    let test = a_leadership_goes_back_to_the_preferred_replica_by_itself;
    assert!(Mutant::NeverGivenBack.is_noticed_by(test));
}

#[tokio::test(start_paused = true)]
async fn a_leadership_stays_where_it_is_if_none_is_to_be_given_back() {
    let controller = giving_back_every(Duration::ZERO).await;
    let (_, other) = led(&controller).await;
    elect(&controller, other).await;
    // The clock is the test's.
    tokio::time::sleep(10 * EVERY).await;
    assert_eq!(record(&controller).leader, Some(other));
}
