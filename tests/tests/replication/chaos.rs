//! Brokers die, stop, come back and lose sight of each other at random moments under load: every acknowledged record is
//! there in the end, at its offset, once and in order, and all replicas have the same bytes.
//!
//! At most one broker is away at a time, so that two of three replicas are always there to write to (min.insync 2).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::producer_service_client::ProducerServiceClient;
use weir_proto::v1::{
    AppendReceipt, GetMetadataRequest, OpenProducerRequest, ProduceRequest, ProducerIdentity, RecordBatch,
};
use weir_record::Codec;
use weir_runtime::testing::PATIENCE;
use weir_tests::api::Api;
use weir_tests::cluster::Cluster;
use weir_tests::dice::{self, Dice, times};
use weir_tests::history::{History, Mark, Place};
use weir_tests::{batch, reader};

use crate::failover::three;
use crate::support::{frames, until_in_sync};

const CLASSES: [&str; 2] = ["fsync", "replicated"];
const PARTITIONS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_whoever_dies() {
    let mut dice = dice::of_this_run();
    let mut cluster = Cluster::start_as(three()).await;
    for class in CLASSES {
        let config = [("durability", class), ("segment_bytes", "2MiB"), ("min_insync_replicas", "2")];
        cluster.create(class, PARTITIONS, 3, &config).await;
        until_in_sync(&cluster, 0, class, 3).await;
    }
    let (acknowledged, mut count) = watch::channel(0_u64);
    let (stop, stopped) = watch::channel(false);
    let history = Arc::new(Mutex::new(History::default()));
    let brokers: Arc<[String]> = (0..3).map(|at| cluster.addr(at).to_string()).collect();
    let mut writing = Vec::new();
    let mut places = Vec::new();
    for topic in CLASSES {
        for partition in 0..PARTITIONS {
            let place = Place { topic: topic.to_owned(), partition };
            let writer = Writer {
                id: u32::try_from(writing.len()).unwrap(),
                place: place.clone(),
                brokers: brokers.clone(),
                history: history.clone(),
                acknowledged: acknowledged.clone(),
                stopped: stopped.clone(),
            };
            writing.push(tokio::spawn(writer.run(dice.roll())));
            places.push(place);
        }
    }
    for round in 0..times("WEIR_CHAOS", 6) {
        let at = usize::try_from(dice.below(3)).unwrap();
        let what = dice.below(4);
        eprintln!("round {round}: {what} to broker {at}");
        let goes_on = *count.borrow() + 20 + dice.below(60);
        match what {
            0 => {
                cluster.kill_broker(at).await;
                passes(&mut count, goes_on).await;
                cluster.start_broker(at).await;
            }
            1 => {
                cluster.stop_broker(at).await;
                passes(&mut count, goes_on).await;
                cluster.start_broker(at).await;
            }
            2 => {
                // At once again: perhaps before anybody has noticed.
                cluster.kill_broker(at).await;
                cluster.start_broker(at).await;
            }
            _ => {
                let links = [cluster.link(at, (at + 1) % 3), cluster.link((at + 2) % 3, at)];
                links.iter().for_each(|link| link.cut());
                links.iter().for_each(|link| link.hold());
                let lagged = *count.borrow() + 5;
                passes(&mut count, lagged.min(goes_on)).await;
                links.iter().for_each(|link| link.release());
            }
        }
        for class in CLASSES {
            until_in_sync(&cluster, at, class, 3).await;
        }
    }
    stop.send_replace(true);
    for writer in writing {
        writer.await.unwrap();
    }
    let mut readings = Vec::new();
    for place in &places {
        let leader = cluster.leaders(&place.topic).await[usize::try_from(place.partition).unwrap()];
        let api = Api::connect(&cluster.addr(leader).to_string()).await.unwrap();
        readings.push(reader::consume(&api, place).await.unwrap());
        readings.push(reader::fetch(&api, place).await.unwrap());
    }
    let wrong = history.lock().check(&readings);
    assert!(wrong.is_empty(), "{} anomalies: {}", wrong.len(), wrong.iter().next().unwrap());
    eprintln!("{} records acknowledged", history.lock().acknowledgements());
    for at in 0..3 {
        cluster.stop_broker(at).await;
    }
    let first = frames(cluster.disk(0)).await;
    for at in 1..3 {
        assert_eq!(frames(cluster.disk(at)).await, first, "broker {at}");
    }
    cluster.stop().await;
}

