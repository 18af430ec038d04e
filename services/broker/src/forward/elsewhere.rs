//! What one client's stream reads of partitions that other brokers lead: what their leaders send waits here, in the order
//! in which it came, until it is its turn.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    BatchDelivery, FetchAssign, FetchEnd, FetchHeartbeat, FetchHello, PartitionProgress, SubscriptionProgress,
};
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::forward::feed::{self, Ear, Feed, Heard, Mouth, Said};
use crate::forward::hop::{self, Hop};

/// What is read elsewhere.
pub(crate) struct Elsewhere {
    broker: Arc<Broker>,
    hop: Hop,
    /// As the client's stream began.
    hello: FetchHello,
    feeds: HashMap<BrokerId, Feed>,
    next_feed: u64,
    mouth: Mouth,
    ear: Ear,
    subscriptions: HashMap<i64, There>,
    held: VecDeque<Held>,
}

/// A subscription whose partition another broker leads.
struct There {
    generation: i64,
    leader: BrokerId,
    feed: u64,
    paused: bool,
    /// Where it stands for the client: behind what was handed over, whatever is held.
    progress: PartitionProgress,
    /// Whether the client has not been told of where it stands.
    untold: bool,
}

/// Something that waits for its turn.
struct Held {
    leader: BrokerId,
    feed: u64,
    what: What,
}

enum What {
    Delivery(BatchDelivery),
    Progress(SubscriptionProgress),
    End(FetchEnd),
}

