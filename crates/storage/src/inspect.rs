//! Looking at a log directory from outside: for `weir segment dump|verify`. Reads only, takes no lock, believes
//! nothing; a directory that a process uses may change while it is looked at.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use weir_io::{Access, Disk, File};
use weir_types::{DirectoryId, Incarnation, Offset, PartitionId};

use crate::checkpoint::{self, CHECKPOINT_BYTES_MAX};
use crate::config::DirIdentity;
use crate::deleter::is_deleted_name;
use crate::dir::DAMAGED;
use crate::dirfile::{self, BROKER_EPOCH, BrokerEpoch, CHECKPOINT, CLEAN, DIR_JSON, DirFile};
use crate::error::Error;
use crate::frame::{FrameError, FrameHeader, HEADER_BYTES, Seed};
use crate::recovery;
use crate::scan;
use crate::segment::parse_file_name;
use crate::strays::STRAY;

mod verify;

pub use verify::{BadBatch, Verified, verify};

/// How the names of folders end that are kept beside the logs.
const KEPT: [&str; 2] = [DAMAGED, STRAY];

/// What a directory says of itself.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Its id.
    pub directory_id: DirectoryId,
    /// Whose it is, if it is somebody's.
    pub identity: Option<DirIdentity>,
    /// Whether it was left in order.
    pub clean: bool,
    /// Who used it last.
    pub broker_epoch: Option<BrokerEpoch>,
    /// Why the checkpoint says nothing, if it does not hold.
    pub checkpoint_problem: Option<String>,
    /// The partitions in it, by folder name.
    pub partitions: Vec<PartitionFiles>,
}

/// A partition's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFiles {
    /// Which partition.
    pub id: PartitionId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The folder.
    pub path: PathBuf,
    /// What the checkpoint says of it.
    pub checkpoint: Option<CheckpointEntry>,
    /// The first offsets of its segments, in order.
    pub segments: Vec<Offset>,
}

/// What the checkpoint says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the offsets")]
pub struct CheckpointEntry {
    pub generation: u64,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub log_end: Offset,
    /// Everything before this offset was durable.
    pub recovery_point: Offset,
    /// The segment it lies in.
    pub recovery_segment: Offset,
    /// Where in that segment.
    pub recovery_position: u64,
    /// A start has not found its folder; nobody has given up what it had.
    pub missing: bool,
    /// What was known of it is lost with an earlier checkpoint: no start believes its files.
    pub forgotten: bool,
}

