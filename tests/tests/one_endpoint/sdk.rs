//! The SDK on a cluster whose leaders die under load and come back: what was sent is there once and in order, and whoever
//! reads goes on where he was.

use std::collections::BTreeMap;

use weir_client::{Acks, Applied, Client, ConsumerConfig, Position, Producer, ProducerConfig, Record};
use weir_runtime::testing::{PATIENCE, until};
use weir_tests::cluster::Cluster;

use crate::said::{all_of, cluster_with, fetch, values};

const TOPIC: &str = "flights";
const PARTITIONS: i32 = 3;

async fn client(cluster: &Cluster) -> Client {
    Client::connect(&cluster.addresses()).await.unwrap()
}

/// Kills each broker in turn and starts it again, for as long as somebody works.
async fn kill_all_in_turn(cluster: &mut Cluster) {
    for at in 0..3 {
        cluster.kill_broker(at).await;
        cluster.start_broker(at).await;
        cluster.until_led(TOPIC).await;
    }
}

/// Sends numbers from 0 on to every partition until it is told to stop; says how many to each, all acknowledged at their
/// own offsets.
async fn send_until(producer: Producer, stop: tokio::sync::oneshot::Receiver<()>) -> i64 {
    let mut stop = std::pin::pin!(stop);
    let mut count = 0;
    loop {
        let mut receipts = Vec::new();
        for number in count..count + 50 {
            for partition in 0..PARTITIONS {
                let value = number.to_string();
                let record = Record::new(&value).partition(partition);
                receipts.push((number, producer.send(TOPIC, record).await.unwrap()));
            }
        }
        for (number, receipt) in receipts {
            let delivery = receipt.await.unwrap();
            assert_eq!(delivery.offset, Some(number), "{delivery:?}");
        }
        count += 50;
        if futures::FutureExt::now_or_never(stop.as_mut()).is_some() {
            return count;
        }
    }
}

#[tokio::test]
async fn what_is_sent_while_leaders_die_is_there_once_and_in_order() {
    let mut cluster = cluster_with(TOPIC, PARTITIONS).await;
    let client = client(&cluster).await;
    let producer = client.producer(ProducerConfig::new().batch_bytes(400)).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let sending = tokio::spawn(send_until(producer, stopped));
    let (tell, mut told) = tokio::sync::watch::channel(None);
    let reading = tokio::spawn({
        let mut consumer = client.consumer(ConsumerConfig::new()).unwrap();
        consumer.assign_topic(TOPIC, Position::Earliest).await.unwrap();
        async move {
            let mut read: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
            loop {
                let wanted: Option<i64> = *told.borrow_and_update();
                let whole = |read: &Vec<_>| wanted.is_some_and(|count| read.len() as i64 >= count);
                if read.len() == 3 && read.values().all(whole) {
                    return read;
                }
                let batch = tokio::select! {
                    batch = consumer.next() => batch.unwrap(),
                    Ok(()) = told.changed() => continue,
                };
                for record in &batch {
                    let record = record.unwrap();
                    let value = std::str::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
                    read.entry(batch.partition()).or_default().push((record.offset, value));
                }
            }
        }
    });
    kill_all_in_turn(&mut cluster).await;
    stop.send(()).unwrap();
    let count = tokio::time::timeout(PATIENCE, sending).await.unwrap().unwrap();
    tell.send(Some(count)).unwrap();
    let read = tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
    for (partition, read) in read {
        assert!(read.iter().copied().eq((0..count).map(|number| (number, number))), "partition {partition}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn without_sequences_what_was_cut_off_is_told_and_nothing_is_there_twice() {
    let mut cluster = cluster_with(TOPIC, PARTITIONS).await;
    let client = client(&cluster).await;
    let config = ProducerConfig::new().acks(Acks::Leader).batch_bytes(200);
    let producer = client.producer(config).unwrap();
    let leader = cluster.leaders(TOPIC).await[0];
    let (mut certain, mut denied, mut number) = (Vec::new(), Vec::new(), 0);
    for round in 0..3 {
        let mut receipts = Vec::new();
        for _ in 0..100 {
            let value = number.to_string();
            let record = Record::new(&value).partition(0);
            receipts.push((number, producer.send(TOPIC, record).await.unwrap()));
            number += 1;
        }
        if round < 2 {
            cluster.kill_broker(leader).await;
            cluster.start_broker(leader).await;
            cluster.until_led(TOPIC).await;
        }
        for (number, receipt) in receipts {
            match tokio::time::timeout(PATIENCE, receipt).await.unwrap() {
                Ok(_) => certain.push(number),
                Err(error) if error.applied() == Applied::No => denied.push(number),
                Err(error) => assert_eq!(error.applied(), Applied::Maybe, "{error}"),
            }
        }
    }
    let answer = fetch(&cluster, leader, all_of(TOPIC, [0])).await;
    let written: Vec<i32> = values(answer.get_ref(), 0).iter().map(|value| value.parse().unwrap()).collect();
    assert!(certain.len() >= 100, "what was sent to the living is acknowledged");
    assert!(certain.iter().all(|number| written.contains(number)), "what was acknowledged is there");
    assert!(!denied.iter().any(|number| written.contains(number)), "what was not applied is not there");
    assert!(written.is_sorted_by(|a, b| a < b), "each once and in order: {written:?}");
    drop((producer, client));
    cluster.stop().await;
}

#[tokio::test]
async fn one_address_that_answers_is_enough_and_a_cluster_is_found_again_by_any_of_its_brokers() {
    let mut cluster = cluster_with(TOPIC, PARTITIONS).await;
    let leaders = cluster.leaders(TOPIC).await;
    cluster.kill_broker(0).await;
    let client = client(&cluster).await;
    let partition = leaders.iter().position(|leader| *leader == 1).unwrap();
    let producer = client.producer(ProducerConfig::new()).unwrap();
    let record = Record::new("x").partition(i32::try_from(partition).unwrap());
    producer.send(TOPIC, record).await.unwrap().await.unwrap();
    // Those that it knows now go, and the one that it never reached comes back.
    cluster.start_broker(0).await;
    cluster.until_led(TOPIC).await;
    cluster.kill_broker(1).await;
    cluster.kill_broker(2).await;
    let partition = leaders.iter().position(|leader| *leader == 0).unwrap();
    let record = Record::new("y").partition(i32::try_from(partition).unwrap());
    let delivery = producer.send(TOPIC, record).await.unwrap();
    let delivery = tokio::time::timeout(PATIENCE, delivery).await.unwrap().unwrap();
    assert_eq!(delivery.offset, Some(0));
    until("its offsets are had from whoever is left", async || {
        client.offsets().latest(TOPIC, delivery.partition).await.is_ok_and(|end| end == 1)
    })
    .await;
    cluster.stop().await;
}
