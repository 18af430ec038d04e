//! Where batches could not be read for followers, or came from leaders as other bytes than were written: for whoever has
//! the leaders look (`crate::forward::look`). One place a partition, so that however often it is met, there is one look.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;
use weir_types::{Offset, PartitionId};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    places: Mutex<BTreeMap<PartitionId, Offset>>,
    more: Notify,
}

impl Suspects {
    pub(crate) fn note(&self, id: PartitionId, offset: Offset) {
        self.places.lock().insert(id, offset);
        self.more.notify_one();
    }

    /// The next one. For one task. Cancel safe.
    pub(crate) async fn next(&self) -> (PartitionId, Offset) {
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
            suspects.note(id(0), offset);
        }
        suspects.note(id(1), 9);
        assert_eq!((suspects.next().await, suspects.next().await), ((id(0), 5), (id(1), 9)));
        assert_eq!(suspects.next().now_or_never(), None);
    }
}
