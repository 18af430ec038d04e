//! Snapshot files.
//!
//! ```text
//! magic, 8 bytes   "WEIRSNP1"
//! row              length u32, CRC-32 of the payload u32, payload (a SnapshotRow), little-endian; again and again
//! ```
//!
//! The first row says what the snapshot covers, the last one how many rows came before it: a file that was cut is
//! as damaged as one with a wrong byte. A file is written under another name, synced, renamed, and its folder is
//! synced; so a file under its own name was whole once. If it is not any more, the controller stops and says so,
//! and deletes nothing (correctness rule 32).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use prost::Message;
use weir_cluster::{ImageReader, Row, image_rows};
use weir_io::{Access, Disk, File};
use weir_metadata::State;
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::snapshot_row::Row as Kind;

use crate::Error;
use crate::mutant::Mutant;
use crate::raft::{RaftRow, SnapshotMeta, required};

const MAGIC: &[u8; 8] = b"WEIRSNP1";
const ROW_HEAD: usize = 8;
/// No row is larger; a length beyond that is a damaged one.
const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Read and written at once.
const CHUNK: usize = 256 * 1024;
/// A file that is not finished.
const TEMP: &str = ".tmp";
/// A file that is.
const DONE: &str = ".snap";

/// A snapshot file that can be read: the current one, or one that was received.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    /// What was read from one that was received, once it is durable: whoever installs it need not wait for the disk again.
    pub(crate) checked: Option<Arc<Loaded>>,
}

/// What a snapshot holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) meta: SnapshotMeta,
    pub(crate) state: State,
}

/// The name of a snapshot: names sort like the log.
pub(crate) fn name(meta: &SnapshotMeta) -> String {
    let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!("{index:020}-{term:020}{DONE}")
}

/// The finished snapshots of a folder, the newest last.
pub(crate) fn finished(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let names = disk.list(dir)?.into_iter().filter(|entry| entry.name.ends_with(DONE));
    Ok(names.map(|entry| dir.join(entry.name)).collect())
}

/// Removes what was never finished.
pub(crate) fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> std::io::Result<()> {
    for entry in disk.list(dir)?.into_iter().filter(|entry| entry.name.ends_with(TEMP)) {
        disk.unlink(&dir.join(entry.name))?;
    }
    Ok(())
}

/// A file for a snapshot that is being built or received.
pub(crate) fn create(disk: &dyn Disk, dir: &Path, name: &str) -> Result<SnapshotFile, Error> {
    let path = dir.join(format!("{name}{TEMP}"));
    match disk.open(&path, Access::CreateOrTruncate) {
        Ok(file) => Ok(SnapshotFile { path, file, checked: None }),
        Err(source) => Err(Error::SnapshotIo { path, source }),
    }
}

/// Writes a state, row by row, and syncs the file.
pub(crate) fn write(to: &SnapshotFile, meta: &SnapshotMeta, state: &State) -> Result<(), Error> {
    let failed = |source| Error::SnapshotIo { path: to.path.clone(), source };
    let mut out = Writer { file: &to.file, at: 0, buffer: BytesMut::from(&MAGIC[..]), rows: 0 };
    out.row(Kind::Head(pb::SnapshotHead { meta: Some(meta.to_wire()) })).map_err(failed)?;
    for row in image_rows(&state.image) {
        out.row(Kind::Image(row)).map_err(failed)?;
    }
    for reply in state.replies.iter() {
        out.row(Kind::Reply(reply.to_wire())).map_err(failed)?;
    }
    let rows = out.rows;
    out.row(Kind::End(pb::SnapshotEnd { rows })).map_err(failed)?;
    out.flush().map_err(failed)?;
    if Mutant::SnapshotUnsynced.is_planted() {
        return Ok(());
    }
    to.file.sync_all().map_err(failed)
}

/// Moves a finished file to its name, durably, and removes the snapshots before it.
pub(crate) fn finish(
    disk: &dyn Disk,
    dir: &Path,
    from: &SnapshotFile,
    meta: &SnapshotMeta,
) -> Result<SnapshotFile, Error> {
    let path = dir.join(name(meta));
    let failed = |source| Error::SnapshotIo { path: path.clone(), source };
    disk.rename(&from.path, &path).map_err(failed)?;
    disk.sync_dir(dir).map_err(failed)?;
    for old in finished(disk, dir).map_err(failed)?.into_iter().filter(|old| *old < path) {
        disk.unlink(&old).map_err(failed)?;
    }
    Ok(SnapshotFile { path: path.clone(), file: from.file.clone(), checked: None })
}

