//! What sending a record costs in memory: its share of a batch, nothing else. Alone in its process: it watches the
//! process's memory.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

mod common;

use std::time::Duration;

use common::{Fate, client, cluster};
use peak_alloc::PeakAlloc;
use weir_client::{ProducerConfig, Record};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

#[tokio::test(start_paused = true)]
async fn nothing_is_allocated_for_a_record_and_a_batch_uses_the_memory_of_another() {
    let cluster = cluster();
    cluster.topic("a", 1);
    let config = ProducerConfig::new().linger(Duration::from_secs(3600));
    let producer = client(&cluster).await.producer(config).unwrap();
    let (value, headers) = ("x".repeat(1024), [("origin", &b"EWR"[..])]);
    let record = Record::new(&value).key("UA").headers(&headers);
    // Some full batches, so that there is memory to be used again.
    for _ in 0..1_000 {
        let _unread = producer.send("a", record).await.unwrap();
    }
    producer.flush().await.unwrap();
    cluster.script(|_| Fate::Hold);
    // The first goes alone. The second opens a batch after one of a single record, and finds room for many.
    let sent = cluster.lock().sent.len();
    let first = producer.send("a", record).await.unwrap();
    common::until("it arrived", || async { cluster.lock().sent.len() > sent }).await;
    let mut receipts = Vec::with_capacity(200);
    receipts.push(producer.send("a", record).await.unwrap());
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    while receipts.len() < 200 {
        receipts.push(producer.send("a", record).await.unwrap());
    }
    let peak = MEMORY.peak_usage();
    assert_eq!(peak.saturating_sub(before), 0, "bytes allocated for 199 records of 1 KiB");
    cluster.script(|_| Fate::Normal);
    cluster.release();
    first.await.unwrap();
    producer.flush().await.unwrap();
    for receipt in receipts {
        receipt.await.unwrap();
    }
}
