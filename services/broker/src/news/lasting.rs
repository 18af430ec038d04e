//! What is met again and again while it lasts, of partitions, and is said at once and then seldom: with all that met it since.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_cluster::{Names, partition_name};
use weir_metadata::Image;
use weir_types::PartitionId;

/// How often it is said.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    /// When each has met it last: one that does so several times a second is one, and one that did long ago is none.
    met: BTreeMap<PartitionId, Instant>,
    said: Option<Instant>,
}

impl Lasting {
    /// These have met it now. Those of whom it is to be said now, if it is.
    pub(super) fn note(
        &mut self,
        image: &Image,
        partitions: impl Iterator<Item = PartitionId>,
    ) -> Option<Names> {
        let now = Instant::now();
        self.met.extend(partitions.map(|id| (id, now)));
        let is_due = self.said.is_none_or(|said| now - said >= AGAIN);
        if !is_due || self.met.is_empty() {
            return None;
        }
        self.said = Some(now);
        let mut names = Names::default();
        let recent = std::mem::take(&mut self.met).into_iter().filter(|(_, at)| now - *at < AGAIN);
        recent.for_each(|(id, _)| names.add(|| partition_name(image, id)));
        Some(names)
    }
}
