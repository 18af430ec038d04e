//! Random histories of a small cluster: what is always true, whatever happens in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::*;
use proptest::prelude::*;
use weir_metadata::*;
use weir_types::*;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Create {
        name: u8,
        partitions: i32,
        replicas: i32,
        min_insync: i32,
        replicated: bool,
    },
    Delete {
        name: u8,
    },
    SetMinInsync {
        name: u8,
        min_insync: i32,
    },
    AddPartitions {
        name: u8,
        partitions: i32,
    },
    Assign {
        name: u8,
        broker: i32,
    },
    Fence {
        broker: i32,
    },
    Unfence {
        broker: i32,
    },
    Drain {
        broker: i32,
    },
    /// A disk becomes slow, or quick again.
    Slow {
        broker: i32,
        slow: bool,
    },
    /// A person says that a disk is gone for good.
    Damage {
        name: u8,
        broker: i32,
    },
    Lose {
        broker: i32,
    },
    /// A write or sync fails.
    Fail {
        broker: i32,
        failure: u64,
    },
    /// A person trusts a broker's disk again in spite of a failure.
    Trust {
        broker: i32,
        failure: u64,
    },
    /// A restart: stopped clean, killed, lost power, or came back with an old copy of its disk. The registration is
    /// sent again if its answer is lost.
    Restart {
        broker: i32,
        how: u8,
        sent: u8,
    },
    /// The leader proposes those of `wanted` that are up; whoever joins has caught up.
    Alter {
        name: u8,
        partition: i32,
        wanted: Vec<i32>,
    },
    /// Leaderships go back to where placement put them.
    Preferred {
        name: u8,
    },
    /// Somebody says that they go on whose topics never allowed it.
    Recover {
        name: u8,
    },
    /// The leaders of a topic append, and acknowledge if they may.
    Append {
        name: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0u8..3;
    let broker = || 1i32..=4;
    prop_oneof![
        1 => (name(), 1i32..4, 1i32..=3, 1i32..=3, any::<bool>()).prop_map(
            |(name, partitions, replicas, min_insync, replicated)| Step::Create {
                name, partitions, replicas, min_insync: min_insync.min(replicas), replicated
            }
        ),
        1 => name().prop_map(|name| Step::Delete { name }),
        1 => (name(), 1i32..=3).prop_map(|(name, min_insync)| Step::SetMinInsync { name, min_insync }),
        1 => (name(), 1i32..6).prop_map(|(name, partitions)| Step::AddPartitions { name, partitions }),
        6 => (name(), broker()).prop_map(|(name, broker)| Step::Assign { name, broker }),
        2 => broker().prop_map(|broker| Step::Fence { broker }),
        6 => broker().prop_map(|broker| Step::Unfence { broker }),
        1 => broker().prop_map(|broker| Step::Drain { broker }),
        4 => (broker(), any::<bool>()).prop_map(|(broker, slow)| Step::Slow { broker, slow }),
        3 => (name(), broker()).prop_map(|(name, broker)| Step::Damage { name, broker }),
        1 => broker().prop_map(|broker| Step::Lose { broker }),
        2 => (broker(), 1u64..3).prop_map(|(broker, failure)| Step::Fail { broker, failure }),
        2 => (broker(), 1u64..3).prop_map(|(broker, failure)| Step::Trust { broker, failure }),
        3 => (broker(), 0u8..4, 1u8..3).prop_map(|(broker, how, sent)| Step::Restart { broker, how, sent }),
        8 => (name(), 0i32..4, prop::collection::vec(broker(), 0..4)).prop_map(
            |(name, partition, wanted)| Step::Alter { name, partition, wanted }
        ),
        2 => name().prop_map(|name| Step::Preferred { name }),
        2 => name().prop_map(|name| Step::Recover { name }),
        8 => name().prop_map(|name| Step::Append { name }),
    ]
}

/// Which replicas hold every acknowledged record, and which wrote nothing newer than their disk holds.
#[derive(Default)]
struct Truth {
    complete: BTreeMap<PartitionId, BTreeSet<BrokerId>>,
}

impl Truth {
    /// What was in the memory of a broker's system is gone.
    fn forgets(&mut self, cluster: &Cluster, broker: BrokerId) {
        for (partition, complete) in &mut self.complete {
            let Some(topic) = cluster.state.image.topic(partition.topic) else { continue };
            if cluster.state.image.topic_settings(topic).durability == Durability::Replicated {
                complete.remove(&broker);
            }
        }
    }
}

