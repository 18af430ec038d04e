//! The follower's end of a stream between two brokers, while it lasts. Hot path.
//!
//! ```text
//!   wanted ──▶ prepare (everything sent before is in the log) ──▶ subscribe ──▶ Following: batches are taken
//!                 ▲                                                   │
//!                 └──────────── cut, start over, or wait a little ◀───┘ diverged, not the leader (yet), refused
//! ```
//!
//! What arrives is given to the partition's claim, which takes it in order or not at all; the loop never waits for a
//! disk, so that every partition's batches are drained from the connection.

mod cut;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tonic::Status;
use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_proto::internal::v1::replicate_request::Frame as Says;
use weir_proto::internal::v1::replicate_response::Frame as Said;
use weir_proto::internal::v1::subscription_answer::Answer;
use weir_replication::{Ends, Log, Position, Step, Welcome, step};
use weir_rpc::Messages;
use weir_runtime::spread_ms;
use weir_storage::{Control, ReplicateError, Replicated, decode_frames};
use weir_types::{BrokerId, Incarnation, PartitionId};

use crate::replication::Replication;
use crate::replication::bells::Bells;
use crate::replication::followed::Followed;
use crate::replication::led::Epochs;
use crate::replication::link::{Change, Wanted, take};

/// Whoever is refused asks again after so long at first, in milliseconds, and twice as long each time: most often the
/// leader-to-be is about to hear that it leads.
const AGAIN_MS: u64 = 10;
/// And at most.
const AGAIN_MS_MAX: u64 = 200;
/// Whatever failed here is tried again after so long.
const FAILED_MS: u64 = 2_000;
/// Subscriptions, or ends, in one message, at most.
const ENTRIES_MAX: usize = 4_096;

/// A partition whose start was moved, and whether it was.
type Moved = BoxFuture<'static, Arc<Followed>>;
type Prepared = BoxFuture<'static, (Arc<Followed>, Result<Position, Failed>)>;

/// What was to be done for a subscription failed; it is tried again.
#[derive(Debug)]
struct Failed;

/// See the module.
pub(crate) struct FollowingStream {
    hub: Arc<Replication>,
    leader: BrokerId,
    out: mpsc::Sender<wire::ReplicateRequest>,
    subscriptions: BTreeMap<i64, Subscription>,
    by_partition: BTreeMap<PartitionId, i64>,
    next_number: i64,
    preparing: FuturesUnordered<Prepared>,
    /// Starts that are being moved to their leader's.
    moving: FuturesUnordered<Moved>,
    bells: Arc<Bells<i64>>,
    /// What is to be said.
    subscribe: Vec<wire::Subscription>,
    unsubscribe: Vec<i64>,
    /// Which of these are over because what came is not what was written.
    doubted: Vec<wire::DoubtedBatch>,
    acknowledge: BTreeSet<i64>,
    /// Subscriptions whose batches were not taken, and why.
    refused: (mpsc::UnboundedSender<Refusal>, mpsc::UnboundedReceiver<Refusal>),
    was_answered: bool,
}

type Refusal = (i64, ReplicateError);

/// Why a log does not take what came.
#[derive(Debug, thiserror::Error)]
enum Untaken {
    #[error("the leader sent what is not what was written: {0}")]
    Sent(weir_storage::FrameError),
    #[error(transparent)]
    Refused(ReplicateError),
}

struct Subscription {
    followed: Arc<Followed>,
    /// The leader's log, once it has answered.
    leaders: Option<Incarnation>,
}

impl FollowingStream {
    pub(crate) fn new(
        hub: Arc<Replication>,
        leader: BrokerId,
        out: mpsc::Sender<wire::ReplicateRequest>,
    ) -> Self {
        Self {
            hub,
            leader,
            out,
            subscriptions: BTreeMap::new(),
            by_partition: BTreeMap::new(),
            next_number: 1,
            preparing: FuturesUnordered::new(),
            moving: FuturesUnordered::new(),
            bells: Bells::new(),
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            doubted: Vec::new(),
            acknowledge: BTreeSet::new(),
            refused: mpsc::unbounded_channel(),
            was_answered: false,
        }
    }

