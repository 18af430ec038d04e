//! Bits that rot, files that are foreign, new, torn or gone: each is said clearly, and nothing is made worse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weir_io::{Access, Disk, MemDisk};
use weir_storage::{Control, DirIdentity, Error, Limit, LogConfig, LogDir, ReadError, inspect};
use weir_types::{BrokerId, ClusterId, Durability};

use crate::support::*;

/// A disk with a partition of ten durable frames, left by a kill, and where its segment is.
async fn ten_frames(checkpointed: bool) -> (MemDisk, PathBuf) {
    let disk = MemDisk::new(3);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for n in 0..10 {
        produce(&log, batch(vec![n; 100], 1)).await.unwrap();
    }
    if checkpointed {
        process.dir.checkpoint().unwrap();
    }
    let path = log.describe().path.join("00000000000000000000.log");
    (disk.kill(), path)
}

fn flip(disk: &MemDisk, path: &Path, at: u64) {
    let file = disk.open(path, Access::Write).unwrap();
    let mut byte = bytes::BytesMut::new();
    file.read_at(&mut byte, 1, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    file.sync_all().unwrap();
}

fn content(disk: &MemDisk, path: &Path) -> Vec<u8> {
    disk.read(path, 1 << 20).unwrap().to_vec()
}

const FRAME: u64 = 188;

#[tokio::test]
async fn a_bit_that_rots_before_what_was_durable_takes_the_partition_offline_and_cuts_nothing() {
    // The last frame was durable only in what a checkpoint says, the others also in what later frames say.
    for (frame, at, checkpointed) in
        [(3, 10, true), (3, 10, false), (5, 150, false), (0, 0, false), (8, 90, false)]
    {
        let (disk, path) = ten_frames(checkpointed).await;
        flip(&disk, &path, frame * FRAME + at);
        let before = content(&disk, &path);
        let process = Process::start(Arc::new(disk.clone()));
        let damaged = &process.report.damaged;
        assert_eq!(damaged.len(), 1, "frame {frame}, byte {at}, checkpoint {checkpointed}");
        assert!(damaged[0].what.contains("durable up to offset"), "{}", damaged[0].what);
        assert!(process.dir.partition(id(0)).is_none());
        assert!(matches!(
            process.dir.create_partition(id(0), "flights", LogConfig::default()),
            Err(Error::Exists(_))
        ));
        process.dir.close().await.unwrap();
        assert_eq!(content(&disk, &path), before, "nothing was cut");
        // The next start says so again.
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.damaged.len(), 1);
    }
}

#[tokio::test]
async fn a_bad_end_that_nothing_proves_is_torn_and_cut() {
    for at in [0, 50, 87, 88, 187] {
        let (disk, path) = ten_frames(false).await;
        flip(&disk, &path, 9 * FRAME + at);
        let process = Process::start(Arc::new(disk));
        assert_eq!(process.report.damaged, []);
        assert_eq!(process.report.truncated, [(id(0), FRAME)]);
        let log = process.lead(0, 2).await;
        assert_eq!(log.ends().log_end, 9);
        assert_eq!(produce(&log, batch("again", 1)).await.unwrap().base_offset, 9);
        assert_eq!(all(&log).await.len(), 10);
    }
}

#[tokio::test]
async fn a_log_that_is_shorter_than_it_was_durable_is_damaged() {
    let (disk, path) = ten_frames(true).await;
    disk.open(&path, Access::Write).unwrap().set_len(9 * FRAME).unwrap();
    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.report.damaged[0].what.contains("it ends at offset 9, 10 were durable"));
    let gone = disk.unlink(&path);
    gone.unwrap();
    drop(process);
    let process = Process::start(Arc::new(disk));
    assert!(process.report.damaged[0].what.contains("segments are missing"), "{:?}", process.report);
}

#[tokio::test]
async fn a_checkpoint_that_fails_its_checksum_is_damage_and_no_torn_write() {
    let (disk, _) = ten_frames(true).await;
    let path = Path::new(DIR).join("checkpoint");
    flip(&disk, &path, 60);
    let error = Process::start_with(Arc::new(disk.clone()), |_| {}).err().unwrap();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("checkpoint") && error.to_string().contains("checksum"), "{error}");
}

