//! Replicas: from the metadata to logs on this broker's disk, and from both to the map that calls use.
//!
//! One task follows the metadata and brings the disk in line with each version it sees: logs are made where the
//! record says that none has been made yet, opened where it names our directory, led where it names this broker in
//! the registration of this process, and set aside when nothing names them any more. A named directory that is not
//! ours, or a log that is gone, makes the partition offline; it is never made again (correctness rule 14).
//!
//! Only partitions that changed are looked at, and those for which something failed: each of them fails for itself,
//! and is tried again by and by.

mod aside;
mod asked;
mod changes;
mod damaged;
mod made;
mod map;
mod of_topics;
mod report;
mod retry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use prometheus::IntCounter;
use tokio::sync::watch;
use weir_metadata::Image;
use weir_runtime::{Os, blocking};
use weir_storage::{Control, LogConfig, LogDir, NotLeading, OpenReport, Partition, Unusable};
use weir_types::{Durability, LeaderEpoch, PartitionId};

use crate::cluster::Cluster;
use crate::damage::Damage;
use crate::mutant::Mutant;
use crate::news::{self, Seen};
use crate::replicas::asked::{Asked, Me, Role};
use crate::replicas::of_topics::OfTopics;
use crate::replicas::retry::Retry;
use crate::replication::{Recorded, Replication, Restart, Restarts, record_of};
use crate::topic_map::Topics;

/// The replicas of this broker.
#[derive(Debug)]
pub(crate) struct Replicas {
    os: Arc<dyn Os>,
    log_dir: LogDir,
    cluster: Arc<Cluster>,
    topics: Arc<Topics>,
    replication: Arc<Replication>,
    damage: Arc<Damage>,
    /// Counts partitions that were looked at.
    followed: IntCounter,
    settled: watch::Sender<i64>,
}

/// What the task knows from one version to the next.
#[derive(Default)]
struct Known {
    /// What the disk is in line with, apart from what failed.
    image: Arc<Image>,
    /// The version that is written down.
    noted: i64,
    /// Whether it was said that none can be, and not yet that one can again.
    noting_hindered: bool,
    /// Whether that image has the registration of this process.
    registered: bool,
    logs: BTreeMap<PartitionId, Log>,
    /// What lies here and could not be opened.
    unusable: BTreeMap<PartitionId, Unusable>,
    /// What is to be tried again, and why.
    failed: BTreeMap<PartitionId, Arc<str>>,
    /// New logs that the controller has not heard of.
    unreported: BTreeSet<PartitionId>,
    /// What was set aside of damaged logs, is needed no more by the records, and goes further than the logs in use.
    kept: BTreeSet<PartitionId>,
    /// What is not led for that, and was said to be.
    resting: BTreeSet<PartitionId>,
    /// What was wrong with logs that are fetched anew, as far as this process has found it.
    damage: BTreeMap<PartitionId, String>,
}

/// A log that is open here.
struct Log {
    partition: Partition,
    /// What it was last told; `None`: nothing since it was opened.
    config: Option<LogConfig>,
    /// How it is used here; `None`: that is not known, because a change of it failed.
    role: Option<Role>,
}

impl Log {
    fn opened(partition: Partition) -> Self {
        Self { partition, config: None, role: Some(Role::Rest) }
    }

    /// Takes up settings and role, as far as they differ.
    async fn take_up(
        &self,
        (replication, damage): (&Arc<Replication>, &Damage),
        config: &LogConfig,
        durability: Durability,
        role: Role,
        (record, unclean_epoch): (Recorded, LeaderEpoch),
    ) -> Result<(), weir_storage::Error> {
        let partition = &self.partition;
        if self.config.as_ref() != Some(config) {
            partition.control(Control::Configure(config.clone())).await?;
        }
        match (self.role, role) {
            (Some(before), now) if before == now => Ok(()),
            (Some(Role::Lead { epoch: before, .. }), Role::Lead { epoch, .. }) if before == epoch => {
                replication.observe(partition.id(), &record);
                Ok(())
            }
            (_, Role::Lead { epoch, .. }) => {
                if epoch == unclean_epoch {
                    let (id, log_end) = (partition.id(), partition.ends().log_end);
                    let (topic, partition) = (replication.topic(id), id.partition);
                    tracing::warn!(
                        topic,
                        partition,
                        epoch,
                        log_end,
                        "this broker leads by an unclean election: what only other replicas had is lost"
                    );
                }
                let leading = replication.lead(partition, durability, record);
                damage.begins(&leading.0);
                partition.control(Control::SetAdmission(Box::new(leading))).await
            }
            (_, Role::Follow { leader, .. }) => {
                let following = replication.following(partition, durability, leader, &record, unclean_epoch);
                let followed = following.0.clone();
                partition.control(Control::SetAdmission(Box::new(following))).await?;
                replication.follow(followed);
                Ok(())
            }
            (_, Role::Rest) => {
                replication.leave(partition.id());
                partition.control(Control::SetAdmission(Box::new(NotLeading))).await
            }
        }
    }
}

