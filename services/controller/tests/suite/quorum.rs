//! Three controllers: they join, vote, survive each other, and say who leads.

use tokio::time::Instant;
use tonic::Status;
use weir_cluster::{Controllers, Row, is_for, leader_hint};
use weir_controller::{Config, Controller, Error, Lost};
use weir_io::{Disk, MemDisk, Survival};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_proto::v1::{ErrorReason, Voter, VoterState};

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
    quorum_of(3).await
}

/// So many controllers that all vote.
async fn quorum_of(count: u64) -> Vec<Node> {
    let first = Node::start(MemDisk::new(1), Config { snapshot_commands: 20, ..config() }).await;
    let broker = Broker::start(&first.controllers()).await;
    for number in 0..50 {
        first.create(&format!("before-{number}")).await.unwrap();
    }
    broker.assign_all(&first.handle.image()).await;
    let mut nodes = vec![first];
    for seed in 2..=count {
        let seeds: Vec<&str> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
        let joined = Node::start(MemDisk::new(seed), joining(&seeds)).await;
        nodes.push(joined);
    }
    let controllers = nodes[0].controllers();
    until("all of them vote", async || {
        let voters = voters(&controllers).await;
        voters.len() as u64 == count && voters.iter().all(|voter| voter.voting)
    })
    .await;
    nodes
}

fn of(nodes: &[Node]) -> Controllers {
    Controllers::new(nodes[0].os.clone(), nodes.iter().map(|node| node.endpoint.clone()).collect())
}

/// Waits until exactly these are away, and all others are known to be there.
async fn away_are(controllers: &Controllers, endpoints: &[&str]) {
    until("it is seen who is away", async || {
        let voters = voters(controllers).await;
        let away = voters.iter().filter(|voter| voter.state() == VoterState::Away);
        let away: Vec<&str> = away.map(|voter| voter.endpoint.as_str()).collect();
        let known = voters.iter().all(|voter| voter.state() != VoterState::Unspecified);
        known && !voters.is_empty() && away == endpoints
    })
    .await;
}

/// Which of them leads: whoever takes a command, or is named in the refusal.
async fn leader(nodes: &[Node]) -> usize {
    let asked = direct(create_request("who-leads"));
    let Err(refused) = client(&nodes[0]).create_topic(asked).await else { return 0 };
    let named = leader_hint(&refused).unwrap();
    nodes.iter().position(|node| node.endpoint == named).unwrap()
}

/// A call that is not passed on.
fn direct<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(weir_cluster::ROUTE_HEADER, weir_cluster::ROUTE_DIRECT.parse().unwrap());
    request
}

/// Takes voters out, or says why not.
async fn remove(controllers: &Controllers, ids: &[i64], validate_only: bool) -> Result<Vec<i64>, Status> {
    let request = v1::UpdateVotersRequest { remove_voter_ids: ids.to_vec(), validate_only };
    let answer = ask(controllers, |mut client| {
        let request = Some(request.clone());
        async move { client.update_voters(pb::UpdateVotersRequest { request }).await }
    });
    Ok(answer.await?.response.unwrap().after.iter().map(|voter| voter.voter_id).collect())
}

fn id_of(voters: &[Voter], node: &Node) -> i64 {
    voters.iter().find(|voter| voter.endpoint == node.endpoint).unwrap().voter_id
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
    let refused = client(follower).create_topic(direct(create_request("refused"))).await.unwrap_err();
    assert_eq!(leader_hint(&refused), Some(nodes[leader].endpoint.clone()));
    // Whoever does not say that he wants to know is spared the way.
    client(follower).create_topic(create_request("passed-on")).await.unwrap();
    assert!(nodes[leader].topics().contains(&"passed-on".to_owned()));
    let described = client(follower).describe_controller(pb::DescribeControllerRequest {}).await.unwrap();
    assert_eq!(
        described.into_inner().feature_level,
        weir_metadata::FEATURE_LEVEL,
        "each says what it is itself"
    );

    let dead = nodes.remove(leader);
    let endpoint = dead.endpoint.clone();
    let disk = dead.kill();
    let survivors = of(&nodes);
    create(&survivors, "two").await.unwrap();
    away_are(&survivors, &[&endpoint]).await;
    let leading = nodes.iter().find(|node| node.handle.leads().is_some()).unwrap();
    let metrics = String::from_utf8(leading.handle.metrics()).unwrap();
    assert!(metrics.contains("weir_controller_voters_away 1\n"), "{metrics}");

    // Back from its disk, at its old address, it catches up.
    let listen = endpoint.parse().unwrap();
    let back = Node::start(disk, Config { listen, ..joining(&[]) }).await;
    let version = nodes.iter().map(|node| node.handle.image().version()).max().unwrap();
    until("it caught up", async || back.handle.image().version() >= version).await;
    assert!(back.topics().contains(&"two".to_owned()));
    away_are(&survivors, &[]).await;
    nodes.push(back);
    let last = nodes.remove(0);
    last.kill();
    create(&of(&nodes), "again").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}

