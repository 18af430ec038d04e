//! Where logs could not be read for followers, were sent to them as other bytes than were written, or could not be cut to
//! their leaders': for whoever looks into it (`crate::forward::look`). One place a partition, so that however often it is met,
//! there is one look.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_types::{LeaderEpoch, Offset, PartitionId};

/// What was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// The batch at this offset of the log here, by who was sent it.
    Sent(Offset),
    /// The log here cannot be read at this offset: why.
    Read(Offset, String),
    /// The log here cannot be cut there, to that of the leader of this epoch, because it is damaged.
    Uncut { to: Offset, epoch: LeaderEpoch, what: String },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    places: Mutex<BTreeMap<PartitionId, Suspect>>,
    more: Notify,
}

impl Suspects {
    pub(crate) fn note(&self, id: PartitionId, suspect: Suspect) {
        self.places.lock().insert(id, suspect);
        self.more.notify_one();
    }

    /// The next one. For one task. Cancel safe.
    pub(crate) async fn next(&self) -> (PartitionId, Suspect) {
        loop {
            if let Some(place) = self.places.lock().pop_first() {
                return place;
            }
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use weir_types::TopicId;

    use super::*;

    #[tokio::test]
    async fn a_partition_is_looked_at_once_however_often_it_is_met() {
        let suspects = Suspects::default();
        let id = |partition| PartitionId { topic: TopicId(1), partition };
        for offset in [3, 4, 5] {
            suspects.note(id(0), Suspect::Sent(offset));
        }
        suspects.note(id(1), Suspect::Sent(9));
        assert_eq!(
            (suspects.next().await, suspects.next().await),
            ((id(0), Suspect::Sent(5)), (id(1), Suspect::Sent(9)))
        );
        assert_eq!(suspects.next().now_or_never(), None);
    }
}
