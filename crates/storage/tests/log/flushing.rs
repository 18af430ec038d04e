//! Syncs that take their time, on real threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio::time::timeout;
use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, TestOs, until};
use weir_storage::{Acks, Control, LogConfig};
use weir_types::Durability;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_is_still_told_of_what_is_flushed() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| options.dirty_budget_bytes = 1000).unwrap();
    let one = process.create(0, config(Durability::Fsync)).await;
    let other = process.create(1, config(Durability::Fsync)).await;
    let one_syncs = Held::new(&disk, Op::SyncData, &one.describe().path);
    let other_syncs = Held::new(&disk, Op::SyncData, &other.describe().path);
    let (first, first_answer) = append(batch("a", 1), Acks::All);
    one.submit(vec![first]);
    // All the room there is is taken by a neighbour whose sync hangs.
    let (large, large_answer) = append(batch(vec![0; 1000], 1), Acks::All);
    other.submit(vec![large]);
    let (second, second_answer) = append(batch("b", 1), Acks::All);
    one.submit(vec![second]);
    until("it waits for room", async || process.dir.stats().dirty_waits.get() > 0).await;
    drop(one_syncs);
    let first = timeout(PATIENCE, first_answer).await.expect("answered while another one waits");
    assert_eq!(first.unwrap().unwrap().base_offset, 0);
    assert_eq!(one.ends().log_end, 1);
    drop(other_syncs);
    assert_eq!(large_answer.await.unwrap().unwrap().base_offset, 0);
    assert_eq!(second_answer.await.unwrap().unwrap().base_offset, 1);
    process.dir.close().await.unwrap();
    assert_eq!(process.dir.stats().dirty_bytes.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_is_never_synced_twice_at_a_time() {
    // Of two that run at once only one would hear of an error.
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| options.flush_threads = 4).unwrap();
    let log = process.create(0, LogConfig::default()).await;
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let count = move || {
        seen.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..200 {
            std::thread::yield_now();
        }
        inside.fetch_sub(1, Ordering::SeqCst);
    };
    disk.add(Rule::on([Op::SyncData], Effect::Hook(Arc::new(count))).ends_with(".log"));
    let held = Leader { epoch: 1, holds_at: Some(0) };
    log.control(Control::SetAdmission(Box::new(held))).await.unwrap();
    for _ in 0..50 {
        let (appends, _answers): (Vec<_>, Vec<_>) = (0..3).map(|_| append(batch("a", 1), Acks::All)).unzip();
        log.submit(appends);
        // It syncs on the pool what the flusher is about to sync.
        log.control(Control::Truncate {
            to: (log.ends().log_end - 1).max(0),
            below_high_watermark: false,
            following: None,
        })
        .await
        .unwrap();
    }
    process.dir.close().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_does_not_wait_for_what_nobody_waits_for() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| options.dirty_budget_bytes = 10_000).unwrap();
    let bulk = process.create(0, config(Durability::Replicated)).await;
    let careful = process.create(1, config(Durability::Fsync)).await;
    let bulk_syncs = Held::new(&disk, Op::SyncData, &bulk.describe().path);
    // More than half of what may be unsynced: its sync begins at once, and hangs.
    produce(&bulk, batch(vec![0; 6_000], 1)).await.unwrap();
    bulk_syncs.has_somebody().await;
    for offset in 0..3 {
        let flushed =
            timeout(PATIENCE, produce(&careful, batch("a", 1))).await.expect("it has its own group");
        assert_eq!(flushed.unwrap().base_offset, offset);
    }
    drop(bulk_syncs);
    process.dir.close().await.unwrap();
    assert_eq!(process.dir.stats().dirty_bytes.get(), 0);
}

/// When something was done to a disk, by tokio's clock.
fn watch(disk: &FaultDisk, op: Op) -> Arc<Mutex<Vec<Instant>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    disk.add(
        Rule::on([op], Effect::Hook(Arc::new(move || noted.lock().push(Instant::now())))).ends_with(".log"),
    );
    seen
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_goes_to_the_disk_in_slices_with_pauses() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let interval = Duration::from_secs(10);
    let process = Process::start_with(Arc::new(disk.clone()), |options| {
        options.writeback_bytes = 1000;
        options.checkpoint_interval = interval;
    })
    .unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    let (slices, syncs) = (watch(&disk, Op::StartWriteback), watch(&disk, Op::SyncData));
    for _ in 0..5 {
        produce(&log, batch(vec![0; 1000], 1)).await.unwrap();
    }
    log.control(Control::Roll).await.unwrap();
    while log.describe().unsynced_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The clock is the test's own: nothing but a pause moves it.
    let (slices, syncs) = (slices.lock().clone(), syncs.lock().clone());
    assert_eq!((slices.len(), syncs.len()), (5, 1), "slices, and the rest at once");
    assert!(slices.is_sorted_by(|a, b| a < b), "with pauses: {slices:?}");
    assert!(slices.last() < syncs.last(), "a slice makes nothing durable: {slices:?} {syncs:?}");
    assert!(syncs[0] - slices[0] <= interval / 4, "within a quarter of the interval: {slices:?} {syncs:?}");
    process.dir.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writing_back_that_fails_ends_the_process() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process =
        Process::start_with(Arc::new(disk.clone()), |options| options.writeback_bytes = 1000).unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    disk.add(Rule::on([Op::StartWriteback], Effect::Fail(Fault::Io)).ends_with(".log"));
    produce(&log, batch(vec![0; 5000], 1)).await.unwrap();
    log.control(Control::Roll).await.unwrap();
    while process.fatal.lock().is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(process.fatal.lock().first().map(|fatal| fatal.what), Some("sync_file_range"));
    produce(&log, batch("b", 1)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_faster_than_the_pace_does_not_wait_for_it() {
    let os = TestOs::threads(Arc::new(MemDisk::new(1))).unwrap();
    let process = Process::start_on(os, |options| {
        options.writeback_bytes = 100;
        options.dirty_budget_bytes = 10_000;
        options.checkpoint_interval = Duration::from_secs(3600);
    })
    .unwrap();
    let log = process.create(0, config(Durability::Replicated)).await;
    for _ in 0..100 {
        // Its first turn comes long before half of the budget is used, and is spread over half an hour.
        let written = timeout(PATIENCE, produce(&log, batch(vec![0; 1000], 1))).await;
        written.expect("nobody sleeps while it waits").unwrap();
    }
    process.dir.close().await.unwrap();
    assert_eq!(process.dir.stats().dirty_bytes.get(), 0);
}
