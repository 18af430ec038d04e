//! What a controller counts. Labels are bounded: causes and kinds, never topics, brokers or addresses.
//!
//! Another metric is a row in `catalog`, a field here, and the place where the thing happens, which has `Parts::metrics`.

mod catalog;
mod page;

use prometheus::{IntGauge, Registry};
use weir_process::metrics::as_text;
use weir_runtime::Usage;

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
    metadata_version: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let make = CATALOG.maker();
        make.gauges("weir_build_info").with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            ready: make.gauge("weir_ready"),
            leads: make.gauge("weir_controller_leads"),
            voters: make.gauge("weir_controller_voters"),
            metadata_version: make.gauge("weir_metadata_version"),
            registry: make.finish(),
        }
    }

    /// Everything, in the text format of Prometheus.
    pub(crate) fn render(&self, parts: &Parts) -> Vec<u8> {
        // Taken out at once (rule 34).
        let raft = parts.raft.server_metrics().borrow().clone();
        let voters = raft.membership_config.membership().voter_ids().count();
        self.ready.set(i64::from(parts.unready().is_none()));
        self.leads.set(i64::from(raft.current_leader == Some(raft.id)));
        self.voters.set(i64::try_from(voters).unwrap_or(i64::MAX));
        self.metadata_version.set(parts.machine.hub().image().version());
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