impl Replicas {
    pub(crate) fn new(
        os: Arc<dyn Os>,
        log_dir: LogDir,
        cluster: Arc<Cluster>,
        topics: Arc<Topics>,
        replication: Arc<Replication>,
        damage: Arc<Damage>,
        followed: IntCounter,
    ) -> Self {
        Self { os, log_dir, cluster, topics, replication, damage, followed, settled: watch::Sender::new(0) }
    }

    /// Whether the disk and the map are in line with a version of the metadata.
    pub(crate) fn is_settled(&self, version: i64) -> bool {
        *self.settled.borrow() >= version
    }

    /// Waits until the disk and the map are in line with a version of the metadata, or the process is to end: it may
    /// be because they never will be.
    pub(crate) async fn settled(&self, version: i64) {
        let mut settled = self.settled.subscribe();
        tokio::select! {
            // The sender lives as long as self.
            _ = settled.wait_for(|settled| *settled >= version) => {}
            () = self.cluster.over().requested() => {}
        }
    }

    /// Follows the metadata for as long as the process lives, from what was found on the disk. Never cancelled but
    /// with the process: what was begun comes to its end.
    pub(crate) async fn run(self: Arc<Self>, found: OpenReport, mut restarts: Restarts) {
        let open = self.log_dir.partitions().into_iter();
        let mut known = Known {
            noted: found.metadata_version,
            logs: open.map(|partition| (partition.id(), Log::opened(partition))).collect(),
            unusable: found.damaged.into_iter().chain(found.offline).map(|one| (one.id, one)).collect(),
            ..Known::default()
        };
        let mut versions = self.cluster.versions();
        versions.mark_changed();
        let mut cuts = self.cluster.cuts();
        let mut retry = Retry::new(self.log_dir.room_again());
        let mut look = Retry::new(self.log_dir.room_again());
        // At most one: what comes meanwhile is in the next.
        let mut reports = FuturesUnordered::new();
        let mut may_report = true;
        // At most one round of copies: what is to be cut besides is told again.
        let mut copies = FuturesUnordered::new();
        loop {
            if may_report && reports.is_empty() && !known.unreported.is_empty() {
                reports.push(self.report(std::mem::take(&mut known.unreported)));
            }
            retry.plan(&*self.os, !known.failed.is_empty() || !known.unreported.is_empty() && !may_report);
            look.plan(&*self.os, !known.kept.is_empty());
            tokio::select! {
                changed = versions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    may_report = true;
                    self.follow(&mut known).await;
                }
                () = retry.due() => {
                    may_report = true;
                    let failed = known.failed.keys().copied().collect();
                    let image = known.image.clone();
                    self.bring_in_line(&mut known, &image, &failed).await;
                }
                () = look.due() => {
                    let (image, kept) = (known.image.clone(), known.kept.clone());
                    self.bring_in_line(&mut known, &image, &kept).await;
                }
                Some(restart) = restarts.recv() => self.restart(&mut known, restart).await,
                Ok(()) = cuts.changed(), if copies.is_empty() => {
                    let wanted = cuts.borrow_and_update().clone();
                    self.take_back(&mut known, &wanted).await;
                    copies.push(self.keep_damaged(self.to_be_cut(&known, wanted)));
                }
                Some(kept) = copies.next() => self.cut_damaged(&mut known, kept).await,
                Some(unheard) = reports.next() => {
                    let me = self.me(known.registered);
                    let image = known.image.clone();
                    let still = |id: &PartitionId| me.asked(image.partition(*id).map(AsRef::as_ref)) == Asked::Make;
                    known.unreported.extend(unheard.into_iter().filter(still));
                    may_report = known.unreported.is_empty();
                }
            }
        }
    }

    /// This broker, as an image names it.
    fn me(&self, registered: bool) -> Me {
        Me { broker: self.cluster.broker_id(), directory: self.log_dir.directory_id(), registered }
    }

    /// Brings the disk and the map in line with the newest image.
    async fn follow(&self, known: &mut Known) {
        let image = self.cluster.image();
        if image.version() == 0 {
            return;
        }
        let registered = self.cluster.is_mine(&image);
        let was_registered = known.registered;
        let mut due = changes::between(&known.image, &image);
        if registered != known.registered {
            // The first image too: what lies here and is not in it was deleted while nobody looked.
            due.extend(known.logs.keys());
            due.extend(known.unusable.keys());
            due.extend(self.log_dir.damaged_kept());
            due.extend(self.log_dir.cut_off_kept());
            due.extend(image_replicas(&image, self.cluster.broker_id()));
        }
        known.registered = registered;
        let older = std::mem::replace(&mut known.image, image.clone());
        self.bring_in_line(known, &older, &due).await;
        let before = Seen { image: &older, is_mine: was_registered };
        self.tell(before, Seen { image: &image, is_mine: registered }, &due);
        self.settled.send_replace(image.version());
    }

    /// Tells people what a change of the metadata means for what is led here.
    fn tell(&self, before: Seen<'_>, now: Seen<'_>, due: &BTreeSet<PartitionId>) {
        let stands = |id, who| self.replication.led(id).and_then(|led| led.stands(who));
        let me = self.cluster.broker_id();
        self.replication.news.note(|gathered| news::compare(gathered, me, (before, now), due, stands));
    }

    /// Does what the records of these partitions ask for. `older` is the image before.
    async fn bring_in_line(&self, known: &mut Known, older: &Image, due: &BTreeSet<PartitionId>) {
        self.followed.inc_by(due.len() as u64);
        let me = self.me(known.registered);
        let image = known.image.clone();
        let (mut gone, mut make, mut keep) = (Vec::new(), Vec::new(), Vec::new());
        let (mut anew, mut needless) = (Vec::new(), Vec::new());
        for id in due {
            known.failed.remove(id);
            known.unreported.remove(id);
            let asked = me.asked(image.partition(*id).map(AsRef::as_ref));
            // One that is to be made may be there already: made before a restart, and not reported yet.
            if asked != Asked::Nothing {
                self.reopen(known, *id).await;
            }
            match self.keeps_needless(known, *id, &image) {
                true => needless.push(*id),
                false => drop(known.kept.remove(id)),
            }
            let is_open = known.logs.contains_key(id);
            match asked {
                Asked::Nothing if is_open || known.unusable.contains_key(id) => gone.push(*id),
                Asked::Make if is_open => drop(known.unreported.insert(*id)),
                Asked::Make => make.push(*id),
                Asked::Keep(role @ Role::Follow { .. }) if self.makes_way(known, *id, &image, role) => {
                    anew.push((*id, role));
                }
                // Its topic has given up what was in it.
                Asked::Keep(role @ Role::Lead { epoch, .. })
                    if !is_open && self.log_dir.is_gone(*id) && is_unclean(&image, *id, epoch) =>
                {
                    anew.push((*id, role));
                }
                Asked::Keep(role) if is_open => keep.push((*id, self.may_take_up(known, *id, role).await)),
                Asked::Elsewhere(_) | Asked::StandBack if is_open => keep.push((*id, Role::Rest)),
                _ => {}
            }
        }
        let is_idle = gone.is_empty() && make.is_empty() && keep.is_empty();
        if !is_idle || !anew.is_empty() || !needless.is_empty() {
            if let Err(why) = self.note_version(known).await {
                // Nothing new is begun, and nothing ended, because of a version that a restart would not know of.
                let begins = |id: &PartitionId, role: &Role| {
                    *role != Role::Rest && known.logs.get(id).is_some_and(|log| log.role != Some(*role))
                };
                let (begun, rest): (Vec<_>, Vec<_>) =
                    keep.into_iter().partition(|(id, role)| begins(id, role));
                keep = rest;
                let mut not_done: Vec<_> = begun.into_iter().map(|(id, _)| id).collect();
                not_done.append(&mut make);
                not_done.append(&mut gone);
                if !Mutant::AsideUnnoted.is_planted() {
                    not_done.extend(anew.drain(..).map(|(id, _)| id));
                }
                known.failed.extend(not_done.into_iter().map(|id| (id, why.clone())));
                known.kept.extend(needless.drain(..));
            }
            keep.extend(self.close_damaged(known, &mut anew).await);
            take_up((&self.replication, &self.damage), known, &image, keep).await;
        }
        // Nothing is promised any more for whom others may lead, and what makes way is used no more: logs that are to be made,
        // set aside or deleted take their time, and nobody waits for them who wants another partition.
        if !known.failed.keys().any(|id| may_lead_wrongly(known, &me, *id)) {
            self.cluster.acted_upon(image.version());
        }
        let slow: BTreeSet<_> =
            gone.iter().chain(&make).copied().chain(anew.iter().map(|(id, _)| *id)).collect();
        if !slow.is_empty() || !needless.is_empty() {
            self.publish(known, older, &(due - &slow));
        }
        self.set_aside(known, gone).await;
        self.make(known, &image, make).await;
        self.begin_anew(known, &image, anew).await;
        for id in needless {
            self.forget_damaged(known, id, &image).await;
        }
        self.publish(known, older, due);
    }

    /// The role of an open log, or none where it may not have it now.
    async fn may_take_up(&self, known: &mut Known, id: PartitionId, role: Role) -> Role {
        let image = known.image.clone();
        let Some(record) = image.partition(id).filter(|_| matches!(role, Role::Lead { .. })) else {
            known.resting.remove(&id);
            return role;
        };
        match self.rests_for_more(known, id, record).await {
            None => role,
            Some(why) => {
                known.failed.insert(id, why);
                Role::Rest
            }
        }
    }

    /// Tries a log again that could not be opened for now.
    async fn reopen(&self, known: &mut Known, id: PartitionId) {
        if known.unusable.get(&id).is_none_or(|unusable| unusable.is_damaged) {
            return;
        }
        let dir = self.log_dir.clone();
        match blocking(&self.os, move || dir.reopen(id)).await {
            Ok(Some(partition)) => {
                known.unusable.remove(&id);
                known.logs.insert(id, Log::opened(partition));
            }
            Ok(None) => {}
            Err(error) => {
                // It may be found damaged now: then it is not tried again.
                self.not_opened(known, id, &error);
            }
        }
    }

    /// Notes why a log cannot be used now.
    fn not_opened(&self, known: &mut Known, id: PartitionId, error: &weir_storage::Error) {
        known.failed.insert(id, error.to_string().into());
        let now = self.log_dir.unusable().into_iter().filter(|unusable| unusable.id == id);
        known.unusable.extend(now.map(|unusable| (id, unusable)));
    }

    /// Begins a log anew with what its leader's begins with, if that is still its leader, and follows on.
    async fn restart(&self, known: &mut Known, restart: Restart) {
        let Restart { state, leader, epoch, done } = restart;
        let (id, image) = (state.id(), known.image.clone());
        let followed = Role::Follow { leader, epoch };
        let asked = self.me(known.registered).asked(image.partition(id).map(AsRef::as_ref));
        let Some((topic, settings)) = image.topic(id.topic).zip(OfTopics::new(&image).of(id)) else { return };
        if asked != Asked::Keep(followed) {
            return;
        }
        self.replication.leave(id);
        let begun = self.log_dir.start_over(&topic.name, settings.0, state).await;
        let due = BTreeSet::from([id]);
        // Whoever asked may have gone.
        match begun {
            Ok(partition) => {
                known.logs.insert(id, Log::opened(partition));
                let _ = done.send(true);
                self.bring_in_line(known, &image, &due).await;
            }
            Err(error) => {
                tracing::error!(topic = &*topic.name, partition = id.partition, %error, "a log cannot begin anew");
                self.not_opened(known, id, &error);
                // It is followed again, and asked for again, when that is tried again: by and by.
                match self.log_dir.partition(id) {
                    Some(stays) => drop(known.logs.insert(id, Log::opened(stays))),
                    None => drop(known.logs.remove(&id)),
                }
                known.failed.insert(id, format!("its log cannot begin anew: {error}").into());
                let _ = done.send(false);
                self.publish(known, &image, &due);
            }
        }
    }

    /// Writes down, before anything is done about it, which version is acted upon (correctness rule 33).
    async fn note_version(&self, known: &mut Known) -> Result<(), Arc<str>> {
        let (version, author) = (known.image.version(), known.image.author());
        if version <= known.noted {
            return Ok(());
        }
        let dir = self.log_dir.clone();
        match blocking(&self.os, move || dir.write_metadata_version(version, author)).await {
            Ok(()) => {
                known.noted = version;
                if std::mem::take(&mut known.noting_hindered) {
                    tracing::info!(version, "the version of the metadata is written down again");
                }
                Ok(())
            }
            Err(error) => {
                // Each version would say the same.
                if !std::mem::replace(&mut known.noting_hindered, true) {
                    tracing::error!(
                        %error, version,
                        "cannot write down the version of the metadata: until that can be done no log is made, led or set \
                         aside because of it"
                    );
                }
                Err(format!("the version of the metadata cannot be written down: {error}").into())
            }
        }
    }
}

