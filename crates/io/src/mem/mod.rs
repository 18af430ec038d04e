//! A disk in memory that can lose power.
//!
//! Everything that was not synced is at the mercy of a seed. What is assumed of the disk is what the weakest file
//! system worth running on gives, and nothing more:
//!
//! - **Pages.** Each page of 4 KiB that was written since its file was last synced survives or not, whatever the
//!   others do: as it was, as it is, or as it was at some moment between. Pages are whole.
//! - **Length.** Cutting and growing survive or not, apart from the pages: a file may have grown over pages that
//!   were never written (they read as zeros), or kept a length that was cut.
//! - **`sync_data` and `sync_all`** make one file's pages and length durable, as they are at that moment. They say
//!   nothing about its name.
//! - **Names.** What was created, renamed or removed in a folder survives from the oldest change on up to some
//!   point, each folder for itself. A rename within a folder is one change; one between two folders is two, so
//!   without a sync of both the file may be in either, in both or in none. `sync_dir` makes the names of its folder
//!   durable, and says nothing about the name of the folder itself or the content of the files.
//! - **`sync_fs`** makes everything durable. **`start_writeback`** promises nothing, and does nothing here.
//! - **Reserved blocks** are given back, **locks** and handles end.
//! - **Maps.** A file that is cut shorter while somebody has it mapped ends the process, as SIGBUS would end a real one at
//!   the next look at what is gone (correctness rule 37). Every call fails from then on, in later lives too: a test is not
//!   to go on as if that were one more crash.
//!
//! The death of a process ([`MemDisk::kill`]) loses none of it but the handles and locks: the page cache stays.
//!
//! It is not fast: one lock guards it all. Pages are shared between a disk and what becomes of it, so that a test
//! may look at the power loss after every step.

mod loss;
mod pages;
mod tree;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::io::Errno;

use self::loss::Lots;
pub use self::loss::Survival;
use self::pages::PAGE_BYTES;
use self::tree::{Ino, Tree};
use crate::dice::Dice;
use crate::{Access, DirEntry, Disk, File, Folder, LockError, LockGuard, Mapping, Space};

/// As large as a disk is unless told otherwise, in bytes.
const CAPACITY_BYTES: u64 = 1 << 40;

/// A disk in memory. Cloning gives another handle to the same one. It starts with an empty top folder, `/`.
#[derive(Clone)]
pub struct MemDisk(Arc<Mutex<Power>>);

/// Whether a disk can still be used through this handle.
enum Power {
    On(Box<State>),
    /// Every call fails with this.
    Off(&'static str),
}

struct State {
    tree: Tree,
    locks: HashMap<Ino, String>,
    capacity_pages: u64,
    dice: Dice,
    /// A file was cut while it was mapped.
    bus_error: bool,
}

impl MemDisk {
    /// An empty disk of 1 TiB. The seed decides which of the contents that a page has between two syncs is one
    /// that may survive.
    pub fn new(seed: u64) -> Self {
        Self::on(State {
            tree: Tree::new(),
            locks: HashMap::new(),
            capacity_pages: CAPACITY_BYTES / PAGE_BYTES,
            dice: Dice::new(seed),
            bus_error: false,
        })
    }

    fn on(state: State) -> Self {
        Self(Arc::new(Mutex::new(Power::On(Box::new(state)))))
    }

    /// Cuts the power, by lot: short for [`MemDisk::power_loss`] of [`Survival::Drawn`].
    pub fn crash(&self, seed: u64) -> MemDisk {
        self.power_loss(Survival::Drawn(seed))
    }

    /// Cuts the power and returns the disk as it is found afterwards. This disk and all its files fail from now on.
    pub fn power_loss(&self, survival: Survival) -> MemDisk {
        let after = self.after_power_loss(survival);
        *self.0.lock() = Power::Off("the power was cut: this handle belongs to the time before");
        after
    }

    /// What a cut of the power at this moment would leave, without cutting it.
    pub fn after_power_loss(&self, survival: Survival) -> MemDisk {
        let power = self.0.lock();
        let Power::On(state) = &*power else { return MemDisk(Arc::clone(&self.0)) };
        Self::on(State {
            tree: state.tree.after_power_loss(&mut Lots::new(survival)),
            locks: HashMap::new(),
            capacity_pages: state.capacity_pages,
            dice: state.dice.clone(),
            bus_error: state.bus_error,
        })
    }

