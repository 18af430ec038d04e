//! The disk of the machine (Linux): thin over system calls, no state but the descriptors.

use std::fs;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use rustix::fs::{Advice, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::raw;
use crate::{Access, DirEntry, Disk, File, Folder, LockError, LockGuard, Mapping, Space};

/// More slices than this in one `pwritev` are refused by the kernel (`IOV_MAX`): the rest is left to the caller,
/// who sees a short write.
const SLICES_MAX: usize = 1024;

/// What one `pwritev` writes at most; the rest is left to the caller in the same way. The page cache serves a large
/// write from large blocks of free memory. In a virtual machine whose free memory goes back to the host (free page
/// reporting, in blocks of 2 MiB) those have to be faulted in again by the host: measured, writes of 1 MiB cost 150 ms
/// a GB where memory was just used and 800 ms where it was not, writes of 256 KiB 177 ms in both cases.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// What is read of the owner's text in a lock file.
const OWNER_BYTES_MAX: usize = 64;

/// The file systems of this machine.
#[derive(Debug, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The disk.
    pub fn new() -> Self {
        Self
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => &mut options,
            Access::Write => options.write(true),
            Access::CreateNew => options.write(true).create_new(true),
            Access::CreateOrTruncate => options.write(true).create(true).truncate(true),
        };
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        fs::rename(old, new)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn Folder>> {
        let options = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(RealFolder(rustix::fs::open(dir, options, Mode::empty())?)))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<LockGuard, LockError> {
        // Not emptied at opening: until the lock is ours the text in it is somebody else's.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(LockError::Io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(LockError::Held(read_owner(&file))),
            Err(e) => return Err(LockError::Io(e.into())),
        }
        file.set_len(0).map_err(LockError::Io)?;
        file.write_all_at(owner.as_bytes(), 0).map_err(LockError::Io)?;
        // Closing the descriptor ends the lock, and so does the end of the process.
        Ok(LockGuard::new(file))
    }
}

fn read_owner(file: &fs::File) -> String {
    let mut text = BytesMut::new();
    // Who holds it is a courtesy to the reader of the message: no text is better than another error.
    let _ = raw::read_at(file.as_fd(), &mut text, OWNER_BYTES_MAX, 0);
    String::from_utf8_lossy(&text).trim().to_owned()
}

/// An open folder of the machine.
#[derive(Debug)]
struct RealFolder(OwnedFd);

impl Folder for RealFolder {
    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn sync_fs(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

/// An open file of the machine.
#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize> {
        raw::read_at(self.0.as_fd(), buf, len, pos)
    }

    fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<Option<usize>> {
        raw::read_cached(self.0.as_fd(), buf, len, pos)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        let (mut count, mut bytes) = (0, 0);
        for slice in slices.iter().take(SLICES_MAX) {
            bytes += slice.len();
            if bytes > WRITE_BYTES_MAX {
                break;
            }
            count += 1;
        }
        // One that is too large by itself is cut.
        let cut = slices.first().and_then(|first| first.get(..WRITE_BYTES_MAX)).map(IoSlice::new);
        let part = match (count, &cut) {
            (0, Some(cut)) => std::slice::from_ref(cut),
            _ => slices.get(..count).unwrap_or(slices),
        };
        loop {
            match rustix::io::pwritev(&self.0, part, pos) {
                Ok(n) => return Ok(n),
                // Nothing was written yet.
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    // The syncs are not repeated after EINTR either: what the kernel did with the pages by then is unknown.
    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, pos, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn trim(&self) -> io::Result<()> {
        // Cutting a file at its own length frees what is reserved behind it.
        self.0.set_len(self.0.metadata()?.len())
    }

    fn start_writeback(&self, pos: u64, len: u64) -> io::Result<()> {
        raw::start_writeback(self.0.as_fd(), pos, len)
    }

    fn drop_cache(&self, pos: u64, len: u64) -> io::Result<()> {
        // To the kernel a length of 0 means everything behind `pos`.
        let Some(len) = NonZeroU64::new(len) else { return Ok(()) };
        Ok(rustix::fs::fadvise(&self.0, pos, Some(len), Advice::DontNeed)?)
    }

    fn map(&self) -> io::Result<Mapping> {
        if self.is_empty()? {
            return Ok(Mapping::new(Vec::new()));
        }
        Ok(Mapping::new(raw::map(&self.0)?))
    }
}
