//! What the process takes of the machine, under the names that every program's metrics have.

use prometheus::proto::MetricFamily;
use weir_runtime::Usage;

use super::storage::single;

/// What the system says, and how many connections were refused.
pub(super) fn gather(usage: Option<Usage>, refused_connections: u64) -> Vec<MetricFamily> {
    let refused = single("weir_connections_refused_total", refused_connections as f64);
    // Where the system does not say, there are none.
    let usage = usage.into_iter().flat_map(|usage| {
        let bounded = usage.max_fds.map(|max| single("process_max_fds", max as f64));
        let others = [
            single("process_cpu_seconds_total", usage.cpu_seconds),
            single("process_resident_memory_bytes", usage.resident_bytes as f64),
            single("process_open_fds", usage.open_fds as f64),
            single("process_start_time_seconds", usage.started_seconds),
        ];
        others.into_iter().chain(bounded)
    });
    usage.chain([refused]).collect()
}