/// Takes the leading one out of its life.
async fn kill_the_leader(nodes: &mut Vec<Node>) -> (String, MemDisk) {
    let mut at = None;
    until("one of them leads", async || {
        at = nodes.iter().position(|node| node.handle.leads().is_some());
        at.is_some()
    })
    .await;
    let leader = nodes.remove(at.unwrap());
    (leader.endpoint.clone(), leader.kill())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_go_on_without_two_leaders_and_without_a_third_as_soon_as_one_is_back() {
    let mut nodes = quorum_of(5).await;
    for name in ["four-live", "three-live"] {
        drop(kill_the_leader(&mut nodes).await);
        create(&of(&nodes), name).await.unwrap();
    }
    let (endpoint, disk) = kill_the_leader(&mut nodes).await;
    for node in &nodes {
        until("it says what is missing", async || {
            node.handle.unready().is_some_and(|why| why.contains("3 of the 5 that vote must run"))
        })
        .await;
    }
    let refused = client(&nodes[0]).create_topic(direct(create_request("two-live"))).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::ControllerUnavailable), "{refused}");
    assert!(refused.message().contains("no controller leads"), "{refused}");

    let listen = endpoint.parse().unwrap();
    nodes.push(Node::start(disk, Config { listen, ..joining(&[]) }).await);
    create(&of(&nodes), "three-again").await.unwrap();
    for node in &nodes {
        until("everybody has all of it", async || node.topics().contains(&"three-again".to_owned())).await;
        let topics = node.topics();
        assert!(["four-live", "three-live"].iter().all(|name| topics.contains(&(*name).to_owned())));
        assert!(!topics.contains(&"two-live".to_owned()), "what was refused is not there");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_is_another_controller() {
    let mut nodes = three().await;
    let gone = nodes.remove(2);
    let listen = gone.endpoint.parse().unwrap();
    let gone = gone.kill();
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
    until("it votes, too", async || {
        voters(&of(&nodes)).await.iter().filter(|voter| voter.voting).count() == 4
    })
    .await;

    // The lost one is replaced: it is taken out, and nobody waits for it any more.
    nodes.push(fresh);
    let controllers = of(&nodes);
    let all = voters(&controllers).await;
    let alive: Vec<i64> = nodes.iter().map(|node| id_of(&all, node)).collect();
    let dead = all.iter().map(|voter| voter.voter_id).find(|id| !alive.contains(id)).unwrap();
    let mut left = alive.clone();
    left.sort_unstable();
    assert_eq!(remove(&controllers, &[dead], true).await.unwrap(), left);
    assert_eq!(voters(&controllers).await.len(), 4, "a trial");
    assert_eq!(remove(&controllers, &[dead], false).await.unwrap(), left);
    assert_eq!(remove(&controllers, &[dead], false).await.unwrap(), left, "again: nothing");
    // It comes back with its disk, and is told.
    let controller = Controller::build(test_os(&gone), Config { listen, ..joining(&[]) }).await.unwrap();
    let (stop, handle) = (weir_runtime::Stop::new(), controller.handle());
    let serving = tokio::spawn(controller.serve(stop.clone()));
    until("it says that it was taken out", async || {
        handle.unready().is_some_and(|why| why.contains("this controller was taken out of the quorum"))
    })
    .await;
    stop.request(weir_runtime::Reason::Asked("the test".to_owned()));
    serving.await.unwrap().unwrap();
    let known: Vec<i64> = nodes[0].handle.image().controllers().map(|controller| controller.id).collect();
    assert!(!known.contains(&dead), "{known:?}");

    // One of three may die; then neither of the others can be taken out, and the leader never.
    let leading = id_of(&all, &nodes[leader(&nodes).await]);
    let refused = remove(&controllers, &[leading], false).await.unwrap_err();
    assert!(is_for(&refused, ErrorReason::QuorumAtRisk), "{refused}");
    assert!(refused.message().contains("leads: stop it"), "{refused}");
    let follower = nodes.iter().position(|node| id_of(&all, node) != leading).unwrap();
    let (killed, disk) = (id_of(&all, &nodes[follower]), nodes.remove(follower).kill());
    drop(disk);
    let controllers = of(&nodes);
    let other = left.iter().copied().find(|id| ![leading, killed].contains(id)).unwrap();
    let refused = remove(&controllers, &[other], false).await.unwrap_err();
    assert!(refused.message().contains("1 live, which is no majority"), "{refused}");
    assert_eq!(remove(&controllers, &[killed], false).await.unwrap().len(), 2);
    create(&controllers, "two-of-two").await.unwrap();
    for node in nodes {
        node.stop().await;
    }
}

/// Two of three are lost for good. The third goes on alone, with what it has, and nobody of the old quorum is heard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_a_lost_quorum_goes_on_when_a_person_says_so() {
    let mut nodes = three().await;
    let cluster = nodes[0].handle.cluster_id();
    create(&of(&nodes), "latest").await.unwrap();
    let version = nodes.iter().map(|node| node.handle.image().version()).max().unwrap();
    let last = nodes.pop().unwrap();
    until("it has everything", async || last.handle.image().version() >= version).await;
    let listen = last.endpoint.parse().unwrap();
    let dir = std::path::Path::new("/controller");

    let in_use = Lost::open(test_os(&last.disk), dir).await.err().unwrap();
    assert!(matches!(in_use, Error::Locked { .. }), "{in_use}");
    let disk = last.stop().await;
    let nowhere = Lost::open(test_os(&disk), std::path::Path::new("/elsewhere")).await.err().unwrap();
    assert!(matches!(nowhere, Error::NoController { .. }), "{nowhere}");

    let lost = Lost::open(test_os(&disk), dir).await.unwrap();
    let found = lost.found().clone();
    assert_eq!((found.cluster_id, found.topics, found.brokers, found.others.len()), (cluster, 51, 1, 2));
    // When that was is in the log alone, of which its last snapshot may have left nothing.
    assert!(found.last_index >= 50, "{found:?}");
    assert_eq!(lost.answering().await.len(), 2, "the quorum is not lost");
    drop(lost);
    let mut old: Vec<MemDisk> = nodes.into_iter().map(Node::kill).collect();
    let lost = Lost::open(test_os(&disk), dir).await.unwrap();
    assert_eq!(lost.answering().await, []);
    lost.take_over().await.unwrap();

    let alone = Node::start(disk, Config { listen, ..joining(&[]) }).await;
    let controllers = alone.controllers();
    create(&controllers, "alone").await.unwrap();
    assert_eq!((alone.handle.cluster_id(), alone.topics().len()), (cluster, 52));
    assert_eq!(voters(&controllers).await.len(), 1);
    assert_eq!(alone.handle.image().controllers().count(), 1, "the others are forgotten");

    // One that was lost comes back after all: it is told, and changes nothing.
    let stray = Config { ..joining(&[]) };
    let controller = Controller::build(test_os(&old.remove(0)), stray).await.unwrap();
    let (stop, handle) = (weir_runtime::Stop::new(), controller.handle());
    let serving = tokio::spawn(controller.serve(stop.clone()));
    create(&controllers, "still-alone").await.unwrap();
    assert_eq!(voters(&controllers).await.len(), 1);
    until("it says why, and what to do", async || {
        let unready = handle.unready().unwrap_or_default();
        ["goes on without you", "give it an empty data folder", "join again"]
            .iter()
            .all(|words| unready.contains(words))
    })
    .await;
    stop.request(weir_runtime::Reason::Asked("the test".to_owned()));
    serving.await.unwrap().unwrap();

    // New ones join, and a quorum is there again.
    let second = Node::start(MemDisk::new(21), joining(&[&alone.endpoint])).await;
    until("it votes", async || voters(&controllers).await.iter().filter(|voter| voter.voting).count() == 2)
        .await;
    until("it has everything", async || second.topics().len() == 53).await;
    create(&second.controllers(), "two").await.unwrap();
    second.stop().await;
    alone.kill();
}