/// Reads a whole snapshot. Every byte is checked.
pub(crate) fn read(from: &SnapshotFile) -> Result<Loaded, Error> {
    let mut rows = Reader::new(from)?;
    let (mut meta, mut image, mut state) = (None, ImageReader::default(), State::default());
    loop {
        let damaged = |why: String| Error::Snapshot { path: from.path.clone(), why };
        let kind = rows.next()?;
        match kind {
            Kind::Head(head) => {
                meta = Some(required(head.meta, "meta").map_err(|why| damaged(why.to_string()))?);
            }
            Kind::Image(row) => image.push(row).map_err(|why| damaged(why.to_string()))?,
            Kind::Reply(row) => {
                state.replies.restore(Row::from_wire(row).map_err(|why| damaged(why.to_string()))?);
            }
            Kind::End(end) => {
                if end.rows + 1 != rows.count || !rows.is_at_end()? {
                    return Err(damaged("rows are missing, or something follows the last one".to_owned()));
                }
                let meta = meta.ok_or_else(|| damaged("it does not say what it covers".to_owned()))?;
                state.image = image.finish().map_err(|why| damaged(why.to_string()))?;
                return Ok(Loaded { meta, state });
            }
        }
    }
}

/// The same of one that was received: it covers what its sender said. Durable when this returns.
pub(crate) fn read_received(from: &SnapshotFile, meta: &SnapshotMeta) -> Result<Arc<Loaded>, Error> {
    if let Some(checked) = from.checked.as_ref().filter(|checked| checked.meta == *meta) {
        return Ok(checked.clone());
    }
    let loaded = read(from)?;
    if loaded.meta != *meta {
        let why = "it covers something else than its sender said".to_owned();
        return Err(Error::Snapshot { path: from.path.clone(), why });
    }
    from.file.sync_all().map_err(|source| Error::SnapshotIo { path: from.path.clone(), source })?;
    Ok(Arc::new(loaded))
}

struct Writer<'a> {
    file: &'a Arc<dyn File>,
    at: u64,
    buffer: BytesMut,
    rows: u64,
}

