//! What a reader costs the disk.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use weir_io::{Access, DirEntry, Disk, File, Folder, LockError, LockGuard, Mapping, MemDisk, Space};
use weir_storage::{Limit, ReadRequest};
use weir_types::Durability;

use crate::support::*;

/// A disk that knows how many bytes were asked of it.
#[derive(Debug)]
struct Asked {
    disk: MemDisk,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct AskedFile {
    file: Arc<dyn File>,
    bytes: Arc<AtomicU64>,
}

impl Disk for Asked {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, access)?;
        Ok(Arc::new(AskedFile { file, bytes: Arc::clone(&self.bytes) }))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Folder>> {
        self.disk.open_dir(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        self.disk.rename(old, new)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.disk.unlink(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_fs(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn lock(&self, path: &Path, owner: &str) -> Result<LockGuard, LockError> {
        self.disk.lock(path, owner)
    }
}

impl File for AskedFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<usize> {
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        self.file.read_at(buf, len, pos)
    }

    fn read_cached(&self, buf: &mut BytesMut, len: usize, pos: u64) -> io::Result<Option<usize>> {
        let read = self.file.read_cached(buf, len, pos)?;
        self.bytes.fetch_add(read.unwrap_or(0) as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], pos: u64) -> io::Result<usize> {
        self.file.write_at(slices, pos)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn allocate(&self, pos: u64, len: u64) -> io::Result<()> {
        self.file.allocate(pos, len)
    }

    fn trim(&self) -> io::Result<()> {
        self.file.trim()
    }

    fn start_writeback(&self, pos: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(pos, len)
    }

    fn drop_cache(&self, pos: u64, len: u64) -> io::Result<()> {
        self.file.drop_cache(pos, len)
    }

    fn map(&self) -> io::Result<Mapping> {
        self.file.map()
    }
}

#[tokio::test]
async fn hardly_more_is_read_than_is_given_out() {
    const BATCHES: i64 = 24;
    for batch_bytes in [100, 4 << 10, 17 << 10, 64 << 10, 130 << 10, 300 << 10] {
        let bytes = Arc::<AtomicU64>::default();
        let disk = Asked { disk: MemDisk::new(1), bytes: Arc::clone(&bytes) };
        let process = Process::start(Arc::new(disk));
        let log = process.create(0, config(Durability::Replicated)).await;
        for _ in 0..BATCHES {
            produce(&log, batch(vec![7; batch_bytes], 1)).await.unwrap();
        }
        let before = bytes.load(Ordering::Relaxed);
        let (mut from, mut given) = (0, 0);
        while from < BATCHES {
            let request = ReadRequest { from, bytes_max: 256 << 10, limit: Limit::HighWatermark };
            let chunk = log.read(request).await.unwrap();
            assert!(chunk.next_offset > from);
            from = chunk.next_offset;
            given += chunk.bytes.len() as u64;
        }
        let asked = bytes.load(Ordering::Relaxed) - before;
        assert!(asked * 10 <= given * 11, "batches of {batch_bytes}: {asked} bytes were read for {given}");
    }
}