    /// Follows what is wanted until the stream ends or nothing is wanted any more. Whether the leader has answered.
    ///
    /// # Errors
    /// What the stream ended with, or what was said on it that cannot be understood.
    pub(crate) async fn run(
        mut self,
        mut answers: Messages<wire::ReplicateResponse>,
        wanted: &mut Wanted,
        changes: &mut mpsc::UnboundedReceiver<Change>,
    ) -> Result<bool, Status> {
        wanted.values().for_each(|followed| self.prepare(followed.clone(), None));
        while !wanted.is_empty() {
            // Each branch is cancel safe: what is not taken is there in the next turn.
            tokio::select! {
                answer = answers.next() => match answer {
                    None => break,
                    Some(answer) => self.said(answer?, wanted)?,
                },
                Some((followed, position)) = self.preparing.next() => self.prepared(followed, position, wanted),
                change = changes.recv() => {
                    // Nobody tells any more: the process ends.
                    let Some(change) = change else { break };
                    self.change(change, wanted);
                }
                subscription = self.bells.next() => self.rung(subscription),
                Some(followed) = self.moving.next() => {
                    followed.has_moved();
                    self.move_start(followed);
                }
                Some((subscription, error)) = self.refused.1.recv() => {
                    self.not_taken(subscription, &Untaken::Refused(error), wanted);
                },
                permit = self.out.clone().reserve_owned(), if self.has_something_to_say() => match permit {
                    Ok(permit) => drop(self.say().map(|request| permit.send(request))),
                    Err(_) => break,
                },
            }
        }
        Ok(self.was_answered)
    }

    /// A partition has something to tell its leader, or is to begin later.
    fn rung(&mut self, number: i64) {
        self.acknowledge.insert(number);
        if let Some(subscription) = self.subscriptions.get(&number) {
            self.move_start(subscription.followed.clone());
        }
    }

    /// The leader's log begins later than this one: whatever is before goes, as far as it is committed here.
    fn move_start(&self, followed: Arc<Followed>) {
        let Some(offset) = followed.start_to_move_to() else { return };
        let again = Duration::from_millis(spread_ms(&*self.hub.os, FAILED_MS));
        let topic = self.hub.topic(followed.id);
        self.moving.push(Box::pin(async move {
            if let Err(error) = followed.partition.control(Control::SetLogStart { offset }).await {
                tracing::warn!(topic, partition = followed.id.partition, offset, %error, "cannot move a log's start to its leader's");
                sleep(again).await;
            }
            followed
        }));
    }

    fn change(&mut self, change: Change, wanted: &mut Wanted) {
        match &change {
            Change::Follow(followed) => {
                self.forget(followed.id);
                self.prepare(followed.clone(), None);
            }
            Change::Leave(id) => self.forget(*id),
        }
        take(wanted, change);
    }

    /// Makes sure that everything that was sent before is in the log, and asks where that ends then.
    fn prepare(&mut self, followed: Arc<Followed>, first: Option<BoxFuture<'static, Result<(), Failed>>>) {
        let hub = self.hub.clone();
        self.preparing.push(Box::pin(async move {
            if let Some(first) = first
                && first.await.is_err()
            {
                return (followed, Err(Failed));
            }
            let (done, reached) = oneshot::channel();
            followed.partition.replicate(Replicated {
                leader_epoch: followed.epoch,
                frames: Vec::new(),
                // Whoever waits may have gone.
                done: Box::new(move |ends| drop(done.send(ends))),
            });
            let position = match reached.await {
                Ok(Ok(_)) => Ok(followed.position()),
                Ok(Err(error)) => {
                    // A log that is closed or follows another leadership by now is no news.
                    if is_full(&error) {
                        hub.news.untaken(&hub.cluster.image(), followed.id, &error.to_string(), true);
                    }
                    Err(Failed)
                }
                Err(_) => Err(Failed),
            };
            (followed, position)
        }));
    }

    /// The same after a while.
    fn prepare_later(&mut self, followed: Arc<Followed>, after_ms: u64) {
        let wait = Duration::from_millis(spread_ms(&*self.hub.os, after_ms));
        let first = Box::pin(async move {
            sleep(wait).await;
            Ok(())
        });
        self.prepare(followed, Some(first));
    }

    fn prepared(&mut self, followed: Arc<Followed>, position: Result<Position, Failed>, wanted: &Wanted) {
        if !is_wanted(wanted, &followed) {
            return;
        }
        let Ok(position) = position else {
            self.prepare_later(followed, FAILED_MS);
            return;
        };
        let number = self.next_number;
        self.next_number += 1;
        self.subscribe.push(wire::Subscription {
            subscription: number,
            partition: Some(followed.id.to_wire()),
            leader_epoch: followed.epoch,
            log_end: position.log_end,
            flushed_end: position.flushed_end,
            last_epoch: position.last_epoch,
        });
        self.by_partition.insert(followed.id, number);
        self.subscriptions.insert(number, Subscription { followed, leaders: None });
    }

