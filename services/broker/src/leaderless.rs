//! What is said of a partition that nobody leads: whom or what it waits for.

use weir_metadata::settings::UncleanRecovery;
use weir_metadata::{BrokerState, Image, Partition};
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::PartitionId;

use crate::topic_map::Topic;

/// Whether nobody is known to be complete, and the longest log leads by itself once replicas answer.
pub(crate) fn waits_for_the_longest(image: &Image, id: PartitionId, record: &Partition) -> bool {
    let topic = image.topic(id.topic);
    let is_longest = || {
        topic.is_some_and(|topic| image.topic_settings(topic).unclean_recovery == UncleanRecovery::Longest)
    };
    record.waits_for_a_person() && is_longest() && !is_gone(image, record)
}

/// Whether every broker that had a replica was removed.
fn is_gone(image: &Image, record: &Partition) -> bool {
    let is_removed = |id| image.broker(id).is_none_or(|broker| broker.state == BrokerState::Removed);
    record.replicas.iter().all(|replica| is_removed(replica.broker))
}

/// The refusal of a partition that nobody leads, with the brokers that it waits for, and how they are; or, where nobody is known to
/// be complete, with what else is known of it. One that waits for a person who can choose is left as it is, as is one that has a
/// leader by now.
pub(crate) fn explained(problem: Problem, image: &Image, topic: &Topic, partition: i32) -> Problem {
    let id = PartitionId { topic: topic.id, partition };
    let record = image.partition(id);
    if let Some(record) = record.filter(|record| record.waits_for_a_person()) {
        let name = format!("{}/{partition}", topic.name);
        if is_gone(image, record) {
            let said = format!(
                "{name} has no leader, and every broker that had a replica of it was removed, and with them what was in it: \
                 delete the topic and make it again"
            );
            let facts = problem.facts;
            return Problem { facts, ..Problem::new(ErrorReason::NoLeader, said) }.at(&topic.name, partition);
        }
        if waits_for_the_longest(image, id, record) {
            // It waits for no person: the fact that says so is left out.
            let said = format!(
                "{name} has no leader now: no replica is known to hold every acknowledged record, and the longest log leads \
                 once replicas answer that can be used (unclean_recovery = longest): start their brokers, or see weir \
                 errors NO_LEADER"
            );
            return Problem::new(ErrorReason::NoLeader, said).at(&topic.name, partition);
        }
        return problem;
    }
    let waited_for: Vec<_> = record.into_iter().flat_map(|record| record.waited_for()).collect();
    if waited_for.is_empty() {
        return problem;
    }
    let how = |id| image.broker(id).map_or_else(String::new, |broker| format!(" ({})", broker.state));
    let named = waited_for.iter().map(|id| format!("broker {id}{}", how(*id))).collect::<Vec<_>>();
    let said = format!(
        "{}: it waits for {}; nobody else is known to hold every acknowledged record (weir errors NO_LEADER says what to do \
         if a disk is gone for good)",
        problem.message,
        named.join(" or ")
    );
    let ids = waited_for.iter().map(ToString::to_string).collect::<Vec<_>>();
    Problem::new(ErrorReason::NoLeader, said).fact("waits_for", ids.join(",")).at(&topic.name, partition)
}
