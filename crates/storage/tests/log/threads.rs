//! Many writers, readers and changes at once, on real threads.

use std::sync::Arc;
use std::time::Duration;

use weir_io::MemDisk;
use weir_runtime::testing::TestOs;
use weir_storage::{Acks, Control, Limit, LogConfig, Partition, ReadError, ReadRequest};
use weir_types::{Durability, Offset};

use crate::support::*;

const WRITERS: u64 = 6;
const BATCHES: u64 = 300;

/// Appends in groups and checks that its own batches come in order. The last offset it got.
async fn write(log: Partition, writer: u64) -> Offset {
    let mut last = -1;
    for group in 0..BATCHES / 3 {
        let (appends, answers): (Vec<_>, Vec<_>) =
            (0..3).map(|n| append(batch(format!("{writer}/{}", group * 3 + n), 1), Acks::All)).unzip();
        log.submit(appends);
        for answer in answers {
            let appended = answer.await.unwrap().unwrap();
            assert!(appended.committed && appended.base_offset > last, "{appended:?} after {last}");
            last = appended.base_offset;
        }
    }
    last
}

/// Reads everything that is committed, as it comes.
async fn follow(log: Partition, until: Offset) -> Vec<String> {
    let mut watch = log.watch();
    let mut seen = Vec::new();
    let mut from = 0;
    while from < until {
        let request = ReadRequest { from, bytes_max: 5000, limit: Limit::HighWatermark };
        let chunk = log.read(request).await.unwrap();
        for frame in chunk.frames() {
            frame.header.verify_payload(&frame.payload).unwrap();
            seen.push(String::from_utf8(frame.payload.to_vec()).unwrap());
        }
        from = chunk.next_offset;
        if chunk.is_empty() {
            watch.wait_for(|ends| ends.high_watermark > from).await.unwrap();
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_at_once() {
    let disk = MemDisk::new(1);
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    // A small budget, so that writers have to wait for room; few handles, so that they are opened again and again.
    let process = Process::start_on(os, |options| {
        options.dirty_budget_bytes = 2_000;
        options.open_files_max = 4;
        options.flush_threads = 3;
        options.retention_interval = Duration::ZERO;
    })
    .unwrap();
    let total = (WRITERS * BATCHES) as Offset;
    let mut tasks = Vec::new();
    for (n, durability) in
        [Durability::Fsync, Durability::Replicated, Durability::Fsync].into_iter().enumerate()
    {
        // Retention looks, whenever the keeper has a turn, and finds nothing that may go.
        let much = LogConfig { retention_bytes: Some(1 << 40), ..config(durability) };
        let log = process.create(n as i32, LogConfig { segment_bytes: 9000, ..much }).await;
        let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(log.clone(), writer))).collect();
        let reader = tokio::spawn(follow(log.clone(), total));
        let nuisance = log.clone();
        let dir = process.dir.clone();
        let nuisance = tokio::spawn(async move {
            while nuisance.ends().high_watermark < total {
                nuisance.control(Control::Roll).await.unwrap();
                // Nothing changes, but it goes to the keeper and back, and the claim to the pool and back.
                nuisance.control(Control::SetLogStart { offset: 0 }).await.unwrap();
                nuisance
                    .control(Control::Truncate {
                        to: Offset::MAX,
                        below_high_watermark: false,
                        following: None,
                    })
                    .await
                    .unwrap_err();
                nuisance.offset_for_timestamp(150, Limit::HighWatermark).await.unwrap();
                dir.checkpoint().unwrap();
                tokio::task::yield_now().await;
            }
        });
        tasks.push((log, writers, reader, nuisance));
    }
    for (log, writers, reader, nuisance) in tasks {
        for writer in writers {
            writer.await.unwrap();
        }
        nuisance.await.unwrap();
        let mut seen = reader.await.unwrap();
        assert_eq!(log.ends().log_end, total);
        for writer in 0..WRITERS {
            let own = seen.iter().filter_map(|text| text.strip_prefix(&format!("{writer}/")));
            let own: Vec<u64> = own.map(|n| n.parse().unwrap()).collect();
            assert_eq!(own, (0..BATCHES).collect::<Vec<_>>(), "writer {writer}");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len() as i64, total);
    }
    process.dir.close().await.unwrap();
    let process = Process::start(Arc::new(disk));
    assert!(process.report.clean && process.report.damaged.is_empty());
    assert_eq!(all(&process.lead(0, 2).await).await.len() as i64, total);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_what_is_being_deleted_is_told_and_never_sees_a_gap() {
    let os = TestOs::threads(Arc::new(MemDisk::new(1))).unwrap();
    let process = Process::start_on(os, |_| {}).unwrap();
    let small = LogConfig { segment_bytes: 200, ..config(Durability::Replicated) };
    let log = process.create(0, small).await;
    for n in 0..400 {
        produce(&log, batch(vec![n as u8; 100], 1)).await.unwrap();
    }
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                while log.ends().log_start < 399 {
                    let from = log.ends().log_start;
                    match log.read(ReadRequest { from, bytes_max: 1, limit: Limit::HighWatermark }).await {
                        Ok(chunk) => assert_eq!(chunk.frames().next().unwrap().header.base_offset, from),
                        Err(ReadError::OutOfRange { log_start, .. }) => assert!(log_start > from),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for offset in 1..400 {
        log.control(Control::SetLogStart { offset }).await.unwrap();
    }
    for reader in readers {
        reader.await.unwrap();
    }
    process.dir.close().await.unwrap();
}
