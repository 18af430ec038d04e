//! What replicas hold of partitions that nobody may lead: asked for with the answers to heartbeats, told with the next
//! ones. In memory, at the leader alone.
//!
//! These are facts for a decision, which is made where it is applied: by a topic's settings, or by a person who has seen
//! what would be lost.
//!
//! A broker may lie behind in the metadata, and be about to set aside, by an older record, the log that it tells of. So an answer
//! counts for a question only if the broker had acted upon the metadata that the question was asked with. A leader is elected
//! only as long as the record is the one of then; and by what came before that record nothing becomes of the log any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_cluster::Row;
use weir_metadata::{BrokerEpoch, Partition};
use weir_proto::internal::v1 as pb;
use weir_types::{BrokerId, PartitionId};

use crate::mutant::Mutant;

/// One answer asks for so many partitions at most; the next one for the others.
const WANTED_MAX: usize = 1_000;

/// How far a replica's log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The registration that said so.
    pub(crate) epoch: i64,
    /// The version of the metadata that was acted upon there before.
    pub(crate) acted: i64,
    pub(crate) last_epoch: i32,
    pub(crate) log_end: i64,
    pub(crate) high_watermark: i64,
    /// Why it cannot be used; empty: it can.
    pub(crate) problem: String,
    /// If it is damaged: where the damage begins, and the epoch of the last batch before. It could be cut there.
    pub(crate) whole: Option<(i64, i32)>,
    /// How far it is known to have gone that is damaged, or was cut for that; 0: neither. `None`: it cannot be used, and it is
    /// not known how far it goes.
    pub(crate) known_end: Option<i64>,
    /// What readers found damaged in a log that can be used; empty: nothing.
    pub(crate) unreadable: String,
}

impl Report {
    /// Why it is not known what this replica holds although its broker answers. `None`: it is.
    pub(crate) fn unsaid(&self) -> Option<&str> {
        let is_said = self.problem.is_empty() || self.known_end.is_some();
        (!is_said && !Mutant::UnsaidCounts.is_planted()).then_some(&self.problem)
    }

    /// How far records are known by it to have gone, at least.
    pub(crate) fn known(&self) -> i64 {
        self.high_watermark.max(self.known_end.unwrap_or(0))
    }
}

/// See the module. Cloning gives another handle to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    known: Arc<Mutex<Known>>,
    /// Counts what was said.
    said: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// Who is to be asked about what, and who has answered.
    wanted: BTreeMap<PartitionId, Wanted>,
    /// How many ask for a partition: it is forgotten with the last of them.
    askers: BTreeMap<PartitionId, usize>,
    /// Whose damaged log is to be cut, and where, by who waits for that: the last one counts.
    cuts: BTreeMap<(PartitionId, u64), (BrokerId, i64)>,
    /// How many have waited for cuts.
    cutters: u64,
}

/// What is to be known of a partition.
#[derive(Debug, Default)]
struct Wanted {
    /// The newest metadata that somebody asks with.
    version: i64,
    brokers: BTreeMap<BrokerId, Option<Report>>,
}

/// An answer, if it is one to what was asked with this metadata.
fn counts(report: &Option<Report>, version: i64) -> Option<&Report> {
    report.as_ref().filter(|report| report.acted >= version || Mutant::UnactedCounts.is_planted())
}

impl Default for Reports {
    fn default() -> Self {
        Self { known: Arc::default(), said: watch::Sender::new(0) }
    }
}

/// A question that is open until it is dropped.
#[derive(Debug)]
pub(crate) struct Asking {
    of: Reports,
    partitions: Vec<PartitionId>,
    /// The metadata that was asked with.
    version: i64,
}

impl Reports {
    /// Asks the replicas of partitions what they hold, whose records are those of this version of the metadata.
    pub(crate) fn ask<'a>(
        &self,
        version: i64,
        about: impl IntoIterator<Item = (PartitionId, &'a Partition)>,
    ) -> Asking {
        let mut known = self.known.lock();
        let mut partitions = Vec::new();
        for (id, record) in about {
            let wanted = known.wanted.entry(id).or_default();
            wanted.version = wanted.version.max(version);
            for replica in &record.replicas {
                wanted.brokers.entry(replica.broker).or_insert(None);
            }
            *known.askers.entry(id).or_default() += 1;
            partitions.push(id);
        }
        Asking { of: self.clone(), partitions, version }
    }

    /// What a broker is to be asked now.
    pub(crate) fn wanted(&self, broker: BrokerId) -> Vec<pb::PartitionRef> {
        let known = self.known.lock();
        let is_open = |wanted: &Wanted| {
            wanted.brokers.get(&broker).is_some_and(|report| counts(report, wanted.version).is_none())
        };
        let open = known.wanted.iter().filter(|(_, wanted)| is_open(wanted));
        open.take(WANTED_MAX).map(|(id, _)| id.to_wire()).collect()
    }

