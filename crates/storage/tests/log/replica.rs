//! A follower: it takes what its leader wrote, in the leadership that it follows and where its log ends, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::timeout;
use weir_io::{Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_runtime::testing::{PATIENCE, until};
use weir_storage::{
    Acks, AppendError, Control, Ends, Error, Frame, FrameError, FrameHeader, Limit, LogConfig, Partition,
    ReadError, ReadRequest, Refused, ReplicateError, Replicated, decode_frames,
};
use weir_types::{Durability, Offset};

use crate::support::*;

/// A leader's log and a follower's, on disks of their own.
struct Two {
    leader: Partition,
    follower: Partition,
    mem: MemDisk,
    process: Process,
    _leader: Process,
}

async fn two(config: LogConfig) -> Two {
    let leading = Process::start(Arc::new(MemDisk::new(1)));
    let leader = leading.create(0, config.clone()).await;
    let mem = MemDisk::new(2);
    let process = Process::start(Arc::new(mem.clone()));
    let follower = process.dir.create_partition(id(0), "flights", config).unwrap();
    follow(&follower, 1).await;
    Two { leader, follower, mem, process, _leader: leading }
}

/// A frame as both have it: a follower changes nothing but how far it was flushed.
fn shared(frames: Vec<Frame>) -> Vec<(FrameHeader, Bytes)> {
    let shared = |frame: Frame| (FrameHeader { flushed_end: None, ..frame.header }, frame.payload);
    frames.into_iter().map(shared).collect()
}

#[tokio::test]
async fn what_a_leader_wrote_is_taken_as_it_is_and_stays() {
    let small = LogConfig { segment_bytes: 700, ..config(Durability::Fsync) };
    let two = two(small).await;
    let Two { leader, follower, mem, .. } = &two;
    fill_by(leader, 7, 6).await;
    lead(leader, 3).await;
    produce(leader, by(8, 2, 0, batch("b", 3))).await.unwrap();
    follow(follower, 3).await;
    catch_up(leader, follower, 3).await;
    let wanted = shared(all(leader).await);
    assert_eq!(shared(all(follower).await), wanted);
    assert_eq!(follower.describe().segments, leader.describe().segments, "each rolls by its own rules");
    assert_eq!((follower.last_epoch(), follower.epoch_end(2)), (Some(3), (1, 6)));
    until("it is flushed", async || follower.ends().flushed_end == 9).await;
    let process = Process::start(Arc::new(mem.power_loss(weir_io::Survival::Nothing)));
    let follower = process.lead(0, 4).await;
    assert_eq!(shared(all(&follower).await), wanted);
    assert_eq!((follower.last_epoch(), follower.epoch_end(2)), (Some(3), (1, 6)));
    // It knows the producers as its leader did.
    let again = produce(&follower, by(8, 2, 0, batch("b", 3))).await.unwrap();
    assert_eq!((again.duplicate, again.base_offset, again.leader_epoch), (true, 6, 3));
    assert_eq!(produce(&follower, by(7, 0, 6, batch("c", 1))).await.unwrap().base_offset, 9);
}

#[tokio::test]
async fn of_another_leadership_or_elsewhere_nothing_is_taken() {
    let two = two(LogConfig::default()).await;
    let Two { leader, follower, process, .. } = &two;
    fill(leader, 4).await;
    let frames = sent(leader, 0, 1 << 20).await;
    let wrong = |given, follows| Err(ReplicateError::WrongEpoch { given, follows });
    assert_eq!(replicate(follower, 2, frames.clone()).await, wrong(2, Some(1)));
    assert_eq!(replicate(follower, 0, frames.clone()).await, wrong(0, Some(1)));
    let gap = |expected, given| Err(ReplicateError::Gap { expected, given });
    assert_eq!(replicate(follower, 1, frames[1..].to_vec()).await, gap(0, 1));
    let hole = vec![frames[0].clone(), frames[2].clone()];
    assert_eq!(replicate(follower, 1, hole).await, gap(1, 2));
    assert_eq!(follower.ends(), Ends::default(), "not even the first one");
    let ends = replicate(follower, 1, frames[..2].to_vec()).await.unwrap();
    assert_eq!((ends.log_end, ends.log_start), (2, 0));
    assert_eq!(replicate(follower, 1, frames.clone()).await, gap(2, 0));
    assert_eq!(replicate(follower, 1, Vec::new()).await.unwrap().log_end, 2);
    // Nor what no leader sends.
    let malformed = |change: fn(&mut Frame)| {
        let mut frame = frames[2].clone();
        change(&mut frame);
        replicate(follower, 1, vec![frame])
    };
    for refused in [
        malformed(|frame| frame.payload = Bytes::from_static(b"short")).await,
        malformed(|frame| frame.header.record_count = -1).await,
        malformed(|frame| frame.header.leader_epoch = 2).await,
        malformed(|frame| frame.header.leader_epoch = 0).await,
    ] {
        assert!(matches!(refused, Err(ReplicateError::Malformed(_))), "{refused:?}");
    }
    // Who leads takes none, who follows appends none, and who was closed does neither.
    lead(follower, 2).await;
    assert_eq!(replicate(follower, 2, frames[2..].to_vec()).await, wrong(2, None));
    let back = follower.control(Control::SetAdmission(Following::boxed(0))).await;
    assert!(matches!(back, Err(Error::StaleEpoch { given: 0, last: 1 })), "{back:?}");
    follow(follower, 2).await;
    let own = produce(follower, batch("x", 1)).await;
    assert_eq!(own, Err(AppendError::Refused(Refused::NotLeader)));
    assert_eq!(replicate(follower, 2, frames[2..].to_vec()).await.unwrap().log_end, 4);
    process.dir.close().await.unwrap();
    assert_eq!(replicate(follower, 2, Vec::new()).await, Err(ReplicateError::Closed));
}

#[tokio::test]
async fn frames_wait_their_turn_behind_a_change_of_leadership() {
    let two = two(LogConfig::default()).await;
    let Two { leader, follower, .. } = &two;
    fill(leader, 2).await;
    let frames = sent(leader, 0, 1 << 20).await;
    let (first, second) = (frames[..1].to_vec(), frames[1..].to_vec());
    // All of it is in the queue before any of it is done.
    let (before, change, after) = tokio::join!(
        replicate(follower, 1, first),
        follower.control(Control::SetAdmission(Following::boxed(2))),
        replicate(follower, 1, second),
    );
    assert_eq!(before.unwrap().log_end, 1);
    change.unwrap();
    assert_eq!(after, Err(ReplicateError::WrongEpoch { given: 1, follows: Some(2) }));
}

#[tokio::test]
async fn without_room_nothing_is_taken_and_later_all_of_it() {
    for fault in [Fault::NoSpace, Fault::TooManyFiles] {
        let leading = Process::start(Arc::new(MemDisk::new(1)));
        let leader = leading.create(0, LogConfig::default()).await;
        fill_by(&leader, 7, 4).await;
        let disk = FaultDisk::over_mem(&MemDisk::new(2));
        let process = Process::start(Arc::new(disk.clone()));
        let follower = process.dir.create_partition(id(0), "flights", LogConfig::default()).unwrap();
        follow(&follower, 1).await;
        let frames = sent(&leader, 0, 1 << 20).await;
        let effect = if fault == Fault::NoSpace { Effect::Torn(300, fault) } else { Effect::Fail(fault) };
        disk.add(Rule::on([Op::Write], effect).ends_with(".log").once());
        let refused = replicate(&follower, 1, frames.clone()).await;
        let is_it = matches!(refused, Err(ReplicateError::DiskFull { .. } | ReplicateError::NoHandles));
        assert!(is_it, "{refused:?}");
        assert_eq!(follower.ends(), Ends::default());
        assert_eq!(replicate(&follower, 1, frames).await.unwrap().log_end, 4);
        assert_eq!(shared(all(&follower).await), shared(all(&leader).await));
        assert!(process.fatal.lock().is_empty());
    }
}

#[tokio::test]
async fn what_is_kept_free_stays_free() {
    let Two { leader, follower, mem, process, _leader } = two(LogConfig::default()).await;
    fill(&leader, 4).await;
    let frames = sent(&leader, 0, 1 << 20).await;
    drop((follower, process));
    let process = Process::start_with(Arc::new(mem.kill()), |options| {
        options.disk_reserved_bytes = u64::MAX >> 1;
    });
    let process = process.unwrap();
    let follower = process.dir.partition(id(0)).unwrap();
    follow(&follower, 1).await;
    let refused = replicate(&follower, 1, frames).await;
    assert!(matches!(refused, Err(ReplicateError::DiskFull { .. })), "{refused:?}");
    assert_eq!(follower.ends(), Ends::default());
}

#[tokio::test]
async fn a_follower_learns_how_far_it_is_written_and_flushed() {
    for durability in [Durability::Fsync, Durability::Replicated] {
        let two = two(config(durability)).await;
        let Two { leader, follower, .. } = &two;
        let admission = Following::boxed(1);
        let (hw, seen) = (Arc::clone(&admission.leader), Arc::clone(&admission.seen));
        hw.store(0, Ordering::Release);
        follower.control(Control::SetAdmission(admission)).await.unwrap();
        fill(leader, 3).await;
        replicate(follower, 1, sent(leader, 0, 1 << 20).await).await.unwrap();
        let wanted = if durability == Durability::Fsync { (3, 3) } else { (3, 0) };
        let has = async || seen.lock().contains(&wanted);
        until("it was told", has).await;
        assert_eq!(follower.ends().high_watermark, 0);
        // Its leader's high watermark comes with the next message.
        let mut watch = follower.watch();
        hw.store(2, Ordering::Release);
        follower.advance();
        timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        assert_eq!(follower.ends().high_watermark, 2);
        hw.store(9, Ordering::Release);
        follower.advance();
        assert_eq!(follower.ends().high_watermark, 3, "at most what it has");
    }
}

/// A leader whose followers' acknowledgements come from elsewhere.
struct Acknowledged(Arc<std::sync::atomic::AtomicI64>, Arc<parking_lot::Mutex<Vec<Offset>>>);

impl weir_storage::Admission for Acknowledged {
    fn leader_epoch(&self) -> Option<i32> {
        Some(5)
    }

    fn begins(&mut self, log: &weir_storage::LogView<'_>) {
        self.1.lock().push(log.log_end);
    }

    fn admit(&mut self, _: &weir_storage::LogView<'_>, _: &weir_storage::Append) -> weir_storage::Verdict {
        weir_storage::Verdict::Append { leader_epoch: 5 }
    }

    fn high_watermark(&mut self, log: &weir_storage::LogView<'_>) -> Offset {
        assert!(!self.1.lock().is_empty(), "it has begun");
        self.0.load(Ordering::Acquire).min(log.log_end)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledgement_is_lost_however_many_come_at_once() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, config(Durability::Replicated)).await;
    fill(&log, 2).await;
    let acked = Arc::new(std::sync::atomic::AtomicI64::new(2));
    let begun = Arc::default();
    let admission = Acknowledged(Arc::clone(&acked), Arc::clone(&begun));
    log.control(Control::SetAdmission(Box::new(admission))).await.unwrap();
    assert_eq!(*begun.lock(), [2], "once, where its epoch begins");
    let (appends, answers): (Vec<_>, Vec<_>) = (0..64).map(|_| append(batch("a", 1), Acks::All)).unzip();
    log.submit(appends);
    let tasks = (0..4).map(|task| {
        let (acked, log) = (Arc::clone(&acked), log.clone());
        tokio::spawn(async move {
            for end in (3 + task..=66).step_by(4) {
                acked.fetch_max(end, Ordering::AcqRel);
                log.advance();
                tokio::task::yield_now().await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for answer in answers {
        timeout(PATIENCE, answer).await.expect("answered").unwrap().unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((log.ends().high_watermark, begun.lock().len()), (66, 1));
}

#[tokio::test]
async fn what_came_over_the_wire_is_checked_to_the_last_byte() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig::default()).await;
    for payload in ["a", "", "ccc"] {
        produce(&log, batch(payload, 2)).await.unwrap();
    }
    let bytes = read(&log, 0).await.bytes;
    let decode = |bytes: &[u8]| decode_frames(Bytes::copy_from_slice(bytes), log.id(), log.incarnation());
    let (frames, bad) = decode(&bytes);
    assert_eq!((&frames, bad), (&all(&log).await, None));
    assert_eq!(decode(&[]), (Vec::new(), None));
    // No payload is copied.
    let range = bytes.as_ptr_range();
    let (held, _) = decode_frames(bytes.clone(), log.id(), log.incarnation());
    assert!(held.iter().all(|frame| frame.payload.is_empty() || range.contains(&frame.payload.as_ptr())));
    let ends: Vec<usize> = frames
        .iter()
        .scan(0, |end, frame| {
            *end += frame.header.frame_bytes() as usize;
            Some(*end)
        })
        .collect();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        let at = ends.iter().filter(|end| **end <= bit / 8).count();
        let (good, bad) = decode(&bad);
        assert_eq!((good.as_slice(), bad.is_some()), (&frames[..at], true), "bit {bit}");
    }
    for len in 1..bytes.len() {
        assert_eq!(decode(&bytes[..len]).1.is_none(), ends.contains(&len), "cut at {len}");
    }
    let hole = [&bytes[..ends[0]], &bytes[ends[1]..]].concat();
    assert_eq!(decode(&hole).1, Some(FrameError::Gap { expected: 2, given: 4 }));
    let other = decode_frames(bytes, id(1), log.incarnation());
    assert_eq!(other, (Vec::new(), Some(FrameError::HeaderCrc)));
}

#[tokio::test]
async fn a_follower_that_asks_for_what_is_gone_is_told_where_the_log_begins() {
    let process = Process::start(Arc::new(MemDisk::new(1)));
    let log = process.create(0, LogConfig { segment_bytes: 500, ..LogConfig::default() }).await;
    fill(&log, 6).await;
    log.control(Control::SetLogStart { offset: 3 }).await.unwrap();
    let request = |from| ReadRequest { from, bytes_max: 256 << 10, limit: Limit::LogEnd };
    let gone = ReadError::OutOfRange { log_start: 3, end: 6 };
    assert_eq!(log.read(request(1)).await.unwrap_err(), gone);
    // What is before the start and still there is for replicas alone.
    assert_eq!(log.read(request(2)).await.unwrap().frames().next().unwrap().header.base_offset, 2);
    let committed = ReadRequest { limit: Limit::HighWatermark, ..request(2) };
    assert_eq!(log.read(committed).await.unwrap_err(), gone);
    let end = log.read(request(6)).await.unwrap();
    assert_eq!((end.is_empty(), end.next_offset), (true, 6));
    assert!(log.read(request(7)).await.is_err());
}

#[tokio::test]
async fn an_answer_that_nobody_can_give_any_more_says_so() {
    let Two { leader: _, follower, process, .. } = two(LogConfig::default()).await;
    drop(process);
    let (tell, told) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| drop(tell.send(result)));
    follower.replicate(Replicated { leader_epoch: 1, frames: Vec::new(), done });
    let answer = timeout(PATIENCE, told).await.unwrap().unwrap();
    assert!(matches!(answer, Err(ReplicateError::Closed | ReplicateError::Failed)), "{answer:?}");
}
