//! `weir segment`: a look at the files of a log directory, without a server. Reads only.

mod dump;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use weir_io::Disk;
use weir_storage::inspect::{self, Directory, PartitionFiles};

use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::session::Session;

/// Where a standalone keeps its logs, below the data directory.
const LOGS: &str = "logs";
/// The file that makes a folder a log directory.
const MARK: &str = "dir.json";

/// Look at log files without a server
#[derive(Debug, Args)]
#[command(after_help = "\
Files are only read. Those of a running server may change meanwhile: what looks torn at the end of
the last segment may just be on its way.

What is kept beside the logs (*.damaged: damaged logs, and what was cut off them; *.stray: of topics
that are deleted) is looked at by its folder's path.

Examples:
  $ weir segment verify ./weir-data
  $ weir segment dump ./weir-data
  $ weir segment dump ./weir-data flights/0 --records -n 3")]
pub(crate) struct Segment {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "show")]
    Dump(dump::Dump),
    #[command(alias = "check")]
    Verify(verify::Verify),
}

impl Segment {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Dump(command) => command.run(session),
            Command::Verify(command) => command.run(session),
        }
    }
}

/// What to look at.
#[derive(Debug, Args)]
struct Place {
    /// The data directory of a server, a log directory in it, a partition's folder in that (also one that is kept: .damaged,
    /// .stray), or one segment (a .log)
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Of a directory only these topics or partitions
    #[arg(value_name = "TOPIC[/PARTITION]")]
    what: Vec<Reference>,
}

/// What was found there.
#[derive(Debug)]
struct Found {
    /// The directory, where a whole one is meant.
    directory: Option<Directory>,
    /// The partitions that are wanted.
    partitions: Vec<PartitionFiles>,
}

impl Place {
    fn open(&self, disk: &dyn Disk) -> Result<Found> {
        if let Some(record) = self.what.iter().find(|what| what.offset.is_some()) {
            return Err(Error::Usage(format!(
                "{record} is a record: name its partition, and --from its offset"
            )));
        }
        if let Some(files) = partition(disk, &self.path)? {
            let (path, what) = (self.path.display(), &self.what);
            if let Some(other) = what.iter().find(|what| !is_of(&files, what)) {
                return Err(Error::NotFound(format!("{path} is of {}, not of {other}", name(&files))));
            }
            return Ok(Found { directory: None, partitions: vec![files] });
        }
        let path = log_dir(disk, &self.path)?;
        let mut directory =
            inspect::directory(disk, &path).map_err(|error| Error::Failed(error.to_string()))?;
        for what in &self.what {
            if !directory.partitions.iter().any(|files| is_of(files, what)) {
                return Err(Error::NotFound(format!("{} holds no {what}", path.display())));
            }
        }
        let mut partitions = std::mem::take(&mut directory.partitions);
        partitions.retain(|files| self.what.is_empty() || self.what.iter().any(|what| is_of(files, what)));
        partitions.sort_by_key(name);
        Ok(Found { directory: Some(directory), partitions })
    }
}

/// The partition whose folder a path is, or of which it is a segment: then with that alone.
fn partition(disk: &dyn Disk, path: &Path) -> Result<Option<PartitionFiles>> {
    let inspected = |folder: &Path| {
        // The name says which partition it is, and "." says nothing.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        inspect::partition(disk, &folder).map_err(|error| Error::Failed(error.to_string()))
    };
    if path.is_dir() {
        let mut found = inspected(path)?;
        if let Some(files) = &mut found {
            files.checkpoint = noted(disk, files);
        }
        return Ok(found);
    }
    let Some(base) = inspect::segment_base(path).filter(|_| path.is_file()) else { return Ok(None) };
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match inspected(folder)? {
        Some(files) => Ok(Some(PartitionFiles { segments: vec![base], ..files })),
        None => Err(Error::Failed(format!(
            "{} is a segment, but the name of its folder does not say of which partition, and its checksums are \
             made with that: keep it in a folder called as it was, TOPIC-PARTITION.TOPIC_ID.INCARNATION (and what ends that, if it was .damaged or \
             .stray)",
            path.display()
        ))),
    }
}