    /// Which damaged logs a broker is to cut now.
    pub(crate) fn cuts(&self, broker: BrokerId) -> Vec<pb::DamageCut> {
        let known = self.known.lock();
        let last: BTreeMap<_, _> = known.cuts.iter().map(|((id, _), cut)| (*id, *cut)).collect();
        let of_it = last.into_iter().filter(|(_, (whose, _))| *whose == broker);
        of_it.map(|(id, (_, offset))| pb::DamageCut { partition: Some(id.to_wire()), offset }).collect()
    }

    /// A broker has answered, in this registration, and had acted upon this version of the metadata before.
    pub(crate) fn said(&self, by: BrokerEpoch, acted: i64, reports: Vec<pb::ReplicaReport>) {
        if reports.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        for report in reports {
            let id = report.partition.and_then(|id| PartitionId::from_wire(id).ok());
            let slot = id.and_then(|id| known.wanted.get_mut(&id)?.brokers.get_mut(&by.broker));
            let Some(slot) = slot else { continue };
            *slot = Some(Report {
                epoch: by.epoch,
                acted,
                last_epoch: report.last_epoch,
                log_end: report.log_end,
                high_watermark: report.high_watermark,
                problem: report.problem,
                whole: report.whole_until.map(|until| (until, report.whole_epoch)),
                known_end: report.known_end,
                unreadable: report.unreadable,
            });
        }
        drop(known);
        self.said.send_modify(|count| *count += 1);
    }
}

impl Asking {
    /// What was answered so far.
    pub(crate) fn answers(&self) -> BTreeMap<PartitionId, BTreeMap<BrokerId, Report>> {
        let known = self.of.known.lock();
        let of = |id: &PartitionId| {
            let asked = known.wanted.get(id).into_iter().flat_map(|wanted| &wanted.brokers);
            let said = |report| counts(report, self.version).cloned();
            (*id, asked.filter_map(|(broker, report)| Some((*broker, said(report)?))).collect())
        };
        self.partitions.iter().map(of).collect()
    }

    /// Has a broker cut its damaged log of one of the partitions where the damage begins, and waits until it says that
    /// this is so. Cancel safe; waits for ever if it does not. It goes on being asked for as long as this waits: a broker
    /// that could not do it tries again when it is asked anew.
    pub(crate) async fn cut(&self, id: PartitionId, broker: BrokerId, at: i64) {
        let _cutting = Cutting::begin(&self.of, id, (broker, at));
        let mut said = self.of.said.subscribe();
        let is_cut = || {
            let known = self.of.known.lock();
            let report = known.wanted.get(&id).and_then(|wanted| wanted.brokers.get(&broker));
            let report = report.and_then(|report| counts(report, self.version));
            // Who leads it at once may have appended by then.
            report.is_some_and(|report| report.problem.is_empty() && report.log_end >= at)
        };
        // The sender lives in `self`.
        let _ = said.wait_for(|_| is_cut()).await;
    }

    /// Waits until all of these brokers have answered, as far as they hold any of the partitions. Cancel safe; waits for
    /// ever if one does not.
    pub(crate) async fn answered_by(&self, brokers: &BTreeSet<BrokerId>) {
        let mut said = self.of.said.subscribe();
        let all = || {
            let known = self.of.known.lock();
            let asked = self.partitions.iter().filter_map(|id| known.wanted.get(id));
            let has_said = |report| counts(report, self.version).is_some();
            asked
                .flat_map(|wanted| &wanted.brokers)
                .all(|(broker, report)| has_said(report) || !brokers.contains(broker))
        };
        // The sender lives in `self`.
        let _ = said.wait_for(|_| all()).await;
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut known = self.of.known.lock();
        for id in &self.partitions {
            let left = known.askers.get_mut(id).map(|askers| {
                *askers -= 1;
                *askers
            });
            if left == Some(0) {
                known.askers.remove(id);
                known.wanted.remove(id);
            }
        }
    }
}

/// Somebody waits for a cut.
struct Cutting<'a> {
    of: &'a Reports,
    key: (PartitionId, u64),
}

