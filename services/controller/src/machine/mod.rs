//! The state machine: what the committed log adds up to, in memory, with snapshots on disk.

mod hub;
#[cfg(test)]
mod round_trip;
pub(crate) mod snapshot;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::entry::EntryPayload;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use weir_metadata::{Command, FEATURE_LEVEL, Reply, State};
use weir_runtime::{Os, blocking};

pub(crate) use self::hub::{Hub, News, Start};
pub(crate) use self::snapshot::SnapshotFile;
use crate::Error;
use crate::mutant::Mutant;
use crate::raft::{
    Answer, LogEntry, LogId, Raft, SnapshotMeta, StorageError, StorageIoError, StoredMembership, Types,
    version_of,
};

/// With fewer commands since the last snapshot an orderly stop makes none: applying them again is as fast.
const LAST_SNAPSHOT: u64 = 500;

/// The state machine. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    os: Arc<dyn Os>,
    dir: PathBuf,
    hub: Hub,
    applied: Mutex<Applied>,
    /// The newest finished snapshot. Held while one is put in its place, so that they are put there in order.
    current: Mutex<Option<(SnapshotMeta, SnapshotFile)>>,
    covered: watch::Sender<Covered>,
    /// Entries and commands applied since the last snapshot was begun.
    since_snapshot: AtomicU64,
    /// Rings when there were enough of them.
    snapshot_due: Notify,
    snapshot_commands: u64,
}

/// What snapshots in their places cover: the log need not keep it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Covered {
    pub(crate) last: Option<LogId>,
    /// One that came could not be put there: there will be no more.
    pub(crate) failed: bool,
}

#[derive(Clone, Debug, Default)]
struct Applied {
    state: State,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// The state of the newest snapshot in a folder, or none at all.
    pub(crate) async fn open(os: &Arc<dyn Os>, dir: &Path, snapshot_commands: u64) -> Result<Self, Error> {
        let (disk, folder) = (os.disk(), dir.to_owned());
        let loaded = blocking(os, move || {
            let failed = |source| Error::SnapshotIo { path: folder.clone(), source };
            let newest = snapshot::finished(disk.as_ref(), &folder).map_err(failed)?.pop();
            let loaded = match newest {
                None => None,
                Some(path) => {
                    let file = disk
                        .open(&path, weir_io::Access::Read)
                        .map_err(|source| Error::SnapshotIo { path: path.clone(), source })?;
                    let file = SnapshotFile { path, file, checked: None };
                    Some((snapshot::read(&file)?, file))
                }
            };
            snapshot::remove_unfinished(disk.as_ref(), &folder).map_err(failed)?;
            Ok::<_, Error>(loaded)
        })
        .await?;
        let (applied, current) = match loaded {
            None => (Applied::default(), None),
            Some((loaded, file)) => (applied(loaded.state, &loaded.meta), Some((loaded.meta, file))),
        };
        understood(&applied.state)?;
        Ok(Self(Arc::new(Inner {
            os: os.clone(),
            dir: dir.to_owned(),
            hub: Hub::new(applied.state.image.clone()),
            covered: watch::Sender::new(Covered { last: applied.last, failed: false }),
            applied: Mutex::new(applied),
            current: Mutex::new(current),
            since_snapshot: AtomicU64::new(0),
            snapshot_due: Notify::new(),
            snapshot_commands,
        })))
    }

    /// What snapshots cover, from now on.
    pub(crate) fn covered(&self) -> watch::Receiver<Covered> {
        self.0.covered.subscribe()
    }

    /// Where images and changes are handed out.
    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Whether it was decided that this controller, which asks for a vote with a log of this end, is in the quorum no more.
    ///
    /// Who stands has voted in a membership of its own log. Where what was decided last is newer than all of that log, it came
    /// after that membership, and nothing is decided in that log that is not here. Where it is not newer, whoever asks may
    /// have been added since, by somebody who has died: nothing is known of it then.
    pub(crate) fn has_taken_out(&self, candidate: u64, last: Option<LogId>) -> bool {
        let applied = self.0.applied.lock();
        let decided = &applied.membership;
        decided.membership().get_node(&candidate).is_none() && *decided.log_id() > last
    }

