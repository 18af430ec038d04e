//! The small files of a log directory: whose it is, who uses it, how it was left.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weir_io::{Disk, LockError, LockGuard};
use weir_runtime::Os;
use weir_types::{BrokerId, DirectoryId, ParseIdError};

use crate::config::DirIdentity;
use crate::error::Error;

/// The newest format of a directory that this program knows.
const FORMAT_VERSION: u32 = 1;

/// These files are small; one that is not is not ours.
const BYTES_MAX: usize = 64 << 10;

pub(crate) const DIR_JSON: &str = "dir.json";
pub(crate) const LOCK: &str = "lock";
pub(crate) const CLEAN: &str = "clean";
pub(crate) const BROKER_EPOCH: &str = "broker-epoch";
pub(crate) const METADATA_VERSION: &str = "metadata-version";
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// `dir.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub(crate) struct DirFile {
    pub(crate) format_version: u32,
    pub(crate) directory_id: String,
    /// Nobody's until a broker has got its id.
    pub(crate) identity: Option<DirIdentity>,
}

/// It, as it is in the file: all of an identity, or nothing of it.
#[derive(Serialize, Deserialize)]
struct Fields {
    format_version: u32,
    directory_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broker_id: Option<i32>,
}

impl TryFrom<Fields> for DirFile {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields { format_version, directory_id, cluster_id, broker_id } = fields;
        let identity = match (cluster_id, broker_id) {
            (Some(cluster), Some(broker)) => {
                let cluster = cluster.parse().map_err(|error: ParseIdError| error.to_string())?;
                Some(DirIdentity::new(cluster, BrokerId(broker)))
            }
            (None, None) => None,
            (cluster, _) => {
                let missing = if cluster.is_some() { "broker_id" } else { "cluster_id" };
                return Err(format!("it is somebody's, and its {missing} is missing"));
            }
        };
        Ok(Self { format_version, directory_id, identity })
    }
}

impl From<DirFile> for Fields {
    fn from(DirFile { format_version, directory_id, identity }: DirFile) -> Self {
        let (cluster_id, broker_id) = identity.map(|of| (of.cluster_id.to_string(), of.broker_id)).unzip();
        Self { format_version, directory_id, cluster_id, broker_id }
    }
}

/// `broker-epoch`, and what `clean` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerEpoch {
    /// The epoch of the broker that used the directory last.
    pub broker_epoch: i64,
    /// The kernel's boot id at the time; empty if unknown.
    pub boot_id: String,
}

/// `metadata-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MetadataVersion {
    pub(crate) metadata_version: i64,
    /// Who wrote that version; 0: not known.
    #[serde(default)]
    pub(crate) author: u64,
}

/// Locks the directory for this process.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, Error> {
    disk.lock(&dir.join(LOCK), &std::process::id().to_string()).map_err(|error| match error {
        LockError::Held(pid) => Error::Locked { path: dir.to_owned(), pid },
        LockError::Io(source) => Error::io(dir.join(LOCK), "lock")(source),
    })
}

/// Reads a small JSON file. `None`: it is not there.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(
    disk: &dyn Disk,
    path: &Path,
) -> Result<Option<T>, Error> {
    let bytes = match disk.read(path, BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "read")(error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let advice = advice(path);
        Error::damaged(path, format!("it is no JSON that makes sense ({error}){advice}"))
    })
}

/// What a small file is for, and what to do when it is not readable: it is replaced whole, so this is no torn write, the
/// disk has lost what it had.
fn advice(path: &Path) -> &'static str {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(DIR_JSON) => {
            ": it says whose directory this is. Nothing was changed; check the disk, and bring this file back from a \
             backup; `weir segment dump` shows what the logs hold"
        }
        Some(BROKER_EPOCH) => {
            ": it says how far this directory had come when it was last used, so that an older copy of it is never \
             taken for the newest. Nothing was changed; check the disk, and bring this file back from a backup"
        }
        Some(METADATA_VERSION) => {
            ": it says how much of the cluster's metadata was acted upon, so that nothing older is followed. Nothing \
             was changed; check the disk, and bring this file back from a backup"
        }
        _ => "",
    }
}

