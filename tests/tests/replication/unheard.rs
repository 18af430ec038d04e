//! A leader that no controller has answered for a session: another one may lead by now. What epochs do not protect it
//! promises no more, and all else goes on (correctness rule 10).

use std::time::Duration;

use tonic::transport::Channel;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    Acks, AppendOutcome, AppendReceipt, Applied, ErrorReason, FetchPartition, FetchRequest,
    GetAppendOutcomeRequest, NewRecord, OpenProducerRequest, ProduceRequest, ProducerIdentity,
};
use weir_tests::cluster::{Cluster, Plan};
use weir_tests::refusal::Refusal;

use crate::support::{try_read, until_in_sync, until_unheard};

const TOPIC: &str = "orders";

/// The leader, as a client sees it.
struct Leader(Channel);

fn one(value: &str, acks: Acks) -> ProduceRequest {
    ProduceRequest {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        acks: acks.into(),
        records: vec![NewRecord { value: Some(value.to_owned().into()), ..NewRecord::default() }],
        ..ProduceRequest::default()
    }
}

impl Leader {
    async fn produce(&self, request: ProduceRequest) -> Result<Vec<AppendReceipt>, Refusal> {
        let answer = ProducerServiceClient::new(self.0.clone()).produce(request).await;
        answer
            .map(|answer| answer.into_inner().receipts)
            .map_err(|status| Refusal::of_status(&status).unwrap())
    }

    /// Where it was written, of one that is committed.
    async fn commits(&self, request: ProduceRequest) -> i64 {
        let receipts = self.produce(request).await.unwrap();
        assert!(receipts[0].committed, "{receipts:?}");
        receipts[0].base_offset
    }

    async fn refuses(&self, request: ProduceRequest) {
        let refused = self.produce(request).await.unwrap_err();
        assert_eq!((refused.reason, refused.applied), (ErrorReason::NoLeader, Applied::No), "{refused:?}");
    }

    async fn outcome(
        &self,
        producer: ProducerIdentity,
        sequence: i32,
        seal: bool,
    ) -> Result<AppendOutcome, ErrorReason> {
        let request = GetAppendOutcomeRequest {
            topic: TOPIC.to_owned(),
            producer: Some(producer),
            sequence,
            seal,
            // A seal is waited for until it is committed.
            wait_ms: if seal { 30_000 } else { 0 },
            ..GetAppendOutcomeRequest::default()
        };
        let answer = ProducerServiceClient::new(self.0.clone()).get_append_outcome(request).await;
        let answer = answer.map(|answer| answer.into_inner().outcome());
        answer.map_err(|status| Refusal::of_status(&status).unwrap().reason)
    }

    async fn read(&self) -> Vec<String> {
        let partition = FetchPartition { topic: TOPIC.to_owned(), ..FetchPartition::default() };
        let request =
            FetchRequest { partitions: vec![partition], wait_ms: Some(0), ..FetchRequest::default() };
        let answer = ConsumerServiceClient::new(self.0.clone()).fetch(request).await.unwrap().into_inner();
        let values = answer.partitions[0].records.iter().map(|record| record.value.clone().unwrap());
        values.map(|value| String::from_utf8(value.into()).unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_answers_promises_only_what_epochs_protect() {
    // A follower that is held up stays in sync for as long as the test takes.
    let patient = Plan::of(3).flag("--replica-lag-ms-max", "60s");
    let cluster = Cluster::start_as(Plan { session: Duration::from_secs(2), ..patient }).await;
    cluster.create(TOPIC, 1, 3, &[("min_insync_replicas", "2")]).await;
    until_in_sync(&cluster, 0, TOPIC, 3).await;
    let at = cluster.leaders(TOPIC).await[0];
    until_in_sync(&cluster, at, TOPIC, 3).await;
    let leader = Leader(cluster.channel(at));
    let mut client = ProducerServiceClient::new(cluster.channel(at));
    let opened = client.open_producer(OpenProducerRequest::default()).await;
    let producer = opened.unwrap().into_inner().producer.unwrap();
    let by_it = ProduceRequest { producer: Some(producer), sequence: Some(0), ..one("first", Acks::All) };
    assert_eq!(leader.commits(by_it).await, 0);
    assert_eq!(leader.commits(one("second", Acks::All)).await, 1);
    (0..3).for_each(|broker| cluster.link_to_controller(broker).hold());
    until_unheard(&cluster, at, TOPIC).await;

    leader.refuses(one("leader", Acks::Leader)).await;
    // Nobody is told of acks NONE: it shows in where the next one goes.
    assert_eq!(leader.produce(one("none", Acks::None)).await.unwrap(), []);
    let mismatch = ProduceRequest { expected_next_offset: Some(9), ..one("mismatch", Acks::All) };
    leader.refuses(mismatch).await;
    assert_eq!(leader.outcome(producer, 1, false).await, Err(ErrorReason::OffsetNotAvailable));

    assert_eq!(leader.commits(one("third", Acks::All)).await, 2);
    let conditional = ProduceRequest { expected_next_offset: Some(3), ..one("fourth", Acks::All) };
    assert_eq!(leader.commits(conditional).await, 3);
    assert_eq!(leader.outcome(producer, 0, false).await, Ok(AppendOutcome::Appended));
    assert_eq!(leader.outcome(producer, 1, true).await, Ok(AppendOutcome::Never), "the fence is committed");
    assert_eq!(leader.read().await, ["first", "second", "third", "fourth"]);
    // Whoever reads to the end gets what is committed, by whatever broker; nobody is told that it is the end.
    let other = (at + 1) % 3;
    for asked in [at, other] {
        let all = try_read(&cluster, asked, TOPIC).await.unwrap();
        assert_eq!(all, ["first", "second", "third", "fourth"], "asked of broker {}", cluster.id(asked));
        until_unheard(&cluster, asked, TOPIC).await;
    }
    (0..3).for_each(|broker| cluster.link_to_controller(broker).release());
    cluster.stop().await;
}
