//! What a disk in memory holds after a power loss, after the death of a process, and when it is full.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, Disk, FaultDisk, File, LockError, MemDisk, Survival};

const PAGE: usize = 4096;

fn at(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

fn create(disk: &dyn Disk, name: &str) -> Arc<dyn File> {
    disk.open(&at(name), Access::CreateNew).unwrap()
}

fn durable(disk: &dyn Disk, name: &str, content: &[u8]) -> Arc<dyn File> {
    let file = create(disk, name);
    file.write_all_at(content, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(&at("")).unwrap();
    file
}

fn content(disk: &dyn Disk, name: &str) -> Vec<u8> {
    disk.read(&at(name), 1 << 30).unwrap().to_vec()
}

fn names(disk: &dyn Disk) -> Vec<String> {
    disk.list(&at("")).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn what_was_synced_survives_every_power_loss() {
    for seed in 0..64 {
        let disk = MemDisk::new(seed);
        let file = durable(&disk, "a", &[1; 3 * PAGE]);
        file.write_all_at(&[2; PAGE], 3 * PAGE as u64).unwrap();
        create(&disk, "b");
        let after = disk.crash(seed);
        assert_eq!(content(&after, "a")[..3 * PAGE], [1; 3 * PAGE]);
    }
}

#[test]
fn what_was_only_handed_to_the_disk_may_be_gone() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; PAGE]);
    file.write_all_at(&[2; 2 * PAGE], 0).unwrap();
    file.start_writeback(0, 2 * PAGE as u64).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), [1; PAGE]);
    assert_eq!(content(&disk.after_power_loss(Survival::Everything), "a"), [2; 2 * PAGE]);
}

#[test]
fn syncing_a_file_says_nothing_about_its_name() {
    let disk = MemDisk::new(0);
    let file = create(&disk, "a");
    file.write_all_at(b"content", 0).unwrap();
    file.sync_all().unwrap();
    assert!(names(&disk.after_power_loss(Survival::Nothing)).is_empty());
    disk.sync_dir(&at("")).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), b"content");
}

#[test]
fn syncing_a_folder_says_nothing_about_content() {
    let disk = MemDisk::new(0);
    create(&disk, "a").write_all_at(b"content", 0).unwrap();
    disk.sync_dir(&at("")).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), b"");
    assert_eq!(content(&disk.after_power_loss(Survival::Everything), "a"), b"content");
    disk.sync_fs(&at("")).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), b"content");
}

#[test]
fn syncing_a_folder_says_nothing_about_its_own_name() {
    let disk = MemDisk::new(0);
    disk.create_dir(&at("d")).unwrap();
    create(&disk, "d/a");
    disk.sync_dir(&at("d")).unwrap();
    assert!(names(&disk.after_power_loss(Survival::Nothing)).is_empty());
    disk.sync_dir(&at("")).unwrap();
    let after = disk.after_power_loss(Survival::Nothing);
    assert!(after.exists(&at("d/a")).unwrap());
}

#[test]
fn pages_survive_one_by_one() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; 3 * PAGE]);
    file.write_all_at(&[2; 3 * PAGE], 0).unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..512 {
        let after = content(&disk.after_power_loss(Survival::Drawn(seed)), "a");
        assert_eq!(after.len(), 3 * PAGE);
        let pages: Vec<u8> = after.chunks(PAGE).map(|page| page[0]).collect();
        for (page, first) in after.chunks(PAGE).zip(&pages) {
            assert!(page.iter().all(|byte| byte == first), "a page is whole");
        }
        seen.insert(pages);
    }
    assert_eq!(seen.len(), 8, "every mixture of old and new: {seen:?}");
}

#[test]
fn a_length_may_survive_without_its_pages() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", b"old");
    file.write_all_at(&[7; 4 * PAGE], 3).unwrap();
    let mut lengths = BTreeSet::new();
    let mut zeros = 0;
    for seed in 0..512 {
        let after = content(&disk.after_power_loss(Survival::Drawn(seed)), "a");
        assert_eq!(&after[..3], b"old");
        assert!(after[3..].iter().all(|byte| [0, 7].contains(byte)));
        zeros += usize::from(after[3..].contains(&0));
        lengths.insert(after.len());
    }
    assert!(lengths.contains(&3) && lengths.contains(&(3 + 4 * PAGE)), "{lengths:?}");
    assert!(lengths.contains(&(2 * PAGE)), "the end of a page: {lengths:?}");
    assert!(zeros > 0);
}

