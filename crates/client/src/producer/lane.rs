//! The batches of one partition on their way to its leader. Pure: no clock, no socket, no task.
//!
//! ```text
//!   arrive -> early (tickets out of order) -> waiting -> inflight -> answered
//!                                                ^          | refused, poisoned, connection lost
//!                                                +- returned <
//! ```
//!
//! **Why nothing is lost, doubled or reordered** (idempotent producers):
//! - A batch gets its sequence number when it is first sent, in ticket order, and is sent again under the same
//!   number as long as an attempt of it may have been applied: the leader recognises it and answers as it did then.
//!   What was only queued for a stream and taken back from there puts nothing in doubt.
//! - A leader answers the batches of a partition in the order in which they came. So no number is without an answer
//!   behind which more than `inflight_max` others were sent, and the leader remembers that many.
//! - After a failure nothing new is sent until everything in flight has been answered or its stream is gone; then
//!   all of it goes again, in the old order. The leader refuses what comes with a gap before it. So it is, too, where
//!   nobody waits any more for what failed: what is behind it is refused with it, until the leader is told to resume.
//! - A number is given to other records only if no attempt under it, or under a later one, can still be applied:
//!   either none is in doubt, or the partition has been *settled*: it was asked for the first number with `seal`,
//!   and has fenced the producer's epoch, so that whatever is still on the way is refused. That says nothing of the
//!   numbers before it: what has those goes again and is answered first.
//! - Where the partition no longer remembers the producer, what is in doubt is reported as unknown and only the rest
//!   goes on, under a new id (never the old id at number 0).
//!
//! Without idempotence nothing is sent again that may have been applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use weir_types::{Producer, ProducerId, sequence_add};

use super::parcel::Parcel;
use super::receipt::{Delivery, Ticket};
use super::verdict::{Outcome, Verdict, unknown};
use crate::error::Applied;
use crate::{Error, Result};

/// A batch that is done with.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) ticket: Arc<Ticket>,
    /// Its memory, which may serve another.
    pub(super) payload: Bytes,
    pub(super) result: Result<Delivery>,
}

impl Done {
    fn of(parcel: Parcel, result: Result<Delivery>) -> Self {
        Self { ticket: parcel.ticket, payload: parcel.batch.payload, result }
    }
}

/// A question to the partition: was this sequence number applied?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The topic that the batch was meant for, whatever has that name by now.
    pub(super) topic_id: Arc<str>,
    pub(super) producer: Producer,
    pub(super) sequence: i32,
}

#[derive(Debug)]
pub(super) struct Lane {
    idempotent: bool,
    inflight_max: usize,
    early: BTreeMap<u64, Option<Parcel>>,
    next_arrival: u64,
    waiting: VecDeque<Parcel>,
    inflight: VecDeque<Parcel>,
    /// In their old order, until nothing is in flight any more.
    returned: VecDeque<Parcel>,
    producer: Option<Producer>,
    /// An id that this partition must not be written with again, in whatever epoch.
    spent: Option<ProducerId>,
    next_sequence: i32,
    /// Something failed: nothing new is sent until nothing is in flight, when the following is put right.
    stalled: bool,
    /// A topic that is gone, by its id; or all of them.
    topic_gone: Option<(Option<Arc<str>>, Error)>,
    start_over: Option<Error>,
    /// While there are any, only what has a number before all of them is sent.
    freed: Vec<Freed>,
    /// About the first of `freed`.
    settling: Option<Question>,
}

/// A sequence number that its batch does not use any more.
#[derive(Debug)]
struct Freed {
    number: Question,
    in_doubt: bool,
    /// The batch, if its result depends on what the partition says, and what it was refused with.
    parcel: Option<(Parcel, Error)>,
}

impl Question {
    /// About a batch that was given a number.
    fn about(parcel: &Parcel) -> Option<Self> {
        let (producer, sequence) = parcel.sequence?;
        Some(Self { topic_id: Arc::clone(&parcel.topic_id), producer, sequence })
    }
}

/// Whether a sequence number comes before another: they go round, and so "before" is the shorter way.
fn comes_before(sequence: i32, other: i32) -> bool {
    let ahead = other.wrapping_sub(sequence) & i32::MAX;
    ahead != 0 && ahead < i32::MAX / 2
}

