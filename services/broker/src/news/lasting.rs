//! What is met again and again while it lasts, of partitions, and is said at once and then seldom: with all that met it since.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use weir_cluster::{Names, partition_name};
use weir_metadata::Image;
use weir_runtime::Seldom;
use weir_types::PartitionId;

/// How often it is said.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Lasting {
    /// When each has met it last: one that does so several times a second is one, and one that did long ago is none.
    met: BTreeMap<PartitionId, Instant>,
    /// When the first of them did.
    first: Instant,
    said: Seldom,
}

impl Default for Lasting {
    fn default() -> Self {
        Self { met: BTreeMap::new(), first: Instant::now(), said: Seldom::new(AGAIN) }
    }
}

impl Lasting {
    /// These have met it now. Those of whom it is to be said now, if it is: not before the first of them met it so long ago
    /// that the others have, too.
    pub(super) fn note(
        &mut self,
        image: &Image,
        partitions: impl Iterator<Item = PartitionId>,
        gather: Duration,
    ) -> Option<Names> {
        let now = Instant::now();
        if self.met.is_empty() {
            self.first = now;
        }
        self.met.extend(partitions.map(|id| (id, now)));
        if self.met.is_empty() || now - self.first < gather {
            return None;
        }
        self.said.now()?;
        let mut names = Names::default();
        let recent = std::mem::take(&mut self.met).into_iter().filter(|(_, at)| now - *at < AGAIN);
        recent.for_each(|(id, _)| names.add(|| partition_name(image, id)));
        Some(names)
    }
}
