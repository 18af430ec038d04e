//! A broker has a listener for clients and one for other brokers: each answers with the addresses of its own kind, has
//! room of its own, and the second is there only where there may be other brokers.

use std::collections::BTreeMap;

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use weir_io::MemDisk;
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_proto::internal::v1::raft_service_client::RaftServiceClient;
use weir_proto::internal::v1::replication_service_client::ReplicationServiceClient;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::{GetMetadataRequest, GetServerInfoRequest, ListBrokersRequest, WatchMetadataRequest};

use crate::support::*;

const INTERNAL: (&str, &str) = ("--internal-listen", "127.0.0.1:0");

/// Where the brokers are, as a listener says.
async fn told(channel: Channel) -> Vec<String> {
    let mut client = MetadataServiceClient::new(channel);
    let got = client.get_metadata(GetMetadataRequest::default()).await.unwrap().into_inner();
    let mut watch = client.watch_metadata(WatchMetadataRequest::default()).await.unwrap().into_inner();
    let watched = watch.message().await.unwrap().unwrap();
    assert_eq!(got.brokers, watched.brokers);
    got.brokers.into_iter().map(|broker| broker.endpoint).collect()
}

/// Where the first broker listens, by listener.
async fn registered(broker: &Broker) -> BTreeMap<String, String> {
    let mut client = AdminServiceClient::new(broker.public());
    let listed = client.list_brokers(ListBrokersRequest::default()).await.unwrap().into_inner();
    listed.brokers[0].endpoints.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_answers_with_addresses_of_its_own_kind() {
    let node = Node::start(&MemDisk::new(1)).await;
    let broker = Broker::start_set(MemDisk::new(2), node.addr, &[INTERNAL]).await.unwrap();
    let (public, internal) = (broker.running.addr(), broker.running.internal_addr().unwrap());
    let both = [("public", public), ("internal", internal)];
    let both = both.map(|(listener, addr)| (listener.to_owned(), addr.to_string()));
    assert_eq!(registered(&broker).await, BTreeMap::from(both));
    assert_eq!(told(broker.public()).await, [public.to_string()]);
    assert_eq!(told(broker.internal()).await, [internal.to_string()]);

    for channel in [broker.public(), broker.internal()] {
        let healthy = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(healthy.into_inner().status, 1, "SERVING");
    }
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_broker_tells_how_the_disks_of_all_are_and_of_one_that_is_gone_nothing() {
    let node = Node::start(&MemDisk::new(1)).await;
    let first = Broker::start_set(MemDisk::new(2), node.addr, &[INTERNAL]).await.unwrap();
    let second = Broker::start_set(MemDisk::new(3), node.addr, &[INTERNAL]).await.unwrap();
    let mut client = AdminServiceClient::new(first.public());
    let mut known = async || {
        let listed = client.list_brokers(ListBrokersRequest::default()).await.unwrap().into_inner();
        listed.brokers.iter().map(|broker| !broker.directories[0].path.is_empty()).collect::<Vec<_>>()
    };
    until("both are known", async || known().await == [true, true]).await;
    second.running.stop().await.unwrap();
    assert_eq!(known().await, [true, false], "what nobody says is not made up");
    first.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_are_told_may_be_another_address() {
    let node = Node::start(&MemDisk::new(1)).await;
    let told = [("--advertised-address", "weir.example:1"), ("--internal-advertised-address", "b1:2")];
    let flags = [&[INTERNAL], &told[..]].concat();
    let broker = Broker::start_set(MemDisk::new(2), node.addr, &flags).await.unwrap();
    let both = [("public", "weir.example:1"), ("internal", "b1:2")];
    let both = both.map(|(listener, addr)| (listener.to_owned(), addr.to_owned()));
    assert_eq!(registered(&broker).await, BTreeMap::from(both));
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_others_listens_for_none() {
    let node = Node::start(&MemDisk::new(1)).await;
    let broker = Broker::start(MemDisk::new(2), node.addr).await;
    assert_eq!(broker.running.internal_addr(), None);
    assert_eq!(registered(&broker).await.into_keys().collect::<Vec<_>>(), ["public"]);
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_and_brokers_do_not_take_each_others_room() {
    let node = Node::start(&MemDisk::new(1)).await;
    let flags = [INTERNAL, ("--internal-connections-max", "1"), ("--connections-max", "1")];
    let broker = Broker::start_set(MemDisk::new(2), node.addr, &flags).await.unwrap();
    let asked = async |channel: Channel| {
        MetadataServiceClient::new(channel).get_server_info(GetServerInfoRequest {}).await
    };
    let (public, internal) = (broker.public(), broker.internal());
    asked(public.clone()).await.unwrap();
    asked(internal.clone()).await.unwrap();
    assert_eq!(broker.metric("weir_connections").await, 1);
    assert_eq!(broker.metric("weir_internal_connections").await, 1);
    // Full, both: a second connection is closed.
    asked(broker.internal()).await.unwrap_err();
    let refused = broker.metric("weir_connections_refused_total").await;
    assert!(refused >= 1, "{refused}");
    asked(public).await.unwrap();
    asked(internal).await.unwrap();
    broker.running.stop().await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_cuts_off_what_other_brokers_never_end() {
    let node = Node::start(&MemDisk::new(1)).await;
    let broker = Broker::start_set(MemDisk::new(2), node.addr, &[INTERNAL]).await.unwrap();
    let mut health = HealthClient::new(broker.internal());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    tokio::time::timeout(PATIENCE, broker.running.stop()).await.unwrap().unwrap();
    let ended = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap();
    assert!(ended.is_err(), "{ended:?}");
    node.stop().await;
}

/// Whether each of the services that are not for clients is unknown there.
async fn unknown(channel: &Channel) -> [bool; 3] {
    let is_unknown =
        |refused: Option<Status>| refused.is_some_and(|status| status.code() == Code::Unimplemented);
    let mut controller = ControllerServiceClient::new(channel.clone());
    let controller = controller.describe_controller(pb::DescribeControllerRequest {}).await.err();
    let raft = RaftServiceClient::new(channel.clone()).vote(pb::VoteRequest::default()).await.err();
    let mut replication = ReplicationServiceClient::new(channel.clone());
    let replication = replication.get_start_state(pb::GetStartStateRequest::default()).await.err();
    [is_unknown(controller), is_unknown(raft), is_unknown(replication)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_reach_nothing_that_is_for_brokers_and_controllers() {
    let node = Node::start(&MemDisk::new(1)).await;
    let broker = Broker::start_set(MemDisk::new(2), node.addr, &[INTERNAL]).await.unwrap();
    assert_eq!(unknown(&broker.public()).await, [true, true, true]);
    // Each is known where it belongs.
    assert_eq!(unknown(&broker.internal()).await, [true, true, false]);
    let controller = Channel::from_shared(format!("http://{}", node.addr)).unwrap().connect_lazy();
    assert_eq!(unknown(&controller).await, [false, false, true]);
    broker.running.stop().await.unwrap();
    node.stop().await;
}
