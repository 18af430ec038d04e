//! Damaged logs that nobody else has (correctness rule 36): one goes on as far as it is whole, when a person has given up the rest.
//! Where a log was set aside (`aside.rs`), and those who had it whole are lost before the replica is in sync again, the one
//! aside is what that person is told of, and takes its place back.

use std::collections::{BTreeMap, BTreeSet};

use weir_runtime::blocking;
use weir_types::{Offset, PartitionId};

use crate::replicas::asked::Role;
use crate::replicas::{Known, Log, Replicas, name};

/// What could be kept of damaged logs that are to be cut.
#[derive(Default)]
pub(super) struct Kept {
    /// They may be cut, and there.
    cuts: BTreeMap<PartitionId, Offset>,
    failed: Vec<(PartitionId, weir_storage::Error)>,
}

impl Replicas {
    /// Gives damaged logs that were set aside their place back, where a person lets them go on as far as they are whole. From
    /// then on they are damaged as any other; if a leader has come back meanwhile they are set aside again.
    pub(super) async fn take_back(&self, known: &mut Known, cuts: &BTreeMap<PartitionId, Offset>) {
        let (me, image) = (self.me(known.registered), known.image.clone());
        let mut due = BTreeSet::new();
        for (id, to) in cuts {
            let may = image.partition(*id).is_some_and(|record| me.may_cut(record));
            // Nothing is written to what is in its place.
            let rests = known.logs.get(id).is_none_or(|log| log.role == Some(Role::Rest));
            if !may || !rests {
                continue;
            }
            match self.log_dir.take_damaged_back(*id, *to).await {
                Ok(Some(back)) => drop(known.unusable.insert(*id, back)),
                Ok(None) => continue,
                Err(error) => {
                    let topic = name(&image, *id);
                    tracing::error!(topic, partition = id.partition, to, %error, "a damaged log cannot be taken back");
                    self.not_opened(known, *id, &error);
                }
            }
            // If it was not even closed it goes on.
            if self.log_dir.partition(*id).is_none() {
                known.logs.remove(id);
            }
            due.insert(*id);
        }
        if !due.is_empty() {
            self.bring_in_line(known, &image, &due).await;
        }
    }

    /// Copies what these damaged logs are about to lose, where a person lets them go on as far as they are whole. That may
    /// be much: the metadata is followed meanwhile.
    pub(super) async fn keep_damaged(&self, cuts: BTreeMap<PartitionId, Offset>) -> Kept {
        let mut kept = Kept::default();
        for (id, to) in cuts {
            let dir = self.log_dir.clone();
            match blocking(&self.os, move || dir.keep_damaged(id, to)).await {
                Ok(()) => drop(kept.cuts.insert(id, to)),
                Err(error) => {
                    let topic = self.replication.topic(id);
                    tracing::error!(
                        topic, partition = id.partition, to, %error,
                        "a damaged log cannot be cut: nothing of it could be kept"
                    );
                    kept.failed.push((id, error));
                }
            }
        }
        kept
    }

    /// Those of the damaged logs that are to be cut which still are damaged, and nobody counts on.
    pub(super) fn to_be_cut(
        &self,
        known: &Known,
        mut cuts: BTreeMap<PartitionId, Offset>,
    ) -> BTreeMap<PartitionId, Offset> {
        let me = self.me(known.registered);
        cuts.retain(|id, _| {
            let is_damaged = known.unusable.get(id).is_some_and(|unusable| unusable.is_damaged);
            is_damaged && known.image.partition(*id).is_some_and(|record| me.may_cut(record))
        });
        cuts
    }

    /// Cuts damaged logs of which everything is kept that they lose by it. Nobody leads by this, but where there is no other
    /// replica: it is the controller that elects.
    pub(super) async fn cut_damaged(&self, known: &mut Known, kept: Kept) {
        for (id, error) in kept.failed {
            self.not_opened(known, id, &error);
        }
        let image = known.image.clone();
        // A topic may be deleted meanwhile; and whoever asked for a cut may have been told that there was none.
        let mut due: BTreeSet<_> =
            kept.cuts.keys().filter(|id| image.partition(**id).is_none()).copied().collect();
        let wanted = self.cluster.cuts().borrow().clone();
        let mut cuts = self.to_be_cut(known, kept.cuts);
        cuts.retain(|id, to| wanted.get(id) == Some(to));
        for (id, to) in cuts {
            let (dir, topic) = (self.log_dir.clone(), name(&image, id));
            match blocking(&self.os, move || dir.cut_damaged(id, to)).await {
                Ok(Some(partition)) => {
                    tracing::warn!(
                        topic,
                        partition = id.partition,
                        to,
                        "a damaged log goes on as far as it is whole"
                    );
                    known.unusable.remove(&id);
                    known.logs.insert(id, Log::opened(partition));
                    due.insert(id);
                }
                // It was cut before, or is damaged in another way by now: that is what is told next.
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(topic, partition = id.partition, to, %error, "a damaged log cannot be cut");
                    self.not_opened(known, id, &error);
                }
            }
        }
        if !due.is_empty() {
            self.bring_in_line(known, &image, &due).await;
        }
    }
}