    /// Ends the process that uses this disk: what it wrote stays, synced or not, but this disk and all its files
    /// fail from now on, and its locks are free.
    pub fn kill(&self) -> MemDisk {
        let mut power = self.0.lock();
        let dead = Power::Off("the process was killed: this handle belonged to it");
        match std::mem::replace(&mut *power, dead) {
            Power::On(state) => {
                Self::on(State { tree: state.tree.after_death(), locks: HashMap::new(), ..*state })
            }
            off @ Power::Off(_) => {
                *power = off;
                MemDisk(Arc::clone(&self.0))
            }
        }
    }

    /// How large the disk is from now on, in bytes; what is on it stays, even if that is more.
    pub fn set_capacity(&self, bytes: u64) {
        if let Power::On(state) = &mut *self.0.lock() {
            state.capacity_pages = bytes / PAGE_BYTES;
        }
    }

    /// How many files somebody has open or mapped, those too that have no name any more: their space is not free yet.
    pub fn open_files(&self) -> usize {
        match &*self.0.lock() {
            Power::On(state) => state.tree.open_files(),
            Power::Off(_) => 0,
        }
    }

    /// The kernel fails to write back what is dirty of a file: those pages count as clean, read well until they
    /// leave the cache, and are lost. Each handle that is open now reports it once, at its next sync; one that is
    /// opened later never does.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn fail_writeback(&self, path: &Path) -> io::Result<()> {
        self.with(|state| {
            let ino = state.tree.find(path)?;
            state.tree.fail_writeback(ino);
            Ok(())
        })
    }

    /// The disk changes a byte of a file, in the cache and below it: these bits of it are the other way round.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it ends before that byte.
    pub fn rot(&self, path: &Path, pos: u64, bits: u8) -> io::Result<()> {
        self.with(|state| {
            let ino = state.tree.find(path)?;
            state.tree.change(ino, |content| content.rot(pos, bits))
        })
    }

    fn with<T>(&self, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        match &mut *self.0.lock() {
            Power::On(state) if state.bus_error => Err(io::Error::other(
                "SIGBUS: a file was cut while it was mapped, and the process is dead (correctness rule 37)",
            )),
            Power::On(state) => call(state),
            Power::Off(why) => Err(io::Error::other(*why)),
        }
    }

    pub(crate) fn open_mem(&self, path: &Path, access: Access) -> io::Result<MemFile> {
        self.with(|state| {
            let found = match (state.tree.find(path), access) {
                (Ok(_), Access::CreateNew) => return Err(Errno::EXIST.into()),
                (Ok(ino), Access::Write | Access::CreateOrTruncate) if state.tree.is_folder(ino) => {
                    return Err(Errno::ISDIR.into());
                }
                (Err(Errno::NOENT), Access::CreateNew | Access::CreateOrTruncate) => {
                    state.tree.create_file(path)?
                }
                (found, _) => found?,
            };
            if access == Access::CreateOrTruncate {
                state.set_len(found, 0)?;
            }
            state.tree.open(found);
            let reported = Mutex::new(state.tree.failures(found));
            Ok(MemFile { disk: self.clone(), ino: found, writable: access != Access::Read, reported })
        })
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemDisk")
    }
}

impl State {
    fn free_pages(&self) -> u64 {
        self.capacity_pages.saturating_sub(self.tree.used())
    }

    fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let Self { tree, dice, bus_error, .. } = self;
        tree.change(ino, |content| {
            *bus_error = content.is_mapped() && len < content.len();
            content.set_len(len, dice)
        })
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.open_mem(path, access)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.with(|state| Ok(state.tree.create_dir(path)?))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.with(|state| Ok(state.tree.remove_dir(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.with(|state| Ok(state.tree.list(dir)?))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.with(|state| match state.tree.find(path) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        })
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        self.with(|state| Ok(state.tree.rename(old, new)?))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.with(|state| Ok(state.tree.unlink(path)?))
    }

    fn open_dir(&self, dir: &Path) -> io::Result<Arc<dyn Folder>> {
        self.with(|state| match state.tree.find(dir)? {
            ino if state.tree.is_folder(ino) => {
                Ok(Arc::new(MemFolder { disk: self.clone(), ino }) as Arc<dyn Folder>)
            }
            _ => Err(Errno::NOTDIR.into()),
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.with(|state| {
            state.tree.find(path)?;
            Ok(Space {
                total_bytes: state.capacity_pages * PAGE_BYTES,
                available_bytes: state.free_pages() * PAGE_BYTES,
            })
        })
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<LockGuard, LockError> {
        let access =
            if self.exists(path).map_err(LockError::Io)? { Access::Write } else { Access::CreateNew };
        let file = self.open_mem(path, access).map_err(LockError::Io)?;
        let taken = self.with(|state| match state.locks.get(&file.ino) {
            Some(holder) => Ok(Some(holder.clone())),
            None => {
                state.locks.insert(file.ino, owner.to_owned());
                Ok(None)
            }
        });
        match taken {
            Ok(None) => {}
            Ok(Some(holder)) => return Err(LockError::Held(holder)),
            Err(e) => return Err(LockError::Io(e)),
        }
        let held = HeldLock(file);
        held.0.set_len(0).map_err(LockError::Io)?;
        held.0.write_all_at(owner.as_bytes(), 0).map_err(LockError::Io)?;
        Ok(LockGuard::new(held))
    }
}

struct HeldLock(MemFile);

impl Drop for HeldLock {
    fn drop(&mut self) {
        if let Power::On(state) = &mut *self.0.disk.0.lock() {
            state.locks.remove(&self.0.ino);
        }
    }
}

/// An open folder of a [`MemDisk`].
#[derive(Debug)]
struct MemFolder {
    disk: MemDisk,
    ino: Ino,
}

impl Folder for MemFolder {
    fn sync(&self) -> io::Result<()> {
        self.disk.with(|state| Ok(state.tree.sync_dir(self.ino)?))
    }

    fn sync_fs(&self) -> io::Result<()> {
        self.disk.with(|state| {
            state.tree.sync_all();
            Ok(())
        })
    }
}

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub(crate) struct MemFile {
    disk: MemDisk,
    ino: Ino,
    writable: bool,
    /// Failures of writing back that this handle has reported, or that happened before it was opened.
    reported: Mutex<u64>,
}

impl MemFile {
    /// The same as [`MemDisk::fail_writeback`], whatever the file is called by now.
    pub(crate) fn fail_writeback(&self) {
        if let Power::On(state) = &mut *self.disk.0.lock() {
            state.tree.fail_writeback(self.ino);
        }
    }

    /// Changes the file, which may take `free` more pages.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut pages::Content, &mut u64, &mut Dice) -> io::Result<T>,
    ) -> io::Result<T> {
        self.disk.with(|state| {
            if !self.writable {
                return Err(Errno::BADF.into());
            }
            let mut free = state.free_pages();
            let State { tree, dice, .. } = state;
            tree.change(self.ino, |content| change(content, &mut free, dice))
        })
    }

    /// The same for what a read handle may do.
    fn touch<T>(&self, touch: impl FnOnce(&mut pages::Content) -> T) -> io::Result<T> {
        self.disk.with(|state| state.tree.change(self.ino, |content| Ok(touch(content))))
    }
}

/// What a map shows, and that it is there.
struct Mapped {
    bytes: Bytes,
    _map: Arc<()>,
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        if let Power::On(state) = &mut *self.disk.0.lock() {
            state.tree.close(self.ino);
        }
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize> {
        self.touch(|content| content.read(buf, len, pos))
    }

    fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<Option<usize>> {
        self.touch(|content| content.read_cached(buf, len, pos))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        self.change(|content, free, dice| {
            let mut done = 0;
            for slice in slices {
                let n = content.write(slice, pos + done as u64, free, dice)?;
                done += n;
                if n < slice.len() {
                    return if done == 0 { Err(Errno::NOSPC.into()) } else { Ok(done) };
                }
            }
            Ok(done)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.with(|state| {
            let failures = state.tree.failures(self.ino);
            let mut reported = self.reported.lock();
            let fails = *reported < failures;
            *reported = failures;
            state.tree.change(self.ino, |content| {
                content.sync();
                Ok(())
            })?;
            // What the kernel still had it has written by then; the error is about the rest.
            if fails { Err(Errno::IO.into()) } else { Ok(()) }
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        self.disk.with(|state| state.set_len(self.ino, len))
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.with(|state| Ok(state.tree.content(self.ino)?.len()))
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.change(|content, free, _| content.allocate(pos, len, free))
    }

    fn trim(&self) -> io::Result<()> {
        self.change(|content, _, _| {
            content.trim();
            Ok(())
        })
    }

    fn start_writeback(&self, _pos: u64, _len: u64) -> io::Result<()> {
        self.disk.with(|state| state.tree.content(self.ino).map(drop).map_err(Into::into))
    }

    fn drop_cache(&self, pos: u64, len: u64) -> io::Result<()> {
        self.touch(|content| content.drop_cache(pos, len))
    }

    fn map(&self) -> io::Result<Mapping> {
        self.touch(|content| {
            let mut buf = BytesMut::new();
            content.read(&mut buf, content.len() as usize, 0);
            Mapping::new(Mapped { bytes: buf.freeze(), _map: content.map() })
        })
    }
}