#[test]
fn a_page_may_have_a_content_from_between() {
    let mut seen = BTreeSet::new();
    for seed in 0..512 {
        let disk = MemDisk::new(seed);
        let file = durable(&disk, "a", b"1");
        for content in [b"2", b"3", b"4"] {
            file.write_all_at(content, 0).unwrap();
        }
        seen.insert(content(&disk.crash(seed), "a"));
    }
    assert_eq!(seen, BTreeSet::from([b"1".to_vec(), b"2".to_vec(), b"3".to_vec(), b"4".to_vec()]));
}

#[test]
fn a_cut_that_was_not_synced_may_be_undone() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; 2 * PAGE]);
    file.set_len(10).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), [1; 2 * PAGE]);
    let lengths: BTreeSet<usize> =
        (0..64).map(|seed| content(&disk.after_power_loss(Survival::Drawn(seed)), "a").len()).collect();
    assert!(lengths.contains(&10) && lengths.contains(&(2 * PAGE)), "{lengths:?}");
    file.sync_data().unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), [1; 10]);
    // What was cut does not come back when the file grows.
    let after = disk.crash(1);
    let file = after.open(&at("a"), Access::Write).unwrap();
    file.set_len(100).unwrap();
    assert_eq!(content(&after, "a")[10..], [0; 90]);
}

#[test]
fn changes_of_a_folder_survive_from_the_oldest_on() {
    let disk = MemDisk::new(0);
    for name in ["a", "b", "c"] {
        create(&disk, name);
    }
    disk.unlink(&at("a")).unwrap();
    disk.rename(&at("b"), &at("d")).unwrap();
    let seen: BTreeSet<String> =
        (0..512).map(|seed| names(&disk.after_power_loss(Survival::Drawn(seed))).concat()).collect();
    let expected = ["", "a", "ab", "abc", "bc", "cd"].map(str::to_owned);
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_rename_between_folders_wants_both_synced() {
    let disk = MemDisk::new(0);
    disk.create_dir(&at("d")).unwrap();
    durable(&disk, "a", b"1");
    disk.rename(&at("a"), &at("d/a")).unwrap();
    let found = |disk: &MemDisk| (disk.exists(&at("a")).unwrap(), disk.exists(&at("d/a")).unwrap());
    let seen: BTreeSet<_> =
        (0..512).map(|seed| found(&disk.after_power_loss(Survival::Drawn(seed)))).collect();
    assert_eq!(seen.len(), 4, "{seen:?}");
    disk.sync_dir(&at("d")).unwrap();
    assert_eq!(found(&disk.after_power_loss(Survival::Nothing)), (true, true));
    disk.sync_dir(&at("")).unwrap();
    let after = disk.after_power_loss(Survival::Nothing);
    assert_eq!(found(&after), (false, true));
    assert_eq!(content(&after, "d/a"), b"1");
}

#[test]
fn what_was_unlinked_may_come_back_with_its_content() {
    let disk = MemDisk::new(0);
    durable(&disk, "a", b"1");
    disk.unlink(&at("a")).unwrap();
    create(&disk, "a").write_all_at(b"22", 0).unwrap();
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), b"1");
    let seen: BTreeSet<_> = (0..512)
        .map(|seed| disk.after_power_loss(Survival::Drawn(seed)).read(&at("a"), 10).ok().map(|c| c.to_vec()))
        .collect();
    assert!(seen.contains(&None) && seen.contains(&Some(b"1".to_vec())), "{seen:?}");
    assert!(seen.contains(&Some(b"".to_vec())) && seen.contains(&Some(b"22".to_vec())), "{seen:?}");
}

#[test]
fn a_removed_folder_may_come_back_with_what_was_in_it() {
    let disk = MemDisk::new(0);
    disk.create_dir(&at("d")).unwrap();
    create(&disk, "d/a");
    disk.sync_fs(&at("")).unwrap();
    disk.unlink(&at("d/a")).unwrap();
    disk.remove_dir(&at("d")).unwrap();
    assert!(disk.after_power_loss(Survival::Nothing).exists(&at("d/a")).unwrap());
    disk.sync_dir(&at("")).unwrap();
    assert!(names(&disk.after_power_loss(Survival::Nothing)).is_empty());
}

