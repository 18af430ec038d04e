//! The settings of a topic: the table, and the typed values that storage and broker work with.

use std::collections::BTreeMap;

use weir_types::Durability;

use crate::Error;
use crate::settings::key::find;
use crate::settings::{Key, Kind, Value};

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;
const MINUTE: i64 = 60_000;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;

/// Every setting of a topic, sorted by name.
pub const TOPIC_KEYS: &[Key] = &[
    Key {
        name: "batch_bytes_max",
        kind: Kind::Bytes,
        default: "1MiB",
        min: KIB,
        max: 64 * MIB,
        help: "The largest batch a producer may append.",
        ..Key::BASE
    },
    Key {
        name: "cleanup_policy",
        kind: Kind::Choice(&["delete"]),
        default: "delete",
        not_yet: &["compact", "compact,delete", "delete,compact"],
        help: "What becomes of old records: delete removes whole segments by time and size.",
        ..Key::BASE
    },
    Key {
        name: "compression",
        kind: Kind::Choice(&["producer", "zstd", "lz4", "gzip"]),
        default: "producer",
        help: "producer keeps batches as they came; a codec compresses those that came uncompressed.",
        ..Key::BASE
    },
    Key {
        name: "durability",
        kind: Kind::Choice(&["fsync", "replicated"]),
        default: "fsync",
        help: "What an acknowledgement means: on disk, or in the memory of the in-sync replicas.",
        fixed_at_creation: true,
        copied_at_creation: true,
        ..Key::BASE
    },
    Key {
        name: "max_timestamp_ahead_ms",
        kind: Kind::Duration,
        default: "1h",
        min: 0,
        max: 100 * YEAR,
        unlimited: true,
        help: "How far ahead of the broker's clock a record's timestamp may be.",
        ..Key::BASE
    },
    Key {
        name: "min_insync_replicas",
        kind: Kind::Count,
        default: "2",
        min: 1,
        max: crate::REPLICATION_FACTOR_MAX as i64,
        help: "Replicas that must be in sync for a write to be accepted and acknowledged.",
        copied_at_creation: true,
        ..Key::BASE
    },
    Key {
        name: "retention_bytes",
        kind: Kind::Bytes,
        default: "unlimited",
        min: 0,
        unlimited: true,
        help: "Bytes kept per partition; the oldest segments beyond that are deleted.",
        ..Key::BASE
    },
    Key {
        name: "retention_ms",
        kind: Kind::Duration,
        default: "7d",
        min: 0,
        max: 1_000 * YEAR,
        unlimited: true,
        help: "How long records are kept.",
        ..Key::BASE
    },
    Key {
        name: "segment_bytes",
        kind: Kind::Bytes,
        default: "1GiB",
        min: MIB,
        max: 2 * GIB - 4 * KIB,
        help: "Size at which a new segment begins; at least two of the largest batches.",
        ..Key::BASE
    },
    Key {
        name: "segment_ms",
        kind: Kind::Duration,
        default: "7d",
        min: MINUTE,
        max: 1_000 * YEAR,
        help: "Age at which a new segment begins, so that old records of a quiet topic can be deleted.",
        ..Key::BASE
    },
    Key {
        name: "timestamp_type",
        kind: Kind::Choice(&["create", "append"]),
        default: "create",
        help: "Whose time a record carries: the producer's (create) or the broker's (append).",
        ..Key::BASE
    },
    Key {
        name: "unclean_recovery",
        kind: Kind::Choice(&["manual", "longest"]),
        default: "manual",
        help: "When no replica is known to hold every acknowledged record: manual waits for a person, longest takes, \
               of the replicas that answer, the one with the longest log.",
        ..Key::BASE
    },
];

/// Settings as they are stored: canonical values by name.
pub type Settings = BTreeMap<String, String>;

/// The row of a topic's setting; the error offers the nearest name.
///
/// # Errors
/// [`Error::ConfigUnknown`].
pub fn topic_key(name: &str) -> Result<&'static Key, Error> {
    find(TOPIC_KEYS, name)
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table.
    Default,
    /// The cluster's settings.
    Cluster,
    /// The topic's settings.
    Topic,
}

/// Where a topic's values are looked up, first to last; after them comes the table's default.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// What was set on the topic.
    pub topic: &'a Settings,
    /// The cluster's values that were copied when the topic was made.
    pub copied: &'a Settings,
    /// The cluster's settings.
    pub cluster: &'a Settings,
}

