//! How far a call goes: one hop, to somebody who knows what it is about, and none where the caller wants to be told who
//! leads instead.

use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, FetchRequest, Route, Topic};
use weir_runtime::testing::until;

use crate::said::{
    all_of, cluster_with, direct, fact, fetch, forwarded, producer, reason, stranger_and_leader, to_one,
    write,
};

#[tokio::test]
async fn a_direct_call_is_told_the_leader_where_it_is_and_its_epoch() {
    let cluster = cluster_with("flights", 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, "flights", 0).await;
    let refused = write(&cluster, stranger, direct(to_one("flights", 0, "x"))).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_LEADER");
    assert_eq!(fact(&refused, "leader"), Some(cluster.id(leader).to_string()));
    assert_eq!(fact(&refused, "leader_endpoint"), Some(cluster.addr(leader).to_string()));
    assert!(fact(&refused, "leader_epoch").is_some() && fact(&refused, "metadata_version").is_some());
    let request = FetchRequest { route: Route::Direct.into(), ..all_of("flights", 0..3) };
    let answer = fetch(&cluster, stranger, request).await.into_inner();
    let failed = answer.partitions.iter().filter_map(|fetched| fetched.failure.as_ref());
    assert_eq!(failed.filter(|failure| failure.metadata.contains_key("leader_endpoint")).count(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn who_is_asked_by_a_broker_passes_nothing_on_and_a_client_cannot_pretend_to_be_one() {
    let cluster = cluster_with("flights", 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, "flights", 0).await;
    let internal = Endpoint::from_shared(format!("http://{}", cluster.internal_addr(stranger))).unwrap();
    let refused = producer(internal.connect_lazy()).produce(to_one("flights", 0, "x")).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_LEADER", "one hop");
    let mut pretended = Request::new(to_one("flights", 0, "x"));
    pretended.metadata_mut().insert("weir-forwarded", MetadataValue::from_static("1"));
    let written = producer(cluster.channel(stranger)).produce(pretended).await.unwrap();
    assert_eq!(forwarded(&written), Some(cluster.id(leader).to_string()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_topic_that_was_just_made_is_known_to_whomever_a_call_is_passed_on_to() {
    let cluster = cluster_with("flights", 3).await;
    for number in 0..20 {
        let name = format!("new-{number}");
        let topic = Topic { name: name.clone(), partitions: 3, ..Topic::default() };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        TopicServiceClient::new(cluster.channel(0)).create_topic(request).await.unwrap();
        for partition in 0..3 {
            // It may have no leader yet; that it is not there, nobody may say.
            until("it is written to", async || {
                match write(&cluster, 0, to_one(&name, partition, "x")).await {
                    Ok(_) => true,
                    Err(status) => {
                        assert_eq!(reason(&status), "NO_LEADER", "{status:?}");
                        false
                    }
                }
            })
            .await;
        }
    }
    cluster.stop().await;
}