    /// Who votes, as was decided: a controller of which a change of voters is not finished does not yet, or not any more.
    /// Between its two entries a majority of the voters before it is needed as well, so that whoever counts the new one in
    /// would think that more may die than do.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        in_all(self.0.applied.lock().membership.membership().get_joint_config())
    }

    /// Whether a command may be written into the log at the cluster's feature level: below the one it needs, some
    /// controller would not understand it. Judged by whoever proposes, never where it is applied, which must be the same
    /// everywhere (correctness rule D4).
    pub(crate) fn allows(&self, command: &Command) -> Result<(), weir_metadata::Error> {
        // Before there is a cluster its first command is the one that says the level.
        let (needed, current) = (command.feature_level(), self.0.hub.image().feature_level().max(1));
        if needed <= current || Mutant::AnyLevel.is_planted() {
            return Ok(());
        }
        let what = match command {
            Command::SetClusterConfig(_) => "to change settings only from expected values",
            Command::StopBroker(_) => "to remember that a broker was stopped in order",
            Command::RemoveBroker(_) | Command::LoseBroker(_) => "to remove a broker",
            Command::SetSlow(_) => "to let a slow broker stand back",
            Command::ReportDamage(_) => "to give up what was found damaged",
            Command::FailDirectory(_) | Command::TrustBroker(_) => "to remember failed directories",
            Command::RemoveController(_) => "to remove a controller",
            Command::ElectPreferred(_) => "to elect preferred leaders",
            Command::RecoverPartitions(_) => "to let the longest log lead",
            _ => "this change",
        };
        Err(weir_metadata::Error::LevelTooLow { what, needed, current })
    }

    /// What a command would answer now.
    pub(crate) fn try_out(&self, command: &Command) -> Result<Reply, weir_metadata::Error> {
        self.allows(command)?;
        let now = self.0.os.wall_ms();
        self.0.applied.lock().state.try_out(now, command)
    }

    /// A file for a snapshot that is being received.
    pub(crate) async fn receive(&self) -> Result<SnapshotFile, Error> {
        let (disk, dir) = (self.0.os.disk(), self.0.dir.clone());
        let name = format!("receiving-{:016x}", self.0.os.random_u64());
        blocking(&self.0.os, move || snapshot::create(disk.as_ref(), &dir, &name)).await
    }

    /// Whether what was received is whole. Raft is given nothing else: a stream that broke off would end the process,
    /// which has to stop where its own disk is damaged (correctness rule 32), not where another one's call has ended. It is
    /// durable then, and what is in it is kept: while raft installs it, it answers nobody, neither who leads nor who stands.
    pub(crate) async fn check_received(
        &self,
        file: &mut SnapshotFile,
        meta: &SnapshotMeta,
    ) -> Result<(), Error> {
        let (received, meta) = (file.clone(), meta.clone());
        let read = blocking(&self.0.os, move || snapshot::read_received(&received, &meta)).await;
        file.checked = Some(read?);
        Ok(())
    }

    fn apply_one(&self, entry: LogEntry) -> Answer {
        let mut applied = self.0.applied.lock();
        applied.last = Some(entry.log_id);
        let (mut outcomes, mut amount) = (Vec::new(), 1);
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(commands) => {
                amount += commands.commands.len() as u64;
                let done = applied.state.apply(version_of(entry.log_id.index), &commands);
                outcomes = done.outcomes;
                if let Some(delta) = done.delta {
                    self.0.hub.publish(applied.state.image.clone(), delta);
                }
            }
        }
        if self.0.since_snapshot.fetch_add(amount, Ordering::Relaxed) + amount >= self.0.snapshot_commands {
            self.0.snapshot_due.notify_one();
        }
        Answer { version: applied.state.image.version(), outcomes }
    }

    /// Makes a snapshot whenever enough commands have come. Ends with raft.
    pub(crate) async fn make_snapshots(self, raft: Raft) {
        loop {
            self.0.snapshot_due.notified().await;
            if self.0.since_snapshot.load(Ordering::Relaxed) < self.0.snapshot_commands {
                continue;
            }
            self.0.since_snapshot.store(0, Ordering::Relaxed);
            if raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }

    /// Before an orderly stop: a snapshot, so that the next start has little to apply. Waits until it is there.
    pub(crate) async fn make_last_snapshot(&self, raft: &Raft) {
        if self.0.since_snapshot.load(Ordering::Relaxed) < LAST_SNAPSHOT {
            return;
        }
        let upto = self.0.applied.lock().last;
        if raft.trigger().snapshot().await.is_ok() {
            // Fails only if raft has ended: then there is none.
            let _ = raft.metrics().wait_for(|metrics| metrics.snapshot >= upto).await;
        }
    }

    /// Puts a finished file in its place, unless a newer snapshot is there by now: then the newer one stays, and
    /// the file is dropped before it gets a name (correctness rule 32).
    fn put(
        &self,
        meta: SnapshotMeta,
        file: SnapshotFile,
    ) -> Result<(SnapshotMeta, SnapshotFile, bool), Error> {
        let disk = self.0.os.disk();
        let mut current = self.0.current.lock();
        let is_newer = |newer: &SnapshotMeta| {
            newer.last_log_id >= meta.last_log_id && !Mutant::OlderSnapshotPut.is_planted()
        };
        if let Some((newer, kept)) = current.as_ref().filter(|(newer, _)| is_newer(newer)) {
            let _ = disk.unlink(&file.path);
            return Ok((newer.clone(), kept.clone(), false));
        }
        let file = snapshot::finish(disk.as_ref(), &self.0.dir, &file, &meta)?;
        *current = Some((meta.clone(), file.clone()));
        self.0.covered.send_modify(|covered| covered.last = meta.last_log_id);
        Ok((meta, file, true))
    }
}

