//! The leader's end of a stream between two brokers: it carries every partition that is led here and followed there.
//! Hot path.
//!
//! Partitions take turns: whatever has something to send is rung for, and gets one read at a time, so that one that is
//! far behind does not starve the rest. What may be on its way is bounded for each partition and for the stream; what is
//! read from the page cache is sent at once, and a read that has to wait for the disk holds up nobody.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};
use tonic::Status;
use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_proto::internal::v1::replicate_request::Frame as Said;
use weir_proto::internal::v1::replicate_response::Frame as Says;
use weir_proto::internal::v1::subscription_answer::Answer;
use weir_replication::{Ends, Member, Position, Welcome};
use weir_storage::{Chunk, ReadError};
use weir_types::PartitionId;

use crate::mutant::Mutant;
use crate::replication::bells::Bells;
use crate::replication::feed::{Feed, READ_BYTES};
use crate::replication::suspects::Suspect;
use crate::replication::{Led, Replication};

/// How long a rise of a high watermark waits for batches that would say it, too.
const PROGRESS_DELAY: Duration = Duration::from_millis(5);
/// Answers in one message, at most.
const ANSWERS_MAX: usize = 4_096;

type Out = UnboundedSender<Result<wire::ReplicateResponse, Status>>;
type Read = BoxFuture<'static, (i64, Result<Chunk, ReadError>)>;

/// See the module.
pub(crate) struct LeadingStream {
    hub: Arc<Replication>,
    follower: Member,
    /// Bytes that may be on their way, and are.
    window_bytes: usize,
    in_flight_bytes: usize,
    out: Out,
    feeds: BTreeMap<i64, Feed>,
    bells: Arc<Bells<i64>>,
    reads: FuturesUnordered<Read>,
    /// Those that wait for room in the window.
    blocked: VecDeque<i64>,
    /// Reads that are on their way: they count in the window as what they may bring.
    reading_bytes: usize,
    /// Whether what was said last of high watermarks is still to be sent.
    is_telling: Arc<AtomicBool>,
    /// Those whose follower is to be told of a high watermark, and when.
    progress: BTreeSet<i64>,
    progress_at: Option<Instant>,
}

impl LeadingStream {
    pub(crate) fn new(
        hub: Arc<Replication>,
        follower: Member,
        window_bytes: usize,
        out: Out,
        is_telling: Arc<AtomicBool>,
    ) -> Self {
        Self {
            hub,
            follower,
            window_bytes,
            in_flight_bytes: 0,
            out,
            feeds: BTreeMap::new(),
            bells: Bells::new(),
            reads: FuturesUnordered::new(),
            blocked: VecDeque::new(),
            reading_bytes: 0,
            is_telling,
            progress: BTreeSet::new(),
            progress_at: None,
        }
    }

