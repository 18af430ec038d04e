//! What this broker serves, by name: read without a lock by every call, and replaced by one that shares with it what
//! did not change when the metadata does.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use weir_metadata::{SharedMap, TOPIC_NAME_BYTES_MAX};
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_storage::{Ends, Partition};
use weir_types::{BrokerId, Durability, LeaderEpoch, TopicId, did_you_mean, nearest};

use crate::ingest::BatchRules;
use crate::replication::{Followed, Led};

/// A topic, ready for use. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    pub(crate) rules: BatchRules,
    pub(crate) durability: Durability,
    /// By number, without gaps.
    pub(crate) partitions: SharedMap<i32, Placed>,
}

/// A partition and where it is led.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    /// The log, if this broker has it and it is usable.
    pub(crate) local: Option<Partition>,
    /// Its leadership, if this broker leads it.
    pub(crate) led: Option<Arc<Led>>,
    /// The replica here, while it follows the leader in sync: readers who stand near may have it.
    pub(crate) in_sync_here: Option<Arc<Followed>>,
    /// Why it is not, if this broker should have it.
    pub(crate) problem: Option<Arc<str>>,
    /// What was damaged of the replica here, while it is fetched anew.
    pub(crate) mends: Option<Arc<str>>,
    /// Whether nobody will lead it by itself, because no replica is known to be complete.
    pub(crate) waits_for_a_person: bool,
}

impl Placed {
    /// Whom its leader here waits for, that may have what its log lacks (correctness rule 8), in a sentence without its end.
    pub(crate) fn hears(&self) -> Option<String> {
        let led = self.led.as_ref().filter(|led| led.may_lack())?;
        let brokers = led.unheard().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(format!(
            "its leader has just begun, and first hears the replicas on brokers {brokers}, which may have more"
        ))
    }
}

/// All topics, at one version of the metadata.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicMap {
    by_name: SharedMap<Arc<str>, Arc<Topic>>,
}

impl TopicMap {
    /// Puts a topic in, instead of the one of that name.
    pub(crate) fn put(&mut self, topic: Topic) {
        self.by_name.insert(topic.name.clone(), Arc::new(topic));
    }

    /// Takes a topic out, if it is the one of that name.
    pub(crate) fn remove(&mut self, name: &str, id: TopicId) {
        if self.by_name.get(name).is_some_and(|topic| topic.id == id) {
            self.by_name.remove(name);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The topic of that name, or an error that says what the caller may have meant.
    pub(crate) fn get(&self, name: &str) -> Result<&Arc<Topic>, Problem> {
        self.get_hinting(name, &mut Hints(1))
    }

    /// The same for one of the many topics that a call names: not every wrong one gets a hint.
    pub(crate) fn get_hinting(&self, name: &str, hints: &mut Hints) -> Result<&Arc<Topic>, Problem> {
        self.find(name).ok_or_else(|| {
            let names = self.by_name.iter().map(|(name, _)| &**name);
            if hints.take() { not_found(name, names) } else { not_found(name, std::iter::empty()) }
        })
    }

    /// The topic of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }
}

/// The current map.
#[derive(Debug, Default)]
pub(crate) struct Topics(ArcSwap<TopicMap>);

impl Topics {
    pub(crate) fn load(&self) -> Guard<Arc<TopicMap>> {
        self.0.load()
    }

    pub(crate) fn replace(&self, map: TopicMap) {
        self.0.store(Arc::new(map));
    }

    /// The topic of that name.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Topic>, Problem> {
        self.load().get(name).cloned()
    }

    /// The same for one of the many topics that a call names.
    pub(crate) fn get_hinting(&self, name: &str, hints: &mut Hints) -> Result<Arc<Topic>, Problem> {
        self.load().get_hinting(name, hints).cloned()
    }
}

impl Topic {
    /// How many partitions it has.
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    /// Whether it is the system's own.
    pub(crate) fn is_internal(&self) -> bool {
        self.name.starts_with("__")
    }

    /// Refuses another life of the topic than the caller means. An empty id is no guard.
    pub(crate) fn check_id(&self, topic_id: &str) -> Result<(), Problem> {
        if topic_id.is_empty() || topic_id.parse() == Ok(self.id) {
            return Ok(());
        }
        Err(Problem::new(
            ErrorReason::TopicIdMismatch,
            format!(
                "topic \"{}\" has the id {}, the call names {topic_id}: it was deleted and created again",
                self.name, self.id
            ),
        )
        .fact("topic", &self.name)
        .fact("topic_id", self.id)
        .fact("given", topic_id))
    }

    /// A partition by number.
    pub(crate) fn partition(&self, number: i32) -> Result<&Placed, Problem> {
        self.partitions.get(&number).ok_or_else(|| {
            Problem::new(
                ErrorReason::PartitionNotFound,
                format!(
                    "topic \"{}\" has partitions 0 to {}, not {number}",
                    self.name,
                    self.partition_count().saturating_sub(1)
                ),
            )
            .fact("partitions", self.partition_count())
            .fact("given", number)
            .at(&self.name, number)
        })
    }

