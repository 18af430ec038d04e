//! The last way out of a lost quorum: one controller that is left becomes the only one of the same cluster.
//!
//! Too few controllers are left to agree on anything, and the others are lost for good. What the one that is left has in its
//! folder may be less than what the quorum had decided: a majority without it may have agreed on more. So this is done by a
//! person, offline, who is told how far its log goes, and never by itself (correctness rule 30).
//!
//! It gets a new term, so that its history is newer than any other; a membership of itself alone; and a new quorum, so that
//! a controller of the old one which turns up after all is not heard. Such a one joins anew, with an empty folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership, RaftLogReader};
use tokio::time::timeout;
use weir_cluster::channel;
use weir_io::LockGuard;
use weir_metadata::{Command, Entry, RemoveController};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::controller_service_client::ControllerServiceClient;
use weir_runtime::{Os, blocking};
use weir_types::ClusterId;

use crate::Error;
use crate::controller::take_folder;
use crate::machine::Machine;
use crate::raft::{LogEntry, LogId, Vote};
use crate::store::{self, Identity, LogStore, Member};

/// A controller that does not answer within this time is not there.
const ANSWER: Duration = Duration::from_secs(2);

/// What is in the folder of a controller that is to go on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The controller.
    pub node_id: u64,
    /// The last entry of its log: what was decided after it is lost.
    pub last_index: u64,
    /// The term of that entry.
    pub last_term: u64,
    /// When it was proposed, milliseconds since 1970 UTC, as far as the log still says.
    pub last_ms: Option<i64>,
    /// The other controllers, with their endpoints, as far as this one knows.
    pub others: Vec<(u64, String)>,
    /// How many topics it knows.
    pub topics: usize,
    /// How many brokers.
    pub brokers: usize,
}

/// A stopped controller of a lost quorum. While this lives nobody else can use its folder.
pub struct Lost {
    os: Arc<dyn Os>,
    dir: PathBuf,
    store: LogStore,
    identity: Identity,
    member: Member,
    feature_level: i32,
    endpoint: String,
    last: LogId,
    found: Found,
    _lock: LockGuard,
}

impl std::fmt::Debug for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lost").field("dir", &self.dir).field("found", &self.found).finish_non_exhaustive()
    }
}

impl Lost {
    /// Looks into the folder of a stopped controller. Nothing is changed in it.
    ///
    /// # Errors
    /// The folder is in use, holds no controller or none that ever was in a quorum, is damaged, or of a newer version.
    pub async fn open(os: Arc<dyn Os>, dir: &Path) -> Result<Self, Error> {
        let nobody = || Error::NoController { path: dir.to_owned() };
        let (disk, file) = (os.disk(), store::file(dir));
        let failed = |source| Error::Folder { path: dir.to_owned(), source };
        // Before anything is made there: a mistyped path is left as it is.
        if !blocking(&os, move || disk.exists(&file)).await.map_err(failed)? {
            return Err(nobody());
        }
        let lock = take_folder(&os, dir).await?;
        let (mut store, identity) = LogStore::open(&os, dir, || Err(Error::Stopping)).await?;
        let member = identity.member.ok_or_else(nobody)?;
        let stored = |error: crate::raft::StorageError| Error::Raft(error.to_string());
        let mut machine = Machine::open(&os, dir, u64::MAX).await?;
        let (covered, _) = machine.applied_state().await.map_err(stored)?;
        let from = covered.map_or(0, |id| id.index + 1);
        let entries = store.try_get_log_entries(from..).await.map_err(stored)?;
        let last = entries.last().map(|entry| entry.log_id).or(covered).ok_or_else(nobody)?;
        let at = |entry: &LogEntry| match &entry.payload {
            EntryPayload::Normal(commands) => Some(commands.at_ms),
            _ => None,
        };
        let last_ms = entries.iter().rev().find_map(at);
        // In memory alone, and also what was never agreed upon: from now on it is.
        machine.apply(entries).await.map_err(stored)?;
        let (_, membership) = machine.applied_state().await.map_err(stored)?;
        let image = machine.hub().image();
        let nodes = membership.membership().nodes();
        let (own, others): (Vec<_>, Vec<_>) =
            nodes.map(|(id, node)| (*id, node.addr.clone())).partition(|(id, _)| *id == member.node_id);
        let endpoint = own.into_iter().next().map(|(_, endpoint)| endpoint).ok_or_else(nobody)?;
        let found = Found {
            cluster_id: member.cluster_id,
            node_id: member.node_id,
            last_index: last.index,
            last_term: last.leader_id.term,
            last_ms,
            others,
            topics: image.topics().count(),
            brokers: image.brokers().count(),
        };
        let (dir, feature_level) = (dir.to_owned(), image.feature_level());
        Ok(Self { os, dir, store, identity, member, feature_level, endpoint, last, found, _lock: lock })
    }

    /// What is there.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The other controllers that answer now: as long as there are some, the quorum may not be lost.
    pub async fn answering(&self) -> Vec<(u64, String)> {
        let asked = self.found.others.iter().map(|(id, endpoint)| async move {
            let asked = async {
                let mut client = ControllerServiceClient::new(channel(&self.os, endpoint).ok()?);
                match client.describe_controller(pb::DescribeControllerRequest {}).await {
                    Ok(answer) => Some(answer.into_inner().node_id == *id),
                    Err(status) => Some(status.code() == tonic::Code::Unimplemented),
                }
            };
            let answers = timeout(ANSWER, asked).await.ok().flatten().unwrap_or(false);
            answers.then(|| (*id, endpoint.clone()))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Makes this controller the only one of its cluster. It leads as soon as it is started.
    ///
    /// # Errors
    /// The disk failed. Then it is not known how far this has come: it is done again.
    pub async fn take_over(mut self) -> Result<(), Error> {
        let stored = |error: crate::raft::StorageError| Error::Raft(error.to_string());
        // First of all nobody of the old quorum is heard any more, nor hears this one.
        let quorum_id = self.os.random_u128() | 1;
        let identity = Identity { member: Some(Member { quorum_id, ..self.member }), ..self.identity };
        self.store.save_identity(&identity).await?;
        let voted = self.store.read_vote().await.map_err(stored)?.map_or(0, |vote| vote.leader_id.term);
        let (term, id) = (voted.max(self.last.leader_id.term) + 1, self.member.node_id);
        self.store.save_vote(&Vote::new(term, id)).await.map_err(stored)?;
        let at = |index| LogId::new(CommittedLeaderId::new(term, id), index);
        let alone =
            Membership::new(vec![[id].into()], BTreeMap::from([(id, BasicNode::new(&self.endpoint))]));
        let mut entries =
            vec![LogEntry { log_id: at(self.last.index + 1), payload: EntryPayload::Membership(alone) }];
        let others = self.found.others.iter().filter_map(|(id, _)| i64::try_from(*id).ok());
        let commands: Vec<_> = others.map(|id| Command::RemoveController(RemoveController { id })).collect();
        if commands.iter().any(|command| command.feature_level() <= self.feature_level) {
            let forget = Entry { at_ms: self.os.wall_ms(), author: self.os.random_u64().max(1), commands };
            entries.push(LogEntry { log_id: at(self.last.index + 2), payload: EntryPayload::Normal(forget) });
        }
        self.store.blocking_append(entries).await.map_err(stored)?;
        tracing::warn!(dir = %self.dir.display(), term, "this controller is the only one of its cluster now");
        Ok(())
    }
}
