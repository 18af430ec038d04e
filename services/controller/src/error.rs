//! Why a controller does not start, or stops.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use weir_cluster::RowError;

/// Why a controller does not start, or stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder belongs to another process.
    #[error(
        "the controller's folder {path} is in use by another process ({owner}): stop it, or use another folder"
    )]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it: a process id.
        owner: String,
    },
    /// The folder cannot be used.
    #[error("the controller's folder {path} cannot be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An empty folder, and no word on which cluster it shall belong to.
    #[error(
        "{} holds no controller, and an empty folder becomes one only if it is said which: the first of a new cluster \
         (--bootstrap true, once), or another one of a cluster that runs (--join HOST:PORT of those that run). If it \
         had one, is a disk not mounted? Bring it back. Nothing was made", path.display()
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// It has asked a quorum for a place and has got none, and is not told to ask again.
    #[error(
        "{} is of a controller that has asked a quorum for a place and has got none yet: start it with --join HOST:PORT of \
         controllers that run. If it is to be something else, take the folder away: there is nothing in it but the id that it \
         has asked by", path.display()
    )]
    Unplaced {
        /// The folder.
        path: PathBuf,
    },
    /// The address cannot be listened on.
    #[error("{source} (controller_listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said; names the address.
        source: io::Error,
    },
    /// The log store failed. What it was writing may be there or not.
    #[error("the raft log in {path} failed: {why}")]
    Store {
        /// The database.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// The log store cannot be opened. Nothing was changed.
    #[error(
        "{path} cannot be opened ({why}): it holds the cluster's metadata (topics, settings, who leads) and nothing was \
         changed in it; check the disk. If it is lost: one controller of several gets an empty folder and joins again (never \
         an older copy, which has forgotten its votes); the only one has to bring the folder {} back from a backup. Records \
         are not in it: `weir segment dump` reads them without it", path.parent().unwrap_or(path).display()
    )]
    Unopened {
        /// The database.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// A snapshot cannot be read. Nothing was deleted.
    #[error(
        "snapshot {path} is damaged ({why}): nothing was deleted; restore the file, or give this controller an empty folder and let it join again"
    )]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A snapshot could not be read or written.
    #[error("snapshot {path}: {source}")]
    SnapshotIo {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The cluster is at a feature level that this version does not understand.
    #[error(
        "the cluster is at feature level {level}, this version understands {understood}: start a newer one"
    )]
    Newer {
        /// The cluster's level.
        level: i32,
        /// The highest this version understands.
        understood: i32,
    },
    /// There is no controller in the folder.
    #[error("{path} holds no controller: name the folder that has a raft.redb in it")]
    NoController {
        /// The folder.
        path: PathBuf,
    },
    /// A row that this version does not understand.
    #[error("{0}")]
    Row(#[from] RowError),
    /// Raft stopped for ever.
    #[error("raft stopped: {0}")]
    Raft(String),
    /// A task without which it is worth nothing has ended.
    #[error("{0}")]
    Task(String),
    /// The network server failed.
    #[error("the controller's listener failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The cluster could not be initialised.
    #[error("the cluster could not be initialised: {0}")]
    Bootstrap(String),
    /// The configuration is not possible.
    #[error("{field} is {given}: {wanted}")]
    Config {
        /// The field.
        field: &'static str,
        /// What it is.
        given: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// The process is stopping.
    #[error("the process is stopping")]
    Stopping,
}
