//! A disk that fails on command does exactly that.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use weir_io::{Access, Disk, Effect, Event, Fault, FaultDisk, File, MemDisk, Op, Rule, Survival};

fn at(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn disks() -> (MemDisk, FaultDisk) {
    let mem = MemDisk::new(0);
    let faulty = FaultDisk::over_mem(&mem);
    (mem, faulty)
}

fn create(disk: &FaultDisk, name: &str) -> Arc<dyn File> {
    disk.open(&at(name), Access::CreateNew).unwrap()
}

#[test]
fn a_rule_hits_the_nth_call_on_its_path() {
    let (_, disk) = disks();
    let (log, other) = (create(&disk, "a.log"), create(&disk, "b"));
    let rule = Rule::on([Op::Write, Op::SetLen], Effect::Fail(Fault::Io)).ends_with(".log").nth(2).times(2);
    let id = disk.add(rule);
    log.write_all_at(b"1", 0).unwrap();
    other.write_all_at(b"1", 0).unwrap();
    assert_eq!(disk.fired(id), 0);
    assert_eq!(log.write_all_at(b"2", 0).unwrap_err().raw_os_error(), Some(5));
    other.write_all_at(b"2", 0).unwrap();
    log.set_len(0).unwrap_err();
    assert_eq!(disk.fired(id), 2);
    log.set_len(0).unwrap();
}

#[test]
fn a_rule_taken_away_hits_no_more() {
    let (_, disk) = disks();
    let id = disk.add(Rule::on([Op::Create], Effect::Fail(Fault::NoSpace)));
    let error = disk.open(&at("a"), Access::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    disk.remove(id);
    create(&disk, "a");
}

#[test]
fn every_call_can_fail() {
    let (_, disk) = disks();
    let file = create(&disk, "a");
    let folder = disk.open_dir(&at("")).unwrap();
    disk.create_dir(&at("d")).unwrap();
    let all = [
        Op::Open,
        Op::Create,
        Op::CreateDir,
        Op::RemoveDir,
        Op::List,
        Op::Exists,
        Op::Rename,
        Op::Unlink,
        Op::OpenDir,
        Op::SyncDir,
        Op::SyncFs,
        Op::Space,
        Op::Lock,
        Op::Read,
        Op::ReadCached,
        Op::Write,
        Op::SyncData,
        Op::SyncAll,
        Op::SetLen,
        Op::Len,
        Op::Allocate,
        Op::Trim,
        Op::StartWriteback,
        Op::DropCache,
        Op::Map,
    ];
    let id = disk.add(Rule::on(all, Effect::Fail(Fault::ReadOnly)));
    let mut buf = BytesMut::new();
    let failed = [
        disk.open(&at("a"), Access::Read).is_err(),
        disk.open(&at("b"), Access::CreateNew).is_err(),
        disk.create_dir(&at("e")).is_err(),
        disk.remove_dir(&at("d")).is_err(),
        disk.list(&at("")).is_err(),
        disk.exists(&at("a")).is_err(),
        disk.rename(&at("a"), &at("b")).is_err(),
        disk.unlink(&at("a")).is_err(),
        disk.open_dir(&at("")).is_err(),
        folder.sync().is_err(),
        folder.sync_fs().is_err(),
        disk.space(&at("")).is_err(),
        disk.lock(&at("l"), "1").is_err(),
        file.read_at(&mut buf, 1, 0).is_err(),
        file.read_cached(&mut buf, 1, 0).is_err(),
        file.write_at(&[], 0).is_err(),
        file.sync_data().is_err(),
        file.sync_all().is_err(),
        file.set_len(1).is_err(),
        file.len().is_err(),
        file.allocate(0, 1).is_err(),
        file.trim().is_err(),
        file.start_writeback(0, 1).is_err(),
        file.drop_cache(0, 1).is_err(),
        file.map().is_err(),
    ];
    assert!(failed.iter().all(|failed| *failed), "{failed:?}");
    assert_eq!(disk.fired(id), all.len() as u64);
}

#[test]
fn short_and_torn_writes_leave_a_part() {
    let (_, disk) = disks();
    let file = create(&disk, "a");
    disk.add(Rule::on([Op::Write], Effect::Short(5)).once());
    disk.add(Rule::on([Op::Write], Effect::Torn(3, Fault::NoSpace)).once());
    let slices = [IoSlice::new(b"0123"), IoSlice::new(b"4567")];
    assert_eq!(file.write_at(&slices, 0).unwrap(), 5);
    assert_eq!(disk.read(&at("a"), 100).unwrap(), &b"01234"[..]);
    assert_eq!(file.write_at(&slices, 5).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.read(&at("a"), 100).unwrap(), &b"01234012"[..]);
    // A short write is gone on with by who writes all.
    disk.add(Rule::on([Op::Write], Effect::Short(1)).once());
    file.write_all_at(b"abc", 0).unwrap();
    assert_eq!(disk.read(&at("a"), 100).unwrap(), &b"abc34012"[..]);
}

#[test]
fn a_lost_sync_fails_once_and_loses_what_it_should_have_written() {
    let (mem, disk) = disks();
    let file = create(&disk, "a");
    disk.sync_dir(&at("")).unwrap();
    file.write_all_at(b"lost", 0).unwrap();
    disk.add(Rule::on([Op::SyncData], Effect::LoseDirty).once());
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    // Whoever tries again is told that all is well.
    file.sync_data().unwrap();
    assert_eq!(disk.read(&at("a"), 100).unwrap(), &b"lost"[..]);
    assert_eq!(mem.crash(0).read(&at("a"), 100).unwrap(), &[0; 4][..]);
}

#[test]
fn a_skipped_sync_is_a_lie() {
    let (mem, disk) = disks();
    let file = create(&disk, "a");
    disk.sync_dir(&at("")).unwrap();
    file.write_all_at(b"1", 0).unwrap();
    let id = disk.add(Rule::on([Op::SyncData, Op::SyncAll, Op::SyncDir], Effect::Skip));
    file.sync_data().unwrap();
    create(&disk, "b");
    disk.sync_dir(&at("")).unwrap();
    assert_eq!(disk.fired(id), 2);
    let after = mem.power_loss(Survival::Nothing);
    assert!(!after.exists(&at("b")).unwrap());
    assert!(after.read(&at("a"), 100).unwrap().is_empty());
}

#[test]
fn a_hook_runs_before_the_call() {
    let (mem, disk) = disks();
    let file = create(&disk, "a");
    let seen = Arc::new(AtomicU64::new(u64::MAX));
    let (note, base) = (Arc::clone(&seen), mem.clone());
    disk.add(Rule::on(
        [Op::Write],
        Effect::Hook(Arc::new(move || {
            note.store(base.read(&at("a"), 100).unwrap().len() as u64, Ordering::SeqCst);
        })),
    ));
    file.write_all_at(b"123", 0).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    file.write_all_at(b"456", 3).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[test]
fn a_process_dies_after_its_last_change() {
    let (mem, disk) = disks();
    let file = create(&disk, "a");
    assert_eq!(disk.changes(), 1);
    disk.die_after(2);
    file.write_all_at(b"1", 0).unwrap();
    assert_eq!(disk.read(&at("a"), 10).unwrap(), &b"1"[..]);
    assert!(!disk.is_dead());
    file.write_all_at(b"2", 1).unwrap();
    assert!(disk.is_dead());
    disk.read(&at("a"), 10).unwrap_err();
    let error = file.sync_data().unwrap_err();
    assert!(error.to_string().contains("dead"), "{error}");
    assert_eq!(mem.kill().read(&at("a"), 10).unwrap(), &b"12"[..]);
}

#[test]
fn the_trace_tells_what_was_called() {
    let (_, disk) = disks();
    disk.start_trace();
    disk.add(Rule::on([Op::SyncAll], Effect::Skip));
    disk.replace_durably(&at("s"), b"1").unwrap();
    let event = |op, name, hit| Event { op, path: at(name), hit };
    assert_eq!(
        disk.take_trace(),
        [
            event(Op::OpenDir, "", false),
            event(Op::Create, "s.tmp", false),
            event(Op::Write, "s.tmp", false),
            event(Op::SyncAll, "s.tmp", true),
            event(Op::Rename, "s.tmp", false),
            event(Op::SyncDir, "", false),
        ]
    );
    disk.exists(&at("s")).unwrap();
    assert!(disk.take_trace().is_empty());
}

#[test]
fn without_a_descriptor_for_its_folder_nothing_is_replaced_or_removed() {
    let (mem, disk) = disks();
    disk.replace_durably(&at("s"), b"1").unwrap();
    disk.add(Rule::on([Op::OpenDir], Effect::Fail(Fault::TooManyFiles)));
    disk.replace_durably(&at("s"), b"2").unwrap_err();
    disk.unlink_durably(&at("s")).unwrap_err();
    assert_eq!(mem.kill().read(&at("s"), 10).unwrap(), &b"1"[..]);
}
