//! Appends on one stream to partitions of several leaders: in their order, once, whatever happens to the ways between.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use weir_proto::v1::produce_stream_request::Frame as Out;
use weir_proto::v1::produce_stream_response::Frame as In;
use weir_proto::v1::{
    Acks, AppendResult, Applied, BatchAppend, ErrorReason, ProduceHello, ProduceStreamRequest,
    ProduceStreamResponse, Route,
};
use weir_record::Codec;
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::batch::pack_values;
use weir_tests::cluster::Cluster;

use crate::said::{all_of, cluster_with, fetch, producer, stranger_and_leader, values};

const TOPIC: &str = "flights";

/// A stream to one broker.
struct Stream {
    requests: mpsc::UnboundedSender<ProduceStreamRequest>,
    answers: Streaming<ProduceStreamResponse>,
}

impl Stream {
    async fn open(cluster: &Cluster, at: usize, hello: ProduceHello) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let stream = |frame| ProduceStreamRequest { frame: Some(frame) };
        requests.send(stream(Out::Hello(hello))).unwrap();
        let queue = UnboundedReceiverStream::new(queue);
        let answers = producer(cluster.channel(at)).produce_stream(queue).await.unwrap().into_inner();
        Self { requests, answers }
    }

    /// Sends a batch of one record, which is the append's number.
    fn append(&self, partition: i32, correlation_id: i64, resume: bool) {
        let value = correlation_id.to_string();
        let batch = pack_values(Codec::None, [value.as_bytes()]).unwrap();
        let append = BatchAppend {
            correlation_id,
            topic: TOPIC.to_owned(),
            partition,
            resume,
            batch: Some(batch),
            ..BatchAppend::default()
        };
        let request = ProduceStreamRequest { frame: Some(Out::Append(append)) };
        self.requests.send(request).unwrap();
    }

    async fn next(&mut self) -> Result<Option<AppendResult>, Status> {
        loop {
            let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.unwrap()?;
            match answer.map(|answer| answer.frame) {
                None => return Ok(None),
                Some(Some(In::Result(result))) => return Ok(Some(result)),
                Some(_) => {}
            }
        }
    }

    async fn results(&mut self, count: usize) -> Vec<AppendResult> {
        let mut results = Vec::new();
        while results.len() < count {
            results.push(self.next().await.unwrap().unwrap());
        }
        results
    }
}

/// The values in a partition, as its leader has them.
async fn written(cluster: &Cluster, leader: usize, partition: i32) -> Vec<i64> {
    let answer = fetch(cluster, leader, all_of(TOPIC, [partition])).await;
    values(answer.get_ref(), 0).iter().map(|value| value.parse().unwrap()).collect()
}

fn reason(result: &AppendResult) -> Option<(ErrorReason, Applied)> {
    result.failure.as_ref().map(|failure| (failure.reason(), failure.applied()))
}

#[tokio::test]
async fn one_stream_writes_to_all_partitions_and_each_is_answered_in_its_order() {
    let cluster = cluster_with(TOPIC, 6).await;
    let mut stream = Stream::open(&cluster, 0, ProduceHello::default()).await;
    (0..600).for_each(|number| stream.append((number % 6) as i32, number, false));
    let mut by_partition: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for result in stream.results(600).await {
        let receipt = result.receipt.unwrap_or_else(|| panic!("{:?}", result.failure));
        let place = by_partition.entry(receipt.partition).or_default();
        place.push((receipt.base_offset, result.correlation_id));
    }
    for (partition, told) in by_partition {
        let wanted: Vec<_> = (0..100).map(|turn| (turn, turn * 6 + i64::from(partition))).collect();
        assert_eq!(told, wanted, "partition {partition}");
    }
    drop(stream.requests);
    assert!(stream.answers.message().await.unwrap().is_none_or(|answer| answer.frame.is_some()));
    let bytes = "weir_forwarded_bytes_total{call=\"ProduceStream\"}";
    until("the streams to others have ended", async || cluster.metric(0, bytes).await > Some(100.0)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn who_wants_no_acknowledgement_gets_none_of_other_brokers_either() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let hello = ProduceHello { acks: Acks::None.into(), ..ProduceHello::default() };
    let mut stream = Stream::open(&cluster, stranger, hello).await;
    (0..10).for_each(|number| stream.append(0, number, false));
    // No partition of that number: only this is answered.
    stream.append(9, 10, false);
    assert_eq!(stream.next().await.unwrap().unwrap().correlation_id, 10);
    until("all are written", async || written(&cluster, leader, 0).await == (0..10).collect::<Vec<_>>())
        .await;
    drop(stream);
    cluster.stop().await;
}

#[tokio::test]
async fn a_direct_stream_is_told_who_leads() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let hello = ProduceHello { route: Route::Direct.into(), ..ProduceHello::default() };
    let mut stream = Stream::open(&cluster, stranger, hello).await;
    stream.append(0, 1, false);
    let failure = stream.results(1).await.remove(0).failure.unwrap();
    assert_eq!(failure.reason(), ErrorReason::NotLeader);
    assert_eq!(failure.metadata["leader_endpoint"], cluster.addr(leader).to_string());
    drop(stream);
    cluster.stop().await;
}

