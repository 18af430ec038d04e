//! Damaged logs (correctness rule 36): one that others have whole is set aside and fetched anew; one that nobody else has
//! goes on as far as it is whole, when a person has given up the rest. Where those others are lost before the replica is in
//! sync again, the one that was set aside is what that person is told of, and takes its place back.

use std::collections::{BTreeMap, BTreeSet};

use weir_metadata::Image;
use weir_runtime::blocking;
use weir_types::{Offset, PartitionId};

use crate::mutant::Mutant;
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
    /// Takes a damaged log out of the way once nobody counts on it: another replica has what it had (correctness rule 36).
    /// An empty one takes its place, and gets all of it from the leader; also where an earlier process came no further than
    /// to set the damaged one aside.
    pub(super) async fn replace_damaged(
        &self,
        known: &mut Known,
        id: PartitionId,
        image: &Image,
        follows: Role,
    ) {
        let me = self.cluster.broker_id();
        let is_damaged = known.unusable.get(&id).is_some_and(|unusable| unusable.is_damaged);
        let is_rotten = self.gives_way(known, id, follows);
        // A log in its place may be whole, though it is not used now.
        let is_aside = || !known.logs.contains_key(&id) && self.log_dir.is_all_aside(id);
        let is_due = is_damaged || is_rotten || is_aside();
        let Some(record) = image.partition(id).filter(|_| is_due) else { return };
        if record.isr.contains(&me) || record.elr.contains(&me) {
            return;
        }
        if is_damaged || is_rotten {
            if known.logs.remove(&id).is_some() {
                self.replication.leave(id);
            }
            if let Err(error) = self.log_dir.set_damaged_aside(id).await {
                known.failed.insert(id, format!("it is damaged, and cannot be set aside: {error}").into());
                return;
            }
            let (topic, leader) = (name(image, id), record.leader.map(|leader| leader.0));
            tracing::warn!(
                topic,
                partition = id.partition,
                leader,
                "a damaged log was set aside: it is fetched anew from its leader"
            );
            known.unusable.remove(&id);
            self.damage.forget(id);
        }
        self.make(known, image, vec![id]).await;
        // Where it is has been on record before.
        known.unreported.remove(&id);
    }

    /// Whether readers have found a log damaged that is not used yet under this leader. Under one that it follows already the
    /// leader may just have let it in, whatever the record says that is known here: then it goes on, and says again that it
    /// is damaged, by which that epoch ends.
    fn gives_way(&self, known: &Known, id: PartitionId, follows: Role) -> bool {
        match known.logs.get(&id) {
            Some(log) => {
                let is_new =
                    log.role.is_some_and(|role| role != follows) || Mutant::RottenInSync.is_planted();
                is_new && self.damage.is_in(id, Some(&log.partition))
            }
            // It was closed for that, and could not be set aside.
            None => self.damage.is_in(id, None),
        }
    }

    /// Deletes what was set aside of a damaged log: the replica has all of it again, or its topic was deleted.
    pub(super) async fn forget_damaged(&self, known: &mut Known, id: PartitionId, image: &Image) {
        let me = self.cluster.broker_id();
        let is_gone = image.partition(id).is_none();
        let is_needless = is_gone || image.partition(id).is_some_and(|record| record.isr.contains(&me));
        let aside = is_needless && self.log_dir.damaged_kept().contains(&id);
        // What nobody else has had is kept as long as the topic.
        let cut_off = is_gone && self.log_dir.cut_off_kept().contains(&id);
        if !known.registered || !aside && !cut_off {
            return;
        }
        let dir = self.log_dir.clone();
        let delete = move || {
            if aside {
                dir.delete_damaged(id)?;
            }
            if cut_off { dir.delete_cut_off(id) } else { Ok(()) }
        };
        let topic = name(image, id);
        if aside && !is_gone {
            let what = "a replica that was fetched anew is in sync again: what was set aside of its damaged log is deleted";
            tracing::info!(topic, partition = id.partition, "{what}");
        }
        if let Err(error) = blocking(&self.os, delete).await {
            tracing::warn!(topic, partition = id.partition, %error, "what is left of a damaged log cannot be deleted");
            known.failed.insert(id, error.to_string().into());
        }
    }

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
