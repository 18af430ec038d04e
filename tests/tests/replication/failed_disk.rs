//! A broker whose disk has failed once is out until a person trusts it, although every sync succeeds from then on and what was
//! written reads well (correctness rule 35).

use std::path::Path;

use tonic::Status;
use weir_broker::StartError;
use weir_io::{Effect, Fault, Op, Rule};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    BrokerDescription, BrokerState, ErrorReason, ListBrokersRequest, NewRecord, ProduceRequest,
    TrustBrokerRequest,
};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;
use weir_tests::refusal::Refusal;

use crate::support::{partitions, read, until_in_sync, write};

const TOPIC: &str = "orders";

/// Three brokers, a partition that is in sync on all of them with a record, and who leads it.
async fn in_sync() -> (Cluster, usize) {
    let cluster = Cluster::start(3).await;
    cluster.create(TOPIC, 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, TOPIC, 3).await;
    write(&cluster, 0, TOPIC, 0, "before").await;
    let leader = cluster.leaders(TOPIC).await[0];
    (cluster, leader)
}

/// The next sync of a log fails, once, and the cache is kept. Whoever writes then is not told that it is there.
async fn fail(cluster: &Cluster, at: usize) {
    cluster.fail_disk(at, Rule::on([Op::SyncData], Effect::Fail(Fault::Io)).ends_with(".log").once());
    let request = ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        records: vec![NewRecord { value_text: "during".to_owned(), ..NewRecord::default() }],
        ..ProduceRequest::default()
    };
    let channel = cluster.channel(at);
    let writing = tokio::spawn(async move { ProducerServiceClient::new(channel).produce(request).await });
    until("its process ends", async || cluster.has_ended(at)).await;
    writing.abort();
}

/// How a broker is, as another one says.
async fn described(cluster: &Cluster, asked: usize, at: usize) -> BrokerDescription {
    let mut admin = AdminServiceClient::new(cluster.channel(asked));
    let brokers = admin.list_brokers(ListBrokersRequest::default()).await.unwrap().into_inner().brokers;
    brokers.into_iter().find(|broker| broker.broker_id == cluster.id(at)).unwrap()
}

async fn trust(cluster: &Cluster, asked: usize, at: usize, failures: Vec<i64>) -> Result<(), Status> {
    let request = TrustBrokerRequest { broker_id: cluster.id(at), validate_only: false, failures };
    AdminServiceClient::new(cluster.channel(asked)).trust_broker(request).await.map(drop)
}

fn reason(refused: &Status) -> ErrorReason {
    Refusal::of_status(refused).unwrap().reason
}

/// A start is refused, for its disk.
async fn is_refused(cluster: &mut Cluster, at: usize) {
    let refused = match cluster.try_start_broker(at).await {
        Err(StartError::Refused(refused)) => refused,
        other => panic!("it is refused: {other:?}"),
    };
    assert_eq!(reason(&refused), ErrorReason::DirectoryFailed, "{refused}");
    let advice = format!("weir broker trust {}", cluster.id(at));
    assert!(refused.message().contains(&advice), "{refused}");
}

/// A person trusts it, and it comes back with all that was acknowledged.
async fn comes_back(mut cluster: Cluster, failed: usize, asked: usize) {
    let seen = described(&cluster, asked, failed).await;
    assert_eq!(seen.state(), BrokerState::Failed);
    let [directory] = &*seen.directories else { panic!("{seen:?}") };
    assert!(!directory.failures.is_empty() && !directory.online, "{seen:?}");
    let unknown = directory.failures.iter().map(|failure| failure ^ 1).collect();
    let stale = trust(&cluster, asked, failed, unknown).await.unwrap_err();
    assert_eq!(reason(&stale), ErrorReason::RevisionMismatch, "{stale}");
    is_refused(&mut cluster, failed).await;
    trust(&cluster, asked, failed, directory.failures.clone()).await.unwrap();
    cluster.start_broker(failed).await;
    until_in_sync(&cluster, asked, TOPIC, 3).await;
    let after = described(&cluster, asked, failed).await;
    assert_eq!(after.state(), BrokerState::Active);
    assert!(after.directories.iter().all(|directory| directory.failures.is_empty()), "{after:?}");
    let mut values = read(&cluster, asked, TOPIC).await;
    // Of that one nobody was told anything.
    values.retain(|value| value != "during");
    assert_eq!(values, ["before", "after"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_failed_once_is_out_until_a_person_trusts_it() {
    let (mut cluster, failed) = in_sync().await;
    let asked = (failed + 1) % 3;
    fail(&cluster, failed).await;
    // Its last words were enough: the process is still there.
    let id = cluster.id(failed);
    until("others lead, without it", async || {
        let now = partitions(&cluster, asked, TOPIC).await;
        now.iter().all(|it| it.leader > 0 && it.leader != id && !it.isr.contains(&id))
    })
    .await;
    cluster.kill_broker(failed).await;
    write(&cluster, asked, TOPIC, 0, "after").await;
    // The disk is well again, and a restart clears nothing.
    is_refused(&mut cluster, failed).await;
    comes_back(cluster, failed, asked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_words_that_nobody_hears_are_said_again_by_the_next_start() {
    let (mut cluster, failed) = in_sync().await;
    let asked = (failed + 1) % 3;
    let way = cluster.link_to_controller(failed);
    way.close();
    fail(&cluster, failed).await;
    cluster.kill_broker(failed).await;
    assert_ne!(described(&cluster, asked, failed).await.state(), BrokerState::Failed, "nobody knows of it");
    way.mend();
    is_refused(&mut cluster, failed).await;
    write(&cluster, asked, TOPIC, 0, "after").await;
    comes_back(cluster, failed, asked).await;
}

/// The disk is trusted, and fails again before its broker is there. What it was told to note down of that it loses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_in_the_start_after_that_is_not_forgiven_with_it() {
    let (mut cluster, failed) = in_sync().await;
    let asked = (failed + 1) % 3;
    fail(&cluster, failed).await;
    cluster.kill_broker(failed).await;
    is_refused(&mut cluster, failed).await;
    let first = described(&cluster, asked, failed).await.directories[0].failures.clone();
    trust(&cluster, asked, failed, first.clone()).await.unwrap();
    let epoch = |path: &Path| path.to_string_lossy().contains("broker-epoch");
    let note = |path: &Path| path.to_string_lossy().contains("failed-");
    let faults = [
        Rule::on([Op::Write], Effect::Fail(Fault::Io)).path(epoch),
        Rule::on([Op::Create], Effect::Fail(Fault::Io)).path(note),
    ];
    let refused = cluster.try_start_broker_on(failed, faults).await.expect_err("its disk fails");
    assert!(!matches!(refused, StartError::Refused(_)), "{refused}");
    let second = described(&cluster, asked, failed).await.directories[0].failures.clone();
    assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");
    write(&cluster, asked, TOPIC, 0, "after").await;
    is_refused(&mut cluster, failed).await;
    comes_back(cluster, failed, asked).await;
}