impl Layers<'_> {
    /// What a new topic keeps of a setting that is copied. A cluster-wide min_insync_replicas is cut to what its replicas
    /// can fulfil.
    pub fn copied(&self, key: &Key, replication_factor: i32) -> Value {
        match self.effective(key).0 {
            Value::Number(number) if key.name == "min_insync_replicas" => {
                Value::Number(number.min(replication_factor.into()))
            }
            value => value,
        }
    }

    /// The value of one setting, and where it comes from.
    pub fn effective(&self, key: &Key) -> (Value, Source) {
        // What is stored was validated by the version that stored it; what this version cannot read counts as
        // unset.
        let stored = |from: &Settings| from.get(key.name).and_then(|text| key.parse(text).ok());
        if let Some(value) = stored(self.topic) {
            (value, Source::Topic)
        } else if let Some(value) = stored(self.copied).or_else(|| stored(self.cluster)) {
            (value, Source::Cluster)
        } else {
            (key.default_value(), Source::Default)
        }
    }
}

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanupPolicy {
    /// Whole segments go by time and size.
    Delete,
}

/// Whether the broker compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Batches stay as they came.
    Producer,
    /// What came uncompressed is compressed with zstd.
    Zstd,
    /// What came uncompressed is compressed with lz4.
    Lz4,
    /// What came uncompressed is compressed with gzip.
    Gzip,
}

/// Whose time a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    Create,
    /// The broker's, when it appends.
    Append,
}

/// Who becomes leader when no replica is known to hold every acknowledged record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UncleanRecovery {
    /// Nobody, until a person decides.
    Manual,
    /// The replica with the longest log, of those that can be used.
    Longest,
}

/// A topic's settings with types, as storage and broker need them. Limits of -1 became `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Replicas that must be in sync. The value in force is the partition record's.
    pub min_insync_replicas: i32,
    /// The largest batch, in bytes.
    pub batch_bytes_max: i64,
    /// A segment's size, in bytes.
    pub segment_bytes: i64,
    /// A segment's age, in milliseconds.
    pub segment_ms: i64,
    /// How long records are kept, in milliseconds; `None`: for ever.
    pub retention_ms: Option<i64>,
    /// Bytes kept per partition; `None`: all.
    pub retention_bytes: Option<i64>,
    /// Whether the broker compresses.
    pub compression: Compression,
    /// Whose time a record carries.
    pub timestamp_type: TimestampType,
    /// How far ahead a timestamp may be, in milliseconds; `None`: any.
    pub max_timestamp_ahead_ms: Option<i64>,
    /// What becomes of old records.
    pub cleanup_policy: CleanupPolicy,
    /// Who becomes leader when nobody is known to be complete.
    pub unclean_recovery: UncleanRecovery,
}

impl TopicSettings {
    /// The settings in force for a topic: its own, else the cluster's, else the defaults.
    pub fn resolve(layers: Layers<'_>) -> Self {
        let value = |name: &str| topic_key(name).map_or(Value::Number(-1), |key| layers.effective(key).0);
        let number = |name: &str| value(name).number();
        let limit = |name: &str| Some(number(name)).filter(|limit| *limit >= 0);
        Self {
            durability: match value("durability").word() {
                "replicated" => Durability::Replicated,
                _ => Durability::Fsync,
            },
            min_insync_replicas: i32::try_from(number("min_insync_replicas")).unwrap_or(1),
            batch_bytes_max: number("batch_bytes_max"),
            segment_bytes: number("segment_bytes"),
            segment_ms: number("segment_ms"),
            retention_ms: limit("retention_ms"),
            retention_bytes: limit("retention_bytes"),
            compression: match value("compression").word() {
                "zstd" => Compression::Zstd,
                "lz4" => Compression::Lz4,
                "gzip" => Compression::Gzip,
                _ => Compression::Producer,
            },
            timestamp_type: match value("timestamp_type").word() {
                "append" => TimestampType::Append,
                _ => TimestampType::Create,
            },
            max_timestamp_ahead_ms: limit("max_timestamp_ahead_ms"),
            cleanup_policy: CleanupPolicy::Delete,
            unclean_recovery: match value("unclean_recovery").word() {
                "longest" => UncleanRecovery::Longest,
                _ => UncleanRecovery::Manual,
            },
        }
    }