    /// Carries on until the follower goes, or says what cannot be understood.
    ///
    /// # Errors
    /// What the follower is told: what it said that it must not, or that the stream broke.
    pub(crate) async fn run(
        mut self,
        mut requests: BoxStream<'static, Result<wire::ReplicateRequest, Status>>,
    ) -> Result<(), Status> {
        loop {
            let progress_at = self.progress_at;
            let due = async move {
                match progress_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Each branch is cancel safe: what is not taken is there in the next turn.
            tokio::select! {
                request = requests.next() => match request {
                    None => return Ok(()),
                    Some(request) => self.said(request?)?,
                },
                subscription = self.bells.next() => self.serve(subscription),
                Some((subscription, chunk)) = self.reads.next() => self.read(subscription, chunk),
                () = due => self.tell_progress(),
                () = self.out.closed() => return Ok(()),
            }
        }
    }

    fn said(&mut self, request: wire::ReplicateRequest) -> Result<(), Status> {
        match request.frame {
            Some(Said::Subscribe(wanted)) => {
                let answers = wanted.subscriptions.into_iter().map(|one| self.subscribe(one));
                let answers = answers.collect::<Result<Vec<_>, _>>()?;
                for answers in answers.chunks(ANSWERS_MAX) {
                    self.answer(answers.to_vec());
                }
            }
            Some(Said::Unsubscribe(over)) => {
                over.doubted.iter().for_each(|batch| self.doubted(*batch));
                over.subscriptions.iter().for_each(|one| self.forget(*one));
            }
            Some(Said::Acknowledge(acknowledged)) => {
                acknowledged.ends.iter().for_each(|ends| self.acknowledged(ends));
            }
            Some(Said::Hello(_)) => return Err(Status::invalid_argument("a second hello")),
            None => return Err(Status::invalid_argument("frame: it is not set, or is not known here")),
        }
        Ok(())
    }

    fn subscribe(&mut self, wanted: wire::Subscription) -> Result<wire::SubscriptionAnswer, Status> {
        let malformed = |what: &str| Status::invalid_argument(format!("subscription: {what}"));
        let number = wanted.subscription;
        if number <= 0 || self.feeds.contains_key(&number) {
            return Err(malformed("the number is not above 0, or was used before"));
        }
        let id = wanted.partition.ok_or_else(|| malformed("partition: it is missing"))?;
        let id = PartitionId::from_wire(id).map_err(|error| malformed(&format!("partition: {error}")))?;
        let position = Position {
            log_end: wanted.log_end,
            flushed_end: wanted.flushed_end,
            last_epoch: wanted.last_epoch,
        };
        let end = |why: wire::SubscriptionEnd| Answer::End(why.into());
        let is_meant =
            |led: &Arc<Led>| led.epoch() == wanted.leader_epoch || Mutant::AnyEpochFollowed.is_planted();
        let answer = match self.hub.led(id).filter(is_meant) {
            None => end(wire::SubscriptionEnd::NotLeader),
            Some(led) => {
                let (bell, inner) = (self.bells.bell(number), self.number_in_leadership(number));
                match led.subscribe(self.follower, inner, position, &bell) {
                    None => end(wire::SubscriptionEnd::NotLeader),
                    Some(Welcome::NotAReplica) => end(wire::SubscriptionEnd::NotAReplica),
                    Some(Welcome::Superseded) => end(wire::SubscriptionEnd::Superseded),
                    Some(Welcome::GoesFurther) => end(wire::SubscriptionEnd::GoesFurther),
                    Some(Welcome::NotYet) => end(wire::SubscriptionEnd::NotYet),
                    Some(Welcome::StartOver { log_start }) => Answer::StartOver(log_start),
                    Some(Welcome::Diverged { epoch, end, log_start }) => {
                        Answer::Diverged(wire::Diverged { epoch, end, log_start })
                    }
                    Some(Welcome::Follow) => {
                        let incarnation = led.partition.incarnation().0;
                        let from = position.log_end;
                        let mut feed = Feed::new(led, self.follower, inner, from, bell.clone());
                        let ends = feed.leader_ends(number);
                        self.feeds.insert(number, feed);
                        bell.ring();
                        Answer::Following(wire::Following {
                            incarnation,
                            high_watermark: ends.high_watermark,
                            log_start: ends.log_start,
                        })
                    }
                }
            }
        };
        Ok(wire::SubscriptionAnswer { subscription: number, answer: Some(answer) })
    }

    /// What a subscription is called in the leadership: on another stream another one may have the same number.
    fn number_in_leadership(&self, number: i64) -> u64 {
        match Mutant::NumberReused.is_planted() {
            true => number.unsigned_abs(),
            false => self.hub.next_subscription(),
        }
    }

    /// What was sent is not opened here: a follower finds what has changed on the disk.
    fn doubted(&self, batch: wire::DoubtedBatch) {
        if let Some(feed) = self.feeds.get(&batch.subscription) {
            self.hub.suspects.note(feed.led.partition.id(), Suspect::Sent(batch.offset));
        }
    }

    fn acknowledged(&mut self, said: &wire::FollowerEnds) {
        // One that is over may have been on its way.
        let Some(feed) = self.feeds.get_mut(&said.subscription) else { return };
        if said.leader_epoch != feed.led.epoch() && !Mutant::AnyEpochHeard.is_planted() {
            return;
        }
        let ends = Ends { written: said.written_end, flushed: said.flushed_end };
        let arrived = feed.acknowledged(ends, said.log_start);
        if arrived > 0 {
            let bell = feed.bell.clone();
            bell.ring();
            self.arrived(arrived);
        }
    }

    /// So much is not on its way any more: those that waited for room get their turn.
    fn arrived(&mut self, bytes: usize) {
        self.in_flight_bytes -= bytes;
        self.unblock();
    }

    fn unblock(&mut self) {
        if self.is_full() {
            return;
        }
        for blocked in self.blocked.drain(..) {
            if let Some(feed) = self.feeds.get_mut(&blocked) {
                feed.is_blocked = false;
                feed.bell.ring();
            }
        }
    }

    fn is_full(&self) -> bool {
        self.in_flight_bytes + self.reading_bytes >= self.window_bytes
    }

    /// A partition's turn.
    fn serve(&mut self, subscription: i64) {
        let is_full = self.is_full();
        let Some(feed) = self.feeds.get_mut(&subscription) else { return };
        if feed.led.has_ended() {
            self.end(subscription, wire::SubscriptionEnd::NotLeader);
            return;
        }
        match feed.read() {
            Some(_) if is_full => {
                feed.is_blocked = true;
                self.blocked.push_back(subscription);
            }
            Some(request) => {
                feed.is_reading = true;
                self.reading_bytes += READ_BYTES;
                let partition = feed.led.partition.clone();
                self.reads.push(Box::pin(async move { (subscription, partition.read(request).await) }));
            }
            None if self.progress.insert(subscription) => {
                self.progress_at.get_or_insert_with(|| Instant::now() + PROGRESS_DELAY);
            }
            None => {}
        }
    }

    /// What was read goes out, if it was the leader's log that was read.
    fn read(&mut self, subscription: i64, chunk: Result<Chunk, ReadError>) {
        self.reading_bytes -= READ_BYTES;
        self.take_up(subscription, chunk);
        self.unblock();
    }

    fn take_up(&mut self, subscription: i64, chunk: Result<Chunk, ReadError>) {
        let Some(feed) = self.feeds.get_mut(&subscription) else { return };
        feed.is_reading = false;
        if feed.led.has_ended() {
            self.end(subscription, wire::SubscriptionEnd::NotLeader);
            return;
        }
        match chunk {
            Ok(chunk) if chunk.is_empty() => {}
            Ok(chunk) => {
                let bytes = chunk.bytes.len();
                feed.sent(chunk.next_offset, bytes);
                let leader = Some(feed.leader_ends(subscription));
                feed.bell.ring();
                self.in_flight_bytes += bytes;
                self.hub.metrics.sent_bytes.inc_by(bytes as u64);
                self.send(wire::ReplicateResponse {
                    frame: None,
                    data: Some(wire::ReplicaData { leader, frames: chunk.bytes }),
                });
            }
            Err(ReadError::OutOfRange { log_start, .. }) => {
                self.forget(subscription);
                let answer = Some(Answer::StartOver(log_start));
                self.answer(vec![wire::SubscriptionAnswer { subscription, answer }]);
            }
            Err(error) => {
                let (id, at, follower) = (feed.led.partition.id(), feed.next(), self.follower.broker.0);
                if let ReadError::Damaged(what) = &error {
                    self.hub.suspects.note(id, Suspect::Read(at, what.clone()));
                }
                let (topic, partition) = (self.hub.topic(id), id.partition);
                tracing::error!(topic, partition, follower, %error, "cannot read a log for a replica that follows it");
                self.end(subscription, wire::SubscriptionEnd::Unreadable);
            }
        }
    }

    /// Says how far logs are committed where no batch has said so meanwhile.
    fn tell_progress(&mut self) {
        if self.is_telling.load(Ordering::SeqCst) {
            // The follower does not read: it hears of the newest once it does.
            self.progress_at = Some(Instant::now() + PROGRESS_DELAY);
            return;
        }
        self.progress_at = None;
        let due = std::mem::take(&mut self.progress);
        let ends: Vec<_> = due
            .into_iter()
            .filter_map(|subscription| self.feeds.get_mut(&subscription)?.progress(subscription))
            .collect();
        for ends in ends.chunks(ANSWERS_MAX) {
            self.is_telling.store(true, Ordering::SeqCst);
            let progress = Says::Progress(wire::ReplicaProgress { ends: ends.to_vec() });
            self.send(wire::ReplicateResponse { frame: Some(progress), data: None });
        }
    }

    fn end(&mut self, subscription: i64, why: wire::SubscriptionEnd) {
        self.forget(subscription);
        let answer = Some(Answer::End(why.into()));
        self.answer(vec![wire::SubscriptionAnswer { subscription, answer }]);
    }

    fn forget(&mut self, subscription: i64) {
        if let Some(feed) = self.feeds.remove(&subscription) {
            self.arrived(feed.in_flight_bytes());
        }
    }

    fn answer(&self, answers: Vec<wire::SubscriptionAnswer>) {
        let frame = Some(Says::Answers(wire::SubscriptionAnswers { answers }));
        self.send(wire::ReplicateResponse { frame, data: None });
    }

    /// What waits to be sent is bounded by the window.
    fn send(&self, response: wire::ReplicateResponse) {
        // The loop sees that nobody listens any more.
        let _ = self.out.send(Ok(response));
    }
}
