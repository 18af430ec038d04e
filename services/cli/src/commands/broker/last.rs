//! What goes with a broker's disk: the partitions of which no other replica is known to be complete.

use weir_proto::v1::{PartitionDescription, TopicMetadata};

use crate::commands::partition;
use crate::error::Result;
use crate::offsets;
use crate::session::Session;
use crate::units;

/// How many are named one by one.
const NAMED: usize = 10;

/// A partition that is known to be complete on one broker alone.
#[derive(Debug)]
pub(super) struct Last {
    /// How it is named.
    pub(super) name: String,
    /// Nobody else has a replica: once that broker is removed there is nobody to elect.
    is_alone: bool,
}

/// Which they are. What is led by another broker is complete there.
pub(super) async fn ask(session: &Session, id: i32) -> Result<Vec<Last>> {
    let held = leaderless(&offsets::topics(session, &[]).await?, id);
    let described = partition::named(session, &held).await?;
    let last: Vec<_> = described.iter().filter(|one| is_last(one, id)).collect();
    if last.is_empty() {
        return Ok(Vec::new());
    }
    let brokers = super::all(session).await?;
    let named = |one: &PartitionDescription| Last {
        name: partition::name(one),
        is_alone: partition::waiting::is_gone_without(one, id, &brokers),
    };
    Ok(last.into_iter().map(named).collect())
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

/// Those that others have a replica of, and those that nobody else has one of.
fn apart(last: &[Last]) -> (Vec<&str>, Vec<&str>) {
    let named = |alone: bool| last.iter().filter(|one| one.is_alone == alone).map(|one| &*one.name).collect();
    (named(false), named(true))
}

/// The first of them, and how many more there are.
fn named(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let also = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{named}{also}")
}

fn counted(names: &[&str]) -> String {
    format!("{} ({})", units::counted(names.len() as u64, "partition"), named(names))
}

/// What has become of them, once it is removed: a sentence for each kind.
pub(super) fn said_of_lost(last: &[Last]) -> Vec<String> {
    let (others, alone) = apart(last);
    let of_others = others.first().map(|first| {
        format!(
            "lost with it: what other replicas lack of {}. How many records that are nobody can count, and nobody leads \
             them now; weir partition elect {first} --unclean shows what is left, and makes a leader of it",
            counted(&others)
        )
    });
    let of_alone = (!alone.is_empty()).then(|| {
        format!(
            "lost with it: all of {}, for no other broker has a replica. There is nobody to elect: delete the topic and make it \
             again, or bring the records back from a copy of them",
            counted(&alone)
        )
    });
    of_others.into_iter().chain(of_alone).collect()
}

/// What that means, in words; nothing of none.
pub(super) fn said(last: &[Last]) -> Option<String> {
    let (others, alone) = apart(last);
    let of_others = (!others.is_empty()).then(|| {
        format!(
            "it alone is known to have all of {}: what other replicas lack is lost with its disk, and a person \
             decides about them then (weir partition elect --unclean)",
            named(&others)
        )
    });
    let of_alone = (!alone.is_empty()).then(|| {
        format!(
            "it alone has a replica of {}: all that is in there is lost with its disk, and nobody is left to elect",
            named(&alone)
        )
    });
    let said: Vec<_> = of_others.into_iter().chain(of_alone).collect();
    (!said.is_empty()).then(|| said.join("; "))
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

    fn last(names: impl IntoIterator<Item = String>, is_alone: bool) -> Vec<Last> {
        names.into_iter().map(|name| Last { name, is_alone }).collect()
    }

    #[test]
    fn many_are_counted() {
        assert_eq!(said(&[]), None);
        let many = last((0..12).map(|number| format!("t/{number}")), false);
        let said = said(&many).unwrap();
        assert!(said.contains("t/9 and 2 more:") && !said.contains("t/10"), "{said}");
        let lost = said_of_lost(&many[..2]);
        let [lost] = lost.as_slice() else { panic!("{lost:?}") };
        assert!(
            lost.starts_with("lost with it: what other replicas lack of 2 partitions (t/0, t/1). How"),
            "{lost}"
        );
        assert!(lost.contains("weir partition elect t/0 --unclean"), "{lost}");
    }

    #[test]
    fn nobody_is_told_to_elect_where_no_other_broker_has_a_replica() {
        let alone = last(["solo/0".to_owned()], true);
        let before = said(&alone).unwrap();
        assert!(before.starts_with("it alone has a replica of solo/0: all that is in there"), "{before}");
        let lost = said_of_lost(&alone);
        let [lost] = lost.as_slice() else { panic!("{lost:?}") };
        assert!(lost.starts_with("lost with it: all of 1 partition (solo/0), for no other"), "{lost}");
        assert!(lost.contains("delete the topic") && !lost.contains("weir partition elect"), "{lost}");

        let mut both = alone;
        both.extend(last(["t/1".to_owned()], false));
        let before = said(&both).unwrap();
        assert!(
            before.contains("all of t/1: what other")
                && before.contains("; it alone has a replica of solo/0")
        );
        let lost = said_of_lost(&both);
        assert!(lost.len() == 2 && lost[0].contains("weir partition elect t/1 --unclean"), "{lost:?}");
    }
}
