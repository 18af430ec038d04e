//! Counts what happens to partitions: elections by cause, in-sync sets that shrink and grow.

use weir_metadata::{Delta, Event, Image, Partition};

use super::Metrics;

impl Metrics {
    /// One change of the metadata.
    pub(crate) fn changed(&self, older: &Image, newer: &Image, delta: &Delta) {
        let of_broker = delta.events.iter().find_map(|event| match event {
            Event::BrokerFenced { .. } | Event::BrokerStopped { .. } => Some("fenced"),
            Event::DirectoryFailed { .. } => Some("failed"),
            Event::BrokerDraining { .. } => Some("draining"),
            Event::BrokerSlow { .. } => Some("slow"),
            Event::BrokerRegistered { .. } => Some("registered"),
            Event::BrokerUnfenced { .. } => Some("unfenced"),
            _ => None,
        });
        for id in newer.partitions_changed_since(older) {
            let (Some(old), Some(new)) = (older.partition(id), newer.partition(id)) else { continue };
            if new.leader_epoch != old.leader_epoch {
                self.elections.with_label_values(&[cause(old, new, of_broker)]).inc();
            }
            match new.isr.len().cmp(&old.isr.len()) {
                std::cmp::Ordering::Less => self.isr_changes.with_label_values(&["shrink"]).inc(),
                std::cmp::Ordering::Greater => self.isr_changes.with_label_values(&["expand"]).inc(),
                std::cmp::Ordering::Equal => {}
            }
        }
    }
}

fn cause(old: &Partition, new: &Partition, of_broker: Option<&'static str>) -> &'static str {
    let preferred = new.replicas.first().map(|replica| replica.broker);
    if new.unclean_epoch != old.unclean_epoch {
        "unclean"
    } else if let Some(of_broker) = of_broker {
        of_broker
    } else if old.is_fresh() {
        "assigned"
    } else if new.leader.is_some() && new.leader == preferred {
        "preferred"
    } else {
        "other"
    }
}
