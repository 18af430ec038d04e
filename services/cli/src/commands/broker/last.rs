//! What goes with a broker's disk: the partitions of which no other replica is known to be complete.

use weir_proto::v1::{PartitionDescription, TopicMetadata};

use crate::commands::partition;
use crate::error::Result;
use crate::offsets;
use crate::session::Session;
use crate::units;

/// How many are named one by one.
const NAMED: usize = 10;

/// Their names. What is led by another broker is complete there.
pub(super) async fn ask(session: &Session, id: i32) -> Result<Vec<String>> {
    let held = leaderless(&offsets::topics(session, &[]).await?, id);
    let described = partition::named(session, &held).await?;
    Ok(described.iter().filter(|one| is_last(one, id)).map(partition::name).collect())
}

/// The partitions that nobody leads and that a broker has a replica of.
fn leaderless(topics: &[TopicMetadata], id: i32) -> Vec<String> {
    let of = |topic: &TopicMetadata| -> Vec<String> {
        let held = topic.partitions.iter().filter(|one| one.leader < 0 && one.replicas.contains(&id));
        held.map(|one| format!("{}/{}", topic.name, one.partition)).collect()
    };
    topics.iter().flat_map(of).collect()
}

/// Whether it is known to be complete on this broker, and on no other one.
fn is_last(partition: &PartitionDescription, id: i32) -> bool {
    let mut complete = partition.isr.iter().chain(&partition.eligible);
    let mut others = complete.clone();
    complete.any(|broker| *broker == id) && others.all(|broker| *broker == id)
}

/// The first of them, and how many more there are.
fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let also = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{named}{also}")
}

/// What has become of them, once it is removed.
pub(super) fn said_of_lost(names: &[String]) -> String {
    let count = units::counted(names.len() as u64, "partition");
    let first = names.first().map_or("", String::as_str);
    format!(
        "lost with it: what other replicas lack of {count} ({}). How many records that are nobody can count, and nobody leads \
         them now; weir partition elect {first} --unclean shows what is left, and makes a leader of it",
        named(names)
    )
}

/// What that means, in words; nothing of none.
pub(super) fn said(names: &[String]) -> Option<String> {
    let named = named(names);
    (!names.is_empty()).then(|| {
        format!(
            "it alone is known to have all of {named}: what other replicas lack is lost with its disk, and a person \
             decides about them then (weir partition elect --unclean)"
        )
    })
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::PartitionMetadata;

    use super::*;

    #[test]
    fn only_who_is_the_last_one_takes_something_with_it() {
        let partition = |isr: &[i32], eligible: &[i32]| PartitionDescription {
            isr: isr.to_vec(),
            eligible: eligible.to_vec(),
            ..PartitionDescription::default()
        };
        assert!(is_last(&partition(&[], &[3]), 3));
        assert!(!is_last(&partition(&[], &[2, 3]), 3), "another one is waited for");
        assert!(!is_last(&partition(&[], &[2]), 3));
        assert!(!is_last(&partition(&[], &[]), 3), "it is lost already");
    }

    #[test]
    fn what_others_lead_is_complete_there() {
        let partition = |partition, leader, replicas: &[i32]| PartitionMetadata {
            partition,
            leader,
            replicas: replicas.to_vec(),
            ..PartitionMetadata::default()
        };
        let topic = TopicMetadata {
            name: "t".to_owned(),
            partitions: vec![partition(0, 1, &[1, 3]), partition(1, -1, &[1, 3]), partition(2, -1, &[1, 2])],
            ..TopicMetadata::default()
        };
        assert_eq!(leaderless(&[topic], 3), ["t/1"]);
    }

    #[test]
    fn many_are_counted() {
        assert_eq!(said(&[]), None);
        let names: Vec<_> = (0..12).map(|number| format!("t/{number}")).collect();
        let said = said(&names).unwrap();
        assert!(said.contains("t/9 and 2 more:") && !said.contains("t/10"), "{said}");
        let lost = said_of_lost(&names[..2]);
        assert!(
            lost.starts_with("lost with it: what other replicas lack of 2 partitions (t/0, t/1). How"),
            "{lost}"
        );
        assert!(lost.contains("weir partition elect t/0 --unclean"), "{lost}");
    }
}
