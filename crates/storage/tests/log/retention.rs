//! What goes by itself: by size, by time, and when the clock is not to be trusted.

use std::sync::Arc;
use std::time::Duration;

use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{
    AppendError, Control, DirOptions, LogConfig, Mutant, Outcome, OutcomeQuery, Refused, UnknownCause,
};
use weir_types::{Durability, Producer, ProducerId};

use crate::support::*;

const HOUR_MS: i64 = 3_600_000;

fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }
}

/// So long that the keeper has looked at retention.
async fn a_look() {
    tokio::time::sleep(Duration::from_secs(31)).await;
}

#[tokio::test(start_paused = true)]
async fn by_size_whole_segments_go_and_the_rest_holds_at_least_so_much() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig { retention_bytes: Some(2500), ..small() }).await;
    fill_by(&log, 1, 32).await;
    a_look().await;
    let ends = log.ends();
    // Five frames of 200 bytes a segment; the active one holds two.
    assert_eq!((ends.log_start, ends.log_end), (15, 32));
    let description = log.describe();
    assert!((2500..3500).contains(&description.bytes), "{description:?}");
    assert_eq!(all(&log).await[0].header.base_offset, 15);
    // The start stays where it is, and a producer whose batches are all gone is still known.
    let process = Process::start(Arc::new(disk.kill()));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 2).await;
    assert_eq!(log.ends().log_start, 15);
    assert!(produce(&log, by(1, 0, 31, batch(vec![31; 112], 1))).await.unwrap().duplicate);
}

/// A follower's log begins where its leader's does, whatever its own settings say (rule 15).
pub(crate) async fn decided_by_the_leader_alone(bug: Option<Mutant>) {
    let disk = MemDisk::new(1);
    let process = Process::planted(Arc::new(disk.clone()), bug);
    let log = process.create(0, LogConfig { retention_bytes: Some(500), ..small() }).await;
    fill(&log, 4).await;
    follow(&log, 2).await;
    let leading = Process::start(Arc::new(MemDisk::new(2)));
    let leader = leading.create(0, small()).await;
    fill(&leader, 32).await;
    catch_up(&leader, &log, 2).await;
    a_look().await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (0, 32), "nobody has decided that");
    log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
    a_look().await;
    assert_eq!(log.ends().log_start, 7);
    // Nor does it when it leads nothing yet.
    drop((log, process));
    let process = Process::planted(Arc::new(disk.kill()), bug);
    let log = process.dir.partition(id(0)).unwrap();
    log.control(Control::Configure(LogConfig { retention_bytes: Some(500), ..small() })).await.unwrap();
    a_look().await;
    assert_eq!(log.ends().log_start, 7);
    lead(&log, 3).await;
    a_look().await;
    assert_eq!(log.ends().log_start, 25);
}

#[tokio::test(start_paused = true)]
async fn a_follower_deletes_what_its_leader_has_deleted() {
    decided_by_the_leader_alone(None).await;
}

#[tokio::test]
async fn a_producer_is_known_beyond_its_batches() {
    let disk = MemDisk::new(1);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    fill_by(&log, 1, 3).await;
    for n in 0..40 {
        produce(&log, batch(vec![n; 112], 1)).await.unwrap();
    }
    log.control(Control::SetLogStart { offset: 41 }).await.unwrap();
    let process = Process::start(Arc::new(disk.kill()));
    let log = process.lead(0, 2).await;
    let again = produce(&log, by(1, 0, 2, batch(vec![2; 112], 1))).await.unwrap();
    assert_eq!((again.duplicate, again.base_offset), (true, 2));
    assert_eq!(log.epoch_end(1), (1, 43));
}

#[tokio::test]
async fn a_producer_is_known_wherever_a_move_of_the_start_was_cut_off() {
    let mut moved = 0;
    for changes in 0.. {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, small()).await;
        fill_by(&log, 1, 3).await;
        for n in 0..10 {
            produce(&log, batch(vec![n; 112], 1)).await.unwrap();
        }
        log.control(Control::Roll).await.unwrap();
        // The keeper finds no room for the sidecar of what was just closed.
        disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with(".seal.tmp").once());
        disk.die_after(changes);
        let done = log.control(Control::SetLogStart { offset: 13 }).await.is_ok() && !disk.is_dead();
        let process = Process::start(Arc::new(mem.crash(changes)));
        assert_eq!(process.report.damaged, [], "after {changes}");
        let log = process.lead(0, 2).await;
        let again = produce(&log, by(1, 0, 2, batch(vec![2; 112], 1))).await.unwrap();
        assert!(again.duplicate, "after {changes}, the log starts at {}", log.ends().log_start);
        moved += usize::from(log.ends().log_start == 13);
        if done {
            break;
        }
    }
    assert!(moved > 1, "some were cut off behind the checkpoint");
}