/// Takes up what this broker leads and follows by now, and new settings.
async fn take_up(
    (replication, damage): (&Arc<Replication>, &Damage),
    known: &mut Known,
    image: &Image,
    keep: Vec<(PartitionId, Role)>,
) {
    let mut settings = OfTopics::new(image);
    let logs = &known.logs;
    let taken = keep.into_iter().filter_map(|(id, role)| {
        let log = logs.get(&id)?;
        let (config, durability) = settings.of(id)?;
        let partition = image.partition(id)?;
        let record = (record_of(image, partition), partition.unclean_epoch);
        Some(async move {
            let outcome = log.take_up((replication, damage), &config, durability, role, record).await;
            (id, config, role, outcome)
        })
    });
    let outcomes = join_all(taken).await;
    for (id, config, role, outcome) in outcomes {
        match outcome {
            Ok(()) => {
                if let Some(log) = known.logs.get_mut(&id) {
                    log.config = Some(config);
                    log.role = Some(role);
                }
            }
            Err(error) => {
                let topic = name(image, id);
                tracing::error!(topic, partition = id.partition, %error, "cannot take up settings or a role");
                replication.leave(id);
                if let Some(log) = known.logs.get_mut(&id) {
                    log.role = None;
                }
                known.failed.insert(id, error.to_string().into());
            }
        }
    }
}