    /// A partition is not followed on this stream any more.
    fn forget(&mut self, id: PartitionId) {
        if let Some(number) = self.by_partition.remove(&id)
            && let Some(subscription) = self.subscriptions.remove(&number)
        {
            subscription.followed.unsubscribed();
            self.acknowledge.remove(&number);
            match self.subscribe.iter().position(|waiting| waiting.subscription == number) {
                Some(at) => drop(self.subscribe.swap_remove(at)),
                None => self.unsubscribe.push(number),
            }
        }
    }

    /// A subscription that the leader has ended.
    fn ended(&mut self, number: i64) -> Option<Arc<Followed>> {
        let subscription = self.subscriptions.remove(&number)?;
        subscription.followed.unsubscribed();
        self.by_partition.remove(&subscription.followed.id);
        self.acknowledge.remove(&number);
        Some(subscription.followed)
    }

    fn said(&mut self, response: wire::ReplicateResponse, wanted: &Wanted) -> Result<(), Status> {
        if !std::mem::replace(&mut self.was_answered, true) {
            self.hub.cluster.reach.reached(self.leader);
        }
        if let Some(data) = response.data {
            return self.data(data, wanted);
        }
        match response.frame {
            Some(Said::Answers(answers)) => {
                for answer in answers.answers {
                    self.answered(answer, wanted)?;
                }
            }
            Some(Said::Progress(progress)) => {
                for ends in progress.ends {
                    if let Some(subscription) = self.hears(&ends) {
                        subscription.followed.partition.advance();
                    }
                }
            }
            None => return Err(Status::invalid_argument("frame: it is not set, or is not known here")),
        }
        Ok(())
    }

    /// The subscription that a message of the leader's is about, if it is to be taken.
    fn hears(&self, ends: &wire::LeaderEnds) -> Option<&Subscription> {
        let subscription = self.subscriptions.get(&ends.subscription)?;
        let followed = &subscription.followed;
        let heard = followed.hears(ends.leader_epoch, ends.subscription, ends.high_watermark, ends.log_start);
        heard.then_some(subscription)
    }

    fn data(&mut self, data: wire::ReplicaData, wanted: &Wanted) -> Result<(), Status> {
        let Some(ends) = data.leader else {
            return Err(Status::invalid_argument("data: leader: it is missing"));
        };
        let number = ends.subscription;
        let Some(subscription) = self.hears(&ends) else { return Ok(()) };
        let Some(leaders) = subscription.leaders else { return Ok(()) };
        let followed = &subscription.followed;
        self.hub.metrics.received_bytes.inc_by(data.frames.len() as u64);
        let (frames, bad) = decode_frames(data.frames, followed.id, leaders);
        // What was sent before this is in the log by then, or on its way into it: it is asked for again from where that ends.
        let at = frames.last().map_or(followed.partition.ends().log_end, |last| last.header.next_offset());
        let refused = self.refused.0.clone();
        followed.partition.replicate(Replicated {
            leader_epoch: followed.epoch,
            frames,
            done: Box::new(move |taken| {
                if let Err(error) = taken {
                    // The stream may have ended.
                    let _ = refused.send((number, error));
                }
            }),
        });
        if let Some(error) = bad {
            // One rotten batch is no reason to stop whatever else comes from there.
            self.hub.metrics.damaged_batches.inc();
            self.doubted.push(wire::DoubtedBatch { subscription: number, offset: at });
            self.not_taken(number, &Untaken::Sent(error), wanted);
        }
        Ok(())
    }

    /// The log has not taken what came.
    fn not_taken(&mut self, number: i64, why: &Untaken, wanted: &Wanted) {
        // The first one ends the subscription; those behind it find none.
        let Some(followed) = self.ended(number) else { return };
        self.unsubscribe.push(number);
        let is_full = matches!(why, Untaken::Refused(error) if is_full(error));
        self.hub.news.untaken(&self.hub.cluster.image(), followed.id, &why.to_string(), is_full);
        if is_wanted(wanted, &followed) {
            self.prepare_later(followed, FAILED_MS);
        }
    }