#[tokio::test]
async fn the_first_that_fails_there_stops_what_comes_behind_it_until_resume() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let mut stream = Stream::open(&cluster, stranger, ProduceHello::default()).await;
    stream.append(0, 1, false);
    // Its leader refuses it: the CRC is not that of the bytes.
    let mut wrong = pack_values(Codec::None, [b"x".as_slice()]).unwrap();
    wrong.crc ^= 1;
    let append = BatchAppend {
        correlation_id: 2,
        topic: TOPIC.to_owned(),
        batch: Some(wrong),
        ..BatchAppend::default()
    };
    stream.requests.send(ProduceStreamRequest { frame: Some(Out::Append(append)) }).unwrap();
    [3, 4].into_iter().for_each(|number| stream.append(0, number, false));
    let results = stream.results(4).await;
    assert_eq!(results.iter().map(|result| result.correlation_id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let poisoned = Some((ErrorReason::StreamPoisoned, Applied::No));
    let wanted = [None, Some((ErrorReason::BatchCorrupt, Applied::No)), poisoned, poisoned];
    assert_eq!(results.iter().map(reason).collect::<Vec<_>>(), wanted);
    stream.append(0, 5, false);
    assert_eq!(reason(&stream.results(1).await[0]), poisoned, "nobody has said resume");
    stream.append(0, 6, true);
    stream.append(0, 7, false);
    assert_eq!(stream.results(2).await.iter().map(reason).collect::<Vec<_>>(), [None, None]);
    assert_eq!(written(&cluster, leader, 0).await, [1, 6, 7]);
    drop(stream);
    cluster.stop().await;
}

#[tokio::test]
async fn of_what_a_cut_way_leaves_unanswered_nothing_is_sent_again_and_nothing_overtakes_it() {
    let cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let link = cluster.link(stranger, leader);
    let mut stream = Stream::open(&cluster, stranger, ProduceHello::default()).await;
    let (mut number, mut certain, mut doubtful) = (0, Vec::new(), Vec::new());
    for round in 0..20 {
        let first = number;
        stream.append(0, number, round > 0);
        number += 1;
        if round % 2 == 1 {
            // What is sent arrives, and nobody hears of it.
            link.hold_answers();
        }
        for _ in 0..30 {
            stream.append(0, number, false);
            number += 1;
        }
        if round % 2 == 1 {
            until("something has arrived", async || written(&cluster, leader, 0).await.contains(&first))
                .await;
        }
        link.cut();
        link.mend();
        let mut results = stream.results(31).await;
        // The way is open again, and the client has said nothing of what it was told.
        for _ in 0..5 {
            stream.append(0, number, false);
            number += 1;
        }
        results.extend(stream.results(5).await);
        let mut failed = false;
        for (wanted, result) in (first..number).zip(results) {
            assert_eq!(result.correlation_id, wanted, "in the order in which they were sent");
            match reason(&result) {
                None => {
                    assert!(!failed, "{wanted} has overtaken what failed");
                    certain.push(wanted);
                    continue;
                }
                Some((_, Applied::Maybe)) => doubtful.push(wanted),
                Some((ErrorReason::NoLeader | ErrorReason::StreamPoisoned, Applied::No)) => {}
                other => panic!("{wanted}: {other:?}"),
            }
            failed = true;
        }
    }
    let written = written(&cluster, leader, 0).await;
    assert!(!doubtful.is_empty(), "the ways were cut while something was on them");
    assert!(certain.iter().all(|number| written.contains(number)), "what was acknowledged is there");
    let known = |number: &i64| certain.contains(number) || doubtful.contains(number);
    assert!(written.iter().all(known), "what was not applied is not there: {written:?}");
    assert!(written.is_sorted_by(|a, b| a < b), "each once and in order: {written:?}");
    drop(stream);
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_dies_and_comes_back_is_written_to_on_the_same_stream() {
    let mut cluster = cluster_with(TOPIC, 3).await;
    let (stranger, leader) = stranger_and_leader(&cluster, TOPIC, 0).await;
    let mut stream = Stream::open(&cluster, stranger, ProduceHello::default()).await;
    stream.append(0, 1, false);
    assert_eq!(stream.results(1).await.iter().map(reason).collect::<Vec<_>>(), [None]);
    cluster.kill_broker(leader).await;
    cluster.start_broker(leader).await;
    let mut number = 1;
    until("an append is taken again", async || {
        number += 1;
        stream.append(0, number, true);
        reason(&stream.results(1).await[0]).is_none()
    })
    .await;
    assert_eq!(written(&cluster, leader, 0).await, [1, number]);
    drop(stream);
    cluster.stop().await;
}
