//! What replicas here hold, for a controller that wants to know because nobody leads their partitions.

use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_storage::LogDir;
use weir_types::PartitionId;

use crate::damage::Damage;

/// What is held of each of these partitions. One that cannot be used says why; so does one that is fetched anew, as long as
/// the damaged log that was set aside for that is whole further.
pub(crate) fn of(
    log_dir: &LogDir,
    damage: &Damage,
    wanted: Vec<wire::PartitionRef>,
) -> Vec<wire::ReplicaReport> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let unusable = log_dir.unusable();
    let report = |partition: wire::PartitionRef| {
        let id = PartitionId::from_wire(partition.clone()).ok()?;
        let open = log_dir.partition(id);
        let aside = log_dir.further_aside(id);
        // What was cut off, or is set aside, counts as lost whichever of the two leads.
        let known_end = log_dir.end_before_cut(id).max(log_dir.known_end_damaged(id)).unwrap_or(0);
        let empty =
            wire::ReplicaReport { partition: Some(partition), known_end, ..wire::ReplicaReport::default() };
        Some(match open {
            Some(log) if aside.is_none() => {
                let ends = log.ends();
                wire::ReplicaReport {
                    last_epoch: log.last_epoch().unwrap_or(0),
                    log_end: ends.log_end,
                    high_watermark: ends.high_watermark,
                    unreadable: damage.of(&log).unwrap_or_default(),
                    ..empty
                }
            }
            open => {
                let known = aside.as_ref().or_else(|| unusable.iter().find(|unusable| unusable.id == id));
                let problem = known.map_or("its log is not here", |unusable| &unusable.what).to_owned();
                let whole = known.and_then(|unusable| unusable.whole);
                let committed = open.map_or(0, |log| log.ends().high_watermark);
                wire::ReplicaReport {
                    problem,
                    whole_until: whole.map(|whole| whole.end),
                    whole_epoch: whole.and_then(|whole| whole.last_epoch).unwrap_or(0),
                    known_end: known_end.max(committed),
                    ..empty
                }
            }
        })
    };
    wanted.into_iter().filter_map(report).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use weir_io::{Access, Disk, Effect, Fault, Op, Rule};
    use weir_runtime::testing::TestOs;
    use weir_storage::{Acks, Control, DirOptions, LogConfig, Partition};
    use weir_types::Durability;

    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded};

    fn told(log_dir: &LogDir) -> wire::ReplicaReport {
        let [report] = of(log_dir, &Parts::new().damage, vec![ID.to_wire()]).try_into().unwrap();
        report
    }

    async fn fill(log: &Partition, records: usize) {
        for _ in 0..records {
            // The sum of no bytes is 0, which is what it says.
            append(log, batch(0), Acks::All, None).await.unwrap().unwrap();
        }
    }

    fn open(parts: &Parts) -> LogDir {
        let os = Arc::new(TestOs::new(Arc::new(parts.disk.clone())));
        let options = DirOptions::new(|fatal| panic!("{fatal}"));
        LogDir::open(os, Path::new("/logs"), None, options).unwrap().0
    }

    /// A log of six records that is whole up to 3.
    async fn damaged() -> (Parts, LogDir) {
        let parts = Parts::new();
        parts.is_heard();
        let log = parts.lead(ID, recorded(5, &[1])).await;
        fill(&log, 6).await;
        let path = log.describe().path.join("00000000000000000000.log");
        parts.log_dir.close().await.unwrap();
        // The disk loses the fourth.
        let file = parts.disk.open(&path, Access::Write).unwrap();
        file.set_len(3 * file.len().unwrap() / 6 + 9).unwrap();
        let dir = open(&parts);
        (parts, dir)
    }

    #[tokio::test]
    async fn what_is_set_aside_is_told_of_as_long_as_it_goes_further_and_its_end_for_longer() {
        let (parts, dir) = damaged().await;
        let damaged = told(&dir);
        assert_eq!((damaged.whole_until, damaged.whole_epoch, damaged.known_end), (Some(3), 5, 6));
        dir.set_damaged_aside(vec![ID]).await.unwrap();
        let log = dir.create_partition(ID, "orders", LogConfig::default()).unwrap();
        let aside = told(&dir);
        assert!(aside.problem.contains("is set aside until it has been fetched anew"), "{aside:?}");
        assert_eq!(wire::ReplicaReport { problem: damaged.problem.clone(), ..aside }, damaged);

        // As those who come by it from a leader, in the same leadership.
        let leading = parts.replication.lead(&log, Durability::Fsync, recorded(5, &[1]));
        log.control(Control::SetAdmission(Box::new(leading))).await.unwrap();
        fill(&log, 2).await;
        assert_eq!((told(&dir).whole_until, told(&dir).known_end), (Some(3), 6));
        fill(&log, 1).await;
        let open = told(&dir);
        assert_eq!((open.problem.as_str(), open.whole_until), ("", None));
        assert_eq!((open.last_epoch, open.log_end, open.known_end), (5, 3, 6));
    }

    #[tokio::test]
    async fn where_nobody_knows_how_far_it_is_whole_the_one_in_its_place_is_no_candidate() {
        let (parts, dir) = damaged().await;
        dir.set_damaged_aside(vec![ID]).await.unwrap();
        dir.create_partition(ID, "orders", LogConfig::default()).unwrap();
        dir.close().await.unwrap();
        let aside = |path: &Path| path.to_string_lossy().ends_with(".damaged");
        for fault in [Fault::Io, Fault::TooManyFiles] {
            let rule = parts.disk.add(Rule::on([Op::List], Effect::Fail(fault)).path(aside));
            let dir = open(&parts);
            let told = told(&dir);
            assert!(told.problem.contains("nobody knows how far"), "{told:?}");
            assert_eq!((told.whole_until, told.log_end, told.known_end), (None, 0, 6));
            dir.close().await.unwrap();
            parts.disk.remove(rule);
        }
        let told = told(&open(&parts));
        assert_eq!((told.whole_until, told.known_end), (Some(3), 6));
    }
}