impl<'a> Cutting<'a> {
    fn begin(of: &'a Reports, id: PartitionId, cut: (BrokerId, i64)) -> Self {
        let mut known = of.known.lock();
        known.cutters += 1;
        let key = (id, known.cutters);
        known.cuts.insert(key, cut);
        Self { of, key }
    }
}

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        self.of.known.lock().cuts.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use weir_types::TopicId;

    use super::*;

    fn id(partition: i32) -> PartitionId {
        PartitionId { topic: TopicId(1), partition }
    }

    fn by(broker: i32) -> BrokerEpoch {
        BrokerEpoch { broker: BrokerId(broker), epoch: 7 }
    }

    fn report(partition: i32, log_end: i64) -> pb::ReplicaReport {
        pb::ReplicaReport { partition: Some(id(partition).to_wire()), log_end, ..Default::default() }
    }

    #[tokio::test]
    async fn brokers_are_asked_until_they_have_answered_or_nobody_asks() {
        let reports = Reports::default();
        let record = Partition::new([BrokerId(1), BrokerId(2)], 1);
        let asking = reports.ask(5, [(id(0), &record), (id(1), &record)]);
        let again = reports.ask(5, [(id(0), &record)]);
        assert_eq!((reports.wanted(BrokerId(1)).len(), reports.wanted(BrokerId(3)).len()), (2, 0));
        reports.said(by(1), 5, vec![report(0, 9), report(5, 1)]);
        assert_eq!(reports.wanted(BrokerId(1)), [id(1).to_wire()]);
        reports.said(by(1), 5, vec![report(1, 4)]);
        asking.answered_by(&[BrokerId(1)].into()).await;
        assert_eq!(
            asking.answers()[&id(0)].iter().map(|(b, r)| (b.0, r.log_end)).collect::<Vec<_>>(),
            [(1, 9)]
        );
        drop(asking);
        assert_eq!(reports.wanted(BrokerId(2)), [id(0).to_wire()]);
        assert_eq!(again.answers()[&id(0)].len(), 1);
        drop(again);
        assert_eq!(reports.wanted(BrokerId(2)), []);
    }

    #[tokio::test]
    async fn a_broker_is_asked_to_cut_until_it_has_or_nobody_waits() {
        let reports = Reports::default();
        let record = Partition::new([BrokerId(1), BrokerId(2)], 1);
        let asking = reports.ask(5, [(id(0), &record)]);
        let damaged = pb::ReplicaReport {
            problem: "damaged".into(),
            whole_until: Some(7),
            known_end: Some(9),
            ..report(0, 0)
        };
        reports.said(by(1), 5, vec![damaged.clone()]);
        assert_eq!(asking.answers()[&id(0)][&BrokerId(1)].whole, Some((7, 0)));
        let mut cutting = Box::pin(asking.cut(id(0), BrokerId(1), 7));
        assert!(futures::poll!(&mut cutting).is_pending());
        assert_eq!((reports.cuts(BrokerId(1)).len(), reports.cuts(BrokerId(2)).len()), (1, 0));
        // Not yet; nor is it what was given up.
        for said in [damaged, report(0, 6)] {
            reports.said(by(1), 5, vec![said]);
            assert!(futures::poll!(&mut cutting).is_pending());
        }
        reports.said(by(1), 5, vec![report(0, 7)]);
        cutting.await;
        assert_eq!(reports.cuts(BrokerId(1)), []);
    }

    #[tokio::test]
    async fn a_cut_that_nobody_waits_for_is_not_asked_for_though_others_ask_about_the_partition() {
        let reports = Reports::default();
        let record = Partition::new([BrokerId(1), BrokerId(2)], 1);
        let (asking, other) = (reports.ask(5, [(id(0), &record)]), reports.ask(5, [(id(0), &record)]));
        let cut_at = || reports.cuts(BrokerId(1)).into_iter().map(|cut| cut.offset).collect::<Vec<_>>();
        let mut cutting = Box::pin(asking.cut(id(0), BrokerId(1), 7));
        assert!(futures::poll!(&mut cutting).is_pending());
        assert_eq!(cut_at(), [7]);
        drop(cutting);
        assert_eq!(cut_at(), [0; 0], "it is asked anew");
        // Of two the last one counts, and the other one goes on when that has gone.
        let mut first = Box::pin(asking.cut(id(0), BrokerId(1), 7));
        let mut last = Box::pin(other.cut(id(0), BrokerId(1), 5));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut last).is_pending());
        assert_eq!(cut_at(), [5]);
        drop(last);
        assert_eq!(cut_at(), [7]);
        drop(first);
        assert_eq!(cut_at(), [0; 0]);
    }

    #[tokio::test]
    async fn an_answer_from_before_the_question_is_none() {
        let reports = Reports::default();
        let record = Partition::new([BrokerId(1)], 1);
        let earlier = reports.ask(5, [(id(0), &record)]);
        reports.said(by(1), 5, vec![report(0, 9)]);
        assert!(reports.wanted(BrokerId(1)).is_empty() && earlier.answers()[&id(0)].len() == 1);
        let later = reports.ask(7, [(id(0), &record)]);
        let one = [BrokerId(1)].into();
        let mut answered = Box::pin(later.answered_by(&one));
        // It has not heard of what was decided since; nor where it says so again.
        for acted in [5, 6] {
            assert!(futures::poll!(&mut answered).is_pending());
            assert_eq!(later.answers()[&id(0)].len(), 0);
            assert_eq!(reports.wanted(BrokerId(1)), [id(0).to_wire()]);
            reports.said(by(1), acted, vec![report(0, 9)]);
        }
        reports.said(by(1), 7, vec![report(0, 0)]);
        answered.await;
        assert_eq!(later.answers()[&id(0)][&BrokerId(1)].log_end, 0);
        assert_eq!(reports.wanted(BrokerId(1)), []);
    }

    #[test]
    fn a_log_that_is_told_of_by_who_has_not_heard_is_noticed() {
        assert!(Mutant::UnactedCounts.is_noticed_by(an_answer_from_before_the_question_is_none));
    }
}
