//! Damaged logs that make way (correctness rule 36): one that others have whole is closed, set aside and fetched anew, and what was
//! set aside is deleted once that is done.
//!
//! Why nothing is lost by it. A log makes way by a record in which nobody counts on it, that is written down here and is still the
//! newest that is known here when the log is closed. That is done before the record's version counts as acted upon; so whoever is
//! told of a log as of some version is told of one that makes way by no version up to that one. The rest takes its time, and comes
//! after that. What is aside stays as long as it goes further than the log in its place, whatever the records say: by them
//! this replica may be in sync because a person has chosen it for what is aside. If it leads so, it rests, for what it would
//! append is what would make the log in its place the further one.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_metadata::{Image, Partition};
use weir_runtime::blocking;
use weir_storage::Unusable;
use weir_types::{LeaderEpoch, PartitionId};

use crate::mutant::Mutant;
use crate::replicas::asked::Role;
use crate::replicas::{Known, Replicas, name, take_up};

impl Replicas {
    /// Whether the log of a partition makes way for one that is fetched anew: nobody counts on it, and what it had another
    /// replica has (correctness rule 36). Also where an earlier process came no further than to set the damaged one aside.
    pub(super) fn makes_way(&self, known: &Known, id: PartitionId, image: &Image, follows: Role) -> bool {
        let me = self.cluster.broker_id();
        let counts = |record: &Partition| record.isr.contains(&me) || record.elr.contains(&me);
        if image.partition(id).is_none_or(|record| counts(record)) {
            return false;
        }
        let is_damaged = known.unusable.get(&id).is_some_and(|unusable| unusable.is_damaged);
        // A log in its place may be whole, though it is not used now.
        let is_aside = || !known.logs.contains_key(&id) && self.log_dir.is_all_aside(id);
        // Its directory has lost what it knew of its logs, and with it this one.
        let is_gone = || !known.logs.contains_key(&id) && self.log_dir.is_gone(id);
        is_damaged || self.is_rotten(known, id, follows) || is_aside() || is_gone()
    }

