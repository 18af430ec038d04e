//! A disk that is slow for a time is said to be, and quick again when it has been that for a time.

use std::sync::Arc;
use std::time::Duration;

use weir_io::{Disk, MemDisk};
use weir_runtime::testing::{Said, TestOs};
use weir_types::Durability;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_slow_disk_is_said_and_asked_until_it_is_quick() {
    let (notes, mem) = (Said::here(), MemDisk::new(1));
    let os = TestOs::new(Arc::new(mem.clone()));
    let process = Process::start_on(os.clone(), |_| ()).unwrap();
    let log = process.create(0, config(Durability::Fsync)).await;
    let write_for = async |seconds: u32| {
        for _ in 0..seconds {
            produce(&log, batch("a", 1)).await.unwrap();
            tokio::time::sleep(SECOND).await;
        }
    };
    write_for(60).await;
    assert!(!process.dir.is_slow());
    os.set_disk_slower(2 * SECOND);
    write_for(8).await;
    assert!(!process.dir.is_slow(), "not for long enough");
    write_for(4).await;
    assert!(process.dir.is_slow());
    assert_eq!((process.dir.stats().disk_slow.get(), notes.count("the disk is slow")), (1, 1));

    // From here on nobody writes anything.
    tokio::time::sleep(300 * SECOND).await;
    assert!(process.dir.is_slow());
    let probe = process.dir.path().join("probe");
    assert!(mem.exists(&probe).unwrap());
    os.set_disk_slower(Duration::ZERO);
    tokio::time::sleep(50 * SECOND).await;
    assert!(process.dir.is_slow(), "not for long enough");
    tokio::time::sleep(80 * SECOND).await;
    assert!(!process.dir.is_slow());
    assert_eq!((process.dir.stats().disk_slow.get(), notes.count("the disk is quick again")), (0, 1));
    assert!(!mem.exists(&probe).unwrap());
    process.dir.close().await.unwrap();
}
