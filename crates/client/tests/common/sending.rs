//! Producers, and what is sent by them.

use std::sync::Arc;

use weir_client::{BatchBuilder, Codec, NO_HEADERS, Producer, ProducerConfig, Receipt, Record};

use super::client;
use super::state::Cluster;

pub async fn producer(cluster: &Arc<Cluster>, config: ProducerConfig) -> Producer {
    client(cluster).await.producer(config).unwrap()
}

/// One record a batch.
pub fn singles() -> ProducerConfig {
    ProducerConfig::new().batch_bytes(1)
}

/// Sends `0` to `count - 1` to partition 0 of `a`.
pub async fn send(producer: &Producer, count: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for i in 0..count {
        let value = i.to_string();
        receipts.push(producer.send("a", Record::new(&value).partition(0)).await.unwrap());
    }
    receipts
}

pub async fn offsets(receipts: Vec<Receipt>) -> Vec<i64> {
    let mut offsets = Vec::new();
    for receipt in receipts {
        offsets.push(receipt.await.unwrap().offset.unwrap());
    }
    offsets
}

pub fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|i| i.to_string()).collect()
}

/// A batch that is packed already.
pub fn packed(values: &[&str]) -> weir_client::PackedBatch {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(1, None, Some(value.as_bytes()), NO_HEADERS).unwrap();
    }
    builder.finish(Codec::None).unwrap()
}
