//! WatchMetadata: the map, then its changes, in messages that every stock client takes.

use std::sync::Arc;

use futures::{Stream, stream};
use prost::Message;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;
use weir_metadata::{Image, Topic};
use weir_proto::v1::{
    Broker as WireBroker, PartitionMetadata, TopicMetadata, WatchMetadataRequest, WatchMetadataResponse,
};
use weir_rpc::{LongCall, Problem};
use weir_types::TopicId;

use crate::broker::Broker;
use crate::calls::metadata::{
    TOPICS_BYTES, brokers, partition_metadata, topic_metadata, wanted, with_partitions,
};
use crate::calls::shared::ending::Ending;
use crate::serve::Entrance;

/// What a topic's id takes in a message.
const ID_BYTES: usize = 34;

/// What a watcher has been told.
struct Watching {
    broker: Arc<Broker>,
    entrance: Entrance,
    changes: watch::Receiver<i64>,
    names: Vec<String>,
    partition_changes: bool,
    told: Option<Arc<Image>>,
    /// What is left of it, in messages: they are made when they are wanted.
    telling: Option<Telling>,
    done: bool,
    ending: Ending,
    _long: Option<LongCall>,
}

/// The map, then its changes. A change is told by comparing what the watcher has with what is now, so that a slow
/// watcher skips what is in between instead of queueing it.
pub(crate) fn call(
    broker: Arc<Broker>,
    entrance: Entrance,
    request: WatchMetadataRequest,
    long: Option<LongCall>,
) -> Result<impl Stream<Item = Result<WatchMetadataResponse, Status>> + Send + use<>, Status> {
    if request.from_version < 0 {
        return Err(
            Problem::out_of_range("from_version", request.from_version, "must not be negative").into()
        );
    }
    let changes = broker.cluster.versions();
    let ending = Ending::new(&broker, long.as_ref());
    let watching = Watching {
        broker,
        entrance,
        changes,
        names: request.topics,
        partition_changes: request.partition_changes,
        told: None,
        telling: None,
        done: false,
        ending,
        _long: long,
    };
    Ok(stream::unfold(watching, |mut watching| async move {
        let message = watching.next().await?;
        watching.done = message.is_err();
        Some((message, watching))
    }))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<WatchMetadataResponse, Status>> {
        if self.done {
            return None;
        }
        // Not anew with each version: most of them may be no news here.
        let heartbeat = Instant::now() + self.broker.config.stream_heartbeat_ms;
        loop {
            if let Some(message) = self.telling.as_mut().and_then(Telling::message) {
                return Some(Ok(message));
            }
            self.telling = None;
            self.changes.borrow_and_update();
            let image = self.broker.cluster.image();
            let version = image.version();
            let told = self.told.replace(image.clone());
            if told.as_ref().is_none_or(|told| version > told.version()) {
                let Self { entrance, names, partition_changes, .. } = self;
                self.telling = Some(Telling::new(told, image, *entrance, names, *partition_changes));
                continue;
            }
            // Behind all there is to tell: the last that a broker says which stops in order is who leads instead.
            if let Some(cause) = self.ending.now() {
                return Some(Err(cause.status()));
            }
            tokio::select! {
                // It never ends before the broker does.
                _ = self.changes.changed() => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    return Some(Ok(WatchMetadataResponse { version, ..Default::default() }));
                }
                () = self.ending.comes() => {}
            }
        }
    }
}

/// What leads from one version to another.
struct Telling {
    /// What the watcher has; nothing: this is a snapshot.
    old: Option<Arc<Image>>,
    new: Arc<Image>,
    topics: std::vec::IntoIter<TopicId>,
    brokers: Vec<WireBroker>,
    partition_changes: bool,
    /// A snapshot of nothing is told, too.
    begun: bool,
}

impl Telling {
    fn new(
        old: Option<Arc<Image>>,
        new: Arc<Image>,
        entrance: Entrance,
        names: &[String],
        partition_changes: bool,
    ) -> Self {
        let now = brokers(&new, entrance);
        let (topics, brokers) = match &old {
            None => (wanted(&new, names, "").map(|topic| topic.id).collect(), now),
            Some(old) => {
                let asked =
                    |topic: &Topic| names.is_empty() || names.iter().any(|name| **name == *topic.name);
                let mut changed = new.topics_changed_since(old);
                changed.retain(|id| new.topic(*id).or_else(|| old.topic(*id)).is_some_and(asked));
                (changed, if brokers(old, entrance) == now { Vec::new() } else { now })
            }
        };
        Self { old, new, topics: topics.into_iter(), brokers, partition_changes, begun: false }
    }

    /// The next message; `None`: all is told.
    fn message(&mut self) -> Option<WatchMetadataResponse> {
        let snapshot = self.old.is_none();
        let mut message = WatchMetadataResponse {
            version: self.new.version(),
            snapshot,
            ..WatchMetadataResponse::default()
        };
        let mut bytes = 0;
        while bytes < TOPICS_BYTES
            && let Some(id) = self.topics.next()
        {
            bytes += self.tell(id, &mut message);
        }
        let begins = !std::mem::replace(&mut self.begun, true);
        if bytes == 0 && !(begins && (snapshot || !self.brokers.is_empty())) {
            return None;
        }
        // A snapshot's messages each say who is there; a change is said once.
        message.brokers = if snapshot { self.brokers.clone() } else { std::mem::take(&mut self.brokers) };
        Some(message)
    }

