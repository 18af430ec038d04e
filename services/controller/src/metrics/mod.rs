//! What a controller counts. Labels are bounded: causes and kinds, never topics, brokers or addresses.
//!
//! Another metric is a row in `catalog`, a field here, and the place where the thing happens, which has `Parts::metrics`.

mod catalog;
mod changes;
mod page;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use weir_metadata::{Broker, BrokerState};
use weir_process::metrics::as_text;
use weir_runtime::Usage;

use crate::members::voters_away;
use crate::metrics::catalog::CATALOG;
use crate::service::Parts;

pub use page::page;

/// The metrics of one controller.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    ready: IntGauge,
    leads: IntGauge,
    voters: IntGauge,
    voters_away: IntGauge,
    metadata_version: IntGauge,
    term: IntGauge,
    queued: IntGauge,
    /// From a proposal to its being applied.
    pub(crate) commit: Histogram,
    brokers: IntGaugeVec,
    partitions: IntGauge,
    leaderless: IntGauge,
    waiting: IntGauge,
    under_replicated: IntGauge,
    below_min: IntGauge,
    not_preferred: IntGauge,
    elections: IntCounterVec,
    isr_changes: IntCounterVec,
    fenced: IntCounterVec,
}

/// The states of brokers, as labels.
const STATES: [(BrokerState, &str); 5] = [
    (BrokerState::Registered, "registered"),
    (BrokerState::Active, "active"),
    (BrokerState::Slow, "slow"),
    (BrokerState::Draining, "draining"),
    (BrokerState::Fenced, "fenced"),
];
/// And of those whose log directory has failed, whatever else they are.
const FAILED: &str = "failed";
/// What causes elections.
const CAUSES: [&str; 10] = [
    "fenced",
    "failed",
    "draining",
    "slow",
    "registered",
    "unfenced",
    "preferred",
    "unclean",
    "assigned",
    "other",
];

impl Metrics {
    pub(crate) fn new() -> Self {
        let make = CATALOG.maker();
        make.gauges("weir_build_info").with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        // All from the start: the first of them is to be seen as a rise.
        let all = |name: &str, values: &[&str]| {
            let counters = make.counters(name);
            values.iter().for_each(|value| drop(counters.with_label_values(&[value])));
            counters
        };
        let elections = all("weir_cluster_elections_total", &CAUSES);
        let isr_changes = all("weir_cluster_isr_changes_total", &["shrink", "expand"]);
        let fenced = all("weir_cluster_fenced_total", &["silence", "gone"]);
        let brokers = make.gauges("weir_cluster_brokers");
        let states = STATES.iter().map(|(_, state)| *state).chain([FAILED]);
        states.for_each(|state| drop(brokers.with_label_values(&[state])));
        Self {
            term: make.gauge("weir_controller_term"),
            queued: make.gauge("weir_controller_proposals_queued"),
            commit: make.histogram("weir_controller_commit_seconds"),
            brokers,
            partitions: make.gauge("weir_cluster_partitions"),
            leaderless: make.gauge("weir_cluster_partitions_leaderless"),
            waiting: make.gauge("weir_cluster_partitions_waiting"),
            under_replicated: make.gauge("weir_cluster_partitions_under_replicated"),
            below_min: make.gauge("weir_cluster_partitions_below_min"),
            not_preferred: make.gauge("weir_cluster_partitions_not_preferred"),
            elections,
            isr_changes,
            fenced,
            ready: make.gauge("weir_ready"),
            leads: make.gauge("weir_controller_leads"),
            voters: make.gauge("weir_controller_voters"),
            voters_away: make.gauge("weir_controller_voters_away"),
            metadata_version: make.gauge("weir_metadata_version"),
            registry: make.finish(),
        }
    }

    /// Counts brokers that are fenced: for `silence`, or because they are `gone`.
    pub(crate) fn fenced(&self, how: &str) -> IntCounter {
        self.fenced.with_label_values(&[how])
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn render(&self, parts: &Parts) -> Vec<u8> {
        // Taken out at once (rule 34).
        let raft = parts.raft.server_metrics().borrow().clone();
        let voters = raft.membership_config.membership().voter_ids().count();
        self.ready.set(i64::from(parts.unready().is_none()));
        let away = voters_away(parts);
        // Whom no quorum answers decides nothing.
        self.leads.set(i64::from(raft.current_leader == Some(raft.id) && 2 * away < voters));
        self.voters.set(i64::try_from(voters).unwrap_or(i64::MAX));
        self.voters_away.set(i64::try_from(away).unwrap_or(i64::MAX));
        let image = parts.machine.hub().image();
        self.metadata_version.set(image.version());
        self.term.set(i64::try_from(raft.vote.leader_id().term).unwrap_or(i64::MAX));
        self.queued.set(i64::try_from(parts.proposer.queued()).unwrap_or(i64::MAX));
        for (state, label) in STATES {
            let is_it = |broker: &&Broker| broker.state == state && !broker.is_failed();
            let count = image.brokers().filter(is_it).count();
            self.brokers.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let failed = image.brokers().filter(|broker| broker.is_failed()).count();
        self.brokers.with_label_values(&[FAILED]).set(i64::try_from(failed).unwrap_or(i64::MAX));
        let health = image.health();
        self.partitions.set(image.partition_count());
        self.leaderless.set(health.leaderless);
        self.waiting.set(health.waiting);
        self.under_replicated.set(health.under_replicated);
        self.below_min.set(health.below_min_insync);
        self.not_preferred.set(health.not_preferred);
        let mut families = self.registry.gather();
        families.extend(CATALOG.usage(Usage::now()));
        as_text(families)
    }

    /// What can be said before there is a controller.
    pub(crate) fn render_start() -> Vec<u8> {
        as_text(CATALOG.usage(Usage::now()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_metric_has_its_row_and_every_row_its_metric() {
        let metrics = Metrics::new();
        let mut families = metrics.registry.gather();
        families.extend(CATALOG.usage(Usage::now()));
        let made: BTreeMap<&str, _> = families.iter().map(|family| (family.name(), family)).collect();
        assert_eq!(made.len(), families.len(), "two metrics have one name");
        let rows: BTreeMap<&str, _> = CATALOG.rows().map(|row| (row.name, row)).collect();
        assert!(made.keys().eq(rows.keys()), "{:?}\n{:?}", made.keys(), rows.keys());
        for (name, family) in made {
            assert_eq!(family.help(), rows[name].help, "{name}");
        }
    }
}