    /// A partition's log, if this broker leads it.
    pub(crate) fn led_here(&self, number: i32) -> Result<&Partition, Problem> {
        let placed = self.partition(number)?;
        placed.local.as_ref().ok_or_else(|| {
            let problem = self.not_led_here(number, placed);
            if placed.waits_for_a_person { problem.fact("waits_for_a_person", true) } else { problem }
        })
    }

    /// A partition's high watermark is told, if it has reached the start of the leadership: until then it may be lower than
    /// one that was told before (correctness rule 4).
    pub(crate) fn check_settled(&self, number: i32, ends: &Ends) -> Result<(), Problem> {
        if ends.is_settled() {
            return Ok(());
        }
        self.check_heard(number)?;
        let said = format!(
            "{}/{number}: its leader has just begun, and does not know yet how far it is committed: ask again",
            self.name
        );
        Err(Problem::new(ErrorReason::OffsetNotAvailable, said).at(&self.name, number))
    }

    /// Of nothing it is said that it is not there while others are waited for that may have it (correctness rule 8).
    pub(crate) fn check_heard(&self, number: i32) -> Result<(), Problem> {
        let Some(hears) = self.partitions.get(&number).and_then(Placed::hears) else { return Ok(()) };
        let said = format!("{}/{number}: {hears}: ask again", self.name);
        Err(Problem::new(ErrorReason::OffsetNotAvailable, said).at(&self.name, number))
    }

    fn not_led_here(&self, number: i32, placed: &Placed) -> Problem {
        match (&placed.problem, placed.leader) {
            (Some(problem), _) => Problem::new(
                ErrorReason::PartitionOffline,
                format!("{}/{number} is offline on this broker: {problem}", self.name),
            )
            .at(&self.name, number),
            (None, None) => {
                let rest = if placed.waits_for_a_person {
                    ", and gets none by itself: no replica is known to hold every acknowledged record \
                     (weir errors NO_LEADER says what a person can do)"
                } else {
                    " now"
                };
                Problem::new(ErrorReason::NoLeader, format!("{}/{number} has no leader{rest}", self.name))
                    .at(&self.name, number)
            }
            (None, Some(leader)) => Problem::new(
                ErrorReason::NotLeader,
                format!("{}/{number} is led by broker {leader}, not by this one", self.name),
            )
            .fact("leader", leader)
            .fact("leader_epoch", placed.leader_epoch)
            .at(&self.name, number),
        }
    }
}

/// How many more topics that do not exist are compared with those that do: a call or a stream may name thousands.
#[derive(Debug)]
pub(crate) struct Hints(u32);

impl Default for Hints {
    fn default() -> Self {
        Self(4)
    }
}

impl Hints {
    fn take(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

/// No topic of that name, with the nearest one that exists.
pub(crate) fn not_found<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Problem {
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return too_long(name);
    }
    let nearest = nearest(name, names);
    let hint = did_you_mean(nearest);
    let problem = Problem::new(
        ErrorReason::TopicNotFound,
        format!("topic \"{name}\" does not exist{hint} (weir topic list)"),
    )
    .fact("topic", name);
    match nearest {
        Some(known) => problem.fact("nearest", known),
        None => problem,
    }
}

/// What can be the name of no topic.
fn too_long(name: &str) -> Problem {
    let bytes = name.len();
    let shown: String = name.chars().take(100).collect();
    Problem::new(
        ErrorReason::FieldMalformed,
        format!(
            "topic \"{shown}...\" has {bytes} bytes: the name of a topic has at most {TOPIC_NAME_BYTES_MAX}"
        ),
    )
    .fact("field", "topic")
    .fact("given", bytes)
    .fact("limit", TOPIC_NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_name_is_not_repeated_at_length() {
        let problem = not_found(&"x".repeat(4 << 20), ["flights"].into_iter());
        assert_eq!(problem.reason, ErrorReason::FieldMalformed);
        assert!(problem.message.capacity() < 1_000);
    }

    #[test]
    fn a_call_that_names_many_wrong_topics_gets_few_hints() {
        let mut hints = Hints::default();
        assert_eq!((0..10).filter(|_| hints.take()).count(), 4);
    }

    #[test]
    fn a_misspelt_topic_is_told_its_neighbour() {
        let problem = not_found("flihgts", ["flights", "orders"].into_iter());
        assert_eq!(
            problem.message,
            "topic \"flihgts\" does not exist; did you mean \"flights\"? (weir topic list)"
        );
        let problem = not_found("zzz", ["flights"].into_iter());
        assert_eq!(problem.message, "topic \"zzz\" does not exist (weir topic list)");
    }
}
