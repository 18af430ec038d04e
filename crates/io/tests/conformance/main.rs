//! One suite, run against every implementation of the traits: what holds for the machine's disk holds for the
//! ones that tests put in its place, down to the kind of each error. What a power loss leaves is not here: only
//! one implementation can lose power (tests/power_loss.rs).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests may panic")]

mod cache;
mod files;
mod locks;
mod names;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use weir_io::{Access, Disk, FaultDisk, File, MemDisk, RealDisk};

/// A disk and an empty folder on it, gone when dropped.
struct Place {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _temp: Option<tempfile::TempDir>,
}

impl Place {
    fn real() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { disk: Arc::new(RealDisk::new()), root: temp.path().to_owned(), _temp: Some(temp) }
    }

    fn mem() -> Self {
        let (disk, root) = (MemDisk::new(1), PathBuf::from("/data"));
        disk.create_dir(&root).unwrap();
        Self { disk: Arc::new(disk), root, _temp: None }
    }

    fn faulty_real() -> Self {
        let place = Self::real();
        Self { disk: Arc::new(FaultDisk::new(Arc::clone(&place.disk))), ..place }
    }

    fn faulty_mem() -> Self {
        let (disk, root) = (MemDisk::new(1), PathBuf::from("/data"));
        disk.create_dir(&root).unwrap();
        Self { disk: Arc::new(FaultDisk::over_mem(&disk)), root, _temp: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn create(&self, name: &str) -> Arc<dyn File> {
        self.disk.open(&self.path(name), Access::CreateNew).unwrap()
    }

    fn write(&self, name: &str, content: &[u8]) -> Arc<dyn File> {
        let file = self.create(name);
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn names(&self) -> Vec<String> {
        names(&*self.disk, &self.root)
    }
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// The whole content.
fn content(file: &dyn File) -> Vec<u8> {
    read(file, 0, file.len().unwrap() as usize + 1)
}

fn read(file: &dyn File, pos: u64, len: usize) -> Vec<u8> {
    let mut buf = BytesMut::new();
    let n = file.read_at(&mut buf, len, pos).unwrap();
    assert_eq!(n, buf.len());
    buf.to_vec()
}

/// Bytes that differ from page to page and from those of another seed.
fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u64).wrapping_mul(0x9e37_79b9).to_le_bytes()[2] ^ seed).collect()
}

/// Runs each case on each implementation.
macro_rules! conformance {
    ($($room:ident :: $case:ident),* $(,)?) => {
        mod real {
            $(#[test] fn $case() { crate::$room::$case(&crate::Place::real()); })*
        }
        mod mem {
            $(#[test] fn $case() { crate::$room::$case(&crate::Place::mem()); })*
        }
        mod faulty_real {
            $(#[test] fn $case() { crate::$room::$case(&crate::Place::faulty_real()); })*
        }
        mod faulty_mem {
            $(#[test] fn $case() { crate::$room::$case(&crate::Place::faulty_mem()); })*
        }
    };
}

conformance! {
    files::create_new_wants_a_free_name,
    files::opening_what_is_not_there_fails,
    files::create_or_truncate_empties,
    files::reads_back_what_was_written,
    files::slices_are_written_in_order,
    files::more_slices_than_the_kernel_takes,
    files::reading_ends_at_the_end_of_the_file,
    files::reading_appends_to_the_buffer,
    files::a_hole_reads_as_zeros,
    files::cut_and_extended_reads_zeros,
    files::overwriting_changes_only_its_range,
    files::two_handles_see_one_file,
    files::a_read_handle_refuses_to_write,
    files::allocating_leaves_the_length,
    files::maps_show_the_content,
    files::syncs_succeed,
    names::a_listing_is_sorted_and_knows_folders,
    names::folders_are_created_once_and_removed_empty,
    names::a_name_needs_its_folder,
    names::rename_replaces_a_file,
    names::rename_moves_a_folder_with_its_content,
    names::rename_refuses_what_cannot_be,
    names::unlinked_files_live_on_in_their_handles,
    names::unlink_refuses_folders_and_the_absent,
    names::a_file_is_no_folder,
    names::space_is_told,
    whole::small_files_are_replaced_whole,
    whole::a_file_beyond_the_limit_is_not_read,
    whole::unlink_durably_removes_the_name,
    cache::what_was_just_written_is_cached_or_unknown,
    cache::dropped_pages_come_back_by_reading,
    cache::nothing_is_cached_behind_the_end,
    cache::dirty_pages_are_not_dropped,
    locks::a_held_lock_names_its_owner,
    locks::a_lock_ends_with_its_guard,
    locks::a_lock_replaces_the_text_of_the_last_owner,
}