    /// Puts a topic into a message; how many bytes it takes there.
    fn tell(&self, id: TopicId, message: &mut WatchMetadataResponse) -> usize {
        let told = |list: &mut Vec<TopicMetadata>, topic: TopicMetadata| {
            let bytes = topic.encoded_len();
            list.push(topic);
            bytes
        };
        match (self.old.as_ref().and_then(|old| old.topic(id)), self.new.topic(id)) {
            (Some(before), Some(topic)) if self.partition_changes => {
                let changed = changed_partitions(before, topic);
                if changed.is_empty() {
                    return 0;
                }
                told(&mut message.changed_topics, with_partitions(topic, changed))
            }
            (_, Some(topic)) => told(&mut message.topics, topic_metadata(topic)),
            (Some(before), None) => {
                message.deleted_topic_ids.push(before.id.to_string());
                ID_BYTES
            }
            (None, None) => 0,
        }
    }
}

/// The partitions of which a watcher sees something else than before.
fn changed_partitions(before: &Topic, topic: &Topic) -> Vec<PartitionMetadata> {
    let seen = |topic: &Topic, number| Some(partition_metadata(number, topic.partitions.get(&number)?));
    let numbers = topic.partitions.differences(&before.partitions).into_iter();
    numbers
        .filter_map(|number| {
            let now = seen(topic, number)?;
            (seen(before, number).as_ref() != Some(&now)).then_some(now)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use weir_metadata::{ImageHead, ImageParts, Partition, TopicSummary};
    use weir_types::BrokerId;

    use super::*;

    const REPLICAS: i32 = 9;

    /// Topics `t00`, `t01` and so on, each with so many partitions, led by broker 1 but for those named.
    fn image(version: i64, topics: u128, partitions: i32, led_by_2: &[(u128, i32)]) -> Arc<Image> {
        let head = ImageHead { version, ..Image::default().head() };
        let mut parts = ImageParts::new(head);
        for number in 0..topics {
            let id = TopicId(number + 1);
            parts.topic(TopicSummary {
                id,
                name: format!("t{number:02}").into(),
                partitions,
                replication_factor: REPLICAS,
                config: Default::default(),
                copied: Default::default(),
                revision: 1,
                created_ms: 1,
            });
            for partition in 0..partitions {
                // The largest numbers there are: what takes the most bytes.
                let brokers = (0..REPLICAS).map(|at| BrokerId(i32::MAX - at)).collect::<Vec<_>>();
                let leader = if led_by_2.contains(&(number, partition)) { 2 } else { 1 };
                let mut record = Partition::new(brokers.iter().copied(), 1);
                record.leader = Some(BrokerId(leader));
                record.leader_epoch = i32::MAX;
                record.isr = brokers;
                parts.partition(id, partition, record);
            }
        }
        Arc::new(parts.finish())
    }

    fn messages(
        old: Option<&Arc<Image>>,
        new: &Arc<Image>,
        partition_changes: bool,
    ) -> Vec<WatchMetadataResponse> {
        let mut telling = Telling::new(old.cloned(), new.clone(), Entrance::Public, &[], partition_changes);
        std::iter::from_fn(|| telling.message()).collect()
    }

    #[test]
    fn no_message_is_too_large_for_stock_clients_however_many_partitions_there_are() {
        let largest = image(2, 5, weir_metadata::PARTITIONS_PER_TOPIC_MAX, &[]);
        let mut moved = vec![];
        moved.extend((0..5).map(|topic| (topic, 7)));
        let changed = image(3, 5, weir_metadata::PARTITIONS_PER_TOPIC_MAX, &moved);
        for (old, new) in [(None, &largest), (Some(&largest), &changed)] {
            let told = messages(old, new, false);
            let names = told.iter().flat_map(|message| &message.topics).map(|topic| topic.name.as_str());
            assert_eq!(names.collect::<Vec<_>>(), ["t00", "t01", "t02", "t03", "t04"]);
            assert!(told.iter().all(|message| message.snapshot == old.is_none()));
            let most = told.iter().map(Message::encoded_len).max().unwrap();
            assert!(most < 5 << 19, "a message of {most} bytes");
        }
    }

    #[test]
    fn who_takes_partitions_gets_those_that_changed_alone() {
        let (old, new) = (image(2, 3, 100, &[]), image(3, 3, 100, &[(1, 5), (1, 99)]));
        let told = messages(Some(&old), &new, true);
        let [message] = &told[..] else { panic!("{told:?}") };
        assert!(message.topics.is_empty());
        let [topic] = &message.changed_topics[..] else { panic!("{message:?}") };
        assert_eq!((topic.name.as_str(), topic.partition_count), ("t01", 100));
        let changed: Vec<_> = topic.partitions.iter().map(|it| (it.partition, it.leader)).collect();
        assert_eq!(changed, [(5, 2), (99, 2)]);
        // New topics and new partitions, too.
        let told = messages(Some(&old), &image(4, 4, 101, &[]), true);
        assert_eq!(told[0].changed_topics.len(), 3);
        assert!(told[0].changed_topics.iter().all(|topic| topic.partitions[0].partition == 100));
        assert_eq!(told[0].topics[0].name, "t03");
        // Everybody else gets whole topics.
        let told = messages(Some(&old), &new, false);
        assert_eq!((told[0].topics.len(), told[0].topics[0].partitions.len()), (1, 100));
    }

    #[test]
    fn a_snapshot_of_nothing_is_told_and_no_change_is_not() {
        let (old, new) = (image(2, 0, 0, &[]), image(3, 0, 0, &[]));
        assert_eq!(messages(None, &old, true).len(), 1);
        assert_eq!(messages(Some(&old), &new, true), []);
        let gone = messages(Some(&image(2, 1, 3, &[])), &new, true);
        assert_eq!(gone[0].deleted_topic_ids, [TopicId(1).to_string()]);
    }
}
