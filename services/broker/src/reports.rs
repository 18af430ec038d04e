//! What replicas here hold, for a controller that wants to know because nobody leads their partitions.
//!
//! Somebody is about to be chosen by it, so it must not be about to change: which version of the metadata was acted upon comes
//! with it, and was read first. What makes way by a record up to that one is closed by then (`replicas/aside.rs`), and is told of as
//! such.

use weir_cluster::Row;
use weir_proto::internal::v1 as wire;
use weir_storage::LogDir;
use weir_types::PartitionId;

use crate::cluster::Cluster;
use crate::damage::Damage;
use crate::mutant::Mutant;

/// What a heartbeat says of replicas.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The version of the metadata that was acted upon before anything was looked at.
    pub(crate) acted_version: i64,
    pub(crate) reports: Vec<wire::ReplicaReport>,
}

/// What is held of each of these partitions. One that cannot be used says why; so does one that is fetched anew, as long as
/// the damaged log that was set aside for that is whole further. How far one goes that cannot be opened now nobody can say: the
/// checkpoint only knows how far it went some time ago. That is said, too: it is not nothing.
pub(crate) fn of(
    cluster: &Cluster,
    log_dir: &LogDir,
    damage: &Damage,
    wanted: Vec<wire::PartitionRef>,
) -> Said {
    if wanted.is_empty() {
        return Said::default();
    }
    let acted_version = cluster.acted();
    let unusable = log_dir.unusable();
    let report = |partition: wire::PartitionRef| {
        let id = PartitionId::from_wire(partition.clone()).ok()?;
        let open = log_dir.partition(id);
        let aside = log_dir.further_aside(id);
        // What was cut off, or is set aside, counts as lost whichever of the two leads.
        let known_end = log_dir.end_before_cut(id).max(log_dir.known_end_damaged(id));
        let empty = wire::ReplicaReport { partition: Some(partition), ..wire::ReplicaReport::default() };
        Some(match open {
            Some(log) if aside.is_none() && (!log.is_closed() || Mutant::ClosedTold.is_planted()) => {
                let ends = log.ends();
                wire::ReplicaReport {
                    last_epoch: log.last_epoch().unwrap_or(0),
                    log_end: ends.log_end,
                    high_watermark: ends.high_watermark,
                    known_end: Some(known_end.unwrap_or(0)),
                    unreadable: damage.of(&log).unwrap_or_default(),
                    ..empty
                }
            }
            open => {
                let in_place: Vec<_> = unusable.iter().filter(|unusable| unusable.id == id).collect();
                let known = aside.as_ref().or_else(|| in_place.first().copied());
                let problem = match known {
                    Some(unusable) => &*unusable.what,
                    None if open.is_some() => "its log is closed: ask again",
                    None => "its log is not here",
                };
                let whole = known.and_then(|unusable| unusable.whole);
                let committed = open.map(|log| log.ends().high_watermark);
                let committed = committed.or_else(|| log_dir.committed_of_unusable(id)).unwrap_or(0);
                // Of two folders nobody knows which is the log, and neither was looked at.
                let is_looked_at = known.is_some_and(|known| known.is_damaged) && in_place.len() < 2;
                let may_have_gone_on = whole.is_some_and(|whole| whole.forgotten);
                let known_end = known_end.filter(|_| is_looked_at && !may_have_gone_on);
                wire::ReplicaReport {
                    problem: problem.to_owned(),
                    whole_until: whole.map(|whole| whole.end),
                    whole_epoch: whole.and_then(|whole| whole.last_epoch).unwrap_or(0),
                    high_watermark: if known_end.is_none() { committed } else { 0 },
                    known_end: known_end.map(|end| end.max(committed)),
                    ..empty
                }
            }
        })
    };
    Said { acted_version, reports: wanted.into_iter().filter_map(report).collect() }
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
        let parts = Parts::new();
        let said = of(&parts.cluster, log_dir, &parts.damage, vec![ID.to_wire()]);
        let [report] = said.reports.try_into().unwrap();
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
        assert_eq!((damaged.whole_until, damaged.whole_epoch, damaged.known_end), (Some(3), 5, Some(6)));
        dir.set_damaged_aside(vec![ID]).await.unwrap();
        let log = dir.create_partition(ID, "orders", LogConfig::default()).unwrap();
        let aside = told(&dir);
        assert!(aside.problem.contains("is set aside until it has been fetched anew"), "{aside:?}");
        assert_eq!(wire::ReplicaReport { problem: damaged.problem.clone(), ..aside }, damaged);

        // As those who come by it from a leader, in the same leadership.
        let leading = parts.replication.lead(&log, Durability::Fsync, recorded(5, &[1]));
        log.control(Control::SetAdmission(Box::new(leading))).await.unwrap();
        fill(&log, 2).await;
        assert_eq!((told(&dir).whole_until, told(&dir).known_end), (Some(3), Some(6)));
        fill(&log, 1).await;
        let open = told(&dir);
        assert_eq!((open.problem.as_str(), open.whole_until), ("", None));
        assert_eq!((open.last_epoch, open.log_end, open.known_end), (5, 3, Some(6)));
    }

    #[tokio::test]
    async fn a_log_that_makes_way_is_no_candidate_from_the_moment_it_is_closed() {
        let parts = Parts::new();
        parts.is_heard();
        let log = parts.lead(ID, recorded(5, &[1])).await;
        fill(&log, 6).await;
        assert_eq!((told(&parts.log_dir).log_end, &*told(&parts.log_dir).problem), (6, ""));
        parts.log_dir.close_damaged(&[ID]).await;
        let closed = told(&parts.log_dir);
        assert_eq!((closed.log_end, closed.whole_until, closed.known_end), (0, None, None));
        assert_eq!(closed.problem, "its log is closed: ask again");
    }

    #[test]
    fn a_closed_log_that_is_told_of_as_a_candidate_is_noticed() {
        let test = a_log_that_makes_way_is_no_candidate_from_the_moment_it_is_closed;
        assert!(Mutant::ClosedTold.is_noticed_by(test));
    }

    /// It may have everything.
    #[tokio::test]
    async fn how_far_a_log_goes_that_cannot_be_opened_is_not_said() {
        let parts = Parts::new();
        parts.is_heard();
        let log = parts.lead(ID, recorded(5, &[1])).await;
        fill(&log, 4).await;
        parts.log_dir.checkpoint().unwrap();
        fill(&log, 2).await;
        drop(log);
        parts.log_dir.close().await.unwrap();
        let folder = |path: &Path| path.to_string_lossy().contains("orders-0.");
        let rule = parts.disk.add(Rule::on([Op::List], Effect::Fail(Fault::TooManyFiles)).path(folder));
        let dir = open(&parts);
        let unopened = told(&dir);
        assert!(unopened.problem.contains("list"), "{unopened:?}");
        assert_eq!((unopened.whole_until, unopened.known_end, unopened.log_end), (None, None, 0));
        assert_eq!(unopened.high_watermark, 6, "what is known of it is");
        parts.disk.remove(rule);
        dir.reopen(ID).unwrap();
        assert_eq!((told(&dir).log_end, told(&dir).known_end), (6, Some(0)));
        dir.close().await.unwrap();

        // Nor is it of one that is there twice.
        let folder = log_folder(&parts);
        let (rest, _) = folder.to_str().unwrap().rsplit_once('.').unwrap();
        let other = Path::new(rest).with_added_extension("0000000000000005");
        parts.disk.create_dir(&other).unwrap();
        parts.disk.replace_durably(&other.join("00000000000000000000.log"), b"something").unwrap();
        let dir = open(&parts);
        let twice = told(&dir);
        assert!(twice.problem.contains("another folder"), "{twice:?}");
        assert_eq!((twice.whole_until, twice.known_end), (None, None));
        dir.close().await.unwrap();
        parts.disk.rename(&other, Path::new("/other")).unwrap();

        // Of one that is gone all is lost.
        parts.disk.rename(&folder, Path::new("/elsewhere")).unwrap();
        let gone = told(&open(&parts));
        assert!(gone.problem.contains("is missing"), "{gone:?}");
        assert_eq!((gone.whole_until, gone.known_end), (Some(0), Some(6)));
    }

    fn log_folder(parts: &Parts) -> std::path::PathBuf {
        let found = parts.disk.list(Path::new("/logs")).unwrap();
        let is_log = |name: &str| name.starts_with("orders-0.");
        let [log] = found
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| is_log(name))
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        Path::new("/logs").join(log)
    }

    #[tokio::test]
    async fn what_was_acted_upon_comes_with_what_is_told() {
        let parts = Parts::new();
        let said = || of(&parts.cluster, &parts.log_dir, &parts.damage, vec![ID.to_wire()]).acted_version;
        assert_eq!(said(), 0);
        parts.cluster.acted_upon(7);
        assert_eq!(said(), 7);
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
            assert_eq!((told.whole_until, told.log_end, told.known_end), (None, 0, Some(6)));
            dir.close().await.unwrap();
            parts.disk.remove(rule);
        }
        let told = told(&open(&parts));
        assert_eq!((told.whole_until, told.known_end), (Some(3), Some(6)));
    }
}
