//! To other controllers. Connections of their own: nothing else queues before a heartbeat, not even a snapshot.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AnyError, BasicNode};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use weir_cluster::{MESSAGE_BYTES_MAX, Row, RowError, channel, fact, in_words};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::raft_service_client::RaftServiceClient;
use weir_runtime::{Os, blocking};

use super::RECOVERED_FACT;
use super::heard::Heard;
use super::outdone::Outdone;
use super::polled::{Polled, Word};
use super::rewound::Rewound;
use super::types::{RaftRow, Types, Vote, optional, required};
use crate::machine::SnapshotFile;
use crate::store::Member;

/// An unreachable controller is tried again after so long.
const BACKOFF: Duration = Duration::from_millis(100);
/// A snapshot is sent in pieces of so many bytes.
const CHUNK: usize = 256 * 1024;

type Unsent = RPCError<u64, BasicNode, RaftError<u64>>;

/// Makes connections to controllers.
#[derive(Clone)]
pub(crate) struct Network {
    os: Arc<dyn Os>,
    us: Member,
    outdone: Outdone,
    heard: Heard,
    polled: Polled,
    rewound: Rewound,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Network {
    /// `us`: who speaks, in which quorum. `outdone` is told what others say of this one's log, `heard` that they do,
    /// `polled` what they say of votes, `rewound` what they have of the log.
    pub(crate) fn new(
        os: Arc<dyn Os>,
        us: Member,
        outdone: Outdone,
        (heard, polled, rewound): (Heard, Polled, Rewound),
    ) -> Self {
        Self { os, us, outdone, heard, polled, rewound, channels: Arc::default() }
    }

    fn channel(&self, endpoint: &str) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(endpoint) {
            return Ok(channel.clone());
        }
        let channel = channel(&self.os, endpoint)?;
        channels.insert(endpoint.to_owned(), channel.clone());
        Ok(channel)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer { network: self.clone(), target, endpoint: node.addr.clone() }
    }
}

/// Another controller.
pub(crate) struct Peer {
    network: Network,
    target: u64,
    endpoint: String,
}

impl Peer {
    fn client(&self) -> Result<RaftServiceClient<Channel>, Unreachable> {
        let channel = self.network.channel(&self.endpoint).map_err(|error| Unreachable::new(&error))?;
        Ok(client(channel))
    }

    fn cluster_id(&self) -> Bytes {
        self.network.us.cluster_id.to_wire()
    }

    fn quorum_id(&self) -> Bytes {
        self.network.us.quorum()
    }
}

