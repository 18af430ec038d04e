//! A small ext4 of its own, on a loop device, for tests that fill it.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::tools::output;

/// What the file system needs to note down that all else is taken, in bytes.
const BOOKS_BYTES: u64 = 512 << 10;
const BLOCK_BYTES: usize = 4_096;
/// Tells a file system to end at once, with nothing more written, not even its journal: EXT4_IOC_SHUTDOWN, NOLOGFLUSH.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys\n\
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
/// Holds up all that is to be written there, for a time. Whoever has it by a handle finds it also if it is unmounted meanwhile;
/// and nobody is to be left with a frozen file system, so this ends by itself, whatever becomes of who has begun it.
const HOLD_UP: &str = "exec 3<\"$0\"; fsfreeze --freeze /proc/self/fd/3 || exit 1; sleep \"$1\"; \
    fsfreeze --unfreeze /proc/self/fd/3";
/// How long it may take until nobody uses it any more, and how often is looked.
const GONE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

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
        Self::mount_on(&std::env::temp_dir(), mib).await
    }

    /// The same, in a file in this folder.
    ///
    /// # Errors
    /// As [`SmallDisk::mount`].
    pub async fn mount_on(folder: &Path, mib: u64) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let mounted = folder.path().join("disk");
        let disk = Self { folder, mounted };
        fs::File::create(disk.image())?.set_len(mib << 20)?;
        fs::create_dir(&disk.mounted)?;
        // Without blocks kept for root: the test runs as root, and is to meet the end of the disk like anybody.
        output(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(disk.image())).await?;
        disk.mount_image().await?;
        Ok(disk)
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

    /// The same of all that is free, to the last block: nobody can write a byte that needs one.
    ///
    /// # Errors
    /// The file system says something else than that it is full.
    pub async fn fill(&self) -> Result<PathBuf> {
        let file = self.fill_but(BOOKS_BYTES).await?;
        let mut rest = fs::File::options().append(true).open(&file)?;
        let full = loop {
            if let Err(error) = rest.write_all(&[0; BLOCK_BYTES]) {
                break error;
            }
        };
        ensure!(full.kind() == ErrorKind::StorageFull, "{} cannot be filled: {full}", file.display());
        Ok(file)
    }

    /// Why no power can be lost here, if so.
    pub async fn keeps_power() -> Option<String> {
        let asked = output(Command::new("python3").arg("--version")).await;
        asked.err().map(|error| format!("it takes Python to end a file system on the spot: {error:#}"))
    }

    /// What a machine finds on it that has lost its power: all that was synced, and of the rest what the system happened to
    /// have written. Nobody may have a file open.
    ///
    /// # Errors
    /// This machine does not allow it: it takes Python to tell the file system. Or somebody still uses it.
    pub async fn lose_power(&self) -> Result<()> {
        output(Command::new("python3").args(["-c", SHUT_DOWN]).arg(&self.mounted)).await?;
        output(Command::new("umount").arg(&self.mounted)).await?;
        // Processes that have just died may have been the last to see it: before it is gone, it would be found as it is.
        let over = Instant::now() + GONE;
        while !output(Command::new("losetup").arg("-j").arg(self.image())).await?.is_empty() {
            ensure!(Instant::now() < over, "{} stays in use", self.mounted.display());
            sleep(LOOK).await;
        }
        self.mount_image().await
    }

    /// Lets nobody write there for so long. What is asked for meanwhile is done afterwards.
    ///
    /// # Errors
    /// This machine does not allow it: it takes root, fsfreeze and unshare.
    pub async fn hold_up(&self, time: Duration) -> Result<()> {
        // In a network of its own: all that is in the one that a test may have made is killed with that.
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", HOLD_UP]).arg(&self.mounted);
        command.arg(time.as_secs_f64().to_string());
        let ended = command.output().await.context("cannot start unshare")?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{} cannot be held up: {said}", self.mounted.display());
        Ok(())
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    async fn mount_image(&self) -> Result<()> {
        output(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(&self.mounted)).await?;
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a server that is just being killed does not keep it.
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mounted).output();
    }
}