pub(crate) fn write_json(disk: &dyn Disk, path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|error| Error::damaged(path, error.to_string()))?;
    bytes.push(b'\n');
    disk.replace_durably(path, &bytes).map_err(Error::io(path, "write"))
}

/// Whose a log directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// There is no log directory in this folder, and nothing else; or there is no such folder.
    Nobodys,
    /// A log directory of no broker yet: a first start was interrupted.
    Unclaimed,
    /// A broker's.
    Of(DirIdentity),
}

/// Looks whose directory a folder is. Changes nothing, also where another process uses it.
///
/// # Errors
/// It is none that this program could open: what is in it is damaged, newer, or something else.
pub fn whose(disk: &dyn Disk, dir: &Path) -> Result<Whose, Error> {
    if !disk.exists(dir).map_err(Error::io(dir, "stat"))? {
        return Ok(Whose::Nobodys);
    }
    Ok(match read(disk, dir)? {
        None => Whose::Nobodys,
        Some(DirFile { identity: None, .. }) => Whose::Unclaimed,
        Some(DirFile { identity: Some(identity), .. }) => Whose::Of(identity),
    })
}

/// What `dir.json` says, or what it says from now on.
pub(crate) fn open(os: &dyn Os, dir: &Path, expected: Option<&DirIdentity>) -> Result<DirFile, Error> {
    let disk = &*os.disk();
    let path = dir.join(DIR_JSON);
    let Some(file) = read(disk, dir)? else {
        let id = DirectoryId(os.random_u128());
        let file = DirFile {
            format_version: FORMAT_VERSION,
            directory_id: id.to_string(),
            identity: expected.cloned(),
        };
        write_json(disk, &path, &file)?;
        return Ok(file);
    };
    if let (Some(found), Some(expected)) = (&file.identity, expected)
        && found != expected
    {
        return Err(foreign(path, found, expected));
    }
    Ok(file)
}

/// `dir.json`. `None`: it is not there, and nothing else either.
fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<DirFile>, Error> {
    let path = dir.join(DIR_JSON);
    let Some(value) = read_json::<serde_json::Value>(disk, &path)? else {
        refuse_strangers(disk, dir)?;
        return Ok(None);
    };
    let damaged = |what: String| {
        let advice = advice(&path);
        Error::damaged(&*path, format!("{what}{advice}"))
    };
    let version = value.get("format_version").and_then(serde_json::Value::as_u64);
    let found = version
        .and_then(|version| u32::try_from(version).ok())
        // There never was a version 0.
        .filter(|version| *version > 0)
        .ok_or_else(|| damaged("its format_version is missing or none that there ever was".to_owned()))?;
    if found > FORMAT_VERSION {
        return Err(Error::Newer { path, found, known: FORMAT_VERSION });
    }
    serde_json::from_value(value).map(Some).map_err(|error| damaged(error.to_string()))
}

pub(crate) fn foreign(path: PathBuf, found: &DirIdentity, expected: &DirIdentity) -> Error {
    Error::Foreign { path, found: found.to_string(), expected: expected.to_string() }
}

/// A folder with other things in it is not made a log directory: somebody has mistyped a path, or `dir.json` is lost.
fn refuse_strangers(disk: &dyn Disk, dir: &Path) -> Result<(), Error> {
    let entries = disk.list(dir).map_err(Error::io(dir, "list"))?;
    // What a file system puts there itself, and what an interrupted first start leaves.
    let ours = [LOCK, "lost+found", "dir.json.tmp"];
    match entries.iter().find(|entry| !ours.contains(&entry.name.as_str())) {
        Some(stranger) => Err(Error::damaged(
            dir,
            format!(
                "it holds \"{}\" but no {DIR_JSON}: give an empty directory, or bring {DIR_JSON} back",
                stranger.name
            ),
        )),
        None => Ok(()),
    }
}
