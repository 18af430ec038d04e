//! Where a log ends after a crash: what is a witness that its end was durable, and what only looks like one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Access, Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_storage::{
    Acks, Control, Error, FrameHeader, HEADER_BYTES, LogConfig, Outcome, OutcomeQuery, Partition, Seed,
};
use weir_types::{Durability, Incarnation, Offset, Producer, ProducerId};

use crate::support::*;

const FIRST: &str = "00000000000000000000.log";

/// Five frames a segment.
fn small() -> LogConfig {
    LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }
}

/// A log with one record, which is durable, and its file.
async fn begun(mem: &MemDisk) -> (Process, Partition, PathBuf) {
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    produce(&log, batch("a", 1)).await.unwrap();
    let path = log.describe().path.join(FIRST);
    (process, log, path)
}

fn len(disk: &MemDisk, path: &Path) -> u64 {
    disk.open(path, Access::Read).unwrap().len().unwrap()
}

fn overwrite(disk: &MemDisk, path: &Path, at: u64, bytes: &[u8]) {
    let file = disk.open(path, Access::Write).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

fn shorten(disk: &MemDisk, path: &Path, bytes: u64) {
    let file = disk.open(path, Access::Write).unwrap();
    file.set_len(file.len().unwrap() - bytes).unwrap();
    file.sync_all().unwrap();
}

fn of_kind(disk: &MemDisk, folder: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = disk.list(folder).unwrap();
    entries.into_iter().filter(|one| one.name.ends_with(kind)).map(|one| folder.join(one.name)).collect()
}

/// A header as the log itself would write it, if this is its seed.
fn forged_header(
    seed: Seed,
    (base_offset, flushed_end): (Offset, Offset),
    payload_bytes: usize,
    crc: u32,
) -> [u8; HEADER_BYTES] {
    let header = FrameHeader {
        base_offset,
        last_offset_delta: 0,
        record_count: 1,
        base_timestamp_ms: 0,
        max_timestamp_ms: 0,
        append_time_ms: 0,
        append_time: false,
        codec: 0,
        transactional: false,
        control: false,
        broker_compressed: false,
        uncompressed_bytes: payload_bytes as u32,
        payload_bytes: payload_bytes as u32,
        payload_crc: crc,
        producer: None,
        base_sequence: 0,
        leader_epoch: 1,
        flushed_end: Some(flushed_end),
    };
    header.encode(seed)
}

/// That of a log.
fn seed_of(log: &Partition) -> Seed {
    Seed::of(log.id(), log.incarnation())
}

/// That of whoever has to guess the one thing that no client is told.
fn guessed(log: &Partition) -> Seed {
    Seed::of(log.id(), Incarnation(log.incarnation().0 ^ 1))
}

fn forged(seed: Seed, base_offset: Offset, flushed_end: Offset) -> Vec<u8> {
    let payload = b"anything";
    let header = forged_header(seed, (base_offset, flushed_end), payload.len(), crc32fast::hash(payload));
    [&header[..], payload].concat()
}

/// What a crash leaves of the last append.
#[derive(Clone, Copy, Debug)]
enum Torn {
    /// Its end never came to the disk.
    End,
    /// A page of its payload did not.
    Within,
    /// The page with its header did not.
    Header,
}

#[tokio::test]
async fn what_a_producer_writes_proves_nothing_of_the_disk() {
    for torn in [Torn::End, Torn::Within, Torn::Header] {
        for (base, flushed) in [(1_000_000, 1_000_000), (2, 2), (1, 1), (i64::MAX, i64::MAX)] {
            let mem = MemDisk::new(1);
            let (_process, log, path) = begun(&mem).await;
            let before = len(&mem, &path);
            // Where the header that covers it is lost, nothing but the seed tells it from the log's own.
            let seed = if matches!(torn, Torn::Header) { guessed(&log) } else { seed_of(&log) };
            let payload = [&[7; 100][..], &forged(seed, base, flushed), &[7; 500]].concat();
            produce(&log, batch(payload, 1)).await.unwrap();
            let mem = mem.kill();
            match torn {
                Torn::End => shorten(&mem, &path, 100),
                Torn::Within => overwrite(&mem, &path, len(&mem, &path) - 200, &[0; 100]),
                Torn::Header => overwrite(&mem, &path, before, &[0; HEADER_BYTES]),
            }
            let process = Process::start(Arc::new(mem));
            assert_eq!(process.report.damaged, [], "{torn:?}, {base}");
            assert_eq!(process.report.truncated.len(), 1, "{torn:?}, {base}");
            assert_eq!(process.lead(0, 2).await.ends().log_end, 1);
        }
    }
}

/// A row of frames as the log itself would write them, with which the file then ends. Where the page with the header of
/// the batch that holds it never came to the disk, nothing but the seed tells them from the log's own.
#[tokio::test]
async fn who_knows_all_that_clients_are_told_forges_no_witness() {
    for is_told in [true, false] {
        let mem = MemDisk::new(1);
        let (_process, log, path) = begun(&mem).await;
        let before = len(&mem, &path);
        let seed = if is_told { guessed(&log) } else { seed_of(&log) };
        let row: Vec<u8> = (2..5).flat_map(|base| forged(seed, base, base)).collect();
        produce(&log, batch([&[7; 100][..], &row].concat(), 1)).await.unwrap();
        let mem = mem.kill();
        overwrite(&mem, &path, before, &[0; HEADER_BYTES]);
        let process = Process::start(Arc::new(mem));
        if is_told {
            assert_eq!(process.report.damaged, []);
            assert_eq!(process.report.truncated.len(), 1);
            assert_eq!(process.lead(0, 2).await.ends().log_end, 1);
        } else {
            assert_eq!(
                process.report.damaged.len(),
                1,
                "the row is as good as the log's own but for the seed"
            );
        }
    }
}

#[tokio::test]
async fn headers_in_a_torn_payload_do_not_hold_up_a_start() {
    for torn in [Torn::End, Torn::Header] {
        let mem = MemDisk::new(1);
        let (_process, log, path) = begun(&mem).await;
        let before = len(&mem, &path);
        let seed = if matches!(torn, Torn::Header) { guessed(&log) } else { seed_of(&log) };
        // Each says that all the rest is its payload.
        let total = 512 << 10;
        let mut payload = Vec::with_capacity(total);
        while payload.len() + HEADER_BYTES <= total {
            let rest = (total - payload.len()).saturating_sub(HEADER_BYTES + 200);
            payload.extend_from_slice(&forged_header(seed, (1_000_000, 1_000_000), rest, 1));
        }
        let headers = payload.len() / HEADER_BYTES;
        payload.push(7);
        produce(&log, batch(payload, 1)).await.unwrap();
        let mem = mem.kill();
        match torn {
            Torn::Header => overwrite(&mem, &path, before, &[0; HEADER_BYTES]),
            _ => shorten(&mem, &path, 100),
        }
        let disk = FaultDisk::over_mem(&mem);
        disk.start_trace();
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.damaged, [], "{torn:?}");
        let is_read = |event: &&weir_io::Event| event.op == Op::Read && event.path == path;
        let reads = disk.take_trace().iter().filter(is_read).count();
        // What a header of our own covers is not searched; else each that looks like one costs a look.
        let reads_max = if matches!(torn, Torn::Header) { headers + 20 } else { 20 };
        assert!(reads <= reads_max, "{torn:?}: {reads} reads for {headers} headers");
    }
}