fn client(channel: Channel) -> RaftServiceClient<Channel> {
    RaftServiceClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn unsent(status: &Status) -> Unsent {
    Unreachable::new(&AnyError::error(format!("{:?}: {}", status.code(), status.message()))).into()
}

fn misunderstood(error: &RowError) -> Unsent {
    NetworkError::new(error).into()
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Unsent> {
        let term = rpc.vote.leader_id().term;
        self.network.heard.asked(self.target, term);
        let (asked_from, last) =
            (rpc.prev_log_id, rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id));
        let acknowledged = self.network.rewound.acknowledged(self.target, term);
        let request = pb::AppendEntriesRequest {
            cluster_id: self.cluster_id(),
            target_id: self.target,
            vote: Some(rpc.vote.to_wire()),
            prev_log_id: rpc.prev_log_id.as_ref().map(RaftRow::to_wire),
            entries: rpc.entries.iter().map(RaftRow::to_wire).collect(),
            leader_commit: rpc.leader_commit.as_ref().map(RaftRow::to_wire),
            quorum_id: self.quorum_id(),
        };
        let asked = self.client()?.append_entries(request).await;
        let answer = asked.map_err(|status| {
            if fact(&status, RECOVERED_FACT).is_some() {
                self.network.polled.asked(self.target, &self.endpoint);
                self.network.polled.answered(self.target, in_words(&self.endpoint, &status), Word::Recovered);
            }
            unsent(&status)
        })?;
        self.network.heard.answered(self.target);
        let answer = read_append(answer.into_inner()).map_err(|error| misunderstood(&error))?;
        self.network.polled.appended(self.target, &answer);
        let rewound = &self.network.rewound;
        match &answer {
            AppendEntriesResponse::Success => rewound.has(self.target, term, last),
            AppendEntriesResponse::PartialSuccess(upto) => rewound.has(self.target, term, *upto),
            AppendEntriesResponse::Conflict if rewound.lacks(self.target, asked_from, acknowledged) => {
                return Err(Unreachable::new(&AnyError::error("its log has gone back")).into());
            }
            AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => {}
        }
        Ok(answer)
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, _option: RPCOption) -> Result<VoteResponse<u64>, Unsent> {
        let request = pb::VoteRequest {
            cluster_id: self.cluster_id(),
            target_id: self.target,
            vote: Some(rpc.vote.to_wire()),
            last_log_id: rpc.last_log_id.as_ref().map(RaftRow::to_wire),
            quorum_id: self.quorum_id(),
        };
        let polled = &self.network.polled;
        polled.asked(self.target, &self.endpoint);
        let asked = self.client()?.vote(request).await;
        let answer = asked.map_err(|status| {
            let word = match fact(&status, RECOVERED_FACT) {
                Some(_) => Word::Recovered,
                None => Word::Other,
            };
            polled.answered(self.target, in_words(&self.endpoint, &status), word);
            unsent(&status)
        })?;
        let answer = answer.into_inner();
        let goes_without = answer.goes_without;
        let read = || {
            let vote: Vote = required(answer.vote, "vote")?;
            Ok(VoteResponse::new(vote, optional(answer.last_log_id)?, answer.granted))
        };
        let answer = read().map_err(|error: RowError| misunderstood(&error))?;
        let has_more = !answer.vote_granted && answer.last_log_id > rpc.last_log_id;
        if has_more {
            self.network.outdone.note(rpc.vote);
        }
        // Never by the word of one that is behind: this controller may have been added since, and have more than anybody.
        let taken_out = goes_without && has_more;
        let words = match () {
            () if taken_out => "this controller was taken out of the quorum, which goes on without it",
            () if answer.vote_granted => "it votes for this one",
            () if has_more => "it does not vote for this one, which has less of the log",
            () => "it does not vote for this one: it follows or prefers another",
        };
        let word = if taken_out { Word::TakenOut } else { Word::Other };
        polled.answered(self.target, words.to_owned(), word);
        Ok(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let head = pb::InstallSnapshotRequest {
            cluster_id: self.cluster_id(),
            target_id: self.target,
            vote: Some(vote.to_wire()),
            meta: Some(snapshot.meta.to_wire()),
            chunk: Bytes::new(),
            quorum_id: self.quorum_id(),
        };
        let (to_stream, stream) = mpsc::channel(4);
        let feeding = feed(self.network.os.clone(), *snapshot.snapshot, head, to_stream);
        let own = channel(&self.network.os, &self.endpoint).map_err(|error| Unreachable::new(&error))?;
        let mut client = client(own);
        let sending = async {
            let (answer, fed) = tokio::join!(client.install_snapshot(ReceiverStream::new(stream)), feeding);
            fed.map_err(|error| Unreachable::new(&error))?;
            let answer = answer.map_err(|status| {
                Unreachable::new(&AnyError::error(format!("{:?}: {}", status.code(), status.message())))
            })?;
            Ok::<_, Unreachable>(answer.into_inner())
        };
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = sending => answer?,
        };
        let vote: Vote =
            required(answer.vote, "vote").map_err(|error: RowError| NetworkError::new(&error))?;
        Ok(SnapshotResponse::new(vote))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// Reads a snapshot file into the stream, piece by piece. Ends quietly when nobody takes them any more: the call
/// then says why.
async fn feed(
    os: Arc<dyn Os>,
    from: SnapshotFile,
    head: pb::InstallSnapshotRequest,
    to: mpsc::Sender<pb::InstallSnapshotRequest>,
) -> std::io::Result<()> {
    let mut next = head;
    let mut at = 0;
    while to.send(next).await.is_ok() {
        let file = from.file.clone();
        let read = blocking(&os, move || {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            file.read_at(&mut chunk, CHUNK, at).map(|_| chunk.freeze())
        });
        let chunk = read.await?;
        if chunk.is_empty() {
            break;
        }
        at += chunk.len() as u64;
        next = pb::InstallSnapshotRequest { chunk, ..pb::InstallSnapshotRequest::default() };
    }
    Ok(())
}

fn read_append(answer: pb::AppendEntriesResponse) -> Result<AppendEntriesResponse<u64>, RowError> {
    use pb::append_entries_response::Outcome;
    match answer.outcome() {
        Outcome::Success => Ok(AppendEntriesResponse::Success),
        Outcome::Partial => Ok(AppendEntriesResponse::PartialSuccess(optional(answer.matching)?)),
        Outcome::Conflict => Ok(AppendEntriesResponse::Conflict),
        Outcome::HigherVote => Ok(AppendEntriesResponse::HigherVote(required(answer.vote, "vote")?)),
        Outcome::Unspecified => Err(RowError::Unknown("outcome")),
    }
}