/// Whether this version understands the level that the cluster is at (correctness rule D4).
fn understood(state: &State) -> Result<(), Error> {
    let level = state.image.feature_level();
    if level <= FEATURE_LEVEL { Ok(()) } else { Err(Error::Newer { level, understood: FEATURE_LEVEL }) }
}

fn applied(state: State, meta: &SnapshotMeta) -> Applied {
    Applied { state, last: meta.last_log_id, membership: meta.last_membership.clone() }
}

fn failed(error: &Error) -> StorageError {
    StorageIoError::write_snapshot(None, AnyError::new(error)).into()
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let applied = self.0.applied.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answer>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            answers.push(self.apply_one(entry));
            // It would decide otherwise than the others from here on.
            if let Err(error) = understood(&self.0.applied.lock().state) {
                return Err(StorageIoError::apply(log_id, AnyError::new(&error)).into());
            }
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        self.receive().await.map(Box::new).map_err(|error| failed(&error))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        file: Box<SnapshotFile>,
    ) -> Result<(), StorageError> {
        let (this, meta) = (self.clone(), meta.clone());
        let installed = blocking(&self.0.os, move || {
            let loaded = snapshot::read_received(&file, &meta)?;
            let (meta, _, placed) = this.put(meta, *file)?;
            let mut now = this.0.applied.lock();
            if placed && now.last < meta.last_log_id {
                *now = applied(loaded.state.clone(), &meta);
                this.0.hub.replace(now.state.image.clone());
            }
            Ok(())
        });
        installed.await.map_err(|error| {
            self.0.covered.send_modify(|covered| covered.failed = true);
            failed(&error)
        })
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let current = self.0.current.lock().clone();
        Ok(current.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let this = self.clone();
        let built = blocking(&self.0.os, move || {
            // A cheap copy: the image shares what does not change while the file is written.
            let applied = this.0.applied.lock().clone();
            let meta = SnapshotMeta {
                last_log_id: applied.last,
                last_membership: applied.membership,
                snapshot_id: format!("{:016x}", this.0.os.random_u64()),
            };
            let name = format!("building-{}", meta.snapshot_id);
            let file = snapshot::create(this.0.os.disk().as_ref(), &this.0.dir, &name)?;
            snapshot::write(&file, &meta, &applied.state)?;
            this.put(meta, file)
        });
        let (meta, file, _) = built.await.map_err(|error| failed(&error))?;
        Ok(Snapshot { meta, snapshot: Box::new(file) })
    }
}

