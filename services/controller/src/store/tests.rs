//! The log store against a plain model, with the power lost after any change to the disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use proptest::prelude::*;
use weir_io::{Disk, Effect, FaultDisk, MemDisk, Op, Rule, Survival};
use weir_metadata::{BrokerEpoch, Command, CreateTopic, Entry};
use weir_runtime::Os;
use weir_runtime::testing::TestOs;
use weir_types::{BrokerId, ClusterId, DirectoryId, TopicId};

use super::{Identity, LogStore, Member};
use crate::raft::{LogEntry, LogId, Vote};

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, bytes: usize },
    Vote,
    Committed,
    Truncate { keep: u64 },
    Purge { take: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u64..5, 0usize..300).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        2 => Just(Step::Vote),
        1 => Just(Step::Committed),
        1 => (0u64..4).prop_map(|keep| Step::Truncate { keep }),
        1 => (0u64..4).prop_map(|take| Step::Purge { take }),
    ]
}

/// What the store shall hold.
#[derive(Clone, Debug, Default)]
struct Model {
    vote: Option<Vote>,
    log: BTreeMap<u64, LogEntry>,
    purged: Option<LogId>,
    /// Raft never cuts what is committed.
    committed: u64,
}

/// What can be read back for sure: the committed index may be an old one.
impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        (&self.vote, &self.log, &self.purged) == (&other.vote, &other.log, &other.purged)
    }
}

impl Model {
    fn end(&self) -> u64 {
        let last = self.log.keys().next_back().copied().or(self.purged.map(|id| id.index));
        last.map_or(0, |last| last + 1)
    }

    fn term(&self) -> u64 {
        self.vote.map_or(0, |vote| vote.leader_id.term)
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    let command = Command::FenceBroker(BrokerEpoch { broker: BrokerId(1), epoch: 2 });
    let commands = Entry { at_ms: 3, author: 0, commands: vec![command; size / 8] };
    LogEntry { log_id: id(term, index), payload: EntryPayload::Normal(commands) }
}

/// Carries a step out on both. `None`: the store failed.
async fn run(store: &mut LogStore, model: &Model, step: &Step) -> (Model, Option<()>) {
    let mut after = model.clone();
    let done = match step {
        Step::Append { count, bytes } => {
            let entries: Vec<LogEntry> =
                (0..*count).map(|n| entry(model.term(), model.end() + n, *bytes)).collect();
            after.log.extend(entries.iter().map(|entry| (entry.log_id.index, entry.clone())));
            store.blocking_append(entries).await
        }
        Step::Vote => {
            let vote = Vote::new(model.term() + 1, 1);
            after.vote = Some(vote);
            store.save_vote(&vote).await
        }
        Step::Committed => {
            let last = model.log.values().next_back().map(|entry| entry.log_id);
            after.committed = last.map_or(model.committed, |last| last.index + 1);
            store.save_committed(last).await
        }
        Step::Truncate { keep } => {
            let Some((first, _)) = model.log.first_key_value() else { return (after, Some(())) };
            let from = (first + keep).max(model.committed);
            after.log.split_off(&from);
            store.truncate(id(0, from)).await
        }
        Step::Purge { take } => {
            let Some(upto) = model.log.values().nth(*take as usize).map(|entry| entry.log_id) else {
                return (after, Some(()));
            };
            after.log = after.log.split_off(&(upto.index + 1));
            after.purged = Some(upto);
            store.purge(upto).await
        }
    };
    (after, done.ok())
}

async fn read(store: &mut LogStore) -> Model {
    let log = store.try_get_log_entries(..).await.unwrap();
    let state = store.get_log_state().await.unwrap();
    let model = Model {
        vote: store.read_vote().await.unwrap(),
        log: log.into_iter().map(|entry| (entry.log_id.index, entry)).collect(),
        purged: state.last_purged_log_id,
        committed: store.read_committed().await.unwrap().map_or(0, |committed| committed.index + 1),
    };
    let last = model.log.values().next_back().map(|entry| entry.log_id).or(model.purged);
    assert_eq!(state.last_log_id, last);
    assert!(model.committed <= model.end(), "committed is never beyond the end");
    model
}

const WHO: Identity = Identity {
    directory: DirectoryId(u128::from_be_bytes(*b"a-directory-of-1")),
    member: Some(Member { cluster_id: ClusterId(2), node_id: 3, quorum_id: 4 }),
};

async fn open(disk: Arc<dyn Disk>) -> Result<LogStore, crate::Error> {
    let os: Arc<dyn Os> = Arc::new(TestOs::new(disk));
    let (store, identity) = LogStore::open(&os, Path::new("/"), || Ok(WHO)).await?;
    assert_eq!(identity, WHO);
    Ok(store)
}

/// Runs the steps until the disk dies after `changes`, loses power, and looks.
async fn crash_after(changes: u64, seed: u64, steps: &[Step]) -> bool {
    let disk = MemDisk::new(seed);
    let faults = FaultDisk::over_mem(&disk);
    faults.die_after(changes);
    let (mut before, mut after) = (Model::default(), Model::default());
    if let Ok(mut store) = open(Arc::new(faults.clone())).await {
        for step in steps {
            let (next, done) = run(&mut store, &before, step).await;
            after = next;
            if done.is_none() {
                break;
            }
            before = after.clone();
        }
    }
    let died = faults.is_dead();
    let mut store = open(Arc::new(disk.crash(seed))).await.unwrap();
    let found = read(&mut store).await;
    // What was answered is there; what was on its way is there as a whole or not at all.
    assert!(
        found == before || found == after,
        "after {changes} changes: {found:?}\nnot {before:?}\nnor {after:?}"
    );
    // And it goes on from there.
    let (next, done) = run(&mut store, &found, &Step::Append { count: 2, bytes: 100 }).await;
    done.unwrap();
    assert_eq!(read(&mut store).await, next);
    died
}

/// The nth sync fails, its pages count as clean and are lost; the process ends, and what the next one finds is compared
/// with what a power loss leaves of it. `false`: there were not so many syncs.
async fn fail_sync(nth: u64, seed: u64, steps: &[Step]) -> bool {
    let disk = MemDisk::new(seed);
    let mut store = open(Arc::new(disk.clone())).await.unwrap();
    let empty = read(&mut store).await;
    drop(store);
    let faults = FaultDisk::over_mem(&disk);
    let rule = faults.add(Rule::on([Op::SyncData, Op::SyncAll], Effect::LoseDirty).nth(nth).once());
    let (mut before, mut after) = (empty.clone(), empty);
    if let Ok(mut store) = open(Arc::new(faults.clone())).await {
        for step in steps {
            let (next, done) = run(&mut store, &before, step).await;
            after = next;
            if done.is_none() {
                break;
            }
            before = after.clone();
        }
    }
    let failed = faults.fired(rule) > 0;
    let disk = disk.kill();
    let mut store = open(Arc::new(disk.clone())).await.unwrap();
    let found = read(&mut store).await;
    assert!(found == before || found == after, "sync {nth} failed: {found:?}\nnot {before:?}\nnor {after:?}");
    let mut store = open(Arc::new(disk.power_loss(Survival::Nothing))).await.unwrap();
    let left = read(&mut store).await;
    assert!(left == found, "sync {nth} failed: {found:?} was found\nand {left:?} left without power");
    failed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn what_a_failed_sync_has_lost_is_not_believed(
        steps in prop::collection::vec(step(), 1..8),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut nth = 1;
            while fail_sync(nth, seed.wrapping_add(nth), &steps).await {
                nth += 1;
            }
        });
    }

    #[test]
    fn an_answered_write_survives_the_loss_of_power(
        steps in prop::collection::vec(step(), 1..8),
        seed in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut changes = 0;
            while crash_after(changes, seed.wrapping_add(changes), &steps).await {
                changes += 1;
            }
        });
    }
}

