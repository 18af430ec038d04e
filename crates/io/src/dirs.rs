//! Folders that stay.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::Disk;

/// Makes a folder and those above it, durably. Also of one that exists it is made sure that it stays: whoever made it
/// may have died before that.
///
/// # Errors
/// What the system says. A parent that exists and may not be opened is none: it was not we who made a folder there.
pub fn make_dirs(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let Some(parent) = dir.parent() else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    if disk.exists(dir)? {
        return match disk.sync_dir(parent) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        };
    }
    if !disk.exists(parent)? {
        make_dirs(disk, parent)?;
    }
    match disk.create_dir(dir) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        // Somebody may have been faster.
        _ => {}
    }
    disk.sync_dir(parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Fault, FaultDisk, MemDisk, Op, Rule, Survival};

    #[test]
    fn what_was_made_survives_and_so_does_what_somebody_died_over() {
        let disk = MemDisk::new(1);
        make_dirs(&disk, Path::new("/a/b/c")).unwrap();
        let disk = disk.after_power_loss(Survival::Nothing);
        assert!(disk.exists(Path::new("/a/b/c")).unwrap());
        disk.create_dir(Path::new("/a/d")).unwrap();
        make_dirs(&disk, Path::new("/a/d")).unwrap();
        let disk = disk.after_power_loss(Survival::Nothing);
        assert!(disk.exists(Path::new("/a/d")).unwrap());
    }

    #[test]
    fn a_failure_is_one() {
        let disk = FaultDisk::over_mem(&MemDisk::new(1));
        disk.add(Rule::on([Op::SyncDir], Effect::Fail(Fault::Io)));
        make_dirs(&disk, Path::new("/a")).unwrap_err();
        make_dirs(&disk, Path::new("/a")).unwrap_err();
    }
}
