//! Never is never: a batch that was still under way when its producer was told so does not get in later (correctness rule 19).

use weir_proto::v1::{
    AppendOutcome, GetAppendOutcomeRequest, OpenProducerRequest, ProduceRequest, ProducerIdentity,
};
use weir_runtime::testing::until;
use weir_tests::cluster::Cluster;

use crate::said::{
    all_of, cluster_with, consumer, fact, fetch, producer, reason, stranger_and_leader, to_one, values, write,
};

const TOPIC: &str = "flights";

fn by(producer: ProducerIdentity, sequence: i32, value: &str) -> ProduceRequest {
    ProduceRequest { producer: Some(producer), sequence: Some(sequence), ..to_one(TOPIC, 0, value) }
}

/// Has it seen to that a batch never gets in, if it has not.
async fn seal(cluster: &Cluster, at: usize, identity: ProducerIdentity, sequence: i32) -> AppendOutcome {
    let request = GetAppendOutcomeRequest {
        topic: TOPIC.to_owned(),
        producer: Some(identity),
        sequence,
        seal: true,
        wait_ms: 30_000,
        ..GetAppendOutcomeRequest::default()
    };
    producer(cluster.channel(at)).get_append_outcome(request).await.unwrap().into_inner().outcome()
}

#[tokio::test]
async fn a_batch_that_a_broker_holds_while_never_is_said_never_gets_in() {
    let mut cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let opened = producer(cluster.channel(leader)).open_producer(OpenProducerRequest::default()).await;
    let identity = opened.unwrap().into_inner().producer.unwrap();
    write(&cluster, leader, by(identity, 0, "before")).await.unwrap();
    let link = cluster.link(stranger, leader);
    link.hold();
    assert_eq!(link.dialled(), 0, "nothing was passed on yet");
    let held = by(identity, 1, "held");
    let mut client = producer(cluster.channel(stranger));
    let writing = tokio::spawn(async move { client.produce(held).await });
    until("a broker has the batch, and passes it on", async || link.dialled() > 0).await;
    assert_eq!(seal(&cluster, leader, identity, 1).await, AppendOutcome::Never);
    link.release();
    let fenced = ("PRODUCER_FENCED".to_owned(), Some("NO".to_owned()));
    let refused = writing.await.unwrap().unwrap_err();
    assert_eq!((reason(&refused), fact(&refused, "applied")), fenced, "{refused:?}");

    let next = ProducerIdentity { epoch: identity.epoch + 1, ..identity };
    write(&cluster, stranger, by(next, 0, "after")).await.unwrap();
    let there = ["before", "after"];
    assert_eq!(values(fetch(&cluster, leader, all_of(TOPIC, [0])).await.get_ref(), 0), there);
    // Nor in another life of the log, which knows of the fence what is on the disk.
    cluster.kill_broker(leader).await;
    cluster.start_broker(leader).await;
    until("it leads again", async || {
        let answer = consumer(cluster.channel(leader)).fetch(all_of(TOPIC, [0])).await;
        answer.is_ok_and(|answer| values(answer.get_ref(), 0) == there)
    })
    .await;
    let refused = write(&cluster, leader, by(identity, 1, "held")).await.unwrap_err();
    assert_eq!((reason(&refused), fact(&refused, "applied")), fenced, "{refused:?}");
    assert_ne!(seal(&cluster, leader, identity, 1).await, AppendOutcome::Appended);
    assert_eq!(values(fetch(&cluster, leader, all_of(TOPIC, [0])).await.get_ref(), 0), there);
    cluster.stop().await;
}