    /// Checks what no single setting can: settings against each other and against the number of replicas.
    ///
    /// # Errors
    /// [`Error::ConfigInvalid`] of the setting that does not go with the others.
    pub fn check(&self, replication_factor: i32) -> Result<(), Error> {
        let invalid = |name: &str, value: i64, wanted: String| {
            Err(Error::ConfigInvalid { name: name.to_owned(), value: value.to_string(), wanted })
        };
        if self.min_insync_replicas > replication_factor {
            return invalid(
                "min_insync_replicas",
                self.min_insync_replicas.into(),
                format!("at most the topic's {replication_factor} replicas"),
            );
        }
        if self.segment_bytes < 2 * self.batch_bytes_max {
            return invalid(
                "segment_bytes",
                self.segment_bytes,
                format!("at least twice batch_bytes_max ({})", self.batch_bytes_max),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_row_is_sorted_documented_and_has_a_default_within_its_limits() {
        assert!(TOPIC_KEYS.is_sorted_by(|a, b| a.name < b.name));
        for key in TOPIC_KEYS.iter().chain(crate::settings::CLUSTER_KEYS) {
            assert!(key.help.ends_with('.'), "{}", key.name);
            let value = key.parse(key.default).unwrap();
            assert_eq!(key.parse(&value.to_string()), Ok(value), "{}: canonical values read back", key.name);
        }
    }

    fn resolve(topic: &[(&str, &str)], copied: &[(&str, &str)], cluster: &[(&str, &str)]) -> TopicSettings {
        let (topic, copied, cluster) = (settings(topic), settings(copied), settings(cluster));
        TopicSettings::resolve(Layers { topic: &topic, copied: &copied, cluster: &cluster })
    }

    #[test]
    fn the_topic_wins_over_the_cluster_over_the_default() {
        let key = topic_key("retention_ms").unwrap();
        let (one, two, three) = (
            settings(&[("retention_ms", "1000")]),
            settings(&[("retention_ms", "2000")]),
            settings(&[("retention_ms", "3000")]),
        );
        let none = Settings::new();
        let effective = |topic, copied, cluster| Layers { topic, copied, cluster }.effective(key);
        assert_eq!(effective(&one, &two, &three), (Value::Number(1_000), Source::Topic));
        assert_eq!(effective(&none, &two, &three), (Value::Number(2_000), Source::Cluster));
        assert_eq!(effective(&none, &none, &three), (Value::Number(3_000), Source::Cluster));
        assert_eq!(effective(&none, &none, &none), (Value::Number(604_800_000), Source::Default));
    }

    #[test]
    fn typed_settings_carry_the_table() {
        let typed = resolve(&[], &[], &[]);
        assert_eq!(typed.durability, Durability::Fsync);
        assert_eq!((typed.min_insync_replicas, typed.batch_bytes_max), (2, MIB));
        assert_eq!((typed.retention_ms, typed.retention_bytes), (Some(604_800_000), None));
        let typed = resolve(
            &[("compression", "lz4"), ("retention_ms", "-1")],
            &[("durability", "replicated")],
            &[("timestamp_type", "append"), ("unclean_recovery", "longest")],
        );
        assert_eq!(typed.durability, Durability::Replicated);
        assert_eq!(typed.compression, Compression::Lz4);
        assert_eq!(typed.retention_ms, None);
        assert_eq!(typed.timestamp_type, TimestampType::Append);
        assert_eq!(typed.unclean_recovery, UncleanRecovery::Longest);
    }

    #[test]
    fn what_is_refused_says_what_would_do() {
        let cases = [
            ("retention_m", "7d", "did you mean \"retention_ms\""),
            ("retention_ms", "seven days", "7d"),
            ("batch_bytes_max", "65MiB", "1KiB to 64MiB"),
            ("retention_ms", "-2", "7d"),
            ("durability", "none", "one of fsync, replicated"),
            ("cleanup_policy", "compact", "not built yet"),
        ];
        for (name, value, expected) in cases {
            let error = topic_key(name).and_then(|key| key.parse(value)).unwrap_err().to_string();
            assert!(error.contains(expected), "{name} = {value}: {error}");
        }
    }

    #[test]
    fn settings_are_checked_against_each_other() {
        assert_eq!(resolve(&[], &[], &[]).check(2), Ok(()));
        let error = resolve(&[], &[], &[]).check(1).unwrap_err().to_string();
        assert!(error.contains("at most the topic's 1 replicas"), "{error}");
        let error = resolve(&[("batch_bytes_max", "67108864"), ("segment_bytes", "67108864")], &[], &[])
            .check(2)
            .unwrap_err();
        assert!(error.to_string().contains("twice batch_bytes_max"), "{error}");
    }
}
