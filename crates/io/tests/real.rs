//! What only the machine's disk can show: descriptors, blocks and the page cache as the kernel keeps them.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::os::unix::fs::MetadataExt;

use bytes::BytesMut;
use weir_io::{Access, Disk, RealDisk};

fn blocks(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).unwrap().blocks()
}

#[test]
fn allocated_blocks_are_given_back_by_trim() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a");
    let file = RealDisk::new().open(&path, Access::CreateNew).unwrap();
    file.write_all_at(&[1; 5_000], 0).unwrap();
    file.sync_all().unwrap();
    let before = blocks(&path);
    file.allocate(0, 4 << 20).unwrap();
    let allocated = blocks(&path);
    file.trim().unwrap();
    assert_eq!(blocks(&path), before);
    assert_eq!(file.len().unwrap(), 5_000);
    // Where the file system reserves at all, it did so beyond the end.
    assert!(allocated == before || allocated * 512 >= 4 << 20, "{before} {allocated}");
}

#[test]
fn a_large_read_does_not_touch_the_buffer_beyond_what_it_got() {
    let temp = tempfile::tempdir().unwrap();
    let file = RealDisk::new().open(&temp.path().join("a"), Access::CreateNew).unwrap();
    file.write_all_at(b"0123456789", 0).unwrap();
    let mut buf = BytesMut::with_capacity(1 << 20);
    assert_eq!(file.read_at(&mut buf, 1 << 20, 3).unwrap(), 7);
    assert_eq!(buf, &b"3456789"[..]);
    assert!(buf.capacity() >= 1 << 20);
}

#[test]
fn a_lock_outlives_a_second_open_of_its_file() {
    let temp = tempfile::tempdir().unwrap();
    let (disk, path) = (RealDisk::new(), temp.path().join("lock"));
    let _guard = disk.lock(&path, "1").unwrap();
    // Closing another descriptor of the same file must not end it (as it would with fcntl locks).
    drop(disk.open(&path, Access::Write).unwrap());
    disk.lock(&path, "2").unwrap_err();
}

#[test]
fn the_page_cache_answers_where_the_file_system_can_tell() {
    const EXT4: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    let temp = tempfile::tempdir().unwrap();
    if ![EXT4, XFS].contains(&(rustix::fs::statfs(temp.path()).unwrap().f_type as i64)) {
        return;
    }
    let file = RealDisk::new().open(&temp.path().join("a"), Access::CreateNew).unwrap();
    file.write_all_at(&[7; 100_000], 0).unwrap();
    let cached = |len, pos| file.read_cached(&mut BytesMut::new(), len, pos).unwrap();
    assert_eq!(cached(65_536, 0), Some(65_536), "just written");
    assert_eq!(cached(65_536, 65_536), Some(100_000 - 65_536), "up to the end");
    assert_eq!(cached(10, 100_000), Some(0), "behind the end");
    file.sync_data().unwrap();
    file.drop_cache(0, 100_000).unwrap();
    file.read_at(&mut BytesMut::new(), 100_000, 0).unwrap();
    assert_eq!(cached(65_536, 0), Some(65_536), "just read");
}

#[test]
fn a_large_write_comes_in_parts_that_add_up() {
    let temp = tempfile::tempdir().unwrap();
    let file = RealDisk::new().open(&temp.path().join("a"), Access::CreateNew).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    for parts in [vec![large.len()], vec![88, 1_000, 600_000], vec![100_000; 30], vec![1; 3_000]] {
        let mut rest = large.as_slice();
        let mut slices = Vec::new();
        for part in parts {
            let (slice, behind) = rest.split_at(part.min(rest.len()));
            slices.push(std::io::IoSlice::new(slice));
            rest = behind;
        }
        let total = large.len() - rest.len();
        let (mut left, mut position, mut calls) = (slices.as_mut_slice(), 0, 0);
        while !left.is_empty() {
            let written = file.write_at(left, position as u64).unwrap();
            assert!(written > 0 && written <= 256 * 1024, "{written} at once");
            position += written;
            calls += 1;
            std::io::IoSlice::advance_slices(&mut left, written);
        }
        assert_eq!(position, total);
        assert!(calls <= total.div_ceil(100_000) + 3, "{calls} calls for {total} bytes");
        let mut back = BytesMut::new();
        assert_eq!(file.read_at(&mut back, total, 0).unwrap(), total);
        assert_eq!(back, large[..total]);
    }
}