#[tokio::test]
async fn followers_are_read_entries_in_pieces() {
    let mut store = open(Arc::new(MemDisk::new(1))).await.unwrap();
    let large: Vec<LogEntry> = (0..5).map(|index| entry(1, index, 400_000)).collect();
    store.blocking_append(large.clone()).await.unwrap();
    let piece = store.limited_get_log_entries(0, 5).await.unwrap();
    assert!(!piece.is_empty() && piece.len() < 5, "{} entries", piece.len());
    assert_eq!(piece, large[..piece.len()]);
    assert_eq!(store.try_get_log_entries(1..3).await.unwrap(), large[1..3]);
}

#[tokio::test]
async fn the_committed_index_rides_on_the_next_write() {
    let disk = MemDisk::new(1);
    let mut store = open(Arc::new(disk.clone())).await.unwrap();
    store.blocking_append([entry(1, 0, 0), entry(1, 1, 0)]).await.unwrap();
    store.save_committed(Some(id(1, 1))).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), None);
    store.save_vote(&Vote::new(2, 1)).await.unwrap();
    assert_eq!(store.read_committed().await.unwrap(), Some(id(1, 1)));
}

/// The database's own checksums are looked at after a crash alone.
#[tokio::test]
async fn what_the_disk_has_changed_is_not_believed() {
    for (what, bytes, row) in
        [("an entry", "flights", "entry 1"), ("who it is", "a-directory-of-1", "identity")]
    {
        let disk = MemDisk::new(1);
        let mut store = open(Arc::new(disk.clone())).await.unwrap();
        let made = CreateTopic {
            name: "flights".into(),
            topic_id: TopicId(7),
            partitions: 1,
            replication_factor: 1,
            config: BTreeMap::new(),
            if_absent: false,
            internal: false,
            request_id: String::new(),
        };
        let commands = Entry { at_ms: 3, author: 0, commands: vec![Command::CreateTopic(made)] };
        let named = LogEntry { log_id: id(1, 1), payload: EntryPayload::Normal(commands) };
        store.blocking_append([entry(1, 0, 0), named, entry(1, 2, 0)]).await.unwrap();
        drop(store);
        drop(open(Arc::new(disk.clone())).await.unwrap());

        let path = Path::new("/raft.redb");
        let file = disk.read(path, usize::MAX).unwrap();
        let at = file.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes.as_bytes());
        // Pages are copied when they change: an older copy may still be in the file.
        let at: Vec<_> = at.map(|(at, _)| at as u64).collect();
        assert!(!at.is_empty(), "{what}");
        at.into_iter().for_each(|at| disk.rot(path, at, 1).unwrap());
        let Err(error @ crate::Error::Unopened { .. }) = open(Arc::new(disk)).await else {
            panic!("{what} is believed")
        };
        assert!(error.to_string().contains(&format!("what it says of \"{row}\"")), "{error}");
    }
}