/// Reads a directory's small files and lists its partitions.
///
/// # Errors
/// [`Error::Damaged`] if it is no log directory, [`Error::Io`]. A checkpoint that makes no sense is in the answer.
pub fn directory(disk: &dyn Disk, path: &Path) -> Result<Directory, Error> {
    let file: DirFile = dirfile::read_json(disk, &path.join(DIR_JSON))?
        .ok_or_else(|| Error::damaged(path, format!("it holds no {DIR_JSON}: this is no log directory")))?;
    let directory_id: DirectoryId = file
        .directory_id
        .parse()
        .map_err(|error: weir_types::ParseIdError| Error::damaged(path.join(DIR_JSON), error.to_string()))?;
    let (checkpoint, checkpoint_problem) = match disk.read(&path.join(CHECKPOINT), CHECKPOINT_BYTES_MAX) {
        Ok(bytes) => match checkpoint::decode(&bytes, directory_id.0) {
            Ok(checkpoint) => (checkpoint, None),
            Err(problem) => (checkpoint::Checkpoint::new(), Some(problem)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (checkpoint::Checkpoint::new(), None),
        Err(error) => (checkpoint::Checkpoint::new(), Some(error.to_string())),
    };
    let mut partitions = Vec::new();
    for entry in disk.list(path).map_err(Error::io(path, "list"))? {
        let folder = path.join(&entry.name);
        if !entry.is_dir || is_deleted_name(&folder) {
            continue;
        }
        // What is kept beside the logs is looked at when it is named.
        let Some(mut files) = files_of(disk, &folder, &entry.name)? else { continue };
        let known = checkpoint.get(&(files.id, files.incarnation));
        files.checkpoint = known.map(|known| CheckpointEntry {
            generation: known.generation,
            log_start: known.log_start,
            high_watermark: known.high_watermark,
            log_end: known.log_end,
            recovery_point: known.recovery_point.offset,
            recovery_segment: known.recovery_point.segment,
            recovery_position: known.recovery_point.position,
            missing: known.missing && known.cut_to.is_none(),
            forgotten: known.forgotten,
        });
        partitions.push(files);
    }
    Ok(Directory {
        directory_id,
        identity: file.identity,
        clean: disk.exists(&path.join(CLEAN)).map_err(Error::io(path, "stat"))?,
        broker_epoch: dirfile::read_json(disk, &path.join(BROKER_EPOCH))?,
        checkpoint_problem,
        partitions,
    })
}

/// A partition's folder alone, wherever it lies, or what is kept of one beside it: a stray, a damaged log that was set aside,
/// what was cut off one. What a checkpoint says of it is not looked for. `None`: its name is not that of such a folder.
///
/// # Errors
/// [`Error::Io`].
pub fn partition(disk: &dyn Disk, folder: &Path) -> Result<Option<PartitionFiles>, Error> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    files_of(disk, folder, log_name(&name))
}

/// The name of the log's folder that another one is kept of: the checksums of the frames in it are made with that. Any other
/// name as it is.
pub fn log_name(folder: &str) -> &str {
    let kept = KEPT.iter().find_map(|kind| folder.strip_suffix(kind)?.strip_suffix('.'));
    let Some(kept) = kept else { return folder };
    // Of what was cut off a log it says which generation of it, and which offsets; of a stray, since when it is one.
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_more = |more: &str| more.strip_prefix('g').unwrap_or(more).split('-').all(is_number);
    // A log's own name ends with 16 signs, which may all be digits.
    let is_log = |name: &str| recovery::parse_folder_name(name).is_some();
    let shorter = kept.rsplit_once('.').filter(|(log, more)| is_more(more) && is_log(log));
    shorter.map_or(kept, |(log, _)| log)
}

fn files_of(disk: &dyn Disk, folder: &Path, name: &str) -> Result<Option<PartitionFiles>, Error> {
    let Some((id, incarnation)) = recovery::parse_folder_name(name) else { return Ok(None) };
    let files = disk.list(folder).map_err(Error::io(folder, "list"))?;
    let segments = files.iter().filter_map(|file| segment_base(Path::new(&file.name))).collect();
    Ok(Some(PartitionFiles { id, incarnation, path: folder.to_owned(), checkpoint: None, segments }))
}

/// The first offset of the segment that a file is, by its name. `None`: it is none.
pub fn segment_base(file: &Path) -> Option<Offset> {
    let name = file.file_name()?.to_str()?;
    parse_file_name(name).filter(|(_, kind)| *kind == "log").map(|(base, _)| base)
}

/// One frame of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// Where it begins.
    pub position: u64,
    /// What it says.
    pub header: FrameHeader,
    /// Its payload.
    pub payload: Bytes,
    /// Why it does not count, if it does not.
    pub problem: Option<FrameProblem>,
}

/// Why a frame does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameProblem {
    /// A checksum, or the file's end.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It does not follow the one before.
    #[error("its offset is {found}, {expected} is next")]
    Offset {
        /// What it says.
        found: Offset,
        /// What comes next.
        expected: Offset,
    },
    /// Its leader epoch is below that of the one before.
    #[error("its leader epoch {found} is below {before}")]
    Epoch {
        /// What it says.
        found: i32,
        /// The one before.
        before: i32,
    },
}

