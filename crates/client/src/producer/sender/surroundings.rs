//! What the sender needs of the rest of the world: the clock, the map of the cluster, an identity. Each is asked for by
//! a task of its own, whose answer comes back as an event, and which ends with the sender.

use std::sync::Arc;
use std::time::Duration;

use weir_types::Producer;

use super::{Event, Sender};
use crate::backoff::Backoff;
use crate::error::Applied;
use crate::producer::buffer::{ClosedBatches, Place};
use crate::producer::settle;
use crate::{Error, Result};

impl Sender {
    /// Asks something, for as long as it takes and there is anybody who wants to know. The question may be dropped at any
    /// await: whoever is asked does what he does all the same, and nobody relies on it.
    pub(super) fn ask(&self, question: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        self.inner.io.spawn(async move {
            tokio::select! {
                answer = question => {
                    let _closed = events.send(answer);
                }
                () = events.closed() => {}
            }
        });
    }

    /// Lets a lane wait before its next attempt.
    pub(super) fn wait(&mut self, place: Place, asked: Option<Duration>) {
        let Some(slot) = self.lanes.get_mut(&place).filter(|slot| !slot.waiting) else { return };
        slot.waiting = true;
        let wait = slot.backoff.next(&*self.inner.os, asked);
        self.inner.io.tell_later(wait, &self.events, Event::Retry(place));
    }

    pub(super) fn refresh(&mut self) {
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        let events = self.events.clone();
        self.inner.refresh_metadata_then(move || {
            let _closed = events.send(Event::MapRefreshed);
        });
    }

    /// Asks a broker why nobody leads a partition: the map says only that nobody does, and whoever waits wants to know
    /// whether that passes.
    pub(super) fn wonder(&mut self, place: Place) {
        let Some(slot) = self.lanes.get(&place).filter(|slot| !slot.waiting && !self.wondering) else {
            return;
        };
        self.wondering = true;
        let (inner, topic) = (Arc::clone(&self.inner), Arc::clone(&slot.topic));
        self.ask(
            async move { Event::Leaderless(place, inner.why_leaderless(&topic, place.partition).await) },
        );
    }

    /// Asks the leader whom it waits for with an append that it has not acknowledged: whoever waits with it wants to know.
    pub(super) fn ask_why(&mut self, place: Place) {
        let Some(slot) = self.lanes.get(&place).filter(|_| !self.asking_why) else { return };
        self.asking_why = true;
        let (inner, topic) = (Arc::clone(&self.inner), Arc::clone(&slot.topic));
        self.ask(
            async move { Event::Awaits(place, inner.why_unacknowledged(&topic, place.partition).await) },
        );
    }

    /// Takes over what is new: partitions, and leaders that others than ours.
    pub(super) fn map_refreshed(&mut self) {
        let map = self.inner.metadata.map();
        let mut closed = ClosedBatches::new();
        for topic in map.topics.values() {
            if self.buffer.knows(&topic.name) {
                self.buffer.learn(topic, None, &mut closed);
            }
        }
        closed.into_iter().for_each(|batch| self.pool.submit(batch));
        let places: Vec<_> = self.lanes.keys().copied().collect();
        for place in places {
            let Some(slot) = self.lanes.get_mut(&place) else { continue };
            let leader = map.leader(&slot.topic, place.partition).map(|(broker, epoch)| (broker.id, epoch));
            // What was waited for, perhaps; and if not, another one says why.
            if leader.is_some() && leader != slot.leader {
                slot.waiting = false;
                slot.backoff.reset();
            }
            slot.leader = leader;
            let leader = leader.map(|(broker, _)| broker);
            let at = slot.stream.and_then(|id| self.streams.get(&id)).map(|stream| stream.broker);
            // Another leader: the one that we wait for will not answer, or too late. What it may have taken is
            // recognised by the new one.
            if self.config.idempotent()
                && slot.lane.has_inflight()
                && leader.is_some()
                && at.is_some()
                && leader != at
            {
                self.take_back(place);
                let Some(slot) = self.lanes.get_mut(&place) else { continue };
                if let Some(stream) = slot.stream.take().and_then(|id| self.streams.get_mut(&id)) {
                    stream.poisoned.insert(place);
                    stream.unanswered.retain(|_, (other, bytes)| {
                        if *other == place {
                            stream.inflight_bytes -= *bytes;
                        }
                        *other != place
                    });
                }
                let done = slot.lane.lost(&Error::lost("another broker leads the partition now"));
                self.finish(place, done);
            }
            self.enqueue(place);
        }
    }

    pub(super) fn ask_for_identity(&mut self) {
        if self.identity_asked {
            return;
        }
        self.identity_asked = true;
        let inner = Arc::clone(&self.inner);
        self.ask(async move {
            let mut backoff = Backoff::usual();
            loop {
                match settle::open_producer(&inner).await {
                    // Whoever waits for it has a deadline of his own.
                    Err(error) if error.retry_after().is_some() || error.applied() != Applied::No => {
                        tracing::debug!(%error, "no producer id yet");
                        tokio::time::sleep(backoff.next(&*inner.os, error.asked_to_wait())).await;
                    }
                    identity => return Event::Identity(identity),
                }
            }
        });
    }

    pub(super) fn identified(&mut self, identity: Result<Producer>) {
        self.identity_asked = false;
        match identity {
            Ok(identity) => {
                self.identity = Some(identity);
                self.enqueue_all();
            }
            Err(error) => {
                let places: Vec<_> = self.lanes.keys().copied().collect();
                for place in places {
                    let Some(slot) = self.lanes.get_mut(&place) else { continue };
                    if slot.lane.wants_identity() {
                        let done = slot.lane.fail_everything(&error);
                        self.finish(place, done);
                    }
                }
            }
        }
    }
}
