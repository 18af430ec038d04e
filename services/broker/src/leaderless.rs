//! What is said of a partition that nobody leads: whom it waits for.

use weir_metadata::Image;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_types::PartitionId;

use crate::topic_map::Topic;

/// The refusal of a partition that nobody leads, with the brokers that it waits for, and how they are. A partition that waits for
/// nobody is left as it is: it waits for a person, or has a leader by now.
pub(crate) fn explained(problem: Problem, image: &Image, topic: &Topic, partition: i32) -> Problem {
    let record = image.partition(PartitionId { topic: topic.id, partition });
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
