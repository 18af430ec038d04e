//! What is always true of an image. Tests check it after every step; a controller checks a snapshot before it
//! trusts it.

use crate::broker::Broker;
use crate::image::Image;
use crate::topic::{Partition, Replica};

impl Image {
    /// The first thing that is not as it must be.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(&self) -> Result<(), String> {
        for topic in self.topics() {
            for (expected, (number, partition)) in (0..).zip(topic.partitions.iter()) {
                let wrong = self.check_partition(partition).err();
                let wrong = wrong.or((*number != expected).then_some("a number is missing before it"));
                if let Some(wrong) = wrong {
                    return Err(format!("{}/{number}: {wrong}: {partition:?}", topic.name));
                }
            }
            if self.topic_named(&topic.name).is_none_or(|named| named.id != topic.id) {
                return Err(format!("{}: its name does not lead to it", topic.name));
            }
        }
        let is_wrong = |broker: &&Broker| broker.state.is_there() && (broker.is_failed() || broker.is_over());
        if let Some(broker) = self.brokers().find(is_wrong) {
            return Err(format!("broker {} is there with a directory that has failed", broker.id));
        }
        let mut counted = Image::default();
        self.topics().for_each(|topic| counted.put_topic(topic.clone()));
        if (counted.health, &counted.loads) != (self.health, &self.loads) {
            return Err("what is counted of the partitions is not what they are".to_owned());
        }
        match self.names.len() == self.topics.len() {
            true => Ok(()),
            false => Err("there are more names than topics".to_owned()),
        }
    }

    fn check_partition(&self, partition: &Partition) -> Result<(), &'static str> {
        let twice = |members: &[_]| {
            (1..members.len()).any(|at| {
                let (before, rest) = members.split_at(at);
                rest.first().is_some_and(|member| before.contains(member))
            })
        };
        if twice(&partition.isr) || twice(&partition.elr) {
            return Err("somebody is in the ISR or ELR twice");
        }
        if partition.isr.iter().chain(&partition.elr).any(|member| partition.replica(*member).is_none()) {
            return Err("the ISR or ELR has a member that is no replica");
        }
        if partition.isr.iter().any(|member| partition.elr.contains(member)) {
            return Err("somebody is in both the ISR and the ELR");
        }
        let in_sync = i32::try_from(partition.isr.len()).unwrap_or(i32::MAX);
        if in_sync >= partition.min_insync && !partition.elr.is_empty() {
            return Err("the ELR is not empty although the ISR is large enough");
        }
        if partition.from_elr && (partition.leader.is_none() || partition.elr.is_empty()) {
            return Err("a leader is said to hear an ELR that is not there");
        }
        if partition.leader.is_some_and(|leader| !partition.isr.contains(&leader)) {
            return Err("the leader is not in the ISR");
        }
        if partition.leader.is_none() && !partition.isr.is_empty() {
            return Err("somebody is in sync and nobody leads");
        }
        for member in &partition.isr {
            let broker = self.broker(*member);
            if broker.is_none_or(|broker| !broker.state.is_alive()) {
                return Err("a broker that does not serve is in the ISR");
            }
            let directory = partition.replica(*member).and_then(Replica::directory);
            if !broker.zip(directory).is_some_and(|(broker, directory)| broker.has_directory(directory)) {
                return Err("a replica whose directory is not online is in the ISR");
            }
        }
        Ok(())
    }
}
