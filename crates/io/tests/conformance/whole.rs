//! What the trait builds on top of the calls: small files as a whole.

use std::io::ErrorKind;

use crate::Place;

pub(crate) fn small_files_are_replaced_whole(at: &Place) {
    let path = at.path("state");
    at.disk.replace_durably(&path, b"first, and longer").unwrap();
    assert_eq!(at.disk.read(&path, 100).unwrap(), &b"first, and longer"[..]);
    at.disk.replace_durably(&path, b"second").unwrap();
    assert_eq!(at.disk.read(&path, 100).unwrap(), &b"second"[..]);
    assert_eq!(at.names(), ["state"]);
}

pub(crate) fn a_file_beyond_the_limit_is_not_read(at: &Place) {
    at.write("a", b"12345");
    assert_eq!(at.disk.read(&at.path("a"), 5).unwrap(), &b"12345"[..]);
    assert_eq!(at.disk.read(&at.path("a"), 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert_eq!(at.disk.read(&at.path("b"), 4).unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) fn unlink_durably_removes_the_name(at: &Place) {
    at.write("a", b"1");
    at.disk.unlink_durably(&at.path("a")).unwrap();
    assert!(at.names().is_empty());
    assert_eq!(at.disk.unlink_durably(&at.path("a")).unwrap_err().kind(), ErrorKind::NotFound);
}