impl Lane {
    pub(super) fn new(idempotent: bool, inflight_max: usize) -> Self {
        Self {
            idempotent,
            inflight_max,
            early: BTreeMap::new(),
            next_arrival: 0,
            waiting: VecDeque::new(),
            inflight: VecDeque::new(),
            returned: VecDeque::new(),
            producer: None,
            spent: None,
            next_sequence: 0,
            stalled: false,
            topic_gone: None,
            start_over: None,
            freed: Vec::new(),
            settling: None,
        }
    }

    /// A batch arrives, perhaps before one with a lower number, which is still being compressed. `None`: the batch
    /// of this number will not come.
    pub(super) fn arrive(&mut self, number: u64, parcel: Option<Parcel>) {
        self.early.insert(number, parcel);
        while let Some(next) = self.early.remove(&self.next_arrival) {
            self.next_arrival += 1;
            self.waiting.extend(next);
        }
    }

    /// Whether an answer is waited for.
    pub(super) fn has_inflight(&self) -> bool {
        !self.inflight.is_empty()
    }

    /// Whether the answer to this attempt is waited for.
    pub(super) fn waits_for(&self, correlation_id: i64) -> bool {
        self.inflight.iter().any(|parcel| parcel.correlation_id == correlation_id)
    }

    /// Whether a batch could go but for the want of an identity that is not `spent`.
    pub(super) fn wants_identity(&self) -> bool {
        self.idempotent && self.producer.is_none() && self.settling.is_none() && !self.waiting.is_empty()
    }

    /// Offers the producer's identity; refused if it is the one that this partition does not take any more.
    pub(super) fn offer_identity(&mut self, producer: Producer) -> bool {
        if self.spent == Some(producer.id) {
            return false;
        }
        if self.producer.is_none() {
            self.producer = Some(producer);
            self.next_sequence = 0;
        }
        true
    }

    pub(super) fn can_send(&self) -> bool {
        self.first_may_go()
            && !self.stalled
            && self.settling.is_none()
            && self.inflight.len() < self.inflight_max
            && (self.producer.is_some() || !self.idempotent)
    }

