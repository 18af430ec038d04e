//! Content and length of one file.

use std::io::{ErrorKind, IoSlice};

use bytes::BytesMut;
use weir_io::Access;

use crate::{Place, content, pattern, read};

pub(crate) fn create_new_wants_a_free_name(at: &Place) {
    at.create("a");
    let error = at.disk.open(&at.path("a"), Access::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

pub(crate) fn opening_what_is_not_there_fails(at: &Place) {
    for access in [Access::Read, Access::Write] {
        assert_eq!(at.disk.open(&at.path("a"), access).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert!(!at.disk.exists(&at.path("a")).unwrap());
}

pub(crate) fn create_or_truncate_empties(at: &Place) {
    at.disk.open(&at.path("a"), Access::CreateOrTruncate).unwrap().write_all_at(b"old", 0).unwrap();
    let file = at.disk.open(&at.path("a"), Access::CreateOrTruncate).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"n", 0).unwrap();
    assert_eq!(content(&*file), b"n");
}

pub(crate) fn reads_back_what_was_written(at: &Place) {
    let data = pattern(1, 300_000);
    let file = at.write("a", &data);
    assert_eq!(file.len().unwrap(), 300_000);
    assert_eq!(content(&*file), data);
    assert_eq!(read(&*file, 4_095, 4_098), &data[4_095..8_193]);
    let again = at.disk.open(&at.path("a"), Access::Read).unwrap();
    assert_eq!(content(&*again), data);
}

pub(crate) fn slices_are_written_in_order(at: &Place) {
    let file = at.write("a", b"0123");
    let n = file
        .write_at(
            &[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde"), IoSlice::new(&[b'x'; 5_000])],
            2,
        )
        .unwrap();
    assert_eq!(n, 5_005);
    assert_eq!(read(&*file, 0, 9), b"01abcdexx");
    assert_eq!(file.len().unwrap(), 5_007);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
}

pub(crate) fn more_slices_than_the_kernel_takes(at: &Place) {
    let file = at.create("a");
    let data = pattern(2, 3_000);
    let slices: Vec<IoSlice<'_>> = data.chunks(2).map(IoSlice::new).collect();
    let n = file.write_at(&slices, 0).unwrap();
    assert!(n > 0 && n <= data.len() && n.is_multiple_of(2), "{n}");
    assert_eq!(content(&*file), &data[..n]);
}

pub(crate) fn reading_ends_at_the_end_of_the_file(at: &Place) {
    let file = at.write("a", b"0123456789");
    assert_eq!(read(&*file, 7, 100), b"789");
    assert_eq!(read(&*file, 10, 100), b"");
    assert_eq!(read(&*file, 1 << 40, 100), b"");
    assert_eq!(read(&*file, 0, 0), b"");
}

pub(crate) fn reading_appends_to_the_buffer(at: &Place) {
    let file = at.write("a", b"0123456789");
    let mut buf = BytesMut::from(&b"so far: "[..]);
    assert_eq!(file.read_at(&mut buf, 3, 2).unwrap(), 3);
    assert_eq!(file.read_at(&mut buf, 9, 8).unwrap(), 2);
    assert_eq!(buf, &b"so far: 23489"[..]);
}

pub(crate) fn a_hole_reads_as_zeros(at: &Place) {
    let file = at.create("a");
    file.write_all_at(b"end", 100_000).unwrap();
    assert_eq!(file.len().unwrap(), 100_003);
    let all = content(&*file);
    assert!(all[..100_000].iter().all(|byte| *byte == 0));
    assert_eq!(&all[100_000..], b"end");
}

pub(crate) fn cut_and_extended_reads_zeros(at: &Place) {
    let file = at.write("a", &pattern(3, 10_000));
    file.set_len(5_000).unwrap();
    assert_eq!(file.len().unwrap(), 5_000);
    file.set_len(9_000).unwrap();
    let all = content(&*file);
    assert_eq!(all.len(), 9_000);
    assert_eq!(&all[..5_000], &pattern(3, 10_000)[..5_000]);
    assert!(all[5_000..].iter().all(|byte| *byte == 0));
}

pub(crate) fn overwriting_changes_only_its_range(at: &Place) {
    let file = at.write("a", &pattern(4, 20_000));
    file.write_all_at(&pattern(5, 5_000), 3_000).unwrap();
    let mut expected = pattern(4, 20_000);
    expected[3_000..8_000].copy_from_slice(&pattern(5, 5_000));
    assert_eq!(content(&*file), expected);
}

pub(crate) fn two_handles_see_one_file(at: &Place) {
    let first = at.write("a", b"one");
    let second = at.disk.open(&at.path("a"), Access::Write).unwrap();
    second.write_all_at(b"two", 3).unwrap();
    assert_eq!(content(&*first), b"onetwo");
}

pub(crate) fn a_read_handle_refuses_to_write(at: &Place) {
    at.write("a", b"kept");
    let file = at.disk.open(&at.path("a"), Access::Read).unwrap();
    file.write_all_at(b"lost", 0).unwrap_err();
    file.set_len(0).unwrap_err();
    assert_eq!(content(&*file), b"kept");
}

pub(crate) fn allocating_leaves_the_length(at: &Place) {
    let file = at.write("a", b"0123");
    file.allocate(4, 1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    file.write_all_at(b"45", 4).unwrap();
    file.trim().unwrap();
    assert_eq!(content(&*file), b"012345");
}

pub(crate) fn maps_show_the_content(at: &Place) {
    let data = pattern(6, 10_000);
    at.write("a", &data).sync_all().unwrap();
    at.create("empty");
    assert_eq!(&*at.disk.open(&at.path("a"), Access::Read).unwrap().map().unwrap(), &data[..]);
    assert!(at.disk.open(&at.path("empty"), Access::Read).unwrap().map().unwrap().is_empty());
}

pub(crate) fn syncs_succeed(at: &Place) {
    let file = at.write("a", &pattern(7, 10_000));
    file.start_writeback(0, 8_192).unwrap();
    file.sync_data().unwrap();
    file.sync_all().unwrap();
    at.disk.sync_dir(&at.root).unwrap();
    at.disk.sync_fs(&at.root).unwrap();
    at.disk.sync_fs(&at.root).unwrap();
    assert_eq!(content(&*file), pattern(7, 10_000));
}
