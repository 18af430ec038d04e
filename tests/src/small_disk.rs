//! A small ext4 of its own, on a loop device, for tests that fill it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;
use tokio::process::Command;

use crate::tools::output;

/// The mounted file system. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
    mounted: PathBuf,
}

impl SmallDisk {
    /// Makes and mounts one of so many MiB.
    ///
    /// # Errors
    /// This machine does not allow it: it takes root, mkfs.ext4 and a loop device. The words say which.
    pub async fn mount(mib: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (image, mounted) = (folder.path().join("image"), folder.path().join("disk"));
        fs::File::create(&image)?.set_len(mib << 20)?;
        fs::create_dir(&mounted)?;
        // Without blocks kept for root: the test runs as root, and is to meet the end of the disk like anybody.
        output(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image)).await?;
        output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted)).await?;
        Ok(Self { folder, mounted })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// A file for what a server says, elsewhere.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// A file in it that takes up its space: all that is free but so many bytes. Removing the file gives it
    /// back.
    ///
    /// # Errors
    /// There is less than that.
    pub async fn fill_but(&self, bytes: u64) -> Result<PathBuf> {
        let free = rustix::fs::statvfs(&self.mounted)?;
        let file = self.mounted.join("in the way");
        let taken = (free.f_bavail * free.f_frsize).saturating_sub(bytes);
        output(Command::new("fallocate").args(["-l", &taken.to_string()]).arg(&file)).await?;
        Ok(file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a server that is just being killed does not keep it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}
