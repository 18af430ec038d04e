//! The two traits. What a call promises after a power loss stands at the call; implementations are held to it
//! by the conformance suite.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A file system. Cheap to share; every method may be called from any thread.
///
/// Paths are absolute. Names created, renamed or unlinked are durable only after [`Disk::sync_dir`] of the
/// folder that holds them: methods whose name ends in `_durably` include it, so that it cannot be forgotten.
#[expect(
    clippy::missing_errors_doc,
    reason = "every call hands on what the system says; what is special is said at it"
)]
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a file. [`Access::CreateNew`] fails with `AlreadyExists` if the name is taken.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;

    /// Creates one folder; its parent must exist. `AlreadyExists` if it does.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;

    /// Whether the name exists, as a file or a folder.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file or folder, replacing a file of that name. Atomic; durable after `sync_dir` of both parents.
    fn rename(&self, old: &Path, new: &Path) -> io::Result<()>;

    /// Removes a file's name. Open handles stay usable.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Opens a folder: whoever will have to make its names durable takes the descriptor for that before anything is
    /// changed.
    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn Folder>>;

    /// Makes the names in a folder durable. Without a descriptor nothing is tried, so nothing has failed that must not
    /// be tried again.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.open_dir(dir)?.sync()
    }

    /// Makes everything on the file system of a folder durable (syncfs).
    fn sync_fs(&self, dir: &Path) -> io::Result<()> {
        self.open_dir(dir)?.sync_fs()
    }

    /// Size and free space of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Takes the exclusive lock on a file, creating it, and writes `owner` (a pid) into it. The lock ends with
    /// the guard or the process.
    fn lock(&self, path: &Path, owner: &str) -> Result<LockGuard, LockError>;

    /// Reads a whole file. For small files only: `limit` bytes at most, `FileTooLarge` beyond.
    fn read(&self, path: &Path, limit: usize) -> io::Result<Bytes> {
        let file = self.open(path, Access::Read)?;
        let len = file.len()?;
        if len > limit as u64 {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{}: {len} bytes, at most {limit} expected", path.display()),
            ));
        }
        let mut buf = BytesMut::with_capacity(len as usize);
        file.read_at(&mut buf, len as usize, 0)?;
        Ok(buf.freeze())
    }

    /// Replaces a small file so that after a crash at any step either the old or the new content is there:
    /// temporary file, sync, rename, sync of the folder. Without a descriptor nothing has changed.
    fn replace_durably(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let dir = self.open_dir(folder_of(path)?)?;
        let mut temp = path.as_os_str().to_owned();
        temp.push(".tmp");
        let temp = PathBuf::from(temp);
        let file = self.open(&temp, Access::CreateOrTruncate)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        self.rename(&temp, path)?;
        dir.sync()
    }

    /// Removes a name and makes that durable. Without a descriptor nothing has changed.
    fn unlink_durably(&self, path: &Path) -> io::Result<()> {
        let dir = self.open_dir(folder_of(path)?)?;
        self.unlink(path)?;
        dir.sync()
    }
}

fn folder_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("a file has a folder"))
}

/// An open folder. It is the same one when it has got another name.
#[expect(
    clippy::missing_errors_doc,
    reason = "every call hands on what the system says; what is special is said at it"
)]
pub trait Folder: Send + Sync + fmt::Debug + 'static {
    /// Makes the names in it durable. After an error nobody knows which of them are: the caller must never try again
    /// (correctness rule 35).
    fn sync(&self) -> io::Result<()>;

    /// Makes everything on its file system durable (syncfs), and reports what failed to be written back since this
    /// folder was opened.
    fn sync_fs(&self) -> io::Result<()>;
}

/// One open file. Positions are explicit: there is no cursor to share.
#[expect(
    clippy::missing_errors_doc,
    reason = "every call hands on what the system says; what is special is said at it"
)]
pub trait File: Send + Sync + fmt::Debug + 'static {
    /// Appends up to `len` bytes from `pos` on to `buf`, which grows by what was read; short only at the end
    /// of the file. Returns how many.
    fn read_at(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize>;

    /// The same, from the page cache alone (`preadv2` with `RWF_NOWAIT`): `None` if nothing of it is cached,
    /// fewer than `len` bytes if only a part is. Never waits for the disk. `None` always where the file system
    /// cannot tell.
    fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<Option<usize>>;

    /// Writes the slices one after the other at `pos`. May write less than all of them: the count says how much.
    fn write_at(&self, slices: &[io::IoSlice<'_>], pos: u64) -> io::Result<usize>;

    /// Writes all of `data`, or fails with `pos..` in an unknown state.
    fn write_all_at(&self, data: &[u8], pos: u64) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_at(&[io::IoSlice::new(rest)], pos + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes the data and the length durable (fdatasync). After an error nobody knows what the disk holds: the
    /// caller must never sync this file again and must not trust what it reads back (correctness rule 35).
    fn sync_data(&self) -> io::Result<()>;

    /// Makes data, length and attributes durable (fsync). The same rule after an error.
    fn sync_all(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reserves blocks for `len` bytes at `pos` without changing the file's length (`FALLOC_FL_KEEP_SIZE`).
    /// Does nothing where the file system cannot.
    fn allocate(&self, pos: u64, len: u64) -> io::Result<()>;

    /// Gives back blocks reserved beyond the length.
    fn trim(&self) -> io::Result<()>;

    /// Asks that the dirty pages of a range start on their way to the disk (`sync_file_range(WRITE)`). Says
    /// nothing about durability.
    fn start_writeback(&self, pos: u64, len: u64) -> io::Result<()>;

    /// Drops a range from the page cache, as far as it is clean. The next read comes from the disk.
    fn drop_cache(&self, pos: u64, len: u64) -> io::Result<()>;

    /// Maps the whole file for reading. Only for small files that nobody ever changes or cuts (rule 37).
    fn map(&self) -> io::Result<Mapping>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist yet.
    CreateNew,
    /// For reading and writing; created, or emptied if it exists.
    CreateOrTruncate,
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the folder. Names that are not UTF-8 are left out of a listing.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// A file system's size and what is free of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total_bytes: u64,
    /// What this process may still write.
    pub available_bytes: u64,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Somebody else has it; the text is what they wrote into it (their pid), empty if it could not be read.
    Held(String),
    /// The file could not be opened, locked or written.
    Io(io::Error),
}

/// Holds a lock until dropped.
pub struct LockGuard(#[expect(dead_code, reason = "held for its Drop")] Box<dyn Send + Sync>);

impl LockGuard {
    /// Wraps whatever releases the lock when dropped.
    pub fn new(held: impl Send + Sync + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}

/// The bytes of a mapped file.
pub struct Mapping(Box<dyn AsRef<[u8]> + Send + Sync>);

impl Mapping {
    /// Wraps whatever owns the bytes.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Box::new(owner))
    }
}

impl std::ops::Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.len())
    }
}