impl Writer<'_> {
    fn row(&mut self, row: Kind) -> std::io::Result<()> {
        let row = pb::SnapshotRow { row: Some(row) }.encode_to_vec();
        self.buffer.extend_from_slice(&u32::try_from(row.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.buffer.extend_from_slice(&crc32fast::hash(&row).to_le_bytes());
        self.buffer.extend_from_slice(&row);
        self.rows += 1;
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

struct Reader<'a> {
    from: &'a SnapshotFile,
    at: u64,
    buffer: BytesMut,
    count: u64,
}

impl<'a> Reader<'a> {
    fn new(from: &'a SnapshotFile) -> Result<Self, Error> {
        let mut this = Self { from, at: 0, buffer: BytesMut::new(), count: 0 };
        this.need(MAGIC.len())?;
        if this.buffer.split_to(MAGIC.len()) != MAGIC[..] {
            return Err(this.damaged("it does not begin like a snapshot of this version"));
        }
        Ok(this)
    }

    fn next(&mut self) -> Result<Kind, Error> {
        self.need(ROW_HEAD)?;
        let (length, crc) = (self.buffer.get_u32_le() as usize, self.buffer.get_u32_le());
        if length > ROW_BYTES_MAX {
            return Err(self.damaged("a length is not possible"));
        }
        self.need(length)?;
        let row = self.buffer.split_to(length).freeze();
        if crc32fast::hash(&row) != crc {
            return Err(self.damaged("a checksum does not match"));
        }
        self.count += 1;
        let row = pb::SnapshotRow::decode(row).map_err(|error| self.damaged(&error.to_string()))?;
        row.row.ok_or_else(|| self.damaged("it has a row that this version does not know"))
    }

    fn is_at_end(&mut self) -> Result<bool, Error> {
        Ok(self.buffer.is_empty() && self.fill(1)? == 0)
    }

    fn need(&mut self, bytes: usize) -> Result<(), Error> {
        while self.buffer.len() < bytes {
            if self.fill((bytes - self.buffer.len()).max(CHUNK))? == 0 {
                return Err(self.damaged("it ends too early"));
            }
        }
        Ok(())
    }

    fn fill(&mut self, bytes: usize) -> Result<usize, Error> {
        let read = self.from.file.read_at(&mut self.buffer, bytes, self.at);
        let read = read.map_err(|source| Error::SnapshotIo { path: self.from.path.clone(), source })?;
        self.at += read as u64;
        Ok(read)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Snapshot { path: self.from.path.clone(), why: why.to_owned() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use weir_io::MemDisk;
    use weir_metadata::{Command, CreateCluster, Entry, JoinController};
    use weir_types::{ClusterId, DirectoryId};

    use super::*;

    pub(in crate::machine) fn state() -> State {
        let mut state = State::default();
        let controller = JoinController { directory: DirectoryId(1), endpoint: "localhost:1".into() };
        let create = CreateCluster {
            cluster_id: ClusterId(1),
            feature_level: 1,
            settings: [("retention_ms".to_owned(), "1d".to_owned())].into(),
            controller,
        };
        state.apply(1, &Entry { at_ms: 0, author: 0, commands: vec![Command::CreateCluster(create)] });
        state
    }

    fn written(disk: &MemDisk) -> SnapshotFile {
        let file = create(disk, Path::new("/"), "test").unwrap();
        write(&file, &SnapshotMeta::default(), &state()).unwrap();
        finish(disk, Path::new("/"), &file, &SnapshotMeta::default()).unwrap()
    }

    #[test]
    fn a_snapshot_reads_back() {
        let disk = MemDisk::new(1);
        let loaded = read(&written(&disk)).unwrap();
        assert_eq!((loaded.meta, loaded.state), (SnapshotMeta::default(), state()));
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let disk = MemDisk::new(1);
        let file = written(&disk);
        let len = file.file.len().unwrap();
        for at in 0..len {
            let mut byte = BytesMut::new();
            file.file.read_at(&mut byte, 1, at).unwrap();
            file.file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            assert!(matches!(read(&file), Err(Error::Snapshot { .. })), "byte {at}");
            file.file.write_all_at(&byte, at).unwrap();
        }
        assert!(read(&file).is_ok());
        file.file.write_all_at(b"x", len).unwrap();
        assert!(matches!(read(&file), Err(Error::Snapshot { .. })), "a byte too many");
        for cut in 0..len {
            let all = written(&disk);
            all.file.set_len(cut).unwrap();
            assert!(matches!(read(&all), Err(Error::Snapshot { .. })), "cut at {cut}");
        }
    }

    pub(in crate::machine) fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(openraft::LogId::new(openraft::CommittedLeaderId::new(2, 1), index)),
            ..SnapshotMeta::default()
        }
    }

    #[test]
    fn a_power_loss_leaves_the_old_one_or_the_new_one_whole() {
        let put = |disk: &dyn Disk, index| {
            let file = create(disk, Path::new("/"), "new")?;
            write(&file, &meta(index), &state())?;
            finish(disk, Path::new("/"), &file, &meta(index))
        };
        for (changes, seed) in (0..).flat_map(|changes| (0..8).map(move |seed| (changes, seed))) {
            let disk = MemDisk::new(seed);
            put(&disk, 9).unwrap();
            let faults = weir_io::FaultDisk::over_mem(&disk);
            faults.die_after(changes);
            let done = put(&faults, 10).is_ok();
            let disk = disk.crash(seed);
            let path = finished(&disk, Path::new("/")).unwrap().pop().unwrap();
            let file = disk.open(&path, Access::Read).unwrap();
            let covered = read(&SnapshotFile { path, file, checked: None }).unwrap().meta;
            assert!(
                covered == meta(10) || covered == meta(9) && !done,
                "{covered:?} after {changes} changes"
            );
            if done && !faults.is_dead() {
                return;
            }
        }
    }

    #[test]
    fn only_the_newest_stays() {
        let disk = MemDisk::new(1);
        for index in [9, 10] {
            let file = create(&disk, Path::new("/"), "new").unwrap();
            write(&file, &meta(index), &state()).unwrap();
            finish(&disk, Path::new("/"), &file, &meta(index)).unwrap();
        }
        create(&disk, Path::new("/"), "left").unwrap();
        remove_unfinished(&disk, Path::new("/")).unwrap();
        let names: Vec<String> = disk.list(Path::new("/")).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, [name(&meta(10))]);
    }
}
