//! Topics and partitions that were just made.

use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, DescribePartitionsRequest, Topic, UpdateTopicRequest};
use weir_tests::cluster::Cluster;

use crate::failover::three;

/// So many of each, because a replica that is made before the leader begins is in sync from the beginning.
const TOPICS: usize = 20;

/// How many partitions of a topic there are, and that none of them refuses appends for want of replicas.
async fn takes_appends(cluster: &Cluster, topic: &str) -> usize {
    let request = DescribePartitionsRequest { topic: topic.to_owned(), ..Default::default() };
    let mut client = AdminServiceClient::new(cluster.channel(0));
    let described = client.describe_partitions(request).await.unwrap().into_inner().partitions;
    for one in &described {
        let in_sync = i32::try_from(one.isr.len()).unwrap();
        assert!(one.leader > 0 && in_sync >= one.min_insync_replicas, "{one:?}");
    }
    described.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_made_a_topic_may_append_to_it() {
    let cluster = Cluster::start_as(three()).await;
    let mut client = TopicServiceClient::new(cluster.channel(0));
    for number in 0..TOPICS {
        let topic = Topic {
            name: format!("topic-{number}"),
            partitions: 2,
            replication_factor: 3,
            config: [("min_insync_replicas".to_owned(), "2".to_owned())].into(),
            ..Topic::default()
        };
        let name = topic.name.clone();
        client.create_topic(CreateTopicRequest { topic: Some(topic), ..Default::default() }).await.unwrap();
        assert_eq!(takes_appends(&cluster, &name).await, 2);
        let grown = UpdateTopicRequest { name: name.clone(), partitions: Some(4), ..Default::default() };
        client.update_topic(grown).await.unwrap();
        assert_eq!(takes_appends(&cluster, &name).await, 4);
    }
    cluster.stop().await;
}