#[tokio::test]
async fn a_producer_is_known_by_a_segment_that_found_no_room_for_its_sidecar() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, small()).await;
    let full = Rule::on([Op::Write], Effect::Fail(Fault::NoSpace));
    disk.add(full.ends_with("00000000000000000005.seal.tmp"));
    for n in 0..12 {
        // The first one of the second segment.
        let next = batch(vec![n; 112], 1);
        produce(&log, if n == 5 { by(9, 0, 0, next) } else { next }).await.unwrap();
    }
    log.control(Control::SetLogStart { offset: 10 }).await.unwrap();
    let process = Process::start(Arc::new(mem.kill()));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 2).await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (10, 12));
    // The only sidecar is that of the segment before, and says nothing of who wrote in this one.
    let again = produce(&log, by(9, 0, 0, batch(vec![5; 112], 1))).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (5, true));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_could_not_be_moved_leaves_no_sidecar_of_what_is_not_durable() {
    let mem = MemDisk::new(1);
    let disk = FaultDisk::over_mem(&mem);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, LogConfig { durability: Durability::Replicated, ..small() }).await;
    fill(&log, 12).await;
    assert_eq!(log.ends().flushed_end, 0);
    disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
    log.control(Control::SetLogStart { offset: 5 }).await.unwrap_err();
    let process = Process::start(Arc::new(mem.power_loss(Survival::Nothing)));
    assert_eq!(process.report.damaged, [], "the sidecar says what was never synced");
    assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_start, 0);
}

#[tokio::test]
async fn a_producer_that_the_disk_does_not_tell_of_is_no_unknown_one() {
    for op in [Op::Open, Op::Read] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, small()).await;
        fill_by(&log, 1, 12).await;
        log.control(Control::SetLogStart { offset: 12 }).await.unwrap();
        // Whatever is still there of what was deleted goes now.
        let mem = mem.kill();
        let process = Process::start(Arc::new(mem.clone()));
        assert_eq!(process.lead(0, 2).await.ends().log_start, 12);
        let disk = FaultDisk::over_mem(&mem.kill());
        disk.add(Rule::on([op], Effect::Fail(Fault::Io)).ends_with(".seal"));
        let process = Process::start(Arc::new(disk));
        let known = process.dir.partition(id(0));
        let offline = &process.report.offline;
        assert!(known.is_none() && offline.len() == 1, "{op:?}: {:?}", process.report);
        assert!(offline[0].what.contains(".seal") && process.report.damaged.is_empty(), "{offline:?}");
    }
}

#[tokio::test]
async fn who_wrote_before_the_log_begins_is_not_forgotten_in_silence() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, small()).await;
    produce(&log, by(2, 0, 0, batch(vec![0; 112], 1))).await.unwrap();
    fill_by(&log, 1, 12).await;
    log.control(Control::SetLogStart { offset: 12 }).await.unwrap();
    // Whatever is still there of what was deleted goes now.
    let mem = mem.kill();
    let process = Process::start(Arc::new(mem.clone()));
    let folder = process.lead(0, 2).await.describe().path;
    let mem = mem.kill();
    let entries = mem.list(&folder).unwrap();
    let seals = entries.into_iter().filter(|entry| entry.name.ends_with(".seal"));
    let seal = folder.join(seals.map(|seal| seal.name).max().expect("the last one deleted"));
    let file = mem.open(&seal, Access::Write).unwrap();
    file.set_len(file.len().unwrap() - 1).unwrap();
    // It does not hold: the disk has lost what it had.
    let process = Process::start(Arc::new(mem.clone()));
    assert!(process.dir.partition(id(0)).is_none());
    let what = &process.report.damaged[0].what;
    assert!(what.contains(".seal") && what.contains("move it away"), "{what}");
    // Moved away, as it says: nobody is known any more, and no answer is given as if nobody had written.
    let mem = mem.kill();
    mem.unlink(&seal).unwrap();
    let process = Process::start(Arc::new(mem));
    let log = process.lead(0, 3).await;
    assert_eq!(log.ends().log_start, 12);
    let producer = Producer { id: ProducerId(2), epoch: 0 };
    let query = OutcomeQuery { producer, base_sequence: 0, seal: false };
    let outcome = log.append_outcome(query).await.unwrap().unwrap();
    assert_eq!(outcome, Outcome::Unknown(UnknownCause::Expired));
    let next = produce(&log, by(2, 0, 1, batch(vec![1; 112], 1))).await;
    assert_eq!(next.unwrap_err(), AppendError::Refused(Refused::ProducerUnknown));
}

