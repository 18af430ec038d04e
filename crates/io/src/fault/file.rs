//! A file, and a folder, of a disk that fails on command.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;

use super::{Effect, Fault, FaultDisk, Op};
use crate::mem::MemFile;
use crate::{File, Folder, Mapping};

#[derive(Debug)]
pub(super) struct FaultFile {
    pub(super) disk: FaultDisk,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// The same file, if it is in memory.
    pub(super) mem: Option<Arc<MemFile>>,
}

impl FaultFile {
    fn plain(&self, op: Op, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.disk.plain(op, &self.path, call)
    }

    fn answering<T>(&self, op: Op, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.disk.answering(op, &self.path, call)
    }

    /// How much a read of `len` bytes may give.
    fn readable(&self, op: Op, len: usize) -> io::Result<usize> {
        match self.disk.effect(op, &self.path)? {
            None => Ok(len),
            Some(Effect::Short(n)) => Ok(len.min(n)),
            Some(_) => Err(Fault::Io.into()),
        }
    }

    fn sync(&self, op: Op, call: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match self.disk.effect(op, &self.path)? {
            None => call(),
            Some(Effect::Skip) => Ok(()),
            Some(Effect::LoseDirty) => {
                if let Some(mem) = &self.mem {
                    mem.fail_writeback();
                    // This handle reports the failure; the next sync of it has nothing left to say.
                    call()?;
                }
                Err(Fault::Io.into())
            }
            Some(Effect::Torn(_, fault)) => Err(fault.into()),
            Some(_) => Err(Fault::Io.into()),
        }
    }

    /// Writes the first `len` bytes of the slices, all of them unless the disk below fails.
    fn write_part(&self, slices: &[IoSlice<'_>], len: usize, pos: u64) -> io::Result<usize> {
        let mut done = 0;
        for slice in slices {
            let part = slice.get(..len - done).unwrap_or(slice);
            self.file.write_all_at(part, pos + done as u64)?;
            done += part.len();
        }
        Ok(done)
    }
}

impl File for FaultFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize> {
        let len = self.readable(Op::Read, len)?;
        self.file.read_at(buf, len, pos)
    }

    fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<Option<usize>> {
        let len = self.readable(Op::ReadCached, len)?;
        self.file.read_cached(buf, len, pos)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
        match self.disk.effect(Op::Write, &self.path)? {
            None => self.file.write_at(slices, pos),
            Some(Effect::Skip) => Ok(len),
            Some(Effect::Short(n)) => self.write_part(slices, len.min(n), pos),
            Some(Effect::Torn(n, fault)) => {
                self.write_part(slices, len.min(n), pos)?;
                Err(fault.into())
            }
            Some(_) => Err(Fault::Io.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Op::SyncData, || self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Op::SyncAll, || self.file.sync_all())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.plain(Op::SetLen, || self.file.set_len(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.answering(Op::Len, || self.file.len())
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.plain(Op::Allocate, || self.file.allocate(pos, len))
    }

    fn trim(&self) -> io::Result<()> {
        self.plain(Op::Trim, || self.file.trim())
    }

    fn start_writeback(&self, pos: u64, len: u64) -> io::Result<()> {
        self.plain(Op::StartWriteback, || self.file.start_writeback(pos, len))
    }

    fn drop_cache(&self, pos: u64, len: u64) -> io::Result<()> {
        self.plain(Op::DropCache, || self.file.drop_cache(pos, len))
    }

    fn map(&self) -> io::Result<Mapping> {
        self.answering(Op::Map, || self.file.map())
    }
}

#[derive(Debug)]
pub(super) struct FaultFolder {
    pub(super) disk: FaultDisk,
    pub(super) path: PathBuf,
    pub(super) folder: Arc<dyn Folder>,
}

impl Folder for FaultFolder {
    fn sync(&self) -> io::Result<()> {
        self.disk.plain(Op::SyncDir, &self.path, || self.folder.sync())
    }

    fn sync_fs(&self) -> io::Result<()> {
        self.disk.plain(Op::SyncFs, &self.path, || self.folder.sync_fs())
    }
}