/// Nobody knows any more how far they were durable: what a power loss tore, and what the disk has lost of what was acknowledged,
/// look alike.
#[tokio::test]
pub(crate) async fn without_its_checkpoint_no_log_of_a_directory_is_believed() {
    let (disk, path) = ten_frames(true).await;
    disk.unlink(&Path::new(DIR).join("checkpoint")).unwrap();
    let was_used = br#"{"broker_epoch": 7, "boot_id": "boot-1"}"#;
    disk.replace_durably(&Path::new(DIR).join("broker-epoch"), was_used).unwrap();
    disk.open(&path, Access::Write).unwrap().set_len(7 * FRAME).unwrap();
    for start in 0..2 {
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!(process.report.broker_epoch, None, "{start}: it can prove nothing");
        let [damaged] = process.report.damaged.as_slice() else { panic!("{start}: {:?}", process.report) };
        assert!(damaged.what.contains("the checkpoint of this directory"), "{start}: {}", damaged.what);
        assert_eq!((damaged.whole.unwrap().end, process.report.truncated.len()), (7, 0), "{start}");
        let files = inspect::directory(&disk, Path::new(DIR)).unwrap().partitions;
        let files = files.into_iter().find(|files| files.id == id(0)).unwrap();
        let said = inspect::verify(&disk, &files).unwrap().problems;
        assert!(
            matches!(said.as_slice(), [said] if said.contains("the checkpoint of this directory was not there")),
            "{said:?}"
        );
        // What is made afterwards is known.
        let new = process.create(1 + start, config(Durability::Fsync)).await;
        produce(&new, batch("a", 1)).await.unwrap();
        process.dir.close().await.unwrap();
    }
    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.dir.cut_damaged(id(0), 7).unwrap().is_some(), "a person takes it as it is");
    assert_eq!(all(&process.lead(0, 2).await).await.len(), 7);
    process.dir.close().await.unwrap();
    for files in inspect::directory(&disk, Path::new(DIR)).unwrap().partitions {
        assert_eq!(inspect::verify(&disk, &files).unwrap().problems, [""; 0]);
    }
    let process = Process::start(Arc::new(disk));
    assert_eq!((process.report.damaged.len(), process.report.partitions), (0, 3));
}

#[tokio::test]
async fn a_sidecar_that_does_not_hold_is_made_again() {
    let disk = MemDisk::new(3);
    let process = Process::start(Arc::new(disk.clone()));
    let small = LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) };
    let log = process.create(0, small).await;
    for n in 0..30 {
        produce(&log, by(9, 0, n, batch(vec![n as u8; 100], 1))).await.unwrap();
    }
    let frames = all(&log).await;
    let folder = log.describe().path;
    process.dir.close().await.unwrap();
    let disk = disk.kill();
    let seals: Vec<_> =
        disk.list(&folder).unwrap().into_iter().filter(|entry| entry.name.ends_with(".seal")).collect();
    assert!(seals.len() >= 4, "{seals:?}");
    for (n, entry) in seals.iter().enumerate() {
        match n % 3 {
            0 => flip(&disk, &folder.join(&entry.name), 100),
            1 => disk.open(&folder.join(&entry.name), Access::Write).unwrap().set_len(30).unwrap(),
            _ => disk.unlink(&folder.join(&entry.name)).unwrap(),
        }
    }
    // In order: they are found wanting when they are needed. After a kill: at the start.
    let process = Process::start(Arc::new(disk.clone()));
    assert!(process.report.clean);
    let log = process.lead(0, 2).await;
    assert_eq!(all(&log).await, frames);
    let process = Process::start(Arc::new(disk.kill()));
    assert_eq!(process.report.damaged, []);
    let log = process.lead(0, 3).await;
    assert_eq!(all(&log).await, frames);
    assert!(produce(&log, by(9, 0, 29, batch(vec![29; 100], 1))).await.unwrap().duplicate);
}