    /// Whether there is a first batch, and every number that is not used any more comes after its own.
    fn first_may_go(&self) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        self.freed
            .iter()
            .all(|freed| first.sequence.is_some_and(|(_, own)| comes_before(own, freed.number.sequence)))
    }

    /// Sends the next batch: numbers it and counts it as in flight.
    pub(super) fn send(&mut self, correlation_id: i64) -> Option<&Parcel> {
        if !self.can_send() {
            return None;
        }
        let mut parcel = self.waiting.pop_front()?;
        parcel.correlation_id = correlation_id;
        if let Some(producer) = self.producer.filter(|_| self.idempotent) {
            parcel.sequence.get_or_insert_with(|| {
                let sequence = self.next_sequence;
                self.next_sequence = sequence_add(sequence, parcel.batch.record_count);
                (producer, sequence)
            });
        }
        self.inflight.push_back(parcel);
        self.inflight.back()
    }

    /// The answer is yes.
    pub(super) fn succeeded(&mut self, correlation_id: i64, delivery: Delivery) -> Vec<Done> {
        let mut done = Vec::new();
        if let Some(parcel) = self.take(correlation_id) {
            done.push(Done::of(parcel, Ok(delivery)));
        }
        self.regroup(&mut done);
        done
    }

    /// The answer is no, perhaps to a batch that is not waited for any more. What is behind it comes back.
    pub(super) fn failed(&mut self, correlation_id: i64, verdict: Verdict) -> Vec<Done> {
        let mut done = Vec::new();
        self.stalled = true;
        if let Some(parcel) = self.take(correlation_id) {
            self.refused(parcel, verdict, &mut done);
        }
        self.regroup(&mut done);
        done
    }

    fn refused(&mut self, mut parcel: Parcel, verdict: Verdict, done: &mut Vec<Done>) {
        match verdict {
            Verdict::Again { .. } | Verdict::Behind => self.returned.push_back(parcel),
            Verdict::Unknown(error) => {
                if self.idempotent {
                    parcel.in_doubt = true;
                    self.returned.push_back(parcel);
                } else {
                    done.push(Done::of(parcel, Err(error)));
                }
            }
            Verdict::Never(error) => self.give_up(parcel, error, done),
            Verdict::Stranger(error) => {
                self.returned.push_back(parcel);
                self.start_over = Some(error);
            }
            Verdict::Gone(error) => {
                self.topic_gone = Some((Some(Arc::clone(&parcel.topic_id)), error));
                self.returned.push_back(parcel);
            }
        }
    }

    /// The attempts of this number and the later ones never left this process: it is as if they had not been made.
    pub(super) fn unsent(&mut self, first: i64) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(parcel) = self.inflight.pop_back_if(|parcel| parcel.correlation_id >= first) {
            self.waiting.push_front(parcel);
        }
        self.regroup(&mut done);
        done
    }

    /// The stream is gone, and with it the answers.
    pub(super) fn lost(&mut self, error: &Error) -> Vec<Done> {
        let mut done = Vec::new();
        while let Some(mut parcel) = self.inflight.pop_front() {
            if self.idempotent {
                parcel.in_doubt = true;
                self.returned.push_back(parcel);
            } else {
                done.push(Done::of(parcel, Err(error.clone())));
            }
        }
        self.regroup(&mut done);
        done
    }

    /// Time is up for this batch.
    pub(super) fn expired(&mut self, ticket: &Arc<Ticket>, error: impl Fn(Applied) -> Error) -> Vec<Done> {
        let is_it = |parcel: &Parcel| Arc::ptr_eq(&parcel.ticket, ticket);
        let mut done = Vec::new();
        for early in self.early.values_mut() {
            if let Some(parcel) = early.take_if(|parcel| is_it(parcel)) {
                done.push(Done::of(parcel, Err(error(Applied::No))));
                return done;
            }
        }
        for freed in &mut self.freed {
            if let Some((parcel, _)) = freed.parcel.take_if(|(parcel, _)| is_it(parcel)) {
                done.push(Done::of(parcel, Err(error(Applied::Maybe))));
                return done;
            }
        }
        if self.inflight.iter().any(is_it) {
            if !self.idempotent {
                let place = self.inflight.iter().position(is_it);
                if let Some(parcel) = place.and_then(|place| self.inflight.remove(place)) {
                    done.push(Done::of(parcel, Err(error(Applied::Maybe))));
                }
                self.regroup(&mut done);
                return done;
            }
            // Nobody answers. Whatever the stream still brings, it is asked for and sent again.
            done.extend(self.lost(&error(Applied::Maybe)));
        }
        for queue in [&mut self.returned, &mut self.waiting] {
            let Some(place) = queue.iter().position(is_it) else { continue };
            let Some(parcel) = queue.remove(place) else { continue };
            let applied = if parcel.in_doubt { Applied::Maybe } else { Applied::No };
            if let Some(number) = Question::about(&parcel) {
                self.freed.push(Freed { number, in_doubt: parcel.in_doubt, parcel: None });
                self.stalled = true;
            }
            done.push(Done::of(parcel, Err(error(applied))));
            break;
        }
        self.regroup(&mut done);
        done
    }

    /// The question was answered. The answer to one that is not asked any more says nothing of the one that is.
    pub(super) fn settled(&mut self, question: &Question, outcome: Outcome) -> Vec<Done> {
        let mut done = Vec::new();
        let Some(settling) = self.settling.take_if(|settling| settling == question) else { return done };
        match outcome {
            Outcome::Appended(delivery) => {
                let place = self.freed.iter().position(|freed| freed.number == settling);
                let freed = place.map(|place| self.freed.remove(place));
                let parcel = freed.and_then(|freed| freed.parcel);
                done.extend(parcel.map(|(parcel, _)| Done::of(parcel, Ok(delivery))));
            }
            Outcome::Never => {
                let next = Producer { epoch: settling.producer.epoch + 1, ..settling.producer };
                self.renumber(Some(next), 0, &mut done);
            }
            Outcome::Forgotten => {
                self.start_over = Some(Error::lost("the partition no longer remembers the producer"));
            }
            Outcome::Gone(error) => self.topic_gone = Some((Some(settling.topic_id), error)),
        }
        self.regroup(&mut done);
        done
    }

    /// What the partition is to be asked, if anything.
    pub(super) fn settling(&self) -> Option<&Question> {
        self.settling.as_ref()
    }

    /// Everything that is not done fails.
    pub(super) fn fail_everything(&mut self, error: &Error) -> Vec<Done> {
        let mut done = Vec::new();
        self.settling = None;
        for mut parcel in std::mem::take(&mut self.inflight) {
            parcel.in_doubt = true;
            self.returned.push_back(parcel);
        }
        // The numbers stay: what comes before them is still to arrive.
        self.waiting.extend(self.early.values_mut().filter_map(Option::take));
        self.topic_gone = Some((None, error.clone()));
        self.regroup(&mut done);
        done
    }

    fn take(&mut self, correlation_id: i64) -> Option<Parcel> {
        let place = self.inflight.iter().position(|parcel| parcel.correlation_id == correlation_id)?;
        self.inflight.remove(place)
    }

    /// A batch that is refused for good.
    fn give_up(&mut self, parcel: Parcel, error: Error, done: &mut Vec<Done>) {
        // Applied, only not as was wished: its number is used.
        let used = error.applied() == Applied::Yes;
        match Question::about(&parcel).filter(|_| !used) {
            // This attempt was not applied; an earlier one may have been.
            Some(number) if parcel.in_doubt => {
                self.freed.push(Freed { number, in_doubt: true, parcel: Some((parcel, error)) });
            }
            number => {
                let freed = number.map(|number| Freed { number, in_doubt: false, parcel: None });
                self.freed.extend(freed);
                done.push(Done::of(parcel, Err(error)));
            }
        }
    }

    /// Once nothing is in flight, what came back is first in the queue again, and what the failure did to the
    /// numbers is put right.
    fn regroup(&mut self, done: &mut Vec<Done>) {
        if !self.inflight.is_empty() {
            return;
        }
        while let Some(parcel) = self.returned.pop_back() {
            self.waiting.push_front(parcel);
        }
        if self.settling.is_some() {
            return;
        }
        self.stalled = false;
        if let Some((topic, error)) = self.topic_gone.take() {
            self.fail_waiting(topic.as_deref(), &error, done);
        }
        if let Some(error) = self.start_over.take() {
            self.fail_doubtful(&error, done);
            self.spent = self.producer.map(|producer| producer.id).or(self.spent);
            self.renumber(None, 0, done);
        }
        if self.first_may_go() {
            return;
        }
        let numbers = self.freed.iter().map(|freed| &freed.number);
        let first = numbers.reduce(|a, b| if comes_before(a.sequence, b.sequence) { a } else { b });
        let Some(first) = first.cloned() else { return };
        let in_doubt = self.freed.iter().any(|freed| freed.in_doubt)
            || self.waiting.iter().any(|parcel| parcel.in_doubt);
        if in_doubt {
            self.settling = Some(first);
        } else {
            self.renumber(Some(first.producer), first.sequence, done);
        }
    }

    /// What is in doubt is unknown for ever.
    fn fail_doubtful(&mut self, error: &Error, done: &mut Vec<Done>) {
        let refused = self.freed.drain(..).filter_map(|freed| freed.parcel);
        done.extend(refused.map(|(parcel, _)| Done::of(parcel, unknown(&error.to_string()))));
        for parcel in std::mem::take(&mut self.waiting) {
            if parcel.in_doubt {
                done.push(Done::of(parcel, unknown(&error.to_string())));
            } else {
                self.waiting.push_back(parcel);
            }
        }
    }

    /// What was meant for that topic fails, or everything. The rest is for the next one of its name, whose log begins
    /// anew.
    fn fail_waiting(&mut self, topic_id: Option<&str>, error: &Error, done: &mut Vec<Done>) {
        self.fail_doubtful(error, done);
        for parcel in std::mem::take(&mut self.waiting) {
            if topic_id.is_none_or(|id| *parcel.topic_id == *id) {
                done.push(Done::of(parcel, Err(error.clone())));
            } else {
                self.waiting.push_back(parcel);
            }
        }
        self.spent = self.producer.map(|producer| producer.id).or(self.spent);
        self.renumber(None, 0, done);
    }

    /// Everything that waits gets new numbers when it is sent. Nothing is in flight, and no number that was given is
    /// used by anything in the log but what has been answered.
    fn renumber(&mut self, producer: Option<Producer>, next_sequence: i32, done: &mut Vec<Done>) {
        self.producer = producer;
        self.next_sequence = next_sequence;
        for parcel in &mut self.waiting {
            parcel.sequence = None;
            parcel.in_doubt = false;
        }
        let refused = self.freed.drain(..).filter_map(|freed| freed.parcel);
        done.extend(refused.map(|(parcel, error)| Done::of(parcel, Err(error))));
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
