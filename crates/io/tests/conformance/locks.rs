//! The lock that keeps a second process out of a directory.

use weir_io::LockError;

use crate::Place;

pub(crate) fn a_held_lock_names_its_owner(at: &Place) {
    let _guard = at.disk.lock(&at.path("lock"), "4711").unwrap();
    match at.disk.lock(&at.path("lock"), "4712") {
        Err(LockError::Held(owner)) => assert_eq!(owner, "4711"),
        other => panic!("{other:?}"),
    }
    let _other = at.disk.lock(&at.path("another"), "4712").unwrap();
}

pub(crate) fn a_lock_ends_with_its_guard(at: &Place) {
    drop(at.disk.lock(&at.path("lock"), "1").unwrap());
    drop(at.disk.lock(&at.path("lock"), "2").unwrap());
    assert!(matches!(at.disk.lock(&at.path("no/lock"), "1"), Err(LockError::Io(_))));
}

pub(crate) fn a_lock_replaces_the_text_of_the_last_owner(at: &Place) {
    drop(at.disk.lock(&at.path("lock"), "a long owner").unwrap());
    let _guard = at.disk.lock(&at.path("lock"), "b").unwrap();
    assert_eq!(at.disk.read(&at.path("lock"), 100).unwrap(), &b"b"[..]);
}