/// Where the frames of a file end before the file does, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEnd {
    /// Where.
    pub position: u64,
    /// How many bytes are left there.
    pub bytes: u64,
    /// Why no frame begins there.
    pub why: FrameError,
}

/// Walks through the frames of one segment file, one at a time.
pub struct Segment {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    seed: Seed,
    position: u64,
    expected: Offset,
    epoch: Option<i32>,
    end: Option<BadEnd>,
}

impl Segment {
    /// Opens one segment of a partition.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(disk: &dyn Disk, partition: &PartitionFiles, base: Offset) -> Result<Self, Error> {
        let path = partition.path.join(crate::segment::file_name(base, "log"));
        let file = disk.open(&path, Access::Read).map_err(Error::io(&*path, "open"))?;
        let len = file.len().map_err(Error::io(&*path, "stat"))?;
        let seed = Seed::of(partition.id, partition.incarnation);
        Ok(Self { file, path, len, seed, position: 0, expected: base, epoch: None, end: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Once there are no more frames: what is left of the file, if anything.
    pub fn bad_end(&self) -> Option<&BadEnd> {
        self.end.as_ref()
    }

    /// The offset after the last frame so far.
    pub fn next_offset(&self) -> Offset {
        self.expected
    }

    /// The next frame, sound or not; `None` where none can be found any more.
    ///
    /// # Errors
    /// [`Error::Io`]. What is wrong with a frame is in the answer.
    pub fn next_frame(&mut self) -> Result<Option<FrameAt>, Error> {
        if self.position >= self.len || self.end.is_some() {
            return Ok(None);
        }
        let header = match FrameHeader::decode(&self.read(self.position, HEADER_BYTES)?, self.seed) {
            Ok(header) if self.position + header.frame_bytes() <= self.len => header,
            other => {
                let why = other.err().unwrap_or(FrameError::Short);
                self.end = Some(BadEnd { position: self.position, bytes: self.len - self.position, why });
                return Ok(None);
            }
        };
        let position = self.position;
        let payload = self.read(position + HEADER_BYTES as u64, header.payload_bytes as usize)?;
        let problem = self.judge(&header, &payload).err();
        self.position += header.frame_bytes();
        self.expected = header.next_offset();
        self.epoch = Some(header.leader_epoch);
        Ok(Some(FrameAt { position, header, payload, problem }))
    }

    /// Goes on behind the bad end, at the next frame that holds, whose first offset this is. `None`: none follows before this
    /// offset, with which the next segment begins.
    fn goes_on(&mut self, until: Option<Offset>) -> Result<Option<Offset>, Error> {
        let Some(bad) = &self.end else { return Ok(None) };
        let (file, from) = (&*self.file, bad.position.saturating_add(1));
        let found = scan::frame_behind(file, self.seed, self.len, from, self.expected);
        let found = found.map_err(Error::io(&*self.path, "read"))?;
        let Some((position, offset)) = found.filter(|(_, at)| until.is_none_or(|until| *at < until)) else {
            return Ok(None);
        };
        (self.position, self.expected, self.end) = (position, offset, None);
        Ok(Some(offset))
    }

    fn judge(&self, header: &FrameHeader, payload: &[u8]) -> Result<(), FrameProblem> {
        let (found, expected) = (header.base_offset, self.expected);
        if found != expected {
            return Err(FrameProblem::Offset { found, expected });
        }
        if let Some(before) = self.epoch.filter(|before| *before > header.leader_epoch) {
            return Err(FrameProblem::Epoch { found: header.leader_epoch, before });
        }
        Ok(header.verify_payload(payload)?)
    }

    fn read(&self, position: u64, len: usize) -> Result<Bytes, Error> {
        let mut buf = BytesMut::with_capacity(len);
        while buf.len() < len {
            let at = position + buf.len() as u64;
            let left = len - buf.len();
            if self.file.read_at(&mut buf, left, at).map_err(Error::io(&*self.path, "read"))? == 0 {
                break;
            }
        }
        Ok(buf.freeze())
    }
}
