//! Folders and the names in them.

use std::io::ErrorKind;

use weir_io::{Access, DirEntry};

use crate::{Place, content, names};

pub(crate) fn a_listing_is_sorted_and_knows_folders(at: &Place) {
    assert!(at.names().is_empty());
    at.create("c");
    at.disk.create_dir(&at.path("b")).unwrap();
    at.create("a");
    let entry = |name: &str, is_dir| DirEntry { name: name.to_owned(), is_dir };
    assert_eq!(at.disk.list(&at.root).unwrap(), [entry("a", false), entry("b", true), entry("c", false)]);
    assert!(at.disk.exists(&at.path("b")).unwrap());
    assert_eq!(at.disk.list(&at.path("none")).unwrap_err().kind(), ErrorKind::NotFound);
}

pub(crate) fn folders_are_created_once_and_removed_empty(at: &Place) {
    let dir = at.path("d");
    at.disk.create_dir(&dir).unwrap();
    assert_eq!(at.disk.create_dir(&dir).unwrap_err().kind(), ErrorKind::AlreadyExists);
    at.create("d/inside");
    assert_eq!(at.disk.remove_dir(&dir).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    at.disk.unlink(&at.path("d/inside")).unwrap();
    at.disk.sync_dir(&dir).unwrap();
    at.disk.remove_dir(&dir).unwrap();
    assert_eq!(at.disk.remove_dir(&dir).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(at.names().is_empty());
}

pub(crate) fn a_name_needs_its_folder(at: &Place) {
    let error = at.disk.create_dir(&at.path("no/d")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = at.disk.open(&at.path("no/f"), Access::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(at.disk.sync_dir(&at.path("no")).unwrap_err().kind(), ErrorKind::NotFound);
    at.create("file");
    assert_eq!(at.disk.sync_dir(&at.path("file")).unwrap_err().kind(), ErrorKind::NotADirectory);
    at.disk.create_dir(&at.path("d")).unwrap();
    let folder = at.disk.open_dir(&at.path("d")).unwrap();
    at.disk.rename(&at.path("d"), &at.path("e")).unwrap();
    folder.sync().unwrap();
    folder.sync_fs().unwrap();
    assert!(!at.disk.exists(&at.path("no/f")).unwrap());
}

pub(crate) fn rename_replaces_a_file(at: &Place) {
    let old = at.write("old", b"old");
    let replaced = at.write("new", b"replaced");
    at.disk.rename(&at.path("old"), &at.path("new")).unwrap();
    assert_eq!(at.names(), ["new"]);
    assert_eq!(at.disk.read(&at.path("new"), 100).unwrap(), &b"old"[..]);
    // Handles follow the file, not the name.
    old.write_all_at(b"!", 3).unwrap();
    assert_eq!(at.disk.read(&at.path("new"), 100).unwrap(), &b"old!"[..]);
    assert_eq!(content(&*replaced), b"replaced");
    at.disk.rename(&at.path("new"), &at.path("new")).unwrap();
    assert_eq!(at.names(), ["new"]);
}

pub(crate) fn rename_moves_a_folder_with_its_content(at: &Place) {
    at.disk.create_dir(&at.path("d")).unwrap();
    let file = at.write("d/f", b"1");
    at.disk.create_dir(&at.path("e")).unwrap();
    at.disk.rename(&at.path("d"), &at.path("e/moved")).unwrap();
    assert_eq!(at.names(), ["e"]);
    assert_eq!(names(&*at.disk, &at.path("e/moved")), ["f"]);
    file.write_all_at(b"2", 1).unwrap();
    assert_eq!(at.disk.read(&at.path("e/moved/f"), 10).unwrap(), &b"12"[..]);
    // Across folders, a file.
    at.disk.rename(&at.path("e/moved/f"), &at.path("f")).unwrap();
    assert_eq!(at.names(), ["e", "f"]);
    assert!(names(&*at.disk, &at.path("e/moved")).is_empty());
}

pub(crate) fn rename_refuses_what_cannot_be(at: &Place) {
    let kind = |old: &str, new: &str| at.disk.rename(&at.path(old), &at.path(new)).unwrap_err().kind();
    assert_eq!(kind("none", "new"), ErrorKind::NotFound);
    at.create("f");
    at.disk.create_dir(&at.path("d")).unwrap();
    at.disk.create_dir(&at.path("full")).unwrap();
    at.create("full/x");
    assert_eq!(kind("f", "no/f"), ErrorKind::NotFound);
    assert_eq!(kind("f", "d"), ErrorKind::IsADirectory);
    assert_eq!(kind("d", "f"), ErrorKind::NotADirectory);
    assert_eq!(kind("d", "full"), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind("d", "d/inside"), ErrorKind::InvalidInput);
    assert_eq!(at.names(), ["d", "f", "full"]);
    at.disk.rename(&at.path("full"), &at.path("d")).unwrap();
    assert_eq!(at.names(), ["d", "f"]);
    assert_eq!(names(&*at.disk, &at.path("d")), ["x"]);
}

pub(crate) fn unlinked_files_live_on_in_their_handles(at: &Place) {
    let file = at.write("a", b"kept");
    at.disk.unlink(&at.path("a")).unwrap();
    assert!(!at.disk.exists(&at.path("a")).unwrap());
    file.write_all_at(b"!", 4).unwrap();
    assert_eq!(content(&*file), b"kept!");
    let fresh = at.write("a", b"new");
    assert_eq!(content(&*fresh), b"new");
    assert_eq!(content(&*file), b"kept!");
    file.set_len(0).unwrap();
    assert!(file.is_empty().unwrap());
}

pub(crate) fn unlink_refuses_folders_and_the_absent(at: &Place) {
    assert_eq!(at.disk.unlink(&at.path("a")).unwrap_err().kind(), ErrorKind::NotFound);
    at.disk.create_dir(&at.path("d")).unwrap();
    assert_eq!(at.disk.unlink(&at.path("d")).unwrap_err().kind(), ErrorKind::IsADirectory);
    assert_eq!(at.names(), ["d"]);
}

pub(crate) fn a_file_is_no_folder(at: &Place) {
    at.create("f");
    assert_eq!(at.disk.list(&at.path("f")).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(at.disk.remove_dir(&at.path("f")).unwrap_err().kind(), ErrorKind::NotADirectory);
    let error = at.disk.open(&at.path("f/x"), Access::CreateNew).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotADirectory);
    at.disk.create_dir(&at.path("d")).unwrap();
    let error = at.disk.open(&at.path("d"), Access::Write).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
}

pub(crate) fn space_is_told(at: &Place) {
    let space = at.disk.space(&at.root).unwrap();
    assert!(space.total_bytes > 0 && space.available_bytes <= space.total_bytes, "{space:?}");
}