/// Everybody is asked before the level rises: controllers, and brokers that serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_is_raised_when_everybody_understands_it() {
    let node = Node::start(v1_folder().await, config()).await;
    let controllers = node.controllers();
    until("the log is applied", async || node.handle.image().next_producer_id() == 3_000).await;
    assert_eq!(node.handle.image().feature_level(), 1);
    let expecting = v1::UpdateConfigsRequest {
        set_config: [("retention_ms".to_owned(), "2d".to_owned())].into(),
        expected_config: [("retention_ms".to_owned(), "7d".to_owned())].into(),
        ..v1::UpdateConfigsRequest::default()
    };
    let update = async |validate_only| {
        let expecting = v1::UpdateConfigsRequest { validate_only, ..expecting.clone() };
        let answer = ask(&controllers, |mut client| {
            let request = Some(expecting.clone());
            async move { client.update_configs(pb::UpdateConfigsRequest { request }).await }
        });
        answer.await.map(|_| ())
    };
    for trial in [true, false] {
        let refused = update(trial).await.unwrap_err();
        assert!(is_for(&refused, ErrorReason::FeatureUnknown), "{refused}");
        assert!(refused.message().contains("weir cluster finalize"), "{refused}");
    }
    let finalize = async |validate_only| {
        let request = v1::FinalizeFeatureLevelRequest { validate_only };
        let answer = ask(&controllers, |mut client| {
            let request = Some(request);
            async move { client.finalize_feature_level(pb::FinalizeFeatureLevelRequest { request }).await }
        });
        answer.await.unwrap().response.unwrap()
    };
    // Two brokers serve, as far as the folder knows, and have not been heard of; two controllers are not there.
    let held = finalize(false).await;
    assert_eq!((held.before, held.after), (1, 1));
    assert!(held.held_back_by.iter().any(|why| why.contains("has not said")), "{:?}", held.held_back_by);
    for (id, epoch, feature_level) in [(1, 3, 2), (3, 16, 1)] {
        let by = weir_metadata::BrokerEpoch { broker: weir_types::BrokerId(id), epoch };
        let directory = weir_types::DirectoryId(1);
        let broker = Broker { controllers: controllers.clone(), by, directory };
        let beat = pb::BrokerHeartbeatRequest { feature_level, ..pb::BrokerHeartbeatRequest::default() };
        broker.say(beat).await.unwrap();
    }
    let held = finalize(true).await;
    assert_eq!(held.held_back_by, ["broker 3 understands level 1"]);
    let by = weir_metadata::BrokerEpoch { broker: weir_types::BrokerId(3), epoch: 16 };
    let broker = Broker { controllers: controllers.clone(), by, directory: weir_types::DirectoryId(1) };
    broker.say(pb::BrokerHeartbeatRequest { feature_level: 2, ..Default::default() }).await.unwrap();
    assert_eq!(finalize(true).await.after, 2);
    assert_eq!(node.handle.image().feature_level(), 1, "a trial");
    assert_eq!(finalize(false).await.after, 2);
    assert_eq!(node.handle.image().feature_level(), 2);
    update(false).await.unwrap();
    node.stop().await;
}