/// Who is in each part of a membership: between two of them it has both.
fn in_all(parts: &[BTreeSet<u64>]) -> BTreeSet<u64> {
    let in_all = |id: &u64| parts.iter().all(|voters| voters.contains(id));
    parts.iter().flatten().copied().filter(in_all).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;
    use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
    use weir_metadata::RemoveController;

    use openraft::storage::RaftLogStorage;
    use tokio::time::timeout;
    use weir_runtime::testing::TestOs;

    use super::snapshot::tests::{meta, state};
    use super::*;
    use crate::fixtures::IDENTITY;
    use crate::store::LogStore;

    #[tokio::test]
    async fn what_not_everybody_understands_is_not_proposed() {
        let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(MemDisk::new(1))));
        let machine = Machine::open(&os, Path::new("/"), 100).await.unwrap();
        let command = Command::RemoveController(RemoveController { id: 1 });
        assert!(command.feature_level() > 1, "the first level does not know it");
        let refused = machine.allows(&command);
        assert!(matches!(refused, Err(weir_metadata::Error::LevelTooLow { .. })), "{refused:?}");
    }

    /// One is built at leisure, while another one is received that covers more.
    #[tokio::test]
    async fn a_snapshot_that_is_built_when_a_newer_one_was_installed_is_dropped() {
        let disk = MemDisk::new(1);
        let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(disk.clone())));
        let mut machine = Machine::open(&os, Path::new("/"), 100).await.unwrap();
        let written = |name, index| {
            let file = snapshot::create(&disk, Path::new("/"), name).unwrap();
            snapshot::write(&file, &meta(index), &state()).unwrap();
            file
        };
        let built = written("building", 5);
        machine.install_snapshot(&meta(10), Box::new(written("receiving", 10))).await.unwrap();
        let (covered, file, is_placed) = machine.put(meta(5), built).unwrap();
        assert_eq!((covered, is_placed), (meta(10), false));
        assert_eq!(snapshot::read(&file).unwrap().meta, meta(10), "whoever built one is given the newer one");
        assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, meta(10));
        let names: Vec<_> = disk.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [snapshot::name(&meta(10))], "nothing is left of the older one");
    }

    /// Raft answers nobody while it installs one.
    #[tokio::test]
    async fn what_was_checked_when_it_was_received_is_not_read_again() {
        let disk = FaultDisk::over_mem(&MemDisk::new(1));
        let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(disk.clone())));
        let mut machine = Machine::open(&os, Path::new("/"), 100).await.unwrap();
        let mut file = machine.receive().await.unwrap();
        snapshot::write(&file, &meta(10), &state()).unwrap();
        machine.check_received(&mut file, &meta(10)).await.unwrap();
        let of_file = |path: &Path| path.to_string_lossy().contains("receiving");
        let slow = disk.add(Rule::on([Op::Read, Op::SyncAll], Effect::Fail(Fault::Io)).path(of_file));
        machine.install_snapshot(&meta(10), Box::new(file)).await.unwrap();
        assert_eq!(disk.fired(slow), 0);
        let (applied, _) = machine.applied_state().await.unwrap();
        assert_eq!(applied, meta(10).last_log_id);
        assert_eq!(machine.get_current_snapshot().await.unwrap().unwrap().meta, meta(10));
    }

    /// Raft asks for both at once: the entries are gone for good, so that the snapshot comes first.
    #[tokio::test(start_paused = true)]
    async fn what_a_snapshot_covers_is_purged_once_that_is_in_its_place() {
        let disk = MemDisk::new(1);
        let os: Arc<dyn Os> = Arc::new(TestOs::new(Arc::new(disk.clone())));
        let mut machine = Machine::open(&os, Path::new("/"), 100).await.unwrap();
        let (mut store, _) = LogStore::open(&os, Path::new("/"), || Ok(IDENTITY)).await.unwrap();
        store.purges_what_is(machine.covered());
        let upto = meta(10).last_log_id.unwrap();
        let mut purging = Box::pin(store.purge(upto));
        assert!(timeout(Duration::from_secs(60), &mut purging).await.is_err(), "nothing covers them yet");
        let file = snapshot::create(&disk, Path::new("/"), "receiving").unwrap();
        snapshot::write(&file, &meta(10), &state()).unwrap();
        machine.install_snapshot(&meta(10), Box::new(file)).await.unwrap();
        purging.await.unwrap();

        // One that cannot be put in its place is waited for no more.
        let upto = meta(20).last_log_id.unwrap();
        let mut purging = Box::pin(store.purge(upto));
        assert!(timeout(Duration::from_secs(60), &mut purging).await.is_err());
        let torn = snapshot::create(&disk, Path::new("/"), "torn").unwrap();
        machine.install_snapshot(&meta(20), Box::new(torn)).await.unwrap_err();
        purging.await.unwrap_err();
        assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, meta(10).last_log_id);
    }

    #[test]
    fn what_is_purged_before_a_snapshot_covers_it_is_noticed() {
        let test = what_a_snapshot_covers_is_purged_once_that_is_in_its_place;
        assert!(Mutant::PurgedUncovered.is_noticed_by(test));
    }

    #[test]
    fn an_older_snapshot_that_takes_the_place_of_a_newer_one_is_noticed() {
        let test = a_snapshot_that_is_built_when_a_newer_one_was_installed_is_dropped;
        assert!(Mutant::OlderSnapshotPut.is_noticed_by(test));
    }

    #[test]
    fn a_command_that_not_everybody_understands_is_noticed() {
        assert!(Mutant::AnyLevel.is_noticed_by(what_not_everybody_understands_is_not_proposed));
    }

    #[test]
    fn who_is_half_in_or_half_out_does_not_vote() {
        let sets = |sets: &[&[u64]]| sets.iter().map(|ids| ids.iter().copied().collect()).collect::<Vec<_>>();
        let votes = |parts: &[&[u64]]| in_all(&sets(parts)).into_iter().collect::<Vec<_>>();
        assert_eq!(votes(&[&[1, 2, 3]]), [1, 2, 3]);
        assert_eq!(votes(&[&[1, 2], &[1, 2, 3]]), [1, 2], "the third is half in");
        assert_eq!(votes(&[&[1, 2, 3], &[2, 3]]), [2, 3], "the first is half out");
        assert!(votes(&[]).is_empty());
    }
}
