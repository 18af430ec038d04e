//! Notes in a log directory that a write or sync has failed in it, for the next start (correctness rule 35).
//!
//! Each is an empty file whose name has the number of the failure. On a disk that fails a name is the least that can be
//! asked for: there is no content that could be torn, and the note of a failure before stays what it was.

use std::io;
use std::path::Path;

use weir_io::{Access, Disk};

use crate::error::Error;

/// How the name begins. Alone it is the note that a start of an earlier version looks for.
const FAILED: &str = "failed";

/// More are not noted down: a process that is started again and again on a disk that fails has said it often enough.
const NOTED_MAX: usize = 16;

/// Notes down that a write or sync has failed. Not durably: another sync would mean nothing.
pub(crate) fn note(disk: &dyn Disk, dir: &Path, failure: u64) -> io::Result<()> {
    if noted(disk, dir).is_ok_and(|noted| noted.len() >= NOTED_MAX) {
        return Ok(());
    }
    for name in [name(failure), FAILED.to_owned()] {
        disk.open(&dir.join(name), Access::CreateOrTruncate)?;
    }
    Ok(())
}

/// The numbers of the failures that are noted down, sorted; 0: one without a number.
pub(crate) fn noted(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, Error> {
    let entries = disk.list(dir).map_err(Error::io(dir, "list"))?;
    let mut failures: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    failures.sort_unstable();
    if failures.len() > 1 {
        // It stands for those that have a number.
        failures.retain(|number| *number > 0);
    }
    Ok(failures)
}

/// Takes notes away, durably.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path, failures: &[u64]) -> Result<(), Error> {
    let unlink = |name: String| {
        let path = dir.join(name);
        match disk.unlink_durably(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&*path, "unlink")(error)),
            _ => Ok(()),
        }
    };
    if failures.is_empty() {
        return Ok(());
    }
    failures.iter().filter(|failure| **failure > 0).try_for_each(|failure| unlink(name(*failure)))?;
    // What has failed since is still to be seen, also by an earlier version.
    if noted(disk, dir)?.iter().all(|left| *left == 0) { unlink(FAILED.to_owned()) } else { Ok(()) }
}

fn name(failure: u64) -> String {
    format!("{FAILED}-{failure:016x}")
}

/// `None`: it is the name of something else.
fn number(name: &str) -> Option<u64> {
    match name.strip_prefix(FAILED)? {
        "" => Some(0),
        rest => rest.strip_prefix('-').and_then(|digits| u64::from_str_radix(digits, 16).ok()),
    }
}