/// What version 1 has left.
async fn v1_folder() -> MemDisk {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1");
    let (real, disk) = (weir_io::RealDisk::new(), MemDisk::new(1));
    let target = std::path::Path::new("/controller");
    disk.create_dir(target).unwrap();
    for entry in real.list(&source).unwrap() {
        let bytes = real.read(&source.join(&entry.name), 4 << 20).unwrap();
        disk.replace_durably(&target.join(&entry.name), &bytes).unwrap();
    }
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whom_no_quorum_answers_says_so() {
    let mut nodes = three().await;
    let leader = leader(&nodes).await;
    let left = nodes.remove(leader);
    until("the leader is ready", async || left.handle.unready().is_none()).await;
    nodes.into_iter().for_each(|node| drop(node.kill()));
    until("it says that it is alone", async || left.handle.unready().is_some()).await;
    assert_eq!(
        left.handle.unready().as_deref(),
        Some("no quorum of controllers: 2 of the 3 that vote must answer, 1 do")
    );
    // Whoever asks for changes is told that none is made, and goes on saying so when something is shown.
    let controllers = left.controllers();
    until("nobody helps", async || {
        let until = Instant::now() + PATIENCE / 10;
        let made = controllers
            .call(until, |mut client| async move { client.create_topic(create_request("x")).await });
        made.await.is_err() && controllers.asked_in_vain().is_some()
    })
    .await;
    let shown = controllers.look(Instant::now() + PATIENCE, |mut client| async move {
        client.list_voters(pb::ListVotersRequest {}).await
    });
    assert_eq!(shown.await.unwrap().voters.len(), 3);
    assert!(controllers.asked_in_vain().is_some(), "an answer without a quorum is no help");
    left.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_behind_never_says_that_a_candidate_was_taken_out() {
    let mut nodes = three().await;
    let behind = nodes.remove(2);
    let decided = behind.handle.image().version();
    for node in nodes {
        node.kill();
    }
    // Somebody that it has never heard of, with a log of this end.
    let channel = weir_cluster::channel(&behind.os, &behind.endpoint).unwrap();
    let client = pb::raft_service_client::RaftServiceClient::new(channel);
    let asked = async |term: u64, index: u64| {
        let request = pb::VoteRequest {
            cluster_id: behind.handle.cluster_id().to_wire(),
            target_id: behind.handle.id(),
            vote: Some(pb::RaftVote { term: 1_000, node_id: 99, committed: false }),
            last_log_id: Some(pb::LogId { term, node_id: 1, index }),
            ..pb::VoteRequest::default()
        };
        client.clone().vote(request).await.unwrap().into_inner()
    };
    // It was added by a leader that has died, while this one was away: it may be the only one that has everything. This one
    // takes the dead one for its leader at first.
    until("it gets the vote", async || {
        let answer = asked(999, 1_000_000).await;
        assert!(!answer.goes_without, "it has more than this one");
        answer.granted
    })
    .await;
    // One that has nothing of what was decided since it was taken out.
    let answer = asked(1, 2).await;
    assert!(decided > 2 && answer.goes_without && !answer.granted, "{answer:?}");
    behind.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_one_without_a_quorum_does_not_call_itself_ready() {
    let mut nodes = quorum_of(5).await;
    for node in &nodes {
        node.handle.serves().await;
    }
    let leading = nodes.remove(leader(&nodes).await);
    let follower = nodes.remove(0);
    let gone: Vec<MemDisk> = nodes.into_iter().map(Node::kill).collect();
    until("the leader is alone", async || !leading.handle.decides().await).await;
    // Each of them is heard by the other.
    assert_eq!(follower.handle.leader(), Some(leading.handle.id()));
    assert!(!follower.handle.decides().await, "two of five decide nothing");
    leading.kill();
    assert!(!follower.handle.decides().await, "nor does one behind a leader who is dead");
    drop(gone);
    follower.kill();
}

/// Whoever lacks what it has acknowledged may have forgotten its votes as well: it is sent nothing, and named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_with_an_older_copy_of_its_folder_is_named_and_harms_nobody() {
    let mut nodes = three().await;
    let leads = leader(&nodes).await;
    let follower = nodes.remove((leads + 1) % 3);
    let (endpoint, disk) = (follower.endpoint.clone(), follower.stop().await);
    let older = disk.after_power_loss(Survival::Everything);
    let started = async |disk| {
        let listen = endpoint.parse().unwrap();
        Node::start(disk, Config { listen, ..joining(&[]) }).await
    };
    let follower = started(disk).await;
    let controllers = of(&nodes);
    for name in ["one", "two"] {
        create(&controllers, name).await.unwrap();
    }
    until("it has all of it", async || follower.topics().contains(&"two".to_owned())).await;
    let id = id_of(&voters(&controllers).await, &follower);
    drop(follower.stop().await);

    // It cannot know by itself.
    let listen = endpoint.parse().unwrap();
    let config = Config { listen, ..joining(&[]) };
    let runs = tokio::spawn(Node::start(older, config));
    until("it is said", async || {
        let voters = voters(&controllers).await;
        voters.iter().any(|voter| voter.voter_id == id && voter.note.contains("older copy"))
    })
    .await;
    create(&controllers, "three").await.unwrap();
    for node in &nodes {
        until("those that are left go on", async || node.topics().contains(&"three".to_owned())).await;
    }
    runs.abort();
    for node in nodes {
        node.stop().await;
    }
}
