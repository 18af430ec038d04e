//! The folder that `data_dir` names, looked at before anything is made in it. Whoever has mistyped leaves nothing behind,
//! and nothing is made empty in the place of something that is missing.
//!
//! ```text
//!   <data dir>/controller      of a controller
//!   <data dir>/logs            of a broker; standalone has both
//! ```

use std::io;
use std::path::{Path, PathBuf};

use weir_io::Disk;

/// Where a controller's files are, below the data directory.
pub const CONTROLLER_DIR: &str = "controller";
/// Where a broker's logs are.
pub const LOG_DIR: &str = "logs";
/// What a controller's directory holds, and nothing else does.
pub const RAFT_FILE: &str = "raft.redb";
/// The same of a log directory.
const LOG_DIR_FILE: &str = "dir.json";
/// What a controller's directory holds before it holds anything.
const LOCK: &str = "lock";
/// What may lie in a folder that becomes a data directory: what an interrupted first start leaves (the logs look for
/// strangers themselves), what a file system keeps at its root, the configuration. So may hidden files.
const BESIDE: [&str; 4] = [CONTROLLER_DIR, LOG_DIR, "lost+found", "weir.toml"];
/// How many of somebody else's files are named.
const NAMED: usize = 3;

/// Why a folder is not taken for a data directory. Nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or looked into.
    #[error("cannot use the data directory {}: {error}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is a part of another one.
    #[error(
        "{} is not a data directory but {part} of one: start with --data-dir {}", path.display(), parent.display()
    )]
    Inside {
        /// What was given.
        path: PathBuf,
        /// What it is.
        part: &'static str,
        /// The data directory it belongs to.
        parent: PathBuf,
    },
    /// It is the folder of another process's data, or will be.
    #[error(
        "{} holds the data of {owner} ({holds}), and {asker} takes none beside it: name another folder with --data-dir, \
         one that is empty or not there yet for a first start, or start {program} on this one. Nothing was made", path.display()
    )]
    Others {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: &'static str,
        /// What in it says so.
        holds: &'static str,
        /// Who was to use it.
        asker: &'static str,
        /// What uses it.
        program: &'static str,
    },
    /// There is nothing of Weir in the folder, but something else.
    #[error(
        "{} holds no cluster but other files ({}), and none is made beside them: name a folder that is empty or not \
         there yet with --data-dir. Nothing was made; if a cluster was here, its {CONTROLLER_DIR} and {LOG_DIR} are \
         gone: bring them back", path.display(), found.join(", ")
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// The first of what is in it, and how many more there are.
        found: Vec<String>,
    },
}

/// The folder by its whole path.
///
/// # Errors
/// [`Error::Unusable`].
pub fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::Unusable { path: path.to_owned(), error })
}

/// Whether there is something of this name.
///
/// # Errors
/// [`Error::Unusable`].
pub fn exists(disk: &dyn Disk, path: &Path) -> Result<bool, Error> {
    disk.exists(path).map_err(|error| Error::Unusable { path: path.to_owned(), error })
}

/// Refuses a part of a data directory: whatever started in there would be new and empty, beside the records.
///
/// # Errors
/// [`Error::Inside`].
pub fn check_whole(disk: &dyn Disk, data_dir: &Path) -> Result<(), Error> {
    for (file, part) in [(LOG_DIR_FILE, "the log directory"), (RAFT_FILE, "the controller's directory")] {
        if exists(disk, &data_dir.join(file))? {
            let parent = data_dir.parent().unwrap_or(data_dir).to_owned();
            return Err(Error::Inside { path: data_dir.to_owned(), part, parent });
        }
    }
    Ok(())
}

/// A process that has a data directory to itself, but for `weir standalone`, which is both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// `weir-broker`.
    Broker,
    /// `weir-controller`.
    Controller,
}

/// Refuses a data directory of another kind of process: its owner comes back one day, and takes everything in it for its
/// own.
///
/// # Errors
/// [`Error::Others`].
pub fn check_owner(disk: &dyn Disk, data_dir: &Path, asker: Of) -> Result<(), Error> {
    let controller = exists(disk, &data_dir.join(CONTROLLER_DIR).join(RAFT_FILE))?;
    let broker = exists(disk, &data_dir.join(LOG_DIR).join(LOG_DIR_FILE))?;
    let path = data_dir.to_owned();
    let (owner, holds, program) = match (controller, broker) {
        (true, true) => (
            "a controller and of a broker, which `weir standalone` has together",
            "controller/raft.redb, logs/dir.json",
            "`weir standalone`",
        ),
        (true, false) if asker == Of::Broker => ("a controller", "controller/raft.redb", "weir-controller"),
        (false, true) if asker == Of::Controller => ("a broker", "logs/dir.json", "weir-broker"),
        _ => return Ok(()),
    };
    let asker = if asker == Of::Broker { "a broker" } else { "a controller" };
    Err(Error::Others { path, owner, holds, asker, program })
}

/// Refuses a folder that somebody uses for something else: a mistyped path must not mix a cluster with their files. For
/// whoever finds none of his own there.
///
/// # Errors
/// [`Error::NotEmpty`].
pub fn check_unused(disk: &dyn Disk, data_dir: &Path) -> Result<(), Error> {
    let failed = |error| Error::Unusable { path: data_dir.to_owned(), error };
    let names = |dir: &Path| -> Result<Vec<String>, Error> {
        let entries = if exists(disk, dir)? { disk.list(dir).map_err(failed)? } else { Vec::new() };
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    };
    let mut found = names(data_dir)?;
    found.retain(|name| !name.starts_with('.') && !BESIDE.contains(&name.as_str()));
    let of_controller = names(&data_dir.join(CONTROLLER_DIR))?.into_iter();
    let strangers = of_controller.filter(|name| !name.starts_with("raft.") && name != LOCK);
    found.extend(strangers.map(|name| format!("{CONTROLLER_DIR}/{name}")));
    if found.is_empty() {
        return Ok(());
    }
    found.sort();
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    Err(Error::NotEmpty { path: data_dir.to_owned(), found })
}
