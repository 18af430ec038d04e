//! Syncs that take their time, on real threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use weir_io::{Effect, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::TestOs;
use weir_storage::{Acks, Control, LogConfig};
use weir_types::Durability;

use crate::support::*;

/// A guard against a test that hangs; nothing here takes nearly so long.
const FOR_EVER: Duration = Duration::from_secs(20);

/// Holds up the syncs in one folder until it is dropped.
struct HeldSyncs(Arc<AtomicBool>);

impl HeldSyncs {
    fn new(disk: &FaultDisk, folder: &Path) -> Self {
        let held = Arc::new(AtomicBool::new(true));
        let seen = Arc::clone(&held);
        let folder = folder.to_owned();
        let wait = move || {
            while seen.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        };
        let rule = Rule::on([Op::SyncData], Effect::Hook(Arc::new(wait)));
        disk.add(rule.path(move |path| path.starts_with(&folder)));
        Self(held)
    }
}

impl Drop for HeldSyncs {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_is_still_told_of_what_is_flushed() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let os = TestOs::threads(Arc::new(disk.clone())).unwrap();
    let process = Process::start_on(os, |options| options.dirty_budget_bytes = 1000).unwrap();
    let one = process.create(0, config(Durability::Fsync)).await;
    let other = process.create(1, config(Durability::Fsync)).await;
    let one_syncs = HeldSyncs::new(&disk, &one.describe().path);
    let other_syncs = HeldSyncs::new(&disk, &other.describe().path);
    let (first, first_answer) = append(batch("a", 1), Acks::All);
    one.submit(vec![first]);
    // All the room there is is taken by a neighbour whose sync hangs.
    let (large, large_answer) = append(batch(vec![0; 1000], 1), Acks::All);
    other.submit(vec![large]);
    let (second, second_answer) = append(batch("b", 1), Acks::All);
    one.submit(vec![second]);
    while process.dir.stats().dirty_waits.get() == 0 {
        tokio::task::yield_now().await;
    }
    drop(one_syncs);
    let first = timeout(FOR_EVER, first_answer).await.expect("answered while another one waits");
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
        log.control(Control::Truncate { to: (log.ends().log_end - 1).max(0) }).await.unwrap();
    }
    process.dir.close().await.unwrap();
    assert_eq!(most.load(Ordering::SeqCst), 1);
}
