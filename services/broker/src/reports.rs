//! What replicas here hold, for a controller that wants to know because nobody leads their partitions.

use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_storage::LogDir;
use weir_types::PartitionId;

/// What is held of each of these partitions. One that cannot be used says why.
pub(crate) fn of(log_dir: &LogDir, wanted: Vec<wire::PartitionRef>) -> Vec<wire::ReplicaReport> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let unusable = log_dir.unusable();
    let report = |partition: wire::PartitionRef| {
        let id = PartitionId::from_wire(partition.clone()).ok()?;
        let empty = wire::ReplicaReport { partition: Some(partition), ..wire::ReplicaReport::default() };
        Some(match log_dir.partition(id) {
            Some(log) => {
                let ends = log.ends();
                wire::ReplicaReport {
                    last_epoch: log.last_epoch().unwrap_or(0),
                    log_end: ends.log_end,
                    high_watermark: ends.high_watermark,
                    known_end: log_dir.end_before_cut(id).unwrap_or(0),
                    ..empty
                }
            }
            None => {
                let known = unusable.iter().find(|unusable| unusable.id == id);
                let problem = known.map_or("its log is not here", |unusable| &unusable.what).to_owned();
                let whole = known.and_then(|unusable| unusable.whole);
                wire::ReplicaReport {
                    problem,
                    whole_until: whole.map(|whole| whole.end),
                    whole_epoch: whole.and_then(|whole| whole.last_epoch).unwrap_or(0),
                    known_end: whole.map_or(0, |whole| whole.known_end),
                    ..empty
                }
            }
        })
    };
    wanted.into_iter().filter_map(report).collect()
}