/// What the checkpoint of the log directory around it says of a partition, if it lies in one.
fn noted(disk: &dyn Disk, files: &PartitionFiles) -> Option<inspect::CheckpointEntry> {
    let directory = inspect::directory(disk, files.path.parent()?).ok()?;
    directory.partitions.into_iter().find(|other| other.path == files.path)?.checkpoint
}

/// The log directory that a path leads to.
fn log_dir(disk: &dyn Disk, path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        for dir in [path.to_owned(), path.join(LOGS)] {
            let there = disk.exists(&dir.join(MARK));
            if there.map_err(|source| Error::Io { what: format!("cannot read {}", dir.display()), source })? {
                return Ok(dir);
            }
        }
    }
    Err(Error::NotFound(format!("{} {}; {TAKEN}", path.display(), nothing_of_ours(path))))
}

/// What to give instead.
const TAKEN: &str = "give the data directory of a server, the logs directory in it, the folder of a partition in \
                     that, or a segment (a .log) in such a folder";

/// What is wrong with a path that leads to no log directory, partition or segment.
fn nothing_of_ours(path: &Path) -> String {
    let extension = path.extension().and_then(|extension| extension.to_str());
    if path.is_dir() {
        format!(
            "is no log directory (there is no {MARK} in it, nor in {LOGS}/ below it) and no partition's folder"
        )
    } else if !path.exists() {
        "is not there".to_owned()
    } else if extension == Some("seal") {
        "is what the server notes beside a segment, and is checked with it".to_owned()
    } else {
        "is a file, and no segment: those are called as 00000000000000000000.log".to_owned()
    }
}

/// A partition's name, from its folder's: the topic there is cut at 100 letters, and for people.
fn name(files: &PartitionFiles) -> String {
    let (topic, partition) = (topic(files), files.id.partition);
    format!("{topic}/{partition}")
}

fn topic(files: &PartitionFiles) -> String {
    let folder = files.path.file_name().unwrap_or_default().to_string_lossy();
    let folder = inspect::log_name(&folder);
    // NAME-PARTITION.TOPIC_ID.INCARNATION, and a name may hold dots and hyphens.
    let front = folder.rsplitn(3, '.').nth(2).unwrap_or_default();
    front.rsplit_once('-').map_or(front, |(topic, _)| topic).to_owned()
}

fn is_of(files: &PartitionFiles, what: &Reference) -> bool {
    let topic = topic(files);
    let named = what.topic == topic || (topic.len() >= 100 && what.topic.starts_with(&topic));
    named && what.partition.is_none_or(|partition| partition == files.id.partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_types::{Incarnation, PartitionId, TopicId};

    fn files(folder: &str, partition: i32) -> PartitionFiles {
        PartitionFiles {
            id: PartitionId { topic: TopicId(1), partition },
            incarnation: Incarnation(2),
            path: Path::new("/d").join(folder),
            checkpoint: None,
            segments: Vec::new(),
        }
    }

    #[test]
    fn a_partition_is_named_by_its_folder() {
        let odd = files("a-b.c-3.00000000000000000000000000000001.0000000000000002", 3);
        assert_eq!(name(&odd), "a-b.c/3");
        for kept in ["damaged", "g2-120-132.damaged", "1795364505480.stray"] {
            let kept = format!("{}.{kept}", odd.path.display());
            assert_eq!(name(&files(&kept, 3)), "a-b.c/3", "{kept}");
        }
        for (what, is) in [("a-b.c", true), ("a-b.c/3", true), ("a-b.c/4", false), ("a-b", false)] {
            assert_eq!(is_of(&odd, &what.parse().unwrap()), is, "{what}");
        }
    }

    #[test]
    fn a_long_name_is_known_by_its_beginning() {
        let long = "x".repeat(120);
        let cut = files(&format!("{}-0.{:032x}.{:016x}", &long[..100], 1, 2), 0);
        assert!(is_of(&cut, &Reference { topic: long, partition: None, offset: None }));
    }
}