fn name_of(name: u8) -> String {
    format!("topic-{name}")
}

fn run(cluster: &mut Cluster, truth: &mut Truth, step: &Step, serial: &mut u128) {
    match step {
        Step::Create { name, partitions, replicas, min_insync, replicated } => {
            *serial += 1;
            let durability = if *replicated { "replicated" } else { "fsync" };
            let min_insync = min_insync.to_string();
            let command = CreateTopic {
                topic_id: TopicId(*serial),
                config: pairs(&[("durability", durability), ("min_insync_replicas", &min_insync)]),
                ..create(&name_of(*name), *partitions, *replicas)
            };
            let _ = cluster.run(Command::CreateTopic(command));
        }
        Step::Delete { name } => {
            let _ = cluster.run(Command::DeleteTopic(delete(&name_of(*name))));
        }
        Step::SetMinInsync { name, min_insync } => {
            let value = min_insync.to_string();
            let _ = cluster
                .run(Command::UpdateTopic(update(&name_of(*name), &[("min_insync_replicas", &value)])));
        }
        Step::AddPartitions { name, partitions } => {
            let command = UpdateTopic { partitions: Some(*partitions), ..update(&name_of(*name), &[]) };
            let _ = cluster.run(Command::UpdateTopic(command));
        }
        Step::Assign { name, broker } => {
            if let Some(topic) = cluster.state.image.topic_named(&name_of(*name)).map(|topic| topic.id) {
                cluster.assign(topic, *broker);
            }
        }
        Step::Fence { broker } => drop(cluster.run(Command::FenceBroker(cluster.by(*broker)))),
        Step::Unfence { broker } => drop(cluster.run(Command::UnfenceBroker(cluster.by(*broker)))),
        Step::Drain { broker } => drop(cluster.run(Command::DrainBroker(cluster.by(*broker)))),
        Step::Slow { broker, slow } => {
            let command = SetSlow { by: cluster.by(*broker), slow: *slow };
            let state = cluster.state.image.broker(BrokerId(*broker)).map(|broker| broker.state);
            let done = cluster.run(Command::SetSlow(command));
            assert_eq!(done.is_err(), state == Some(BrokerState::Removed), "{done:?}");
        }
        Step::Damage { name, broker } => damage(cluster, truth, &name_of(*name), BrokerId(*broker)),
        // Refused while it serves.
        Step::Lose { broker } => drop(cluster.run(Command::LoseBroker(cluster.by(*broker)))),
        Step::Fail { broker, failure } => {
            let command =
                FailDirectory { by: cluster.by(*broker), directory: directory(*broker), failure: *failure };
            let state = cluster.state.image.broker(BrokerId(*broker)).map(|broker| broker.state);
            let done = cluster.run(Command::FailDirectory(command));
            assert_eq!(done.is_err(), state == Some(BrokerState::Removed), "{done:?}");
            truth.forgets(cluster, BrokerId(*broker));
        }
        Step::Trust { broker, failure } => {
            let (broker, failures) = (BrokerId(*broker), vec![*failure]);
            drop(cluster.run(Command::TrustBroker(TrustBroker { broker, failures })));
        }
        Step::Restart { broker, how, sent } => restart(cluster, truth, *broker, *how, *sent),
        Step::Alter { name, partition, wanted } => {
            let Some(topic) = cluster.state.image.topic_named(&name_of(*name)).map(|topic| topic.id) else {
                return;
            };
            let id = PartitionId { topic, partition: *partition };
            let Some(leader) = cluster.state.image.partition(id).and_then(|partition| partition.leader)
            else {
                return;
            };
            let mut isr = vec![leader.0];
            isr.extend(wanted.iter().filter(|id| **id != leader.0).collect::<BTreeSet<_>>());
            let epoch = cluster.partition(topic, *partition).partition_epoch;
            let _ = cluster.alter(topic, *partition, &isr);
            let partition = cluster.partition(topic, *partition);
            // Without an entry everybody is complete: nothing was written yet.
            if let Some(complete) = truth.complete.get_mut(&id)
                && partition.partition_epoch != epoch
            {
                complete.extend(&partition.isr);
            }
        }
        Step::Preferred { name } => {
            let Some(topic) = cluster.state.image.topic_named(&name_of(*name)) else { return };
            let partitions = partitions(topic);
            cluster.run(Command::ElectPreferred(ElectPreferred { partitions })).unwrap();
        }
        Step::Recover { name } => {
            let Some(topic) = cluster.state.image.topic_named(&name_of(*name)) else { return };
            let recovery = |partition: PartitionId| Recovery {
                partition,
                partition_epoch: cluster.partition(partition.topic, partition.partition).partition_epoch,
                ends: (1..=4)
                    .map(|id| ReplicaEnd { by: cluster.by(id), last_epoch: id, log_end: 9 })
                    .collect(),
            };
            let partitions = partitions(topic).into_iter().map(recovery).collect();
            cluster.run(Command::RecoverPartitions(RecoverPartitions { partitions })).unwrap();
        }
        Step::Append { name } => {
            let Some(topic) = cluster.state.image.topic_named(&name_of(*name)) else { return };
            for (number, partition) in topic.partitions.iter() {
                if partition.leader.is_some() && partition.isr.len() as i32 >= partition.min_insync {
                    let id = PartitionId { topic: topic.id, partition: *number };
                    truth.complete.insert(id, partition.isr.iter().copied().collect());
                }
            }
        }
    }
}

