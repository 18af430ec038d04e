//! The raft log on disk: votes, entries, and who this controller is. One redb database, one fsync a write.
//!
//! What must hold (correctness rule 29): a vote is on disk before `save_vote` returns; entries are on disk before
//! their callback fires; writes happen one after another, in the order of the calls, because openraft awaits each
//! before the next. `save_committed` only remembers: the committed index can always be learnt again, so it rides
//! on the next write instead of costing an fsync of its own.
//!
//! A write that fails ends the raft node, and with it the process (rule 35): the database refuses everything
//! after it, so nothing is written on top of what nobody knows.

mod backend;
mod identity;
mod row;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use prost::Message;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::watch;
use weir_cluster::Row;
use weir_io::{Access, Disk};
use weir_proto::internal::v1 as pb;
use weir_runtime::{Os, blocking};

use self::backend::Backend;
pub(crate) use self::identity::{Identity, Member, quorum};
use self::row::{LOG, META};
use crate::Error;
use crate::machine::Covered;
use crate::mutant::Mutant;
use crate::raft::{LogEntry, LogId, RaftRow, StorageError, StorageIoError, Types, Vote, optional};

/// The database's name in the controller's folder.
const FILE: &str = "raft.redb";
/// The same while it is being made: a power loss in between leaves one that is not whole.
const FILE_NEW: &str = "raft.redb.new";

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const IDENTITY: &str = "identity";