#[tokio::test]
async fn append_times_never_run_backwards_over_an_empty_segment() {
    for (deleted, killed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, small()).await;
        process.os.advance_wall_ms(HOUR_MS);
        fill_by(&log, 1, 7).await;
        let before = all(&log).await.last().unwrap().header.append_time_ms;
        // What an idle log comes to.
        log.control(Control::Roll).await.unwrap();
        if deleted {
            log.control(Control::SetLogStart { offset: 7 }).await.unwrap();
        }
        if !killed {
            process.dir.close().await.unwrap();
        }
        // The clock was set back by an hour.
        let process = Process::start(Arc::new(mem.kill()));
        assert_eq!(process.report.clean, !killed);
        let log = process.lead(0, 2).await;
        produce(&log, batch("x", 1)).await.unwrap();
        let after = all(&log).await.last().unwrap().header.append_time_ms;
        assert!(after >= before, "deleted {deleted}, killed {killed}: {after} after {before}");
    }
}

#[tokio::test(start_paused = true)]
async fn by_time_the_smaller_of_timestamp_and_append_time_counts() {
    let at_once = |options: &mut DirOptions| options.retention_pause = Duration::ZERO;
    let process = Process::start_with(Arc::new(MemDisk::new(1)), at_once).unwrap();
    let log = process.create(0, LogConfig { retention_ms: Some(HOUR_MS), ..small() }).await;
    let now = weir_runtime::testing::START_WALL_MS;
    // From the year 2099: it goes with its append time.
    let mut future = batch(vec![1; 112], 1);
    future.max_timestamp_ms = now + 70 * 365 * 24 * HOUR_MS;
    for _ in 0..7 {
        produce(&log, future.clone()).await.unwrap();
    }
    process.os.set_wall_ms(now + HOUR_MS / 2);
    a_look().await;
    assert_eq!(log.ends().log_start, 0);
    produce(&log, future).await.unwrap();
    // The first segment is old enough; the active one holds something young.
    process.os.set_wall_ms(now + HOUR_MS);
    a_look().await;
    assert_eq!(log.ends().log_start, 5);
    // An idle log is rolled, too, so that it can go at the next look.
    process.os.set_wall_ms(now + 2 * HOUR_MS);
    a_look().await;
    assert_eq!(log.ends().log_start, 5);
    a_look().await;
    assert_eq!((log.ends().log_start, log.ends().log_end), (8, 8));
    assert_eq!(produce(&log, batch("x", 1)).await.unwrap().base_offset, 8);
}

#[tokio::test(start_paused = true)]
async fn by_time_nothing_goes_right_after_a_start_or_a_jump_of_the_clock() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig { retention_ms: Some(HOUR_MS), ..small() }).await;
    fill_by(&log, 1, 12).await;
    let pass = async |seconds: u64| {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            process.os.advance_wall_ms(1000);
        }
    };
    pass(60).await;
    assert_eq!(process.dir.stats().retention_paused.get(), 1);
    // The wall clock jumps by ten hours.
    process.os.advance_wall_ms(10 * HOUR_MS);
    pass(500).await;
    assert_eq!((log.ends().log_start, process.dir.stats().retention_paused.get()), (0, 1));
    pass(200).await;
    assert_eq!((log.ends().log_start, process.dir.stats().retention_paused.get()), (12, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_partition_is_gone_and_its_name_free() {
    let disk = MemDisk::new(1);
    let process =
        Process::start_with(Arc::new(disk.clone()), |options| options.stray_retention = Duration::ZERO);
    let process = process.unwrap();
    let log = process.create(0, small()).await;
    fill_by(&log, 1, 12).await;
    let mut watch = log.watch();
    assert!(process.dir.set_aside(vec![id(0)]).await.unwrap().is_empty());
    assert!(watch.changed().await.is_err());
    assert!(log.is_closed() && process.dir.partition(id(0)).is_none());
    let again = process.create(0, small()).await;
    assert_ne!(again.incarnation(), log.incarnation());
    assert_eq!(again.ends().log_end, 0);
    a_look().await;
    let folders =
        |disk: &MemDisk| disk.list(std::path::Path::new(DIR)).unwrap().iter().filter(|e| e.is_dir).count();
    assert_eq!(folders(&disk), 1);
}

#[tokio::test]
async fn many_partitions_are_created_for_one_sync() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let process = Process::start(Arc::new(disk.clone()));
    let wanted = (0..100).map(|n| (id(n), "flights".to_owned(), LogConfig::default()));
    disk.start_trace();
    assert_eq!(process.dir.create_partitions(wanted).unwrap().len(), 100);
    let trace = disk.take_trace();
    let count = |op| trace.iter().filter(|event| event.op == op).count();
    assert_eq!((count(Op::SyncFs), count(Op::SyncDir)), (1, 0));
    let wanted = [500, 7, 501, 501].map(|number| (id(number), "t".into(), small()));
    let outcomes = process.dir.create_partitions(wanted).unwrap();
    let made: Vec<_> = outcomes.iter().map(|(id, outcome)| (id.partition, outcome.is_ok())).collect();
    assert_eq!(made, [(500, true), (7, false), (501, true), (501, false)], "one holds up no other");
    assert!([7, 500, 501].iter().all(|number| process.dir.partition(id(*number)).is_some()));
}
