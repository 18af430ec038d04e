//! What the streams say, and how they end.

use std::time::Duration;

use weir_proto::v1;
use weir_proto::v1::produce_stream_response::Frame as In;

use super::{BrokerStream, Event, INFLIGHT_BYTES_MAX, Sender};
use crate::Error;
use crate::backoff::Backoff;
use crate::channel::Purpose;
use crate::error::Applied;
use crate::producer::buffer::Place;
use crate::producer::receipt::Delivery;
use crate::producer::stream::StreamEvent;
use crate::producer::verdict::Verdict;

impl Sender {
    pub(super) fn hear(&mut self, id: u64, event: StreamEvent) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match event {
            StreamEvent::Heard(In::Welcome(welcome)) => {
                stream.welcomed = true;
                self.backoffs.remove(&stream.broker);
                Self::limit(stream, welcome.limits);
            }
            StreamEvent::Heard(In::Limits(limits)) => Self::limit(stream, Some(limits)),
            StreamEvent::Heard(In::Result(result)) => self.answered(id, result),
            StreamEvent::Heard(In::Goodbye(goodbye)) => {
                tracing::debug!(broker = stream.broker, ?goodbye.cause, "a broker says goodbye");
                self.end(id);
            }
            StreamEvent::Written(correlation_id) => {
                if let Some((place, bytes)) = stream.unanswered.remove(&correlation_id) {
                    stream.inflight_bytes -= bytes;
                    if let Some(slot) = self.lanes.get_mut(&place) {
                        let delivery = Delivery::unconfirmed(place.partition);
                        let done = slot.lane.succeeded(correlation_id, delivery);
                        self.hindrances.over(&place);
                        self.finish(place, done);
                        self.enqueue(place);
                    }
                }
            }
            StreamEvent::Ended(error) => self.ended(id, &error),
        }
    }

    pub(super) fn limit(stream: &mut BrokerStream, limits: Option<v1::Limits>) {
        let bytes = limits.map_or(0, |limits| usize::try_from(limits.inflight_bytes_max).unwrap_or(0));
        if bytes > 0 {
            stream.inflight_bytes_max = bytes.min(INFLIGHT_BYTES_MAX);
        }
    }

    pub(super) fn answered(&mut self, id: u64, result: v1::AppendResult) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let correlation_id = result.correlation_id;
        let Some((place, bytes)) = stream.unanswered.remove(&correlation_id) else {
            if let Some(failure) = result.failure.as_ref().filter(|_| !self.config.idempotent()) {
                self.failed_without_acks(id, correlation_id, failure);
            }
            return;
        };
        stream.inflight_bytes -= bytes;
        let Some(slot) = self.lanes.get_mut(&place) else { return };
        let done = match (&result.receipt, &result.failure) {
            (Some(receipt), None) => {
                slot.backoff.reset();
                self.hindrances.over(&place);
                slot.lane.succeeded(correlation_id, Delivery::of_batch(receipt))
            }
            (_, Some(failure)) => {
                stream.poisoned.insert(place);
                let verdict = Verdict::of(failure);
                tracing::debug!(topic = %slot.topic, partition = place.partition, ?verdict, "an append failed");
                let (elsewhere, after) = match &verdict {
                    Verdict::Again { elsewhere, after } => (*elsewhere, Some(*after)),
                    Verdict::Unknown(_) | Verdict::Stranger(_) => (false, Some(None)),
                    _ => (false, None),
                };
                let elsewhere = elsewhere || matches!(verdict, Verdict::Gone(_));
                match &verdict {
                    // Nobody waits for it any more, so it keeps nobody.
                    _ if !slot.lane.waits_for(correlation_id) => {}
                    // The one before it says why.
                    Verdict::Behind => {}
                    _ if after.is_some() => self.hindrances.note(place, Error::from_failure(failure)),
                    _ => self.hindrances.over(&place),
                }
                if matches!(verdict, Verdict::Gone(_)) {
                    self.buffer.forget(place.topic);
                }
                let done = slot.lane.failed(correlation_id, verdict);
                if let Some(after) = after {
                    self.wait(place, after);
                }
                if elsewhere {
                    self.refresh();
                }
                done
            }
            (None, None) => {
                let error = Error::lost("the answer to an append has neither a receipt nor a failure");
                slot.lane.failed(correlation_id, Verdict::Unknown(error))
            }
        };
        self.finish(place, done);
        self.enqueue(place);
    }

    /// The only thing that is heard of appends without acknowledgement: their receipts have long been given. Others of
    /// the partition may be behind them, and come back.
    pub(super) fn failed_without_acks(&mut self, id: u64, correlation_id: i64, failure: &v1::Failure) {
        let place = self.lanes.iter().find_map(|(place, slot)| {
            (*slot.topic == *failure.topic && place.partition == failure.partition).then_some(*place)
        });
        if let (Some(place), Some(stream)) = (place, self.streams.get_mut(&id)) {
            tracing::warn!(
                topic = failure.topic,
                partition = failure.partition,
                error = failure.message,
                "records sent without acknowledgement were refused"
            );
            stream.poisoned.insert(place);
            if let Some(slot) = self.lanes.get_mut(&place) {
                let done = slot.lane.failed(correlation_id, Verdict::of(failure));
                self.finish(place, done);
                self.enqueue(place);
            }
        }
        self.refresh();
    }

    /// No new batches on this stream; those in flight are still answered.
    pub(super) fn end(&mut self, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.ending = true;
        let ready: Vec<_> = stream.ready.drain(..).collect();
        self.inner.channels.renew(&stream.address, Purpose::Streams);
        if self.current.get(&stream.broker) == Some(&id) {
            self.current.remove(&stream.broker);
        }
        self.refresh();
        for place in ready {
            if let Some(slot) = self.lanes.get_mut(&place) {
                slot.queued = false;
            }
            self.enqueue(place);
        }
    }

    pub(super) fn ended(&mut self, id: u64, error: &Error) {
        let Some(stream) = self.streams.get(&id) else { return };
        tracing::debug!(broker = stream.broker, %error, "a producing stream ended");
        // A planned end is no reason to wait, but a stream that never came up is.
        let planned = stream.welcomed && error.is_about_the_connection() && error.applied() == Applied::No;
        let broker = stream.broker;
        let backoff = self.backoffs.entry(broker).or_insert_with(Backoff::usual);
        let wait =
            if planned { Duration::ZERO } else { backoff.next(&*self.inner.os, error.asked_to_wait()) };
        if !wait.is_zero() && self.resting.insert(broker) {
            self.inner.io.tell_later(wait, &self.events, Event::Rested(broker));
        }
        self.end(id);
        let lost: Vec<_> =
            self.lanes.iter().filter(|(_, slot)| slot.stream == Some(id)).map(|(place, _)| *place).collect();
        for place in &lost {
            self.take_back(*place);
        }
        self.streams.remove(&id);
        for place in lost {
            let Some(slot) = self.lanes.get_mut(&place) else { continue };
            slot.stream = None;
            if !planned {
                self.hindrances.note(place, error.clone());
            }
            let done = slot.lane.lost(error);
            self.finish(place, done);
            self.enqueue(place);
        }
    }

    /// Takes back what a lane has in its stream's queue: it has not left this process, whatever becomes of the rest.
    pub(super) fn take_back(&mut self, place: Place) {
        let Some(slot) = self.lanes.get_mut(&place) else { return };
        let Some(stream) = slot.stream.and_then(|id| self.streams.get_mut(&id)) else { return };
        let ours = |id| stream.unanswered.get(&id).is_some_and(|(owner, _)| *owner == place);
        let back = stream.outlet.take_back(ours);
        let Some(first) = back.first().map(|append| append.correlation_id) else { return };
        for append in back {
            if let Some((_, bytes)) = stream.unanswered.remove(&append.correlation_id) {
                stream.inflight_bytes -= bytes;
            }
            if append.resume {
                stream.poisoned.insert(place);
            }
        }
        let done = slot.lane.unsent(first);
        self.finish(place, done);
    }
}