#[test]
fn the_same_seed_leaves_the_same_disk() {
    let run = |seed| {
        let disk = MemDisk::new(seed);
        let file = durable(&disk, "a", &[1; 8 * PAGE]);
        for n in 0..20 {
            file.write_all_at(&[n as u8; PAGE], 1_000 * n).unwrap();
            drop(create(&disk, &format!("f{n}")));
        }
        let after = disk.crash(seed);
        (names(&after), content(&after, "a"))
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn looking_at_a_power_loss_changes_nothing() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", b"1");
    file.write_all_at(b"2", 0).unwrap();
    let after = disk.after_power_loss(Survival::Everything);
    after.open(&at("a"), Access::Write).unwrap().write_all_at(b"3", 0).unwrap();
    assert_eq!(content(&disk, "a"), b"2");
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a"), b"1");
}

#[test]
fn handles_end_with_the_power() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", b"1");
    let _guard = disk.lock(&at("lock"), "1").unwrap();
    let after = disk.crash(0);
    let error = file.write_all_at(b"2", 0).unwrap_err();
    assert!(error.to_string().contains("power"), "{error}");
    file.sync_data().unwrap_err();
    disk.list(&at("")).unwrap_err();
    drop(file);
    assert_eq!(content(&after, "a"), b"1");
    after.lock(&at("lock"), "2").unwrap();
}

#[test]
fn a_killed_process_loses_its_handles_and_nothing_else() {
    let disk = MemDisk::new(0);
    let file = create(&disk, "a");
    file.write_all_at(b"unsynced", 0).unwrap();
    let unlinked = create(&disk, "gone");
    unlinked.write_all_at(&[1; PAGE], 0).unwrap();
    disk.unlink(&at("gone")).unwrap();
    let guard = disk.lock(&at("lock"), "1").unwrap();
    assert!(matches!(disk.lock(&at("lock"), "2"), Err(LockError::Held(owner)) if owner == "1"));
    let after = disk.kill();
    let error = file.len().unwrap_err();
    assert!(error.to_string().contains("killed"), "{error}");
    assert_eq!(names(&after), ["a", "lock"]);
    assert_eq!(content(&after, "a"), b"unsynced");
    let space = after.space(&at("")).unwrap();
    assert_eq!(space.total_bytes - space.available_bytes, 2 * PAGE as u64, "a and lock");
    let _second = after.lock(&at("lock"), "2").unwrap();
    drop(guard);
    after.lock(&at("lock"), "3").unwrap_err();
    // Not synced is still not synced.
    assert!(names(&after.after_power_loss(Survival::Nothing)).is_empty());
}

#[test]
fn failed_writeback_is_told_once_and_loses_the_pages() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; PAGE]);
    file.write_all_at(&[2; PAGE], 0).unwrap();
    disk.fail_writeback(&at("a")).unwrap();
    let later = disk.open(&at("a"), Access::Write).unwrap();
    assert_eq!(content(&disk, "a"), [2; PAGE], "the cache still has it");
    later.sync_data().unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(
        content(&disk.after_power_loss(Survival::Everything), "a"),
        [1; PAGE],
        "the disk never had it"
    );
    file.drop_cache(0, PAGE as u64).unwrap();
    assert_eq!(content(&disk, "a"), [1; PAGE]);
}

