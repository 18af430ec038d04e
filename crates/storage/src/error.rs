//! Why a log directory or a partition cannot be used.
//!
//! What an error says may be sent to clients. So a path in it has a `*` where the name of a partition's folder has its
//! incarnation ([`crate::Seed`] says why): a shell finds the file by it, for there is no other one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_types::{Incarnation, LeaderEpoch, Offset, PartitionId, TopicId};

use crate::segment::is_no_handle;

/// An operation on a directory or a partition failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The system said no.
    #[error("{}: {what}: {source}", shown(path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Another process has the directory.
    #[error("{}: in use by process {pid}: stop it first, or give this one another directory", shown(path))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// Another broker's directory.
    #[error("{}: belongs to {found}, this is {expected}: give each broker its own directory", shown(path))]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        expected: String,
    },
    /// Written by a newer Weir.
    #[error(
        "{}: format version {found} is newer than {known}, the newest this program knows: use a newer weir",
        shown(path)
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Not something that Weir wrote, or not any more.
    #[error("{}: damaged: {what}", shown(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// It exists already.
    #[error("partition {0} exists in this directory")]
    Exists(PartitionId),
    /// The partition or directory was closed.
    #[error("the partition or its directory is closed")]
    Closed,
    /// The offset is not one that this can be done at.
    #[error("offset {given} is out of range: it must be between {min} and {max}")]
    OutOfRange {
        /// What was given.
        given: Offset,
        /// The smallest allowed.
        min: Offset,
        /// The largest allowed.
        max: Offset,
    },
    /// A leadership that is over: the log has frames of a later one.
    #[error(
        "leader epoch {given} is over, the log has frames of epoch {last}: whoever gave it knows less than the log; \
         bring the metadata up to date"
    )]
    StaleEpoch {
        /// What was given.
        given: LeaderEpoch,
        /// The epoch of the log's last frame.
        last: LeaderEpoch,
    },
    /// A log is cut by the leader that it follows alone.
    #[error("the cut was asked for by leader epoch {given}, and this replica follows {follows:?}")]
    NotFollowed {
        /// The leadership that asked.
        given: LeaderEpoch,
        /// The one that is followed.
        follows: Option<LeaderEpoch>,
    },
    /// What another replica says of its log's start cannot be used.
    #[error("the state that a log is to begin with cannot be used: {0}")]
    StartState(&'static str),
    /// A write or sync failed before: this process is ending.
    #[error("an earlier write or sync failed: this process has to end")]
    Failed,
}

impl Error {
    /// Whether it is only that the disk is full: it passes once there is room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source))
    }

    /// Whether it is only want of space or of a descriptor, which says nothing against the disk.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_space(source) || is_no_handle(source))
    }

    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn io(path: impl Into<PathBuf>, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, what, source: Arc::new(source) }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), what: what.into() }
    }
}

/// A path as anybody may see it.
pub(crate) fn shown(path: &Path) -> String {
    let hide = |name: &str| {
        // NAME-PARTITION.TOPIC_ID.INCARNATION, and what is set aside or deleted has more behind it.
        let mut follows_topic = false;
        let parts = name.split('.').map(|part| {
            let is_hidden = follows_topic && part.parse::<Incarnation>().is_ok();
            follows_topic = part.parse::<TopicId>().is_ok();
            if is_hidden { "*" } else { part }
        });
        parts.collect::<Vec<_>>().join(".")
    };
    let shown: PathBuf = path.iter().map(|part| hide(&part.to_string_lossy())).collect();
    shown.display().to_string()
}

pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There is no such offset here.
    #[error("the offset is out of range: the log holds {log_start} to {end}")]
    OutOfRange {
        /// The first offset there is.
        log_start: Offset,
        /// The end of what may be read.
        end: Offset,
    },
    /// What lies there is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// The system cannot read the file.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// The partition cannot be read.
    #[error("offline: {0}")]
    Offline(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_tells_an_incarnation() {
        let folder = "/data/a-b_c-3.0000000000000000000000000000feed.8826140cede5d72d";
        let hidden = "/data/a-b_c-3.0000000000000000000000000000feed.*";
        for behind in ["", "/00000000000000000000.log", ".deleted", ".1700000000000.stray/x.seal"] {
            let path = PathBuf::from(format!("{folder}{behind}"));
            for error in [Error::damaged(&*path, "what"), Error::io(&*path, "open")(io::Error::other("no"))] {
                let said = error.to_string();
                assert!(said.starts_with(&format!("{hidden}{behind}: ")), "{said}");
            }
        }
        assert_eq!(shown(Path::new("data/checkpoint.tmp")), "data/checkpoint.tmp");
    }
}