/// Whether a partition may be led here still that is somebody else's to lead, because a change of its role failed.
fn may_lead_wrongly(known: &Known, me: &Me, id: PartitionId) -> bool {
    let Some((log, record)) = known.logs.get(&id).zip(known.image.partition(id)) else { return false };
    match log.role {
        Some(role @ Role::Lead { .. }) => me.asked(Some(record)) != Asked::Keep(role),
        Some(Role::Follow { .. } | Role::Rest) => false,
        None => true,
    }
}

/// Whether whoever leads in this epoch was chosen though it may lack what was acknowledged.
fn is_unclean(image: &Image, id: PartitionId, epoch: LeaderEpoch) -> bool {
    image.partition(id).is_some_and(|record| record.unclean_epoch == epoch)
}

/// What people call a partition's topic.
fn name(image: &Image, id: PartitionId) -> &str {
    image.topic(id.topic).map_or("", |topic| &topic.name)
}

/// The partitions of an image that have a replica on a broker.
fn image_replicas(image: &Image, broker: weir_types::BrokerId) -> impl Iterator<Item = PartitionId> {
    image.topics().flat_map(move |topic| {
        let here = topic.partitions.iter().filter(move |(_, record)| record.replica(broker).is_some());
        here.map(|(number, _)| PartitionId { topic: topic.id, partition: *number })
    })
}
