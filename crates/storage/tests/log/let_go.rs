//! A log that is closed for good lets go of its files, whoever still knows it: a file that was deleted takes its space for as
//! long as somebody has it open or mapped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use weir_io::{Disk, MemDisk};
use weir_storage::{
    Admission, Append, Control, Error, Limit, LogConfig, LogView, Partition, ReadError, ReadRequest, Verdict,
};
use weir_types::{Durability, LeaderEpoch, Offset};

use crate::support::*;

/// A leader that knows the log which asks it, as one does that sends it to others.
struct Knowing {
    leader: Leader,
    _log: Partition,
    _alive: Arc<()>,
}

impl Admission for Knowing {
    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.leader.leader_epoch()
    }

    fn admit(&mut self, log: &LogView<'_>, append: &Append) -> Verdict {
        self.leader.admit(log, append)
    }

    fn high_watermark(&mut self, log: &LogView<'_>) -> Offset {
        self.leader.high_watermark(log)
    }
}

async fn led_by_one_who_knows_it(log: &Partition) -> Weak<()> {
    let alive = Arc::new(());
    let told = Arc::downgrade(&alive);
    let leader = Leader { epoch: 2, holds_at: None };
    let knowing = Knowing { leader, _log: log.clone(), _alive: alive };
    log.control(Control::SetAdmission(Box::new(knowing))).await.unwrap();
    told
}

/// A log with four segments, all of them open, and the sidecars of the first three mapped.
async fn used(process: &Process, partition: i32) -> (Partition, Weak<()>) {
    let config = LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) };
    let log = process.create(partition, config).await;
    let leader = led_by_one_who_knows_it(&log).await;
    for n in 0..17 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    // The keeper seals.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((all(&log).await.len(), log.describe().segments), (17, 4));
    (log, leader)
}

async fn is_over(log: &Partition) {
    let read = log.read(ReadRequest { from: 0, bytes_max: 1000, limit: Limit::LogEnd }).await;
    assert!(matches!(read, Err(ReadError::Offline(_))), "{read:?}");
    let found = log.offset_for_timestamp(150, Limit::LogEnd).await;
    assert!(matches!(found, Err(ReadError::Offline(_))), "{found:?}");
    assert!(matches!(log.start_state().await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_set_aside_and_is_deleted_takes_no_space_whoever_knows_it() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let (open, free) = (disk.open_files(), disk.space(process.dir.path()).unwrap().available_bytes);
    let (log, leader) = used(&process, 0).await;
    assert_eq!(disk.open_files(), open + 7);
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    assert_eq!(disk.open_files(), open);
    assert!(leader.upgrade().is_none(), "what it is led by goes with it");
    is_over(&log).await;
    // It goes early.
    disk.set_capacity(0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    disk.set_capacity(1 << 40);
    assert_eq!((process.dir.stats().strays.get(), disk.open_files()), (0, open));
    // A checkpoint was written meanwhile.
    assert!(disk.space(process.dir.path()).unwrap().available_bytes + 8192 > free);
    is_over(&log).await;
}

#[tokio::test(start_paused = true)]
async fn so_does_one_that_begins_anew_or_is_set_aside_as_damaged() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let (other, _leader) = used(&process, 1).await;
    let state = other.start_state().await.unwrap();
    let open = disk.open_files();
    let (log, leader) = used(&process, 0).await;
    process.dir.set_damaged_aside(vec![id(0)]).await.unwrap();
    assert_eq!(disk.open_files(), open);
    assert!(leader.upgrade().is_none());
    process.dir.delete_damaged(id(0)).unwrap();
    is_over(&log).await;

    let anew = process.dir.start_over("flights", config(Durability::Fsync), state).await.unwrap();
    assert!(other.is_closed() && !anew.is_closed());
    is_over(&other).await;
    process.dir.set_aside(vec![id(1)]).await.unwrap();
    assert_eq!(disk.open_files(), open - 7);
    is_over(&anew).await;
}
