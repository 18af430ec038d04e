//! Reading from the page cache alone. A file system may always answer that it cannot tell, so these cases hold
//! what an answer must be when it is given.

use bytes::BytesMut;
use weir_io::File;

use crate::{Place, pattern, read};

fn read_cached(file: &dyn File, pos: u64, len: usize) -> Option<Vec<u8>> {
    let mut buf = BytesMut::from(&b"before"[..]);
    let n = file.read_cached(&mut buf, len, pos).unwrap();
    assert_eq!(buf.len(), 6 + n.unwrap_or(0));
    assert_eq!(&buf[..6], b"before");
    n.map(|_| buf[6..].to_vec())
}

pub(crate) fn what_was_just_written_is_cached_or_unknown(at: &Place) {
    let data = pattern(1, 100_000);
    let file = at.write("a", &data);
    if let Some(cached) = read_cached(&*file, 10, 50_000) {
        assert!(!cached.is_empty());
        assert_eq!(cached, &data[10..10 + cached.len()]);
    }
}

pub(crate) fn dropped_pages_come_back_by_reading(at: &Place) {
    let data = pattern(2, 100_000);
    let file = at.write("a", &data);
    file.sync_data().unwrap();
    file.drop_cache(0, 100_000).unwrap();
    file.drop_cache(0, 0).unwrap();
    assert_eq!(read(&*file, 0, 100_000), data);
    if let Some(cached) = read_cached(&*file, 0, 100_000) {
        assert_eq!(cached, &data[..cached.len()]);
    }
}

pub(crate) fn nothing_is_cached_behind_the_end(at: &Place) {
    let file = at.write("a", b"0123");
    if let Some(cached) = read_cached(&*file, 2, 100) {
        assert_eq!(cached, b"23");
    }
    if let Some(cached) = read_cached(&*file, 4, 100) {
        assert!(cached.is_empty());
    }
}

pub(crate) fn dirty_pages_are_not_dropped(at: &Place) {
    let data = pattern(3, 50_000);
    let file = at.write("a", &data);
    file.drop_cache(0, 50_000).unwrap();
    assert_eq!(read(&*file, 0, 60_000), data);
}