/// The database keeps so much of itself in memory, in bytes. The log between two snapshots is small.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// One read of entries for a follower stops here, in encoded bytes, to fit a message.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// What goes wrong in the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DbError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Database(#[from] redb::DatabaseError),
    #[error("{0}")]
    Transaction(#[from] redb::TransactionError),
    #[error("{0}")]
    Table(#[from] redb::TableError),
    #[error("{0}")]
    Storage(#[from] redb::StorageError),
    #[error("{0}")]
    Commit(#[from] redb::CommitError),
    #[error("what it says of \"{row}\" is not what was written: the disk has changed it")]
    Changed { row: String },
    #[error("a row cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("{0}")]
    Row(#[from] weir_cluster::RowError),
}

/// The log store. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(crate) struct LogStore(Arc<Inner>);

struct Inner {
    os: Arc<dyn Os>,
    db: Database,
    path: PathBuf,
    /// What `save_committed` said last, until a write takes it along.
    committed: Mutex<Option<LogId>>,
    /// What snapshots cover; empty where nothing is purged.
    covered: OnceLock<watch::Receiver<Covered>>,
}

/// The file that makes a folder a controller's.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl LogStore {
    /// Opens the store of a folder. A new one is made only if `new` says who it shall be.
    pub(crate) async fn open(
        os: &Arc<dyn Os>,
        dir: &Path,
        new: impl FnOnce() -> Result<Identity, Error> + Send + 'static,
    ) -> Result<(Self, Identity), Error> {
        let path = dir.join(FILE);
        let failed = |path: PathBuf| move |source: DbError| Error::Store { path, why: source.to_string() };
        let unopened =
            |path: PathBuf| move |source: DbError| Error::Unopened { path, why: source.to_string() };
        let (disk, dir) = (os.disk(), dir.to_owned());
        let opened = path.clone();
        let db = blocking(os, move || {
            if !disk.exists(&opened).map_err(DbError::from).map_err(failed(opened.clone()))? {
                create(disk.as_ref(), &dir, &new()?).map_err(failed(opened.clone()))?;
            }
            let whole = || {
                let db = database(disk.as_ref(), &opened, Access::Write)?;
                row::bring_over(&db)?;
                row::check(&db)?;
                Ok(db)
            };
            whole().map_err(unopened(opened.clone()))
        })
        .await?;
        let inner = Inner {
            os: os.clone(),
            db,
            path: path.clone(),
            committed: Mutex::new(None),
            covered: OnceLock::new(),
        };
        let store = Self(Arc::new(inner));
        let identity = store.identity().map_err(unopened(path))?;
        Ok((store, identity))
    }

    /// From now on entries are purged only once a snapshot that covers them is in its place. Raft asks for both at once,
    /// and a process that ends between the two would have neither.
    pub(crate) fn purges_what_is(&self, covered: watch::Receiver<Covered>) {
        // The first one stays.
        let _ = self.0.covered.set(covered);
    }

    /// Waits until a snapshot covers the log up to this entry. Whether one does: another one does not come if this one has
    /// failed.
    async fn is_covered(&self, upto: LogId) -> bool {
        let Some(mut covered) = self.0.covered.get().cloned() else { return true };
        let is_it = |covered: &Covered| covered.last >= Some(upto) || covered.failed;
        // Nobody puts any there any more.
        let Ok(now) = covered.wait_for(is_it).await else { return false };
        now.last >= Some(upto)
    }

    fn identity(&self) -> Result<Identity, DbError> {
        let row = self.meta::<pb::Identity>(IDENTITY)?.unwrap_or_default();
        Ok(Identity::from_wire(row)?)
    }

    /// Writes down who this controller is.
    pub(crate) async fn save_identity(&self, identity: &Identity) -> Result<(), Error> {
        let row = identity.to_wire().encode_to_vec();
        let written = self.write(move |txn| put_meta(txn, IDENTITY, &row)).await;
        written.map_err(|source| Error::Store { path: self.0.path.clone(), why: source.to_string() })
    }

    /// One transaction, on the pool for blocking work: durable when this returns. Runs to its end even if the
    /// caller is dropped.
    async fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), DbError> + Send + 'static,
    ) -> Result<(), DbError> {
        let this = self.clone();
        blocking(&self.0.os, move || {
            let txn = this.0.db.begin_write()?;
            change(&txn)?;
            let committed = *this.0.committed.lock();
            if let Some(committed) = committed {
                put_meta(&txn, COMMITTED, &committed.to_wire().encode_to_vec())?;
            }
            txn.commit()?;
            Ok(())
        })
        .await
    }

    fn meta<M: Message + Default>(&self, name: &str) -> Result<Option<M>, DbError> {
        let txn = self.0.db.begin_read()?;
        let table = txn.open_table(META)?;
        let Some(row) = table.get(name)? else { return Ok(None) };
        Ok(Some(M::decode(row::opened(name.as_bytes(), row.value())?)?))
    }

    fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, DbError> {
        let txn = self.0.db.begin_read()?;
        let table = txn.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for row in table.range((range.start_bound().cloned(), range.end_bound().cloned()))? {
            let (at, row) = row?;
            bytes += row.value().len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry(at.value(), row.value())?);
        }
        Ok(entries)
    }

    fn log_state(&self) -> Result<LogState<Types>, DbError> {
        let last_purged_log_id = optional(self.meta::<pb::LogId>(PURGED)?)?;
        let txn = self.0.db.begin_read()?;
        let table = txn.open_table(LOG)?;
        let last = match table.last()? {
            Some((at, row)) => Some(entry(at.value(), row.value())?.log_id),
            None => last_purged_log_id,
        };
        Ok(LogState { last_purged_log_id, last_log_id: last })
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.entries(range, usize::MAX).map_err(|e| StorageIoError::read_logs(AnyError::new(&e)).into())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, StorageError> {
        self.entries(start..end, READ_BYTES_MAX)
            .map_err(|e| StorageIoError::read_logs(AnyError::new(&e)).into())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        self.log_state().map_err(|e| StorageIoError::read_logs(AnyError::new(&e)).into())
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        if Mutant::VoteForgotten.is_planted() {
            return Ok(());
        }
        let row = vote.to_wire().encode_to_vec();
        let written = self.write(move |txn| put_meta(txn, VOTE, &row)).await;
        written.map_err(|e| StorageIoError::write_vote(AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let read = self.meta::<pb::RaftVote>(VOTE).and_then(|row| Ok(optional(row)?));
        read.map_err(|e| StorageIoError::read_vote(AnyError::new(&e)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        *self.0.committed.lock() = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let read = self.meta::<pb::LogId>(COMMITTED).and_then(|row| Ok(optional(row)?));
        read.map_err(|e| StorageIoError::read(AnyError::new(&e)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let stored = |entry: LogEntry| {
            let at = entry.log_id.index;
            (at, row::sealed(&row::index(at), &entry.to_wire().encode_to_vec()))
        };
        let rows: Vec<(u64, Vec<u8>)> = entries.into_iter().map(stored).collect();
        let written = self.write(move |txn| {
            let mut table = txn.open_table(LOG)?;
            for (index, row) in &rows {
                table.insert(index, row.as_slice())?;
            }
            Ok(())
        });
        match written.await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => Err(StorageIoError::write_logs(AnyError::new(&error)).into()),
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let written = self.write(move |txn| remove(txn, (Bound::Included(log_id.index), Bound::Unbounded)));
        written.await.map_err(|e| StorageIoError::write_logs(AnyError::new(&e)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        if !Mutant::PurgedUncovered.is_planted() && !self.is_covered(log_id).await {
            let why = "the snapshot that was to cover these entries could not be put in its place";
            return Err(StorageIoError::write_logs(AnyError::error(why)).into());
        }
        let written = self.write(move |txn| {
            put_meta(txn, PURGED, &log_id.to_wire().encode_to_vec())?;
            remove(txn, (Bound::Unbounded, Bound::Included(log_id.index)))
        });
        written.await.map_err(|e| StorageIoError::write_logs(AnyError::new(&e)).into())
    }
}

fn entry(at: u64, stored: &[u8]) -> Result<LogEntry, DbError> {
    Ok(LogEntry::from_wire(pb::LogRow::decode(row::opened(&row::index(at), stored)?)?)?)
}

fn remove(txn: &WriteTransaction, range: (Bound<u64>, Bound<u64>)) -> Result<(), DbError> {
    let mut table = txn.open_table(LOG)?;
    table.retain_in(range, |_, _| false)?;
    Ok(())
}

fn put_meta(txn: &WriteTransaction, name: &str, row: &[u8]) -> Result<(), DbError> {
    txn.open_table(META)?.insert(name, row::sealed(name.as_bytes(), row).as_slice())?;
    Ok(())
}

/// Makes the database beside its place, whole and durable, and moves it there: no crash leaves half of one.
fn create(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Result<(), DbError> {
    let new = dir.join(FILE_NEW);
    let db = database(disk, &new, Access::CreateOrTruncate)?;
    let txn = db.begin_write()?;
    txn.open_table(LOG)?;
    put_meta(&txn, IDENTITY, &identity.to_wire().encode_to_vec())?;
    txn.commit()?;
    drop(db);
    disk.open(&new, Access::Write)?.sync_all()?;
    disk.rename(&new, &dir.join(FILE))?;
    disk.sync_dir(dir)?;
    Ok(())
}

/// Opens the database as the disk has it. After a sync that failed the page cache shows what the disk does not hold: read
/// from there, votes and entries would count as durable that a power loss takes.
fn database(disk: &dyn Disk, path: &Path, access: Access) -> Result<Database, DbError> {
    let file = disk.open(path, access)?;
    file.drop_cache(0, file.len()?)?;
    let backend = Backend::new(file);
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend)?)
}
