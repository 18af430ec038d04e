//! From other controllers. Whoever meant another cluster or another controller is told that it is not here: at an
//! address that was given to somebody else a vote or an entry must not be taken.

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest};
use openraft::storage::Snapshot;
use tonic::{Request, Response, Status, Streaming};
use weir_cluster::{Row, RowError};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::raft_service_server::RaftService;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_runtime::{Os, blocking};

use super::RECOVERED_FACT;
use super::types::{LogEntry, Raft, RaftRow, optional, required};
use super::words::failed;
use crate::machine::{Machine, SnapshotFile};
use crate::store::Member;

/// Answers other controllers.
#[derive(Clone)]
pub(crate) struct RaftServer {
    pub(crate) raft: Raft,
    pub(crate) machine: Machine,
    pub(crate) os: std::sync::Arc<dyn Os>,
    pub(crate) member: Member,
}

impl RaftServer {
    fn check(&self, cluster_id: &Bytes, quorum_id: &Bytes, target_id: u64) -> Result<(), Status> {
        let Member { cluster_id: ours, node_id, .. } = self.member;
        if target_id == node_id && *cluster_id == ours.to_wire() {
            if *quorum_id == self.member.quorum() {
                return Ok(());
            }
            if self.member.quorum_id == 0 {
                // It is the one that asks whose quorum was recovered: nobody gives it up.
                return Err(Status::unavailable(
                    "this is a controller of the quorum before it was recovered",
                ));
            }
            // Not only to be ignored: it would go on asking for votes, or telling of a history that was given up.
            let said =
                "this quorum was recovered and goes on without you: join it anew, with an empty folder";
            let refusal = Problem::new(ErrorReason::ControllerUnavailable, said);
            return Err(refusal.fact(RECOVERED_FACT, self.member.quorum_id).status());
        }
        Err(Status::unavailable(format!("this is controller {node_id} of cluster {ours}, not {target_id}")))
    }
}

fn malformed(error: RowError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    tracing::debug!(%error, "another controller is not answered");
    Status::unavailable(failed())
}

#[tonic::async_trait]
impl RaftService for RaftServer {
    async fn append_entries(
        &self,
        request: Request<pb::AppendEntriesRequest>,
    ) -> Result<Response<pb::AppendEntriesResponse>, Status> {
        use pb::append_entries_response::Outcome;
        let request = request.into_inner();
        self.check(&request.cluster_id, &request.quorum_id, request.target_id)?;
        let read = || {
            Ok(AppendEntriesRequest {
                vote: required(request.vote, "vote")?,
                prev_log_id: optional(request.prev_log_id)?,
                entries: request.entries.into_iter().map(LogEntry::from_wire).collect::<Result<_, _>>()?,
                leader_commit: optional(request.leader_commit)?,
            })
        };
        let answer = self.raft.append_entries(read().map_err(malformed)?).await.map_err(stopped)?;
        let (outcome, matching, vote) = match answer {
            AppendEntriesResponse::Success => (Outcome::Success, None, None),
            AppendEntriesResponse::PartialSuccess(matching) => (Outcome::Partial, matching, None),
            AppendEntriesResponse::Conflict => (Outcome::Conflict, None, None),
            AppendEntriesResponse::HigherVote(vote) => (Outcome::HigherVote, None, Some(vote)),
        };
        Ok(Response::new(pb::AppendEntriesResponse {
            outcome: outcome.into(),
            matching: matching.as_ref().map(RaftRow::to_wire),
            vote: vote.as_ref().map(RaftRow::to_wire),
        }))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(&request.cluster_id, &request.quorum_id, request.target_id)?;
        let read = || Ok(VoteRequest::new(required(request.vote, "vote")?, optional(request.last_log_id)?));
        let request: VoteRequest<u64> = read().map_err(malformed)?;
        let (candidate, last) = (request.vote.leader_id().node_id, request.last_log_id);
        let answer = self.raft.vote(request).await.map_err(stopped)?;
        // It is only told so: its vote is judged as any.
        let goes_without = !answer.vote_granted && self.machine.has_taken_out(candidate, last);
        Ok(Response::new(pb::VoteResponse {
            vote: Some(answer.vote.to_wire()),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(RaftRow::to_wire),
            goes_without,
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::InstallSnapshotRequest>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        let server = self.clone();
        // A task of its own: whoever sends it may go away, and what came until then has to go, too.
        tokio::spawn(async move { server.install(request.into_inner()).await })
            .await
            .unwrap_or_else(|error| Err(Status::internal(format!("the snapshot was not taken: {error}"))))
    }
}

impl RaftServer {
    async fn install(
        &self,
        mut stream: Streaming<pb::InstallSnapshotRequest>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        let head = stream.message().await?.ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        self.check(&head.cluster_id, &head.quorum_id, head.target_id)?;
        let read = || Ok((required(head.vote, "vote")?, required(head.meta, "meta")?));
        let (vote, meta) = read().map_err(malformed)?;
        let failed = |error: crate::Error| Status::internal(error.to_string());
        let mut file = self.machine.receive().await.map_err(failed)?;
        let received = match self.take(&mut stream, &file).await {
            Ok(()) => self.machine.check_received(&mut file, &meta).await.map_err(failed),
            Err(status) => Err(status),
        };
        if let Err(status) = received {
            let (disk, path) = (self.os.disk(), file.path.clone());
            // Left behind, it is removed at the next start.
            let _ = blocking(&self.os, move || disk.unlink(&path)).await;
            return Err(status);
        }
        let snapshot = Snapshot { meta, snapshot: Box::new(file) };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        Ok(Response::new(pb::InstallSnapshotResponse { vote: Some(answer.vote.to_wire()) }))
    }

    async fn take(
        &self,
        stream: &mut Streaming<pb::InstallSnapshotRequest>,
        file: &SnapshotFile,
    ) -> Result<(), Status> {
        let mut at = 0;
        while let Some(next) = stream.message().await? {
            let (to, length) = (file.file.clone(), next.chunk.len() as u64);
            blocking(&self.os, move || to.write_all_at(&next.chunk, at))
                .await
                .map_err(|error| Status::internal(format!("snapshot {}: {error}", file.path.display())))?;
            at += length;
        }
        Ok(())
    }
}
