//! What an acknowledgement says, and what a caller may insist on (correctness rule 43).

use std::sync::Arc;

use tokio::time::Instant;
use weir_proto::v1::{AppendReceipt, Applied, Durability as WireDurability, DurabilityFloor, ErrorReason};
use weir_rpc::Problem;
use weir_storage::{Acks, Appended, Holders};
use weir_types::{Durability, PartitionId};

use crate::broker::Broker;
use crate::mutant::Mutant;
use crate::replication::{Floor, Replication, UNSURE};
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

/// What a caller insists on, if appends to this topic can be acknowledged so at all.
pub(crate) fn floor(floor: Option<&DurabilityFloor>, topic: &Topic, acks: Acks) -> Result<Floor, Problem> {
    let Some(floor) = floor else { return Ok(Floor::default()) };
    let durability = WireDurability::try_from(floor.durability)
        .map_err(|_| Problem::unknown_enum("floor.durability", floor.durability))?;
    let demand = |field, given: i32| {
        usize::try_from(given).map_err(|_| Problem::out_of_range(field, given, "must not be negative"))
    };
    let replicas = demand("floor.replicas", floor.replicas)?;
    let zones = demand("floor.zones", floor.zones)?;
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
    Ok(Floor { replicas, zones, on_disk: durability == WireDurability::Disk })
}

/// Refuses, before the append, a floor that a partition's replicas in sync do not reach now. Whether they did is looked at
/// again when it is acknowledged.
pub(crate) fn check_in_sync(topic: &Topic, partition: i32, floor: Floor) -> Result<(), Problem> {
    let led = topic.partition(partition)?.led.as_ref();
    let Some(in_sync) = led.map(|led| led.in_sync()) else { return Ok(()) };
    for (what, wanted, have) in
        [("replicas", floor.replicas, in_sync.written), ("zones", floor.zones, in_sync.zones)]
    {
        if wanted > have {
            let said = format!(
                "{}/{partition}: the call insists on {wanted} {what}, {have} are in sync now",
                topic.name
            );
            return Err(Problem::new(ErrorReason::FloorNotMet, said)
                .fact("wanted", wanted)
                .fact("in_sync", have)
                .at(&topic.name, partition));
        }
    }
    Ok(())
}

/// Gives the receipt of an append that was acknowledged, at once or when what the caller insists on is met. What is not
/// committed is acknowledged only while nobody else can lead (correctness rule 10). It goes on without whoever called, and
/// `then` is called exactly once, possibly by a task of the log's: it must not block.
pub(crate) fn acknowledge(
    broker: &Arc<Broker>,
    topic: &Arc<Topic>,
    partition: i32,
    appended: Appended,
    (floor, until): (Floor, Option<Instant>),
    then: impl FnOnce(Result<AppendReceipt, Problem>) + Send + 'static,
) {
    if let Err(unsure) = sure(&broker.replication, topic, partition, &appended) {
        return then(Err(unsure));
    }
    if floor.is_met(appended.holders) {
        return then(Ok(receipt(topic, partition, &appended)));
    }
    let (broker_of, topic_of) = (broker.clone(), topic.clone());
    let met = move |holders: Option<Holders>| {
        then(match holders {
            // The wait may have been longer than what was left of the session.
            Some(holders) => sure(&broker_of.replication, &topic_of, partition, &appended)
                .map(|()| receipt(&topic_of, partition, &Appended { holders, ..appended })),
            None => Err(not_met(&topic_of, partition, floor, &appended)),
        });
    };
    match broker.replication.led(PartitionId { topic: topic.id, partition }) {
        Some(led) => {
            // Whoever has not got it by then has left the in-sync set.
            let longest = Instant::now() + broker.config.replica_lag_ms_max;
            let until = until.map_or(longest, |until| until.min(longest));
            led.when_met(appended.last_offset + 1, floor, until, Box::new(met));
        }
        None => met(None),
    }
}

/// Whether it may be acknowledged: it is committed, or nobody else can lead.
fn sure(
    replication: &Replication,
    topic: &Topic,
    partition: i32,
    appended: &Appended,
) -> Result<(), Problem> {
    let is_sure = || replication.is_sure(PartitionId { topic: topic.id, partition });
    if appended.committed || is_sure() || Mutant::AcknowledgedUnheard.is_planted() {
        return Ok(());
    }
    let said = format!(
        "{}/{partition}: it is written, but {UNSURE}: another one may lead by now and not have it (acks ALL are not \
         concerned)",
        topic.name
    );
    let unknown = Problem::new(ErrorReason::OutcomeUnknown, said).applied(Applied::Maybe);
    Err(unknown.at(&topic.name, partition))
}

/// It was appended, and is not as safe as the caller insists.
pub(crate) fn not_met(topic: &Topic, partition: i32, floor: Floor, appended: &Appended) -> Problem {
    let Floor { replicas, zones, on_disk } = floor;
    let (class, state) = (
        if on_disk { " on disk" } else { "" },
        if appended.committed { "committed" } else { "written here, not committed" },
    );
    let said = format!(
        "{}/{partition}: the records from {} to {} are {state}, and were not in {replicas} replicas{class} and {zones} zones \
         in time, on which the call insists",
        topic.name, appended.base_offset, appended.last_offset
    );
    let applied = if appended.committed { Applied::Yes } else { Applied::Maybe };
    Problem::new(ErrorReason::FloorNotMet, said)
        .applied(applied)
        .fact("base_offset", appended.base_offset)
        .at(&topic.name, partition)
}