/// Waits until so many batches have been acknowledged.
async fn passes(count: &mut watch::Receiver<u64>, target: u64) {
    let passed = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= target)).await;
    passed.unwrap_or_else(|_| panic!("writing does not go on")).unwrap();
}

/// Writes numbered records to one partition, one batch after the other, each until it is acknowledged.
struct Writer {
    id: u32,
    place: Place,
    brokers: Arc<[String]>,
    history: Arc<Mutex<History>>,
    acknowledged: watch::Sender<u64>,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    async fn run(self, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut producer = None;
        let mut next = 0_u64;
        while !*self.stopped.borrow() {
            let marks: Vec<_> =
                (next..=next + dice.below(5)).map(|number| Mark { writer: self.id, number }).collect();
            let values: Vec<_> = marks.iter().map(|mark| mark.value()).collect();
            let mut batch = batch::pack_values(Codec::None, values.iter().map(Vec::as_slice)).unwrap();
            batch.base_sequence = i32::try_from(next).unwrap();
            next += marks.len() as u64;
            marks.iter().for_each(|mark| self.history.lock().sent(*mark, &self.place));
            let receipt = self.until_written(&mut producer, &batch, &mut dice).await;
            for (offset, mark) in (receipt.base_offset..).zip(&marks) {
                self.history.lock().acknowledged(*mark, offset).unwrap();
            }
            self.acknowledged.send_modify(|count| *count += 1);
        }
    }

    async fn until_written(
        &self,
        producer: &mut Option<ProducerIdentity>,
        batch: &RecordBatch,
        dice: &mut Dice,
    ) -> AppendReceipt {
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = usize::try_from(dice.below(3)).unwrap();
            match self.write(asked, producer, batch).await {
                Ok(written) => return written,
                Err(status) => {
                    let may_pass = status.code() != Code::InvalidArgument && Instant::now() < until;
                    assert!(may_pass, "{}: {status:?}", self.place);
                }
            }
            // What a client does that was refused.
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// One attempt, with what one of the brokers knows.
    async fn write(
        &self,
        asked: usize,
        producer: &mut Option<ProducerIdentity>,
        batch: &RecordBatch,
    ) -> Result<AppendReceipt, Status> {
        let gone = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let channel = |at: usize| {
            let endpoint =
                tonic::transport::Channel::from_shared(format!("http://{}", self.brokers.get(at).unwrap()));
            endpoint.unwrap().connect_timeout(PATIENCE)
        };
        let one = channel(asked).connect().await.map_err(gone)?;
        let request =
            GetMetadataRequest { topics: vec![self.place.topic.clone()], ..GetMetadataRequest::default() };
        let known = MetadataServiceClient::new(one).get_metadata(request).await?.into_inner();
        let partitions = known.topics.into_iter().flat_map(|topic| topic.partitions);
        let leader = partitions.into_iter().find(|known| known.partition == self.place.partition);
        let leader = leader.and_then(|known| usize::try_from(known.leader - 1).ok());
        let leader = leader.ok_or_else(|| Status::unavailable("nobody leads"))?;
        let mut client = ProducerServiceClient::new(channel(leader).connect().await.map_err(gone)?);
        if producer.is_none() {
            *producer = client.open_producer(OpenProducerRequest::default()).await?.into_inner().producer;
        }
        let mut request = Request::new(ProduceRequest {
            topic: self.place.topic.clone(),
            partition: Some(self.place.partition),
            batch: Some(RecordBatch { producer: *producer, ..batch.clone() }),
            ..ProduceRequest::default()
        });
        // A leader that was deposed answers nothing.
        request.set_timeout(Duration::from_secs(2));
        let answer = client.produce(request).await?.into_inner();
        answer.receipts.into_iter().next().ok_or_else(|| Status::internal("no receipt"))
    }
}