fn partitions(topic: &Topic) -> Vec<PartitionId> {
    topic.partitions.iter().map(|(number, _)| PartitionId { topic: topic.id, partition: *number }).collect()
}

/// A broker's readers have met damage. What others have taken from it is set aside: it begins with nothing.
fn damage(cluster: &mut Cluster, truth: &mut Truth, name: &str, broker: BrokerId) {
    let Some(topic) = cluster.state.image.topic_named(name) else { return };
    let (topic, partitions) = (topic.id, partitions(topic));
    let before: Vec<_> = partitions.iter().map(|id| cluster.partition(topic, id.partition).clone()).collect();
    // Where it is in no set, it may find that it cannot even follow.
    let stuck = partitions.iter().zip(&before).filter(|(_, record)| !record.isr.contains(&broker));
    let stuck = stuck.map(|(id, record)| StuckReplica { partition: *id, leader_epoch: record.leader_epoch });
    let stuck = stuck.collect();
    // Some of them cannot be used at all.
    let unusable = partitions.iter().filter(|id| id.partition % 2 == 0).copied().collect();
    let command = ReportDamage { by: cluster.by(broker.0), partitions: partitions.clone(), stuck, unusable };
    drop(cluster.run(Command::ReportDamage(command)));
    for (id, before) in partitions.into_iter().zip(before) {
        let now = cluster.partition(topic, id.partition);
        assert_eq!(now.leader.is_some(), before.leader.is_some(), "nobody leads less for it");
        assert!(now.isr.len() >= before.isr.len().min(before.min_insync as usize), "writers go on");
        let is_known = |record: &Partition| record.isr.contains(&broker) || record.elr.contains(&broker);
        let left = is_known(&before) && !is_known(now);
        if let Some(complete) = truth.complete.get_mut(&id).filter(|_| left) {
            complete.remove(&broker);
        }
    }
}