#[tokio::test]
async fn a_segment_that_is_gone_from_the_middle_is_noticed_at_the_start() {
    for (in_order, lost) in [(true, 2), (false, 2), (true, 3), (false, 3), (false, 4)] {
        let mem = MemDisk::new(1);
        let process = Process::start(Arc::new(mem.clone()));
        let log = process.create(0, LogConfig::default()).await;
        for _ in 0..5 {
            produce(&log, batch("a", 1)).await.unwrap();
            log.control(weir_storage::Control::Roll).await.unwrap();
        }
        produce(&log, batch("a", 1)).await.unwrap();
        let folder = log.describe().path;
        if in_order {
            process.dir.close().await.unwrap();
        }
        let disk = mem.kill();
        for kind in ["log", "seal"] {
            let _ = disk.unlink(&folder.join(format!("{lost:020}.{kind}")));
        }
        let process = Process::start(Arc::new(disk));
        assert_eq!(process.report.damaged.len(), 1, "in order {in_order}, {lost} lost");
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_is_shorter_than_its_sidecar_says_is_damage_at_the_start() {
    // Not the last one with a sidecar, which a start after a kill looks at more closely.
    for (in_order, lost) in [(true, 1), (true, FRAME), (false, 1), (false, FRAME)] {
        let disk = MemDisk::new(3);
        let process = Process::start(Arc::new(disk.clone()));
        let log = process.create(0, LogConfig { segment_bytes: 1000, ..config(Durability::Fsync) }).await;
        for n in 0..17 {
            produce(&log, batch(vec![n; 100], 1)).await.unwrap();
        }
        let first = log.describe().path.join("00000000000000000000.log");
        // The keeper seals.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(disk.exists(&first.with_extension("seal")).unwrap());
        if in_order {
            process.dir.close().await.unwrap();
        }
        let disk = disk.kill();
        let file = disk.open(&first, Access::Write).unwrap();
        file.set_len(file.len().unwrap() - lost).unwrap();
        let process = Process::start(Arc::new(disk.clone()));
        assert_eq!((process.report.clean, process.report.truncated.len()), (in_order, 0));
        assert_eq!(process.report.damaged.len(), 1, "in order {in_order}, {lost} bytes lost");
        let what = &process.report.damaged[0].what;
        assert!(what.contains("were durable: the disk has lost what it had"), "{what}");
    }
}

#[tokio::test]
async fn a_segment_that_ends_early_is_never_passed_over() {
    // After an orderly stop it is not looked at before somebody reads it.
    let (disk, path) = ten_frames(true).await;
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.lead(0, 2).await;
    log.control(weir_storage::Control::Roll).await.unwrap();
    produce(&log, batch("next", 1)).await.unwrap();
    process.dir.close().await.unwrap();
    let disk = disk.kill();
    disk.open(&path, Access::Write).unwrap().set_len(8 * FRAME).unwrap();
    let process = Process::start(Arc::new(disk));
    if process.report.damaged.is_empty() {
        let read = try_all(&process.lead(0, 3).await).await;
        assert!(matches!(read, Err(weir_storage::ReadError::Damaged(_))), "{read:?}");
    }
}

#[tokio::test]
async fn a_directory_knows_whose_it_is() {
    let disk = MemDisk::new(3);
    let open = |identity: Option<DirIdentity>| {
        let os = weir_runtime::testing::TestOs::new(Arc::new(disk.clone()));
        let options = weir_storage::DirOptions::new(|_| {});
        weir_runtime::testing::listen();
        LogDir::open(Arc::new(os), Path::new(DIR), identity, options)
    };
    let mine = DirIdentity::new(ClusterId(10), BrokerId(1));
    let (dir, report) = open(None).unwrap();
    assert_eq!((report.identity, dir.identity()), (None, None));
    let error = open(None).err().unwrap();
    assert!(matches!(&error, Error::Locked { pid, .. } if *pid == std::process::id().to_string()), "{error}");
    dir.bind_identity(&mine).unwrap();
    dir.bind_identity(&mine).unwrap();
    let error = dir.bind_identity(&DirIdentity::new(ClusterId(10), BrokerId(2))).unwrap_err();
    assert!(
        error.to_string().contains(&format!("belongs to broker 1 of cluster {}", ClusterId(10))),
        "{error}"
    );
    dir.write_broker_epoch(77).unwrap();
    let directory_id = dir.directory_id();
    dir.close().await.unwrap();
    drop(dir);
    let error = open(Some(DirIdentity::new(ClusterId(11), BrokerId(1)))).err().unwrap();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let (dir, report) = open(Some(mine)).unwrap();
    assert!(report.clean && !report.created);
    assert_eq!(dir.directory_id(), directory_id);
    assert_eq!(
        report.broker_epoch.map(|epoch| (epoch.broker_epoch, epoch.boot_id)),
        Some((77, "boot-1".to_owned()))
    );
}

#[tokio::test]
async fn a_newer_a_broken_and_a_strange_directory_are_refused() {
    let start = |disk: &MemDisk| Process::start_with(Arc::new(disk.clone()), |_| {}).err().unwrap();
    let dir_json = Path::new(DIR).join("dir.json");
    let disk = MemDisk::new(3);
    disk.create_dir(Path::new(DIR)).unwrap();
    disk.replace_durably(&Path::new(DIR).join("holiday.jpg"), b"x").unwrap();
    let error = start(&disk);
    assert!(error.to_string().contains("holds \"holiday.jpg\" but no dir.json"), "{error}");
    disk.unlink(&Path::new(DIR).join("holiday.jpg")).unwrap();
    disk.replace_durably(&dir_json, br#"{"format_version": 9, "new": true}"#).unwrap();
    let error = start(&disk);
    assert!(matches!(error, Error::Newer { found: 9, known: 1, .. }), "{error}");
    for broken in [
        &b""[..],
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        br#"{"format_version": 1, "directory_id": "xyz"}"#,
        br#"{"format_version": 1, "directory_id": "0123456789abcdef0123456789abcdef",
             "cluster_id": "flights", "broker_id": 1}"#,
        br#"{"format_version": 1, "directory_id": "0123456789abcdef0123456789abcdef",
             "cluster_id": "0123456789abcdef0123456789abcdef"}"#,
        br#"{"format_version": 1, "directory_id": "0123456789abcdef0123456789abcdef", "broker_id": 1}"#,
    ] {
        disk.replace_durably(&dir_json, broken).unwrap();
        let error = start(&disk);
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("dir.json"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_is_checked_without_a_server() {
    let (disk, path) = ten_frames(true).await;
    let found = inspect::directory(&disk, Path::new(DIR)).unwrap();
    assert!(!found.clean && found.checkpoint_problem.is_none());
    let partition = &found.partitions[0];
    assert_eq!((partition.id, partition.segments.as_slice()), (id(0), &[0][..]));
    assert_eq!(partition.checkpoint.map(|known| (known.log_end, known.recovery_point)), Some((10, 10)));
    let verified = inspect::verify(&disk, partition).unwrap();
    assert_eq!((verified.frames, verified.records, verified.bytes), (10, 10, 10 * FRAME));
    assert_eq!(verified.problems, Vec::<String>::new());
    flip(&disk, &path, 4 * FRAME + 100);
    flip(&disk, &path, 7 * FRAME + 20);
    let verified = inspect::verify(&disk, partition).unwrap();
    // What lies behind a header that does not hold is looked at as well.
    assert_eq!(verified.frames, 8);
    let [payload, header] = verified.problems.as_slice() else { panic!("{verified:?}") };
    assert!(
        payload.ends_with("byte 752, offset 4: the payload fails its checksum; whole again from offset 5")
    );
    assert!(
        header.contains("byte 1316, offset 7: the header fails its checksum")
            && header.ends_with("; whole again from offset 8")
    );
}

/// Where a batch that does not hold ends is where a reader goes on, and up to where its log is trimmed.
#[tokio::test]
async fn a_check_says_which_offsets_are_lost_and_from_which_on_the_log_is_whole() {
    let disk = MemDisk::new(3);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for n in 0..10 {
        if n == 6 {
            log.control(Control::Roll).await.unwrap();
        }
        produce(&log, batch(vec![n; 100], 10)).await.unwrap();
    }
    let (first, second) = ("00000000000000000000.log", "00000000000000000060.log");
    let folder = log.describe().path.clone();
    drop((log, process));
    let disk = disk.kill();
    // A payload, a header, two in a row of which the first header does not hold either, the end of a segment, that of the log.
    for (file, at) in [
        (first, 100),
        (first, 2 * FRAME + 10),
        (first, 3 * FRAME + 100),
        (first, 5 * FRAME + 10),
        (second, FRAME + 10),
        (second, 2 * FRAME + 10),
        (second, 3 * FRAME + 100),
    ] {
        flip(&disk, &folder.join(file), at);
    }
    let partition = inspect::directory(&disk, Path::new(DIR)).unwrap().partitions.remove(0);
    let verified = inspect::verify(&disk, &partition).unwrap();
    let bad = verified.bad_batches.iter().map(|bad| (bad.segment, bad.first, bad.last, bad.whole_from));
    assert_eq!(
        bad.collect::<Vec<_>>(),
        [
            (0, 0, Some(9), Some(10)),
            (0, 20, Some(29), Some(40)),
            (0, 30, Some(39), Some(40)),
            (0, 50, Some(59), Some(60)),
            (60, 70, Some(89), None),
            (60, 90, Some(99), None),
        ]
    );
    let said = |at: usize| verified.problems[at].split_once(", ").unwrap().1;
    assert_eq!(said(0), "offsets 0 to 9: the payload fails its checksum; whole again from offset 10");
    assert!(said(3).starts_with("offsets 50 to 59: the header fails its checksum"), "{}", said(3));
    assert!(said(3).ends_with("; 188 bytes are left; whole again from offset 60"), "{}", said(3));
    assert_eq!(said(5), "offsets 90 to 99: the payload fails its checksum; nothing behind it is whole");
    assert_eq!((verified.frames, verified.problems.len()), (3, 6), "{:?}", verified.problems);
}

/// The way to what comes behind it leads through it, as long as its segment is there.
#[tokio::test]
async fn damage_before_the_logs_start_is_nobodys() {
    let disk = MemDisk::new(3);
    let process = Process::start(Arc::new(disk.clone()));
    let log = process.create(0, config(Durability::Fsync)).await;
    for n in 0..10 {
        produce(&log, batch(vec![n; 100], 1)).await.unwrap();
    }
    let frames = all(&log).await;
    let path = log.describe().path.join("00000000000000000000.log");
    // Two in a row, and one by itself.
    for frame in [2, 3, 5] {
        flip(&disk, &path, frame * FRAME + 10);
    }
    let found = async || {
        let found = log.offset_for_timestamp(0, Limit::LogEnd).await;
        found.map(|found| found.map(|found| found.offset))
    };
    for offset in [0, 3, 4] {
        log.control(Control::SetLogStart { offset }).await.unwrap();
        let read = try_all(&log).await;
        assert!(matches!(read, Err(ReadError::Damaged(_))), "from {offset} on: {read:?}");
        let found = found().await;
        let is_damaged = matches!(found, Err(ReadError::Damaged(_)));
        assert!(is_damaged == (offset == 3) && (is_damaged || found == Ok(Some(offset))), "{found:?}");
        assert_eq!(log.start_state().await.is_err(), is_damaged);
    }
    log.control(Control::SetLogStart { offset: 6 }).await.unwrap();
    assert_eq!(all(&log).await, frames[6..]);
    assert_eq!(found().await, Ok(Some(6)));
    // A replica begins there.
    let other = Process::start(Arc::new(MemDisk::new(4)));
    let state = log.start_state().await.unwrap();
    let begun = other.dir.start_over("flights", config(Durability::Fsync), state).await.unwrap();
    assert_eq!((begun.ends().log_start, begun.epoch_end(1)), (6, (1, 6)));
}
