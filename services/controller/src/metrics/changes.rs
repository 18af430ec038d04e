//! Counts what happens to partitions: elections by cause, in-sync sets that shrink and grow. It follows the changes as any
//! watcher does, beside the state machine and never in its way; what was too much to follow is not counted.

use std::sync::Arc;

use weir_metadata::{Delta, Event, Image, Partition};

use super::Metrics;
use crate::machine::Start;
use crate::service::Parts;

/// Counts for as long as the controller lives.
pub(crate) async fn count(parts: Arc<Parts>) {
    let hub = parts.machine.hub();
    let mut image = hub.image().as_ref().clone();
    loop {
        hub.wait_for(image.version() + 1).await;
        match hub.subscribe(image.version()).0 {
            Start::Image(newest) => image = newest.as_ref().clone(),
            Start::Deltas(deltas) => {
                for delta in deltas {
                    let older = image.clone();
                    // It continues: that is what was asked for.
                    if image.follow(&delta).is_ok() {
                        parts.metrics.changed(&older, &image, &delta);
                    }
                    // One may change tens of thousands.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

impl Metrics {
    fn changed(&self, older: &Image, newer: &Image, delta: &Delta) {
        let of_broker = delta.events.iter().find_map(|event| match event {
            Event::BrokerFenced { .. } => Some("fenced"),
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
