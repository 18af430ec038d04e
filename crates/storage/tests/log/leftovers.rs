//! What a cut leaves in a file whose new length is not durable yet: a power loss brings it back. Whatever it is, it is no
//! damage, and nothing that was refused comes back with it: everything that was acknowledged is there, and no more.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{Acks, AppendError, Control, LogConfig, Mutant, inspect};
use weir_types::Durability;

use crate::support::*;

/// A log of which a short append was cut back; then a new segment was begun, and what is in it was acknowledged.
async fn cut_back_and_rolled(mem: &MemDisk, sealed: bool) -> Process {
    let disk = FaultDisk::over_mem(mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for n in 0..3 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    disk.add(Rule::on([Op::Write], Effect::Torn(150, Fault::NoSpace)).ends_with(".log").once());
    let refused = produce(&log, batch(vec![9; 112], 1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
    log.control(Control::Roll).await.unwrap();
    for n in 3..6 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    if sealed {
        // The next one, too, so that nothing of these is walked through.
        log.control(Control::Roll).await.unwrap();
        for n in 6..9 {
            produce(&log, batch(vec![n; 112], 1)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    process
}

#[tokio::test(start_paused = true)]
async fn a_cut_back_append_is_no_damage_after_a_power_loss() {
    for seed in 0..200 {
        let mem = MemDisk::new(seed);
        let _process = cut_back_and_rolled(&mem, false).await;
        let mem = mem.power_loss(Survival::Drawn(seed));
        // To whoever looks from outside, too.
        for partition in inspect::directory(&mem, Path::new(DIR)).unwrap().partitions {
            assert_eq!(inspect::verify(&mem, &partition).unwrap().problems, [""; 0], "seed {seed}");
        }
        let process = Process::start(Arc::new(mem));
        assert_eq!(process.report.damaged, [], "seed {seed}: every acknowledged record is there");
        assert_eq!(all(&process.lead(0, 2).await).await.len(), 6, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_before_a_cut_back_append_can_be_read_after_a_power_loss() {
    for seed in 0..200 {
        let mem = MemDisk::new(seed);
        let _process = cut_back_and_rolled(&mem, true).await;
        let process = Process::start(Arc::new(mem.power_loss(Survival::Drawn(seed))));
        assert_eq!(process.report.damaged, [], "seed {seed}");
        let frames = try_all(&process.lead(0, 2).await).await;
        assert!(
            frames.is_ok_and(|frames| frames.len() == 9),
            "seed {seed}: acknowledged records cannot be read"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_end_that_was_cut_is_no_damage_after_a_second_power_loss() {
    torn_cut_and_lost_again(None).await;
}

pub(crate) async fn torn_cut_and_lost_again(bug: Option<Mutant>) {
    for durability in [Durability::Fsync, Durability::Replicated] {
        let mut torn = 0;
        for seed in 0..300 {
            let mem = MemDisk::new(seed);
            let process = Process::start(Arc::new(mem.clone()));
            let log = process.create(0, config(durability)).await;
            for n in 0..3 {
                produce(&log, batch(vec![n; 112], 1)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(log.ends().flushed_end, 3);
            // This one is not durable yet.
            let (large, _answer) = append(batch(vec![9; 20_000], 1), Acks::Leader);
            log.submit(vec![large]);
            let mem = mem.power_loss(Survival::Drawn(seed));
            let process = Process::start(Arc::new(mem.clone()));
            assert_eq!(process.report.damaged, []);
            torn += process.report.truncated.len();
            let log = process.lead(0, 2).await;
            let kept = log.ends().log_end;
            log.control(Control::Roll).await.unwrap();
            for n in 0..3 {
                produce(&log, batch(vec![n; 112], 1)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(log.ends().flushed_end, kept + 3);
            let process = Process::planted(Arc::new(mem.power_loss(Survival::Drawn(seed + 1))), bug);
            assert_eq!(process.report.damaged, [], "{durability}, seed {seed}: all of it is there");
            let frames = try_all(&process.lead(0, 3).await).await;
            assert!(frames.is_ok_and(|frames| frames.len() as i64 == kept + 3), "{durability}, seed {seed}");
        }
        assert!(torn > 0, "{durability}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_found_no_room_does_not_come_back() {
    for durability in [Durability::Fsync, Durability::Replicated] {
        for seed in 0..100 {
            let mem = MemDisk::new(seed);
            let disk = FaultDisk::over_mem(&mem);
            let process = Process::start(Arc::new(disk.clone()));
            let log = process.create(0, config(durability)).await;
            produce(&log, batch(vec![0; 112], 1)).await.unwrap();
            // Two of three are written whole.
            disk.add(Rule::on([Op::Write], Effect::Torn(450, Fault::NoSpace)).ends_with(".log").once());
            let group = (1..4).map(|n| append(batch(vec![n; 112], 1), Acks::All));
            let (appends, answers): (Vec<_>, Vec<_>) = group.unzip();
            log.submit(appends);
            for answer in answers {
                let refused = answer.await.unwrap().unwrap_err();
                assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
            }
            let process = Process::start(Arc::new(mem.power_loss(Survival::Drawn(seed))));
            assert_eq!(process.report.damaged, []);
            let payloads = all(&process.lead(0, 2).await).await.into_iter().map(|frame| frame.payload);
            assert!(payloads.into_iter().all(|payload| payload[..] == [0; 112]), "{durability}, seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_while_a_log_is_cut_leaves_no_sidecar_of_what_was_cut() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let small = LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) };
    let log = process.create(0, small).await;
    let held = || Box::new(Leader { epoch: 1, holds_at: Some(2) });
    log.control(Control::SetAdmission(held())).await.unwrap();
    let (appends, answers): (Vec<_>, Vec<_>) =
        (0..12).map(|_| append(batch(vec![7; 112], 1), Acks::Leader)).unzip();
    log.submit(appends);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    process.dir.close().await.unwrap();
    // After an orderly stop no sidecar is read before somebody needs it.
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.dir.partition(id(0)).unwrap();
    log.control(Control::SetAdmission(held())).await.unwrap();
    // The reader has found the segment, and waits for its sidecar until the cut is done.
    let (cut, chunk) = tokio::join!(
        log.control(Control::Truncate { to: 3, below_high_watermark: false, following: None }),
        read(&log, 0)
    );
    cut.unwrap();
    assert_eq!(chunk.next_offset, 3);
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.report.damaged, [], "a healthy log");
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, 3);
}

#[tokio::test]
async fn a_segment_that_begins_where_others_were_durable_is_damage() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for n in 0..8 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    let intruder = log.describe().path.join("00000000000000000005.log");
    let mem = mem.kill();
    mem.open(&intruder, Access::CreateNew).unwrap();
    let process = Process::start(Arc::new(mem));
    assert_eq!(process.report.damaged.len(), 1);
}