/// A disk after a kill, and the file on it: ten frames of a log, all of them durable, whose headers of these are lost.
async fn ten_without_headers(lost: &[u64]) -> (MemDisk, PathBuf) {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    fill(&log, 10).await;
    let path = log.describe().path.join(FIRST);
    let mem = mem.kill();
    for frame in lost {
        overwrite(&mem, &path, frame * 200, &[0; HEADER_BYTES]);
    }
    (mem, path)
}

#[tokio::test]
async fn frames_behind_lost_headers_prove_that_they_were_durable() {
    // Two of them: with a frame in between, or next to each other; or the first one of the file.
    for lost in [[3, 5], [3, 4], [0, 1], [0, 7]] {
        let (mem, _path) = ten_without_headers(&lost).await;
        let process = Process::start(Arc::new(mem));
        assert_eq!(process.report.damaged.len(), 1, "{lost:?}");
        let what = &process.report.damaged[0].what;
        assert!(what.contains("durable up to offset 9"), "{lost:?}: {what}");
    }
}

#[tokio::test]
async fn one_frame_behind_a_lost_header_is_a_witness_whatever_a_crash_made_of_the_rest() {
    // The last one's header never came to the disk, or not all of it; or it is the witness itself that is torn.
    for (cut, lost) in [(0, vec![7, 9]), (160, vec![7]), (250, vec![7])] {
        let (mem, path) = ten_without_headers(&lost).await;
        shorten(&mem, &path, cut);
        let process = Process::start(Arc::new(mem));
        assert_eq!(process.report.truncated, [], "{cut}: acknowledged records were cut as if torn");
        assert_eq!(process.report.damaged.len(), 1, "{cut}");
        let what = &process.report.damaged[0].what;
        assert!(what.contains("durable up to offset 8"), "{cut}: {what}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_came_to_the_disk_before_the_ones_in_front_of_them_prove_nothing() {
    for lost in [vec![3], vec![3, 5], vec![3, 6], vec![3, 4, 6], vec![4, 6]] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, config(Durability::Replicated)).await;
        fill(&log, 3).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(log.ends().flushed_end, 3);
        // Of these the system has written what it liked.
        fill(&log, 4).await;
        let path = log.describe().path.join(FIRST);
        let mem = mem.kill();
        for frame in &lost {
            overwrite(&mem, &path, frame * 200, &[0; HEADER_BYTES]);
        }
        let process = Process::start(Arc::new(mem));
        assert_eq!(process.report.damaged, [], "{lost:?}");
        assert_eq!(process.dir.partition(id(0)).unwrap().ends().log_end, lost[0] as Offset, "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_beside_a_segment_is_a_witness() {
    for at_a_frame in [false, true] {
        for kind in [".seal", ".tail"] {
            let mem = MemDisk::new(1);
            let disk = FaultDisk::over_mem(&mem);
            let process = Process::start(Arc::new(disk.clone()));
            let log = process.create(0, small()).await;
            // The checkpoint knows the partition, and comes no more.
            tokio::time::sleep(Duration::from_secs(2)).await;
            fill(&log, 5).await;
            let folder = log.describe().path;
            if kind == ".seal" {
                log.control(Control::Roll).await.unwrap();
                tokio::time::sleep(Duration::from_secs(3)).await;
            } else {
                disk.add(Rule::on([Op::Write], Effect::Fail(Fault::NoSpace)).ends_with("checkpoint.tmp"));
                process.dir.close().await.unwrap_err();
            }
            assert_eq!(of_kind(&mem, &folder, kind).len(), 1, "{kind}");
            let mem = mem.kill();
            // The disk loses the last of five frames that were synced and acknowledged.
            shorten(&mem, &folder.join(FIRST), if at_a_frame { 200 } else { 50 });
            let process = Process::start(Arc::new(mem.clone()));
            assert_eq!(process.report.truncated, [], "{kind}: acknowledged records were cut as if torn");
            assert_eq!(process.report.damaged.len(), 1, "{kind}");
            assert!(process.report.damaged[0].what.contains("durable up to offset 5"), "{kind}");
            assert_eq!(of_kind(&mem, &folder, kind).len(), 1, "{kind}: it is left as it is");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_witness_outlives_a_cut_of_what_it_speaks_of() {
    for changes in 0.. {
        let mem = MemDisk::new(1);
        let disk = FaultDisk::over_mem(&mem);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, small()).await;
        log.control(Control::SetAdmission(Box::new(Leader { epoch: 1, holds_at: Some(2) }))).await.unwrap();
        let (appends, answers): (Vec<_>, Vec<_>) =
            (0..12).map(|_| append(batch(vec![7; 112], 1), Acks::Leader)).unzip();
        log.submit(appends);
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        // The keeper seals two segments.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(of_kind(&mem, &log.describe().path, ".seal").len(), 2);
        disk.die_after(changes);
        let done = log
            .control(Control::Truncate { to: 3, below_high_watermark: false, following: None })
            .await
            .is_ok()
            && !disk.is_dead();
        drop(process);
        let mem = mem.crash(changes);
        let process = Process::start(Arc::new(mem.clone()));
        assert_eq!(process.report.damaged, [], "after {changes}");
        let log = process.lead(0, 2).await;
        // New segments begin where the old ones did, and a crash tears one of them.
        let end = log.ends().log_end;
        let next = (end..12).map(|_| append(batch(vec![8; 112], 1), Acks::Leader));
        let (appends, _answers): (Vec<_>, Vec<_>) = next.unzip();
        log.submit(appends);
        let process = Process::start(Arc::new(mem.crash(changes)));
        assert_eq!(process.report.damaged, [], "after {changes}");
        if done {
            assert!(changes > 3, "{changes}");
            break;
        }
    }
}

#[tokio::test]
async fn a_log_begun_anew_says_never_only_of_what_it_knows() {
    let mem = MemDisk::new(1);
    let process = Process::start(Arc::new(mem.clone()));
    let log = process.create(0, config(Durability::Replicated)).await;
    produce(&log, by(7, 0, 0, batch("a", 1))).await.unwrap();
    lead(&log, 6).await;
    for _ in 0..3 {
        produce(&log, batch("b", 1)).await.unwrap();
    }
    log.control(Control::SetLogStart { offset: 2 }).await.unwrap();
    let mut mem = mem.power_loss(Survival::Nothing);
    for _ in 0..3 {
        let process = Process::start(Arc::new(mem.clone()));
        assert_eq!(process.report.damaged, []);
        let log = process.dir.partition(id(0)).unwrap();
        assert_eq!((log.ends().log_start, log.ends().log_end), (2, 2));
        // What was known of leaderships is not forgotten: one that is over does not come back.
        let stale = log.control(Control::SetAdmission(Leader::boxed(5))).await;
        assert!(matches!(stale, Err(Error::StaleEpoch { given: 5, last: 6 })), "{stale:?}");
        lead(&log, 6).await;
        // It was appended, acknowledged, and then deleted: "never" is not true of it.
        let producer = Producer { id: ProducerId(7), epoch: 0 };
        let query = OutcomeQuery { producer, base_sequence: 0, seal: true };
        let outcome = log.append_outcome(query).await.unwrap();
        assert!(matches!(outcome, Ok(Outcome::Unknown(_))), "{outcome:?}");
        mem = mem.kill();
    }
}
