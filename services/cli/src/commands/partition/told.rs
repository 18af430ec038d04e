//! Partitions as they are shown: what nobody has told is unknown, and not zero.
//!
//! Ends of what is committed are the leader's word. Where it has not answered, or nobody leads, the answer has what is known
//! where it was asked: of the log that one has itself, or, without one, nothing.

use serde_json::Value;
use weir_proto::v1::{FollowerDescription, PartitionDescription};

use crate::clock;
use crate::commands::partition::{name, refuses_appends};
use crate::output::{self, Column, Table, UNKNOWN};
use crate::units;

/// Whether the log's numbers are those of a replica, be it the leader's.
pub(crate) fn is_of_replica(partition: &PartitionDescription) -> bool {
    partition.local
}

/// Whether they are the leader's. Only that one tells of its followers.
fn is_of_leader(partition: &PartitionDescription) -> bool {
    let is_alone = partition.replicas.len() <= 1;
    partition.local && partition.leader >= 0 && (is_alone || !partition.followers.is_empty())
}

/// An end of what is committed, if it is told: a leader that has just begun may not know it.
fn committed(partition: &PartitionDescription, end: i64) -> Option<i64> {
    (is_of_leader(partition) && end >= 0).then_some(end)
}

/// Partitions as a table, named in full or by their numbers.
pub(crate) fn table(partitions: &[PartitionDescription], full_names: bool) -> Table {
    let mut table = Table::new(&[
        if full_names { Column::left("PARTITION") } else { Column::right("PARTITION") },
        Column::right("LEADER"),
        Column::left("REPLICAS"),
        Column::left("IN SYNC"),
        Column::left("ELIGIBLE").wide(),
        Column::right("MIN").wide(),
        Column::right("START"),
        Column::right("END"),
        Column::right("RECORDS"),
        Column::right("SIZE"),
        Column::left("LAST APPEND"),
        Column::left("STATUS"),
        Column::right("EPOCH").wide(),
        Column::right("CHANGES").wide(),
        Column::right("STABLE").wide(),
        Column::right("ON DISK").wide(),
        Column::right("LOG END").wide(),
        Column::right("SEGMENTS").wide(),
        Column::left("DIRECTORY").wide(),
    ]);
    partitions.iter().for_each(|p| table.row(row(p, full_names)));
    table
}

fn row(p: &PartitionDescription, full_names: bool) -> [String; 19] {
    let shown = |told: Option<String>| told.unwrap_or_else(|| UNKNOWN.to_owned());
    let of_log = |number: i64| shown(p.local.then(|| number.to_string()));
    let end = committed(p, p.high_watermark);
    let appended = (p.last_append_ms > 0).then(|| clock::show(p.last_append_ms));
    [
        if full_names { name(p) } else { p.partition.to_string() },
        if p.leader < 0 { "none".to_owned() } else { p.leader.to_string() },
        ids(&p.replicas),
        ids(&p.isr),
        ids(&p.eligible),
        p.min_insync_replicas.to_string(),
        of_log(p.log_start_offset),
        shown(end.map(|end| end.to_string())),
        shown(end.map(|end| units::count(end - p.log_start_offset))),
        shown(p.local.then(|| units::bytes(p.size_bytes.max(0).unsigned_abs()))),
        shown(p.local.then(|| appended.unwrap_or_default())),
        status(p).to_owned(),
        p.leader_epoch.to_string(),
        p.partition_epoch.to_string(),
        shown(committed(p, p.last_stable_offset).map(|end| end.to_string())),
        of_log(p.flushed_offset),
        of_log(p.log_end_offset),
        of_log(p.segments.into()),
        shown(p.local.then(|| p.directory_id.clone())),
    ]
}

fn ids(ids: &[i32]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The worst of how it is, in the words of `weir status`.
fn status(partition: &PartitionDescription) -> &'static str {
    if partition.waits_for_a_person && !partition.waits_for_the_longest {
        "waits for a person"
    } else if partition.leader < 0 {
        "offline"
    } else if !partition.problem.is_empty() {
        "damaged"
    } else if refuses_appends(partition) {
        "refuses appends"
    } else if !partition.appends_wait.is_empty() {
        "appends wait"
    } else if partition.isr.len() < partition.replicas.len() {
        "under-replicated"
    } else if !is_of_leader(partition) {
        "its leader does not answer"
    } else {
        "ok"
    }
}

/// The same for programs: null is unknown.
pub(super) fn object(partition: &PartitionDescription) -> Value {
    let mut object = output::proto_json(partition, "weir.v1.PartitionDescription");
    let of_log = [
        "logStartOffset",
        "flushedOffset",
        "logEndOffset",
        "sizeBytes",
        "segments",
        "lastAppendMs",
        "directoryId",
    ];
    if !partition.local {
        of_log.into_iter().for_each(|field| output::set(&mut object, field, Value::Null));
    }
    for (field, end) in
        [("highWatermark", partition.high_watermark), ("lastStableOffset", partition.last_stable_offset)]
    {
        output::set(&mut object, field, committed(partition, end));
    }
    let followers: Vec<Value> = partition.followers.iter().map(follower).collect();
    output::set(&mut object, "followers", followers);
    object
}