/// The receipt of one append: who had it when it was acknowledged.
pub(crate) fn receipt(topic: &Topic, partition: i32, appended: &Appended) -> AppendReceipt {
    let Holders { written, flushed, zones } = appended.holders;
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let durability = if appended.flushed { WireDurability::Disk } else { WireDurability::Memory };
    AppendReceipt {
        topic: topic.name.to_string(),
        partition,
        base_offset: appended.base_offset,
        last_offset: appended.last_offset,
        leader_epoch: appended.leader_epoch,
        append_timestamp_ms: appended.append_time_ms,
        durability: durability.into(),
        replicas_written: count(written).max(1),
        replicas_flushed: count(flushed).max(i32::from(appended.flushed)),
        zones: count(zones).max(1),
        committed: appended.committed || Mutant::LeaderIsAll.is_planted(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded, topic};

    #[tokio::test(start_paused = true)]
    async fn what_is_not_committed_is_acknowledged_only_within_the_session() {
        let (parts, topic) = (Parts::new(), topic());
        let log = parts.lead(ID, recorded(1, &[1, 2])).await;
        parts.is_heard();
        // The other one has nothing.
        let appended = append(&log, batch(0), Acks::Leader, None).await.unwrap().unwrap();
        let committed = Appended { committed: true, ..appended };
        let said = |appended| sure(&parts.replication, &topic, 0, appended).map_err(|unsure| unsure.reason);
        assert_eq!((said(&appended), said(&committed)), (Ok(()), Ok(())));
        parts.is_unheard().await;
        assert_eq!((said(&appended), said(&committed)), (Err(ErrorReason::OutcomeUnknown), Ok(())));
    }

    /// One that is led here, with these in sync, and not committed yet.
    async fn appended(parts: &Parts, id: PartitionId, in_sync: &[i32]) -> Appended {
        let log = parts.lead(id, recorded(1, in_sync)).await;
        let appended = append(&log, batch(0), Acks::Leader, None).await.unwrap().unwrap();
        Appended { committed: false, ..appended }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_gives_up_a_damaged_log_promises_only_what_nobody_else_can_lead() {
        let (parts, topic) = (Parts::new(), topic());
        let [unshared, other] = [1, 2].map(|partition| PartitionId { partition, ..ID });
        parts.is_heard();
        let mut all = Vec::new();
        for (id, in_sync) in [(ID, &[1, 2][..]), (unshared, &[1]), (other, &[1, 2])] {
            all.push((id.partition, appended(&parts, id, in_sync).await));
        }
        let said = || all.iter().map(|(id, one)| sure(&parts.replication, &topic, *id, one).is_ok());
        assert!(said().all(|said| said));
        for id in [ID, unshared] {
            parts.replication.led(id).unwrap().give_up();
        }
        let now: Vec<_> = said().collect();
        assert_eq!(now, [false, true, true], "the other one may have been elected with the next heartbeat");
        // Nothing is asked for any more, which was decided by this version.
        parts.replication.led(ID).unwrap().is_kept_from(9);
        assert!(!said().all(|said| said), "what came of it is not known here");
        parts.cluster.acted_upon(9);
        assert!(said().all(|said| said), "it leads on");
    }

    #[test]
    fn a_damaged_leader_that_promises_what_others_may_lead_is_noticed() {
        let test = a_leader_that_gives_up_a_damaged_log_promises_only_what_nobody_else_can_lead;
        assert!(Mutant::RottenPromises.is_noticed_by(test));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_stands_back_promises_only_what_nobody_else_can_lead() {
        let (parts, topic) = (Parts::new(), topic());
        let unshared = PartitionId { partition: 1, ..ID };
        parts.is_heard();
        let (of_both, of_one) = (appended(&parts, ID, &[1, 2]).await, appended(&parts, unshared, &[1]).await);
        let shared = || sure(&parts.replication, &topic, 0, &of_both).is_ok();
        let alone = || sure(&parts.replication, &topic, 1, &of_one).is_ok();
        assert!(shared() && alone());
        parts.cluster.says_slow();
        assert!(!shared() && alone(), "the other one may have been elected with the next heartbeat");
    }

    #[test]
    fn a_slow_broker_that_promises_what_others_may_lead_is_noticed() {
        let test = a_broker_that_stands_back_promises_only_what_nobody_else_can_lead;
        assert!(Mutant::SlowPromises.is_noticed_by(test));
    }

    #[test]
    fn what_is_acknowledged_by_who_is_not_heard_is_noticed() {
        let test = what_is_not_committed_is_acknowledged_only_within_the_session;
        assert!(Mutant::AcknowledgedUnheard.is_noticed_by(test));
    }
}
