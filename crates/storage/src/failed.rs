//! Notes in a log directory that a write or sync has failed in it, for the next start (correctness rule 35).
//!
//! Each is an empty file whose name has the number of the failure. On a disk that fails a name is the least that can be
//! asked for: there is no content that could be torn, and the note of a failure before stays what it was.

use std::io;
use std::path::{Path, PathBuf};

use weir_io::{Access, Disk};

use crate::error::Error;

/// How the name begins. Alone, as earlier versions wrote it: of a failure whose number is not known.
const FAILED: &str = "failed";

/// Notes down that a write or sync has failed. Not durably: another sync would mean nothing.
pub(crate) fn note(disk: &dyn Disk, dir: &Path, failure: u64) -> io::Result<()> {
    disk.open(&path(dir, failure), Access::CreateOrTruncate).map(drop)
}

/// The numbers of the failures that are noted down, sorted; 0: one without a number.
pub(crate) fn noted(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, Error> {
    let entries = disk.list(dir).map_err(Error::io(dir, "list"))?;
    let mut failures: Vec<u64> = entries.iter().filter_map(|entry| number(&entry.name)).collect();
    failures.sort_unstable();
    Ok(failures)
}

/// Takes notes away, durably.
pub(crate) fn forget(disk: &dyn Disk, dir: &Path, failures: &[u64]) -> Result<(), Error> {
    for failure in failures {
        let path = path(dir, *failure);
        disk.unlink_durably(&path).map_err(Error::io(&*path, "unlink"))?;
    }
    Ok(())
}

fn path(dir: &Path, failure: u64) -> PathBuf {
    dir.join(match failure {
        0 => FAILED.to_owned(),
        number => format!("{FAILED}-{number:016x}"),
    })
}

/// `None`: it is the name of something else.
fn number(name: &str) -> Option<u64> {
    match name.strip_prefix(FAILED)? {
        "" => Some(0),
        rest => rest.strip_prefix('-').and_then(|digits| u64::from_str_radix(digits, 16).ok()),
    }
}