#[test]
fn what_rots_is_changed_in_the_cache_and_below_it() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; PAGE]);
    file.write_all_at(&[2; 1], 7).unwrap();
    disk.rot(&at("a"), 7, 0b100).unwrap();
    disk.rot(&at("a"), 8, 0b100).unwrap();
    assert_eq!(content(&disk, "a")[6..10], [1, 6, 5, 1]);
    assert_eq!(content(&disk.after_power_loss(Survival::Nothing), "a")[6..10], [1, 5, 5, 1]);
    assert_eq!(disk.rot(&at("a"), PAGE as u64, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(disk.rot(&at("b"), 0, 1).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn the_cache_is_what_was_written_or_read() {
    let disk = MemDisk::new(0);
    let file = durable(&disk, "a", &[1; 3 * PAGE + 10]);
    let cached = |file: &dyn File, pos: usize, len: usize| {
        file.read_cached(&mut BytesMut::new(), len, pos as u64).unwrap()
    };
    assert_eq!(cached(&*file, 0, 4 * PAGE), Some(3 * PAGE + 10));
    file.drop_cache(0, 3 * PAGE as u64 + 10).unwrap();
    assert_eq!(cached(&*file, 0, 10), None);
    assert_eq!(cached(&*file, 3 * PAGE, 10), None, "the last page goes too");
    assert_eq!(cached(&*file, 3 * PAGE + 10, 10), Some(0));
    file.read_at(&mut BytesMut::new(), PAGE + 1, 0).unwrap();
    assert_eq!(cached(&*file, 10, 4 * PAGE), Some(2 * PAGE - 10));
    file.write_all_at(b"dirty", 2 * PAGE as u64).unwrap();
    file.drop_cache(0, 3 * PAGE as u64).unwrap();
    assert_eq!(cached(&*file, 0, PAGE), None);
    assert_eq!(cached(&*file, 2 * PAGE, PAGE), Some(PAGE), "dirty pages stay");
    let after = disk.crash(0);
    let file = after.open(&at("a"), Access::Read).unwrap();
    assert_eq!(cached(&*file, 0, PAGE), None, "a power loss empties the cache");
}

#[test]
fn a_full_disk_takes_what_fits_and_then_nothing() {
    let disk = MemDisk::new(0);
    disk.set_capacity(4 * PAGE as u64);
    let file = create(&disk, "a");
    let n = file.write_at(&[IoSlice::new(&[1; 3 * PAGE]), IoSlice::new(&[2; 3 * PAGE])], 0).unwrap();
    assert_eq!(n, 4 * PAGE);
    assert_eq!(disk.space(&at("")).unwrap().available_bytes, 0);
    let full = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    full(file.write_all_at(b"x", 4 * PAGE as u64));
    full(file.allocate(0, 8 * PAGE as u64));
    // What is there already can be written over.
    file.write_all_at(&[3; PAGE], 0).unwrap();
    let other = create(&disk, "b");
    full(other.write_all_at(b"x", 0));
    file.set_len(PAGE as u64).unwrap();
    other.write_all_at(b"x", 0).unwrap();
    assert_eq!(disk.space(&at("")).unwrap().available_bytes, 2 * PAGE as u64);
    // An unlinked file gives its pages back with its last handle.
    disk.unlink(&at("a")).unwrap();
    assert_eq!(disk.space(&at("")).unwrap().available_bytes, 2 * PAGE as u64);
    drop(file);
    assert_eq!(disk.space(&at("")).unwrap().available_bytes, 3 * PAGE as u64);
}

#[test]
fn reserved_blocks_count_and_are_given_back() {
    let disk = MemDisk::new(0);
    disk.set_capacity(10 * PAGE as u64);
    let free = || disk.space(&at("")).unwrap().available_bytes / PAGE as u64;
    let file = create(&disk, "a");
    file.allocate(0, 6 * PAGE as u64).unwrap();
    assert_eq!(free(), 4);
    file.write_all_at(&[1; 2 * PAGE], 0).unwrap();
    assert_eq!(free(), 4, "written into what was reserved");
    create(&disk, "b").write_all_at(&[1; 4 * PAGE], 0).unwrap();
    file.write_all_at(&[1; 4 * PAGE], 2 * PAGE as u64).unwrap();
    file.write_all_at(b"x", 6 * PAGE as u64).unwrap_err();
    file.set_len(PAGE as u64).unwrap();
    assert_eq!(free(), 5);
    file.allocate(PAGE as u64, 2 * PAGE as u64).unwrap();
    assert_eq!(free(), 3);
    file.trim().unwrap();
    assert_eq!(free(), 5);
    assert_eq!(disk.crash(0).space(&at("")).unwrap().total_bytes, 10 * PAGE as u64);
}

/// The default of the trait, cut off after each of its steps.
#[test]
fn replacing_a_file_leaves_the_old_or_the_new_content() {
    let mut seen = BTreeSet::new();
    for steps in 0.. {
        let disk = MemDisk::new(steps);
        disk.replace_durably(&at("state"), b"old").unwrap();
        let faulty = FaultDisk::over_mem(&disk);
        faulty.die_after(steps);
        let replaced = faulty.replace_durably(&at("state"), &[b'n'; 5_000]).is_ok();
        for seed in 0..64 {
            let after = content(&disk.after_power_loss(Survival::Drawn(seed)), "state");
            assert!(after == b"old" || after == [b'n'; 5_000], "after {steps} steps: {} bytes", after.len());
            assert!(!replaced || after != b"old", "acknowledged and lost");
            seen.insert(after.len());
        }
        if replaced {
            break;
        }
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_file_that_is_cut_while_it_is_mapped_ends_the_process() {
    let disk = MemDisk::new(1);
    let file = durable(&disk, "a", &[1; 10]);
    drop(file.map().unwrap());
    file.set_len(8).unwrap();
    let map = file.map().unwrap();
    file.set_len(9).unwrap();
    disk.rename(&at("a"), &at("b")).unwrap();
    assert_eq!(&*map, &[1; 8], "neither harms whoever has it mapped");
    // A map ends with its process.
    let disk = disk.kill();
    let file = disk.open(&at("b"), Access::Write).unwrap();
    file.set_len(7).unwrap();
    let _map = file.map().unwrap();
    disk.open(&at("b"), Access::CreateOrTruncate).unwrap();
    let is_dead = |disk: &MemDisk| disk.exists(&at("b")).unwrap_err().to_string().contains("SIGBUS");
    assert!(is_dead(&disk) && is_dead(&disk.after_power_loss(Survival::Everything)));
    assert!(is_dead(&disk.kill()), "no later life goes on");
}