    fn answered(&mut self, answer: wire::SubscriptionAnswer, wanted: &Wanted) -> Result<(), Status> {
        let number = answer.subscription;
        let Some(subscription) = self.subscriptions.get_mut(&number) else { return Ok(()) };
        let welcome = match answer.answer {
            Some(Answer::Following(following)) => {
                subscription.leaders = Some(Incarnation(following.incarnation));
                let followed = subscription.followed.clone();
                followed.subscribed(number, self.bells.bell(number));
                let ends = wire::LeaderEnds {
                    subscription: number,
                    leader_epoch: followed.epoch,
                    high_watermark: following.high_watermark,
                    log_start: following.log_start,
                };
                if self.hears(&ends).is_some() {
                    followed.partition.advance();
                }
                return Ok(());
            }
            Some(Answer::Diverged(wire::Diverged { epoch, end, log_start })) => {
                Welcome::Diverged { epoch, end, log_start }
            }
            Some(Answer::StartOver(log_start)) => Welcome::StartOver { log_start },
            Some(Answer::End(_)) => {
                if let Some(followed) = self.ended(number).filter(|followed| is_wanted(wanted, followed)) {
                    let doubled = AGAIN_MS << followed.refused().min(5);
                    self.prepare_later(followed, doubled.min(AGAIN_MS_MAX));
                }
                return Ok(());
            }
            None => return Err(Status::invalid_argument("answer: it is not set, or is not known here")),
        };
        let Some(followed) = self.ended(number).filter(|followed| is_wanted(wanted, followed)) else {
            return Ok(());
        };
        let partition = &followed.partition;
        let first: BoxFuture<'static, _> = match step(welcome, &Epochs(partition), &log(partition.ends())) {
            Step::Cut { to } => Box::pin(cut::cut(self.hub.clone(), followed.clone(), to)),
            Step::StartOver { at } => Box::pin(self.hub.clone().start_over(followed.clone(), at)),
            Step::Follow | Step::Leave | Step::AskAgain => return Ok(()),
        };
        self.prepare(followed, Some(Box::pin(async move { if first.await { Ok(()) } else { Err(Failed) } })));
        Ok(())
    }

    fn has_something_to_say(&self) -> bool {
        !self.subscribe.is_empty() || !self.unsubscribe.is_empty() || !self.acknowledge.is_empty()
    }

    /// The next thing to say: what is over first, so that it holds back nothing.
    fn say(&mut self) -> Option<wire::ReplicateRequest> {
        let frame = if !self.unsubscribe.is_empty() {
            let rest = self.unsubscribe.split_off(self.unsubscribe.len().min(ENTRIES_MAX));
            let subscriptions = std::mem::replace(&mut self.unsubscribe, rest);
            let said = |batch: &mut wire::DoubtedBatch| subscriptions.contains(&batch.subscription);
            let doubted = self.doubted.extract_if(.., said).collect();
            Says::Unsubscribe(wire::Unsubscribe { subscriptions, doubted })
        } else if !self.acknowledge.is_empty() {
            let ends = std::mem::take(&mut self.acknowledge).into_iter().filter_map(|subscription| {
                let followed = &self.subscriptions.get(&subscription)?.followed;
                let (Ends { written, flushed }, log_start) = followed.tell();
                Some(wire::FollowerEnds {
                    subscription,
                    leader_epoch: followed.epoch,
                    written_end: written,
                    flushed_end: flushed,
                    log_start,
                })
            });
            Says::Acknowledge(wire::Acknowledge { ends: ends.collect() })
        } else {
            let rest = self.subscribe.split_off(self.subscribe.len().min(ENTRIES_MAX));
            let subscriptions = std::mem::replace(&mut self.subscribe, rest);
            Says::Subscribe(wire::Subscribe { subscriptions })
        };
        Some(wire::ReplicateRequest { frame: Some(frame) })
    }
}

/// Whether it is only for want of room.
fn is_full(error: &ReplicateError) -> bool {
    matches!(error, ReplicateError::DiskFull { .. })
}

/// Whether it is still this leadership that is to be followed.
fn is_wanted(wanted: &Wanted, followed: &Arc<Followed>) -> bool {
    wanted.get(&followed.id).is_some_and(|wanted| Arc::ptr_eq(wanted, followed))
}

fn log(ends: weir_storage::Ends) -> Log {
    Log {
        log_start: ends.log_start,
        high_watermark: ends.high_watermark,
        ends: Ends { written: ends.log_end, flushed: ends.flushed_end },
    }
}

#[cfg(test)]
mod tests;