/// One that was never heard of has no numbers.
fn follower(follower: &FollowerDescription) -> Value {
    let mut object = output::proto_json(follower, "weir.v1.FollowerDescription");
    if follower.log_end_offset < 0 {
        for field in ["logEndOffset", "flushedOffset", "lagRecords", "lagBytes"] {
            output::set(&mut object, field, Value::Null);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of two replicas, told by its leader.
    fn led() -> PartitionDescription {
        PartitionDescription {
            topic: "t".into(),
            leader: 1,
            replicas: vec![1, 2],
            isr: vec![1, 2],
            min_insync_replicas: 2,
            local: true,
            log_start_offset: 3,
            high_watermark: 1_010,
            log_end_offset: 1_010,
            last_stable_offset: 1_010,
            followers: vec![FollowerDescription { broker_id: 2, ..FollowerDescription::default() }],
            ..PartitionDescription::default()
        }
    }

    /// START, END, RECORDS, SIZE and STATUS.
    fn shown(partition: &PartitionDescription) -> [String; 5] {
        let row = row(partition, true);
        [6, 7, 8, 9, 11].map(|at: usize| row[at].clone())
    }

    #[test]
    fn what_nobody_tells_is_unknown_and_not_zero() {
        assert_eq!(shown(&led()), ["3", "1010", "1,007", "0 B", "ok"]);
        let empty = PartitionDescription { log_start_offset: 0, high_watermark: 0, ..led() };
        assert_eq!(shown(&empty), ["0", "0", "0", "0 B", "ok"]);
        let begun = PartitionDescription { high_watermark: -1, ..led() };
        assert_eq!(shown(&begun)[1..3], ["unknown", "unknown"]);

        // A broker without a replica answers for a leader that does not, or that there is not.
        let elsewhere = PartitionDescription {
            topic: "t".into(),
            leader: 1,
            replicas: vec![1],
            isr: vec![1],
            ..Default::default()
        };
        let unknown = ["unknown"; 4];
        assert_eq!(shown(&elsewhere)[..4], unknown);
        let offline = PartitionDescription { leader: -1, ..elsewhere.clone() };
        assert_eq!(shown(&offline)[..4], unknown);
        let object = object(&offline);
        for field in ["logStartOffset", "highWatermark", "logEndOffset", "sizeBytes", "lastStableOffset"] {
            assert!(object[field].is_null(), "{field}: {object}");
        }
        // One with a replica knows that log, and not where the partition ends.
        let replica = PartitionDescription { leader: -1, followers: Vec::new(), ..led() };
        assert_eq!(shown(&replica), ["3", "unknown", "unknown", "0 B", "offline"]);
    }

    #[test]
    fn the_worst_state_is_the_one_that_is_shown() {
        let thin = |isr: &[i32], min_insync_replicas| PartitionDescription {
            isr: isr.to_vec(),
            min_insync_replicas,
            ..led()
        };
        assert_eq!(status(&thin(&[1, 2], 2)), "ok");
        assert_eq!(status(&thin(&[1], 1)), "under-replicated");
        assert_eq!(status(&thin(&[1], 2)), "refuses appends");
        let waits = |isr: &[i32]| {
            let appends_wait = "appends wait for the replica on broker 2".to_owned();
            PartitionDescription { appends_wait, ..thin(isr, 1) }
        };
        assert_eq!(status(&waits(&[1, 2])), "appends wait", "though all are in sync");
        assert_eq!(status(&waits(&[1])), "appends wait", "which is worse than a replica that is missing");
        let silent = PartitionDescription { followers: Vec::new(), ..led() };
        assert_eq!(status(&silent), "its leader does not answer");
        let offline = PartitionDescription { leader: -1, ..thin(&[], 2) };
        assert_eq!(status(&offline), "offline");
        assert_eq!(
            status(&PartitionDescription { waits_for_a_person: true, ..offline.clone() }),
            "waits for a person"
        );
        let by_itself =
            PartitionDescription { waits_for_a_person: true, waits_for_the_longest: true, ..offline };
        assert_eq!(status(&by_itself), "offline");
    }

    #[test]
    fn a_follower_that_was_never_heard_of_has_no_numbers() {
        let unheard = FollowerDescription { log_end_offset: -1, ..FollowerDescription::default() };
        assert!(follower(&unheard)["lagRecords"].is_null());
        assert_eq!(follower(&FollowerDescription::default())["lagRecords"], 0);
    }
}