    /// Whether readers have found a log damaged that is not used yet under this leader. Under one that it follows already the
    /// leader may just have let it in, whatever the record says that is known here: then it goes on, and says again that it
    /// is damaged, by which that epoch ends.
    fn is_rotten(&self, known: &Known, id: PartitionId, follows: Role) -> bool {
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

    /// Closes the logs that make way: from here on they are told of to nobody as logs that can be used. Gives those that do not,
    /// because there is a newer record of them by now: they rest until that is acted upon.
    pub(super) async fn close_damaged(
        &self,
        known: &mut Known,
        anew: &mut Vec<(PartitionId, Role)>,
    ) -> Vec<(PartitionId, Role)> {
        let (image, newest) = (known.image.clone(), self.cluster.image());
        let (still, others): (Vec<_>, Vec<_>) =
            std::mem::take(anew).into_iter().partition(|(id, _)| is_newest(&newest, &image, *id));
        *anew = still;
        for (id, _) in &*anew {
            if known.logs.remove(id).is_some() {
                self.replication.leave(*id);
            }
        }
        let closing: Vec<_> = anew.iter().map(|(id, _)| *id).collect();
        self.log_dir.close_damaged(&closing).await;
        let rests = others.into_iter().filter(|(id, _)| known.logs.contains_key(id));
        rests.map(|(id, _)| (id, Role::Rest)).collect()
    }

    /// Sets damaged logs aside that are closed, and makes empty ones in their places, which get all of it from their leaders.
    pub(super) async fn begin_anew(&self, known: &mut Known, image: &Image, anew: Vec<(PartitionId, Role)>) {
        if anew.is_empty() {
            return;
        }
        for id in anew.iter().map(|(id, _)| *id).filter(|id| self.log_dir.is_gone(*id)) {
            let (topic, partition) = (name(image, id), id.partition);
            tracing::warn!(
                topic,
                partition,
                "nothing is left of a log, nor of what was known of it: it begins anew, empty"
            );
        }
        let is_in_place = |id: &PartitionId| !self.log_dir.is_all_aside(*id) && !self.log_dir.is_gone(*id);
        let in_place: Vec<_> = anew.iter().map(|(id, _)| *id).filter(is_in_place).collect();
        let failed = match self.log_dir.set_damaged_aside(in_place.clone()).await {
            Ok(failed) => failed.into_iter().map(|(id, error)| (id, error.to_string())).collect(),
            Err(error) => in_place.iter().map(|id| (*id, error.to_string())).collect::<BTreeMap<_, _>>(),
        };
        for (id, error) in &failed {
            known.failed.insert(*id, format!("it is damaged, and cannot be set aside: {error}").into());
        }
        for id in in_place.into_iter().filter(|id| !failed.contains_key(id)) {
            let leader = image.partition(id).and_then(|record| record.leader).map(|leader| leader.0);
            tracing::warn!(
                topic = name(image, id),
                partition = id.partition,
                leader,
                "a damaged log was set aside: it is fetched anew from its leader"
            );
            let found = known.unusable.remove(&id).map(|unusable| unusable.what);
            let found = found.or_else(|| self.damage.of_closed(id));
            known.damage.extend(found.map(|what| (id, what)));
            self.damage.forget(id);
        }
        let anew: Vec<_> = anew.into_iter().filter(|(id, _)| !failed.contains_key(id)).collect();
        self.make(known, image, anew.iter().map(|(id, _)| *id).collect()).await;
        for (id, _) in &anew {
            // Where it is has been on record before.
            known.unreported.remove(id);
        }
        take_up((&self.replication, &self.damage), known, image, anew).await;
    }

    /// Why this replica does not lead although the record says so: it does by an unclean election, nothing was written since,
    /// and what it has set aside goes further. If it was chosen for that, whatever it appended would give up what somebody has
    /// chosen it for. One that has followed since was let in by a leader, for what that one has.
    pub(super) async fn rests_for_more(
        &self,
        known: &mut Known,
        id: PartitionId,
        record: &Partition,
    ) -> Option<Arc<str>> {
        let was_resting = known.resting.remove(&id);
        let unclean = record.unclean_epoch;
        let log = known.logs.get(&id)?;
        let is_since = |epoch: LeaderEpoch| epoch >= unclean;
        let has_gone_on = match log.role {
            Some(Role::Lead { epoch, .. } | Role::Follow { epoch, .. }) => is_since(epoch),
            Some(Role::Rest) | None => false,
        };
        let is_written = log.partition.last_epoch().is_some_and(is_since);
        if unclean == 0 || has_gone_on || is_written || Mutant::AsidePassedOver.is_planted() {
            return None;
        }
        let aside = self.further_aside(id).await?;
        let folder = aside.path.display();
        let why = format!(
            "it leads by an unclean election, with a log that ends at {}, and {folder} may have more: nothing is led or \
             deleted until a person has put that folder in the place of the log (the broker stopped), or has moved it away",
            log.partition.ends().log_end
        );
        known.resting.insert(id);
        if !was_resting {
            tracing::error!(
                topic = name(&known.image, id),
                partition = id.partition,
                why,
                "a log is not led"
            );
        }
        Some(why.into())
    }

    /// What is wrong with the replica here while it is fetched anew: it is in sync no more, and its damaged log is kept.
    pub(super) fn mends(&self, known: &Known, id: PartitionId, record: &Partition) -> Option<Arc<str>> {
        let me = self.cluster.broker_id();
        let leader = record.leader.filter(|leader| *leader != me && !record.isr.contains(&me))?;
        if !self.log_dir.is_damaged_kept(id) {
            return None;
        }
        let what = known.damage.get(&id).map_or("its log was damaged", String::as_str);
        Some(format!("{what}: set aside, and fetched anew from broker {leader}").into())
    }

    async fn further_aside(&self, id: PartitionId) -> Option<Unusable> {
        let dir = self.log_dir.clone();
        blocking(&self.os, move || dir.further_aside_still(id)).await
    }

    /// Whether something is kept of a damaged log that is needed no more by this image: the replica is in sync again, or its
    /// topic was deleted.
    pub(super) fn keeps_needless(&self, known: &Known, id: PartitionId, image: &Image) -> bool {
        let me = self.cluster.broker_id();
        let record = image.partition(id);
        let aside = record.is_none_or(|record| record.isr.contains(&me));
        let cut_off = record.is_none();
        known.registered
            && (aside && self.log_dir.damaged_kept().contains(&id)
                || cut_off && self.log_dir.cut_off_kept().contains(&id))
    }

    /// Deletes what is [needless](Self::keeps_needless), but for what goes further than the log that is used.
    pub(super) async fn forget_damaged(&self, known: &mut Known, id: PartitionId, image: &Image) {
        let (topic, is_gone) = (name(image, id), image.partition(id).is_none());
        if !is_gone && !self.is_passed(known, id).await {
            if !known.kept.insert(id) {
                return;
            }
            let what = "what was set aside of a damaged log is kept although its replica is in sync: it may have more than the log in \
                        its place";
            tracing::warn!(topic, partition = id.partition, "{what}");
            return;
        }
        known.kept.remove(&id);
        known.damage.remove(&id);
        let aside = self.log_dir.damaged_kept().contains(&id);
        // What nobody else has had is kept as long as the topic.
        let cut_off = is_gone && self.log_dir.cut_off_kept().contains(&id);
        let dir = self.log_dir.clone();
        let delete = move || {
            if aside {
                dir.delete_damaged(id)?;
            }
            if cut_off { dir.delete_cut_off(id) } else { Ok(()) }
        };
        if aside && !is_gone {
            let what = "a replica that was fetched anew is in sync again: what was set aside of its damaged log is deleted";
            tracing::info!(topic, partition = id.partition, "{what}");
        }
        if let Err(error) = blocking(&self.os, delete).await {
            tracing::warn!(topic, partition = id.partition, %error, "what is left of a damaged log cannot be deleted");
            known.failed.insert(id, error.to_string().into());
        }
    }

    /// Whether the log in use goes as far as all that was set aside of the partition.
    async fn is_passed(&self, known: &Known, id: PartitionId) -> bool {
        if Mutant::AsideDeleted.is_planted() {
            return true;
        }
        // How far one goes that is not open nobody can say.
        known.logs.contains_key(&id) && self.further_aside(id).await.is_none()
    }
}

/// Whether there is no newer record of a partition than that of this image.
pub(super) fn is_newest(newest: &Image, image: &Image, id: PartitionId) -> bool {
    let epoch = |image: &Image| image.partition(id).map(|record| record.partition_epoch);
    newest.version() <= image.version() || epoch(newest) == epoch(image)
}
