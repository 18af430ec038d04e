//! Calls of one answer, asked of a broker that leads nothing of what they are about, or not all.

use std::collections::BTreeSet;

use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{
    AppendOutcome, DeleteRecordsRequest, DescribePartitionsRequest, FetchRequest, GetAppendOutcomeRequest,
    ListOffsetsRequest, NewRecord, OffsetQuery, OpenProducerRequest, ProduceRequest, RecordsBefore, StartAt,
};
use weir_runtime::testing::until;

use crate::said::{
    all_of, cluster_with, consumer, fact, fetch, forwarded, producer, reason, record, stranger_and_leader,
    to_one, values, write,
};

const TOPIC: &str = "flights";

#[tokio::test]
async fn a_record_goes_in_and_comes_out_by_whatever_broker() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let written = write(&cluster, stranger, to_one(TOPIC, 0, "by a stranger")).await.unwrap();
    assert_eq!(forwarded(&written), Some(cluster.id(leader).to_string()));
    assert_eq!(written.metadata().get("weir-broker").unwrap(), &cluster.id(stranger).to_string());
    let written = write(&cluster, leader, to_one(TOPIC, 0, "by the leader")).await.unwrap();
    assert_eq!((forwarded(&written), written.get_ref().receipts[0].base_offset), (None, 1));
    for at in 0..3 {
        let answer = fetch(&cluster, at, all_of(TOPIC, [0])).await;
        assert_eq!(forwarded(&answer).is_some(), at != leader);
        assert_eq!(values(answer.get_ref(), 0), ["by a stranger", "by the leader"]);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn records_spread_by_key_reach_every_leader_and_each_is_accounted_for() {
    let cluster = cluster_with(TOPIC, 6).await;
    let keyed = |key: usize| NewRecord { key: Some(format!("k{key}").into()), ..record(&format!("v{key}")) };
    let records: Vec<_> = (0..60).map(keyed).collect();
    let request = ProduceRequest { topic: TOPIC.to_owned(), records, ..ProduceRequest::default() };
    let written = write(&cluster, 0, request).await.unwrap().into_inner();
    let partitions: Vec<_> = written.receipts.iter().map(|receipt| receipt.partition).collect();
    assert_eq!(partitions, [0, 1, 2, 3, 4, 5]);
    let answer = fetch(&cluster, 1, all_of(TOPIC, 0..6)).await;
    assert_eq!(forwarded(&answer), Some("1,3".to_owned()));
    let mut places = BTreeSet::new();
    for receipt in &written.receipts {
        let values = values(answer.get_ref(), usize::try_from(receipt.partition).unwrap());
        let meant: Vec<_> = receipt.record_indexes.iter().map(|place| format!("v{place}")).collect();
        assert_eq!(values, meant, "partition {}", receipt.partition);
        places.extend(receipt.record_indexes.clone());
    }
    assert_eq!(places.len(), 60);
    cluster.stop().await;
}

#[tokio::test]
async fn of_a_call_with_a_wrong_record_nothing_is_written_anywhere() {
    let cluster = cluster_with(TOPIC, 6).await;
    let keyed = |key: usize| NewRecord { key: Some(format!("k{key}").into()), ..record("x") };
    let mut records: Vec<_> = (0..60).map(keyed).collect();
    records[40].value = None;
    let request = ProduceRequest { topic: TOPIC.to_owned(), records, ..ProduceRequest::default() };
    let refused = write(&cluster, 0, request).await.unwrap_err();
    assert_eq!((reason(&refused), fact(&refused, "applied")), ("VALUE_MISSING".into(), Some("NO".into())));
    let answer = fetch(&cluster, 1, all_of(TOPIC, 0..6)).await.into_inner();
    assert!((0..6).all(|place| values(&answer, place).is_empty()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_fetch_that_waits_is_woken_by_whichever_leader() {
    let cluster = cluster_with(TOPIC, 3).await;
    let request = FetchRequest { wait_ms: Some(30_000), ..all_of(TOPIC, 0..3) };
    let reading = tokio::spawn({
        let channel = cluster.channel(0);
        async move { consumer(channel).fetch(request).await.unwrap().into_inner() }
    });
    let (_, leader) = stranger_and_leader(&cluster, TOPIC, 2).await;
    write(&cluster, leader, to_one(TOPIC, 2, "late")).await.unwrap();
    let answer = reading.await.unwrap();
    assert_eq!(values(&answer, 2), ["late"]);
    assert!(answer.waited_ms < 20_000, "{}", answer.waited_ms);
    cluster.stop().await;
}

#[tokio::test]
async fn offsets_of_all_partitions_are_had_from_any_broker() {
    let cluster = cluster_with(TOPIC, 3).await;
    for partition in 0..3 {
        for _ in 0..=partition {
            write(&cluster, 0, to_one(TOPIC, partition, "x")).await.unwrap();
        }
    }
    let query = |partition| OffsetQuery {
        topic: TOPIC.to_owned(),
        partition,
        start_at: StartAt::Latest.into(),
        ..OffsetQuery::default()
    };
    let mut request = ListOffsetsRequest { queries: (0..3).map(query).collect(), ..Default::default() };
    for at in 0..3 {
        let answer = consumer(cluster.channel(at)).list_offsets(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.offsets.iter().map(|answer| answer.offset).collect::<Vec<_>>(), [1, 2, 3]);
    }
    request.queries.push(query(7));
    let refused = consumer(cluster.channel(0)).list_offsets(request.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "PARTITION_NOT_FOUND");
    request.allow_partial = true;
    let answer = consumer(cluster.channel(0)).list_offsets(request).await.unwrap().into_inner();
    assert_eq!(answer.offsets.iter().filter(|answer| answer.failure.is_some()).count(), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn records_are_deleted_by_their_leaders() {
    let cluster = cluster_with(TOPIC, 3).await;
    for partition in 0..3 {
        write(&cluster, 0, to_one(TOPIC, partition, "x")).await.unwrap();
    }
    let before = [2, 0, 1].map(|partition| RecordsBefore { partition, offset: 1 });
    let request = DeleteRecordsRequest { topic: TOPIC.to_owned(), before: before.to_vec() };
    let mut topics = TopicServiceClient::new(cluster.channel(1));
    assert_eq!(topics.delete_records(request.clone()).await.unwrap().into_inner().log_start, before);
    let one = DeleteRecordsRequest { before: vec![before[1]], ..request.clone() };
    for at in 0..3 {
        let mut topics = TopicServiceClient::new(cluster.channel(at));
        assert_eq!(topics.delete_records(one.clone()).await.unwrap().into_inner().log_start, [before[1]]);
    }
    let beyond = RecordsBefore { partition: 0, offset: 9 };
    let mixed = DeleteRecordsRequest { before: vec![beyond, before[2]], ..request };
    let refused = topics.delete_records(mixed).await.unwrap_err();
    assert_eq!(reason(&refused), "OFFSET_OUT_OF_RANGE");
    assert_eq!(fact(&refused, "applied"), Some("MAYBE".to_owned()), "another log begins elsewhere now");
    cluster.stop().await;
}

#[tokio::test]
async fn the_outcome_of_an_append_is_told_by_any_broker() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 1).await;
    let opened = producer(cluster.channel(stranger)).open_producer(OpenProducerRequest::default()).await;
    let identity = opened.unwrap().into_inner().producer;
    let request = ProduceRequest { producer: identity, sequence: Some(0), ..to_one(TOPIC, 1, "x") };
    write(&cluster, stranger, request).await.unwrap();
    let asked = GetAppendOutcomeRequest {
        topic: TOPIC.to_owned(),
        partition: 1,
        producer: identity,
        ..GetAppendOutcomeRequest::default()
    };
    for at in [stranger, leader] {
        let told =
            producer(cluster.channel(at)).get_append_outcome(asked.clone()).await.unwrap().into_inner();
        assert_eq!(told.outcome(), AppendOutcome::Appended);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn every_broker_says_where_every_partition_stands() {
    let cluster = cluster_with(TOPIC, 3).await;
    for partition in 0..3 {
        write(&cluster, 0, to_one(TOPIC, partition, "x")).await.unwrap();
    }
    let mut told = BTreeSet::new();
    for at in 0..3 {
        let mut admin = AdminServiceClient::new(cluster.channel(at));
        let described = admin.describe_partitions(DescribePartitionsRequest::default()).await.unwrap();
        let partitions = described.into_inner().partitions;
        assert!(partitions.iter().all(|one| one.high_watermark == 1 && one.size_bytes > 0), "{partitions:?}");
        told.insert(format!("{partitions:?}"));
        let request = DescribePartitionsRequest { problems_only: true, ..Default::default() };
        assert_eq!(admin.describe_partitions(request).await.unwrap().into_inner().partitions, []);
    }
    assert_eq!(told.len(), 1, "all say the same: {told:#?}");
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_dead_leader_was_not_asked_is_not_applied_and_worth_another_try() {
    let mut cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    cluster.kill_broker(leader).await;
    let refused = write(&cluster, stranger, to_one(TOPIC, 0, "x")).await.unwrap_err();
    assert_eq!(reason(&refused), "NO_LEADER", "{refused:?}");
    assert_eq!(fact(&refused, "applied"), Some("NO".to_owned()));
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    cluster.start_broker(leader).await;
    cluster.until_led(TOPIC).await;
    write(&cluster, stranger, to_one(TOPIC, 0, "x")).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown_and_not_sent_again() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    write(&cluster, stranger, to_one(TOPIC, 0, "before")).await.unwrap();
    let link = cluster.link(stranger, leader);
    link.hold_answers();
    let mut client = producer(cluster.channel(stranger));
    let writing = tokio::spawn(async move { client.produce(to_one(TOPIC, 0, "lost")).await });
    let written = async || values(fetch(&cluster, leader, all_of(TOPIC, [0])).await.get_ref(), 0);
    until("it is written", async || written().await == ["before", "lost"]).await;
    link.cut();
    let refused = writing.await.unwrap().unwrap_err();
    assert_eq!(
        (reason(&refused), fact(&refused, "applied")),
        ("OUTCOME_UNKNOWN".into(), Some("MAYBE".into()))
    );
    link.mend();
    write(&cluster, stranger, to_one(TOPIC, 0, "after")).await.unwrap();
    assert_eq!(written().await, ["before", "lost", "after"]);
    cluster.stop().await;
}
