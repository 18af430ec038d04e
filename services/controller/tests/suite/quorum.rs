//! Three controllers: they join, vote, survive each other, and say who leads.

use weir_cluster::{Controllers, leader_hint};
use weir_controller::{Config, Controller, Error};
use weir_io::MemDisk;
use weir_proto::internal::v1 as pb;
use weir_proto::v1::Voter;

use crate::common::*;

fn joining(endpoints: &[&str]) -> Config {
    let join = endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect();
    Config { bootstrap: false, join, snapshot_commands: 20, ..config() }
}

async fn voters(controllers: &Controllers) -> Vec<Voter> {
    let answer =
        ask(controllers, |mut client| async move { client.list_voters(pb::ListVotersRequest {}).await });
    answer.await.map(|answer| answer.voters).unwrap_or_default()
}

async fn three() -> Vec<Node> {
    let first = Node::start(MemDisk::new(1), Config { snapshot_commands: 20, ..config() }).await;
    let broker = Broker::start(&first.controllers()).await;
    for number in 0..50 {
        first.create(&format!("before-{number}")).await.unwrap();
    }
    broker.assign_all(&first.handle.image()).await;
    let mut nodes = vec![first];
    for seed in [2, 3] {
        let seeds: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let joined = Node::start(MemDisk::new(seed), joining(&seeds)).await;
        nodes.push(joined);
    }
    let controllers = nodes[0].controllers();
    until("all three vote", async || {
        let voters = voters(&controllers).await;
        voters.len() == 3 && voters.iter().all(|voter| voter.voting)
    })
    .await;
    nodes
}

fn of(nodes: &[Node]) -> Controllers {
    Controllers::new(nodes[0].os.clone(), nodes.iter().map(|node| node.endpoint.clone()).collect())
}

/// Which of them leads: whoever takes a command, or is named in the refusal.
async fn leader(nodes: &[Node]) -> usize {
    let Err(refused) = client(&nodes[0]).create_topic(create_request("who-leads")).await else { return 0 };
    let named = leader_hint(&refused).unwrap();
    nodes.iter().position(|node| node.endpoint == named).unwrap()
}

fn client(node: &Node) -> pb::controller_service_client::ControllerServiceClient<tonic::transport::Channel> {
    pb::controller_service_client::ControllerServiceClient::new(
        weir_cluster::channel(&node.os, &node.endpoint).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_join_and_go_on_without_their_leader() {
    let mut nodes = three().await;
    let cluster = nodes[0].handle.cluster_id();
    assert!(nodes.iter().all(|node| node.handle.cluster_id() == cluster));
    let controllers = of(&nodes);
    create(&controllers, "three").await.unwrap();
    let version = nodes[0].handle.image().version();
    for node in &nodes {
        until("everybody has it", async || node.handle.image().version() >= version).await;
        assert_eq!(node.handle.image(), nodes[0].handle.image());
    }

    let leader = leader(&nodes).await;
    let follower = &nodes[(leader + 1) % 3];
    let only_follower = Controllers::new(follower.os.clone(), vec![follower.endpoint.clone()]);
    create(&only_follower, "through-a-follower").await.unwrap();
    let refused = client(follower).create_topic(create_request("refused")).await.unwrap_err();
    assert_eq!(leader_hint(&refused), Some(nodes[leader].endpoint.clone()));

    let dead = nodes.remove(leader);
    let endpoint = dead.endpoint.clone();
    let disk = dead.kill();
    let survivors = of(&nodes);
    create(&survivors, "two").await.unwrap();

    // Back from its disk, at its old address, it catches up.
    let listen = endpoint.parse().unwrap();
    let back = Node::start(disk, Config { listen, ..joining(&[]) }).await;
    let version = nodes.iter().map(|node| node.handle.image().version()).max().unwrap();
    until("it caught up", async || back.handle.image().version() >= version).await;
    assert!(back.topics().contains(&"two".to_owned()));
    nodes.push(back);
    let last = nodes.remove(0);
    last.kill();
    create(&of(&nodes), "again").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_another_controller() {
    let mut nodes = three().await;
    let lost = nodes.remove(2);
    lost.kill();
    // With the founder's flag and an empty disk a new cluster would begin, and nobody of the old one hears of it:
    // without it, and without endpoints, nothing begins.
    let empty = Config { join: Vec::new(), ..joining(&[]) };
    let error = Controller::build(test_os(&MemDisk::new(9)), empty).await.err().unwrap();
    assert!(matches!(error, Error::Empty { .. }), "{error}");
    let seeds: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
    let fresh = Node::start(MemDisk::new(9), joining(&seeds)).await;
    until("it has the log", async || fresh.topics().len() == 50).await;
    let known = voters(&nodes[0].controllers()).await;
    assert_eq!(known.len(), 4, "the lost one is still a voter until it is removed: {known:?}");
    create(&of(&nodes), "more").await.unwrap();
    fresh.stop().await;
    for node in nodes {
        node.stop().await;
    }
}