impl Elsewhere {
    pub(crate) fn new(broker: Arc<Broker>, hop: Hop, hello: FetchHello) -> Self {
        let (mouth, ear) = feed::ear();
        Self {
            broker,
            hop,
            hello,
            feeds: HashMap::new(),
            next_feed: 0,
            mouth,
            ear,
            subscriptions: HashMap::new(),
            held: VecDeque::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = i64> {
        self.subscriptions.keys().copied()
    }

    /// The generation of a subscription that is read elsewhere.
    pub(crate) fn generation(&self, id: i64) -> Option<i64> {
        self.subscriptions.get(&id).map(|there| there.generation)
    }

    /// Whether something may still come to a client that says no more.
    pub(crate) fn can_go_on(&self) -> bool {
        self.subscriptions.values().any(|there| !there.paused)
    }

    /// Where a subscription stands.
    pub(crate) fn progress(&self, id: i64) -> Option<SubscriptionProgress> {
        let there = self.subscriptions.get(&id)?;
        Some(SubscriptionProgress {
            subscription_id: id,
            generation: there.generation,
            progress: Some(there.progress.clone()),
        })
    }

    /// Has a partition read by its leader.
    pub(crate) async fn assign(&mut self, leader: BrokerId, assign: FetchAssign) {
        self.release_at_others(assign.subscription_id, leader);
        if !self.feeds.contains_key(&leader) {
            self.next_feed += 1;
            let (number, mouth) = (self.next_feed, self.mouth.clone());
            let feed = Feed::open(&self.broker, &self.hop, leader, number, &self.hello, mouth);
            self.feeds.insert(leader, feed);
        }
        let Some(feed) = self.feeds.get_mut(&leader) else { return };
        feed.prepare(&self.broker, &self.hop, &assign).await;
        let there = There {
            generation: assign.generation,
            leader,
            feed: feed.number,
            paused: assign.paused,
            progress: PartitionProgress {
                topic: assign.topic.clone(),
                partition: assign.partition,
                next_offset: assign.offset,
                leader_epoch: assign.leader_epoch,
                ..PartitionProgress::default()
            },
            untold: true,
        };
        self.subscriptions.insert(assign.subscription_id, there);
        feed.assign(assign);
    }

    /// Has a subscription read no more, if there is such a one.
    pub(crate) fn release(&mut self, id: i64) {
        let Some(there) = self.subscriptions.remove(&id) else { return };
        if let Some(feed) = self.feeds.get(&there.leader).filter(|feed| feed.number == there.feed) {
            feed.release(id);
        }
    }

    fn release_at_others(&mut self, id: i64, leader: BrokerId) {
        if self.subscriptions.get(&id).is_some_and(|there| there.leader != leader) {
            self.release(id);
        }
    }

    /// Takes what has come; waits until something does.
    pub(crate) async fn hear(&mut self) {
        // Cancel safe: what is taken is kept.
        let heard = self.ear.next().await;
        self.keep(heard);
        self.hear_now();
    }

    /// Takes what has come.
    pub(crate) fn hear_now(&mut self) {
        while let Some(heard) = self.ear.now() {
            self.keep(heard);
        }
    }

    fn keep(&mut self, Heard { leader, feed, said }: Heard) {
        if self.feeds.get(&leader).is_none_or(|current| current.number != feed) {
            return;
        }
        let mut hold = |what| self.held.push_back(Held { leader, feed, what });
        match said {
            Said::Delivery(delivery) => hold(What::Delivery(delivery)),
            Said::Progress(all) => all.into_iter().map(What::Progress).for_each(hold),
            Said::End(end) => hold(What::End(end)),
            Said::Over(why) => {
                self.feeds.remove(&leader);
                let ended = self.subscriptions.iter().filter(|(_, there)| there.feed == feed);
                let ends: Vec<_> = ended
                    .map(|(id, there)| {
                        let PartitionProgress { topic, partition, .. } = &there.progress;
                        let problem = hop::unreachable(topic, *partition, leader, &why);
                        FetchEnd {
                            subscription_id: *id,
                            generation: there.generation,
                            failure: Some(problem.failure()),
                        }
                    })
                    .collect();
                let ends = ends.into_iter().map(|end| Held { leader, feed, what: What::End(end) });
                self.held.extend(ends);
            }
        }
    }

    /// The next thing for the client, if it is its turn: a delivery only where there is credit.
    pub(crate) fn next(&mut self, has_credit: bool) -> Option<Out> {
        loop {
            let stopped = matches!(self.held.front()?.what, What::Delivery(_)) && !has_credit;
            if stopped {
                return None;
            }
            let Held { leader, feed, what } = self.held.pop_front()?;
            let said = match what {
                What::Delivery(delivery) => {
                    if let Some(current) = self.feeds.get(&leader).filter(|current| current.number == feed) {
                        current.left(feed::size(&delivery));
                    }
                    self.delivered(feed, delivery)
                }
                What::Progress(progress) => self.progressed(feed, progress),
                What::End(end) => self.ended(feed, end),
            };
            if said.is_some() {
                return said;
            }
        }
    }

    fn there(&mut self, id: i64, generation: i64, feed: u64) -> Option<&mut There> {
        let there = self.subscriptions.get_mut(&id)?;
        (there.generation == generation && there.feed == feed).then_some(there)
    }

    fn delivered(&mut self, feed: u64, delivery: BatchDelivery) -> Option<Out> {
        let there = self.there(delivery.subscription_id, delivery.generation, feed)?;
        let last_timestamp_ms = delivery.batch.as_ref().map_or(0, |batch| batch.max_timestamp_ms);
        there.progress.next_offset = delivery.next_offset;
        there.progress.high_watermark = delivery.high_watermark;
        there.progress.last_stable_offset = delivery.last_stable_offset;
        there.progress.log_start_offset = delivery.log_start_offset;
        there.progress.leader_epoch = delivery.next_leader_epoch;
        there.progress.last_timestamp_ms = last_timestamp_ms;
        there.untold = false;
        Some(Out::Delivery(delivery))
    }

    fn progressed(&mut self, feed: u64, said: SubscriptionProgress) -> Option<Out> {
        let there = self.there(said.subscription_id, said.generation, feed)?;
        let progress = said.progress?;
        let news = there.untold || progress.next_offset != there.progress.next_offset;
        there.progress = progress;
        there.untold = false;
        let now = self.progress(said.subscription_id).filter(|_| news)?;
        Some(Out::Heartbeat(FetchHeartbeat { progress: vec![now], ..FetchHeartbeat::default() }))
    }

    fn ended(&mut self, feed: u64, end: FetchEnd) -> Option<Out> {
        self.there(end.subscription_id, end.generation, feed)?;
        self.subscriptions.remove(&end.subscription_id);
        Some(Out::End(end))
    }
}
