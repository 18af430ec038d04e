//! What an acknowledgement says, and what a caller may insist on (correctness rule 43).

use weir_proto::v1::{AppendReceipt, Applied, Durability as WireDurability, DurabilityFloor, ErrorReason};
use weir_rpc::Problem;
use weir_storage::{Acks, Appended};
use weir_types::Durability;

use crate::broker::Broker;
use crate::topic_map::Topic;

/// The acks of a call, with its default.
pub(crate) fn acks(value: i32, default: Acks) -> Result<Acks, Problem> {
    use weir_proto::v1::Acks as Wire;
    match Wire::try_from(value) {
        Ok(Wire::Unspecified) => Ok(default),
        Ok(Wire::None) => Ok(Acks::None),
        Ok(Wire::Leader) => Ok(Acks::Leader),
        Ok(Wire::All) => Ok(Acks::All),
        Err(_) => Err(Problem::unknown_enum("acks", value)),
    }
}

/// Refuses, before the append, a floor that this topic cannot meet.
pub(crate) fn check_floor(floor: Option<&DurabilityFloor>, topic: &Topic, acks: Acks) -> Result<(), Problem> {
    let Some(floor) = floor else { return Ok(()) };
    let durability = WireDurability::try_from(floor.durability)
        .map_err(|_| Problem::unknown_enum("floor.durability", floor.durability))?;
    for (field, given) in [("floor.replicas", floor.replicas), ("floor.zones", floor.zones)] {
        if given < 0 {
            return Err(Problem::out_of_range(field, given, "must not be negative"));
        }
    }
    let unmet = |what: String| {
        Err(Problem::new(ErrorReason::FloorNotMet, format!("topic \"{}\": {what}", topic.name))
            .fact("topic", &topic.name))
    };
    if acks == Acks::None {
        return unmet("a floor needs a receipt, and acks NONE gives none".to_owned());
    }
    if durability == WireDurability::Disk && topic.durability != Durability::Fsync {
        return unmet(format!(
            "the call insists on disk, the topic's durability is {} (fixed when it was created)",
            topic.durability
        ));
    }
    for (what, given) in [("replicas", floor.replicas), ("zones", floor.zones)] {
        if given > 1 {
            return unmet(format!("the call insists on {given} {what}, its partitions have 1"));
        }
    }
    Ok(())
}

/// The receipt of an append that was acknowledged; what is not committed is acknowledged only while nobody else can lead
/// (correctness rule 10).
pub(crate) fn acknowledge(
    broker: &Broker,
    topic: &Topic,
    partition: i32,
    appended: &Appended,
) -> Result<AppendReceipt, Problem> {
    if appended.committed || broker.cluster.session_valid() {
        return Ok(receipt(topic, partition, appended));
    }
    let said = format!(
        "{}/{partition}: it is written, but this broker has not heard of a controller for a session: another one may lead \
         by now and not have it (acks ALL are not concerned)",
        topic.name
    );
    Err(Problem::new(ErrorReason::OutcomeUnknown, said).applied(Applied::Maybe).at(&topic.name, partition))
}

/// The receipt of one append, true at this moment.
pub(crate) fn receipt(topic: &Topic, partition: i32, appended: &Appended) -> AppendReceipt {
    let (written, flushed) = topic.holders(partition, appended);
    let durability = if appended.flushed { WireDurability::Disk } else { WireDurability::Memory };
    AppendReceipt {
        topic: topic.name.to_string(),
        partition,
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        leader_epoch: appended.leader_epoch,
        append_timestamp_ms: appended.append_time_ms,
        durability: durability.into(),
        replicas_written: written,
        replicas_flushed: flushed,
        zones: 1,
        committed: appended.committed,
        duplicate: appended.duplicate,
        record_indexes: Vec::new(),
    }
}

/// Sequences promise exactly once, which an acknowledgement that may be lost cannot keep (correctness rule 17).
pub(crate) fn producer_needs_all(topic: &str, partition: i32) -> Problem {
    Problem::conflict(
        "acks",
        "producer",
        "a producer with sequences needs acks ALL: others may be lost and asked for again",
    )
    .at(topic, partition)
}