fn restart(cluster: &mut Cluster, truth: &mut Truth, id: i32, how: u8, sent: u8) {
    let broker = cluster.state.image.broker(BrokerId(id)).unwrap().clone();
    let (facts, lost_memory, lost_disk) = match how {
        0 => (found(id, Some(broker.epoch), None, false), false, false),
        1 => (found(id, None, Some(broker.persisted_epoch), true), false, false),
        2 => (found(id, None, Some(broker.persisted_epoch), false), true, false),
        // From before it served last.
        _ => {
            let old = Some(broker.persisted_epoch - 1);
            (found(id, old, old, true), true, true)
        }
    };
    for (partition, complete) in &mut truth.complete {
        let Some(topic) = cluster.state.image.topic(partition.topic) else { continue };
        let durability = cluster.state.image.topic_settings(topic).durability;
        if lost_disk || lost_memory && durability == Durability::Replicated {
            complete.remove(&BrokerId(id));
        }
    }
    let is_refused = broker.state == BrokerState::Removed || broker.is_failed();
    for _ in 0..sent {
        let registered = cluster.run(register_with(Some(id), facts.clone()));
        assert_eq!(registered.is_err(), is_refused, "{registered:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_leader_ever_lacks_an_acknowledged_record(steps in prop::collection::vec(step(), 1..120)) {
        let mut cluster = Cluster::new(4);
        let (mut truth, mut serial) = (Truth::default(), 0);
        for step in &steps {
            // `run` checks the image after every command.
            run(&mut cluster, &mut truth, step, &mut serial);
            for (id, complete) in &truth.complete {
                let Some(partition) = cluster.state.image.partition(*id) else { continue };
                if let Some(leader) = partition.leader {
                    prop_assert!(complete.contains(&leader), "{id}: {leader} of {complete:?} after {step:?}");
                }
            }
        }
    }

    #[test]
    fn slow_brokers_lead_and_are_in_sync_only_where_they_are_needed(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut cluster = Cluster::new(4);
        let (mut truth, mut serial) = (Truth::default(), 0);
        for step in &steps {
            run(&mut cluster, &mut truth, step, &mut serial);
            let image = &cluster.state.image;
            let is = |id: &BrokerId, state| image.broker(*id).unwrap().state == state;
            for partition in image.topics().flat_map(|topic| topic.partitions.values()) {
                let slow = partition.isr.iter().filter(|id| is(id, BrokerState::Slow)).count();
                if slow > 0 && partition.isr.iter().any(|id| is(id, BrokerState::Active)) {
                    let leader = partition.leader.unwrap();
                    prop_assert!(!is(&leader, BrokerState::Slow), "{partition:?} after {step:?}");
                    let needed = partition.min_insync.max(2);
                    prop_assert!(partition.isr.len() as i32 <= needed, "{partition:?} after {step:?}");
                }
            }
            let slow = image.brokers().filter(|broker| broker.state == BrokerState::Slow).count();
            prop_assert!(slow <= 2, "of four, after {step:?}");
        }
    }

    #[test]
    fn an_image_and_its_deltas_make_the_image(
        steps in prop::collection::vec(step(), 1..80),
        from in any::<prop::sample::Index>(),
    ) {
        let mut cluster = Cluster::new(4);
        let (mut truth, mut serial) = (Truth::default(), 0);
        let mut images = vec![cluster.state.image.clone()];
        for step in &steps {
            run(&mut cluster, &mut truth, step, &mut serial);
            images.push(cluster.state.image.clone());
        }
        let older = images[from.index(images.len())].clone();
        let mut changed = BTreeSet::new();
        for image in [&older, &cluster.state.image] {
            for topic in image.topics() {
                for number in topic.partitions.iter().map(|(number, _)| *number) {
                    let id = PartitionId { topic: topic.id, partition: number };
                    if older.partition(id) != cluster.state.image.partition(id) {
                        changed.insert(id);
                    }
                }
            }
        }
        let said = cluster.state.image.partitions_changed_since(&older);
        prop_assert_eq!(said, changed.into_iter().collect::<Vec<_>>());
        let mut image = older;
        for delta in &cluster.deltas {
            image.follow(delta).unwrap();
        }
        prop_assert_eq!(&image, &cluster.state.image);

        let mut parts = ImageParts::new(image.head());
        image.brokers().for_each(|broker| parts.broker(broker.clone()));
        image.controllers().for_each(|controller| parts.controller(controller.clone()));
        for topic in image.topics() {
            parts.topic(topic.summary());
            topic.partitions.iter().for_each(|(n, p)| parts.partition(topic.id, *n, p.as_ref().clone()));
        }
        prop_assert_eq!(parts.finish(), image);
    }

    #[test]
    fn the_same_entries_make_the_same_state(steps in prop::collection::vec(step(), 1..60)) {
        let histories: Vec<Cluster> = (0..2).map(|_| {
            let mut cluster = Cluster::new(4);
            let (mut truth, mut serial) = (Truth::default(), 0);
            steps.iter().for_each(|step| run(&mut cluster, &mut truth, step, &mut serial));
            cluster
        }).collect();
        prop_assert_eq!(&histories[0].state, &histories[1].state);
        prop_assert_eq!(&histories[0].deltas, &histories[1].deltas);
    }
}

#[test]
fn a_gap_is_noticed() {
    let mut cluster = Cluster::new(2);
    let early = cluster.state.image.clone();
    cluster.topic("a", 1, 1, &[]);
    cluster.topic("b", 1, 1, &[]);
    let mut image = early.clone();
    let missed = image.follow(cluster.deltas.last().unwrap());
    assert!(missed.is_err());
    assert_eq!(image, early);
    let mut late = cluster.state.image.clone();
    late.follow(&cluster.deltas[0]).unwrap();
    assert_eq!(late, cluster.state.image, "what is known already changes nothing");
}
