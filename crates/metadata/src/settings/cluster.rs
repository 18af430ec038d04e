//! The cluster's own settings. Beside them, every setting of a topic can be set for the cluster: it is then the
//! value of topics that do not set it themselves.

use crate::Error;
use crate::settings::key::find;
use crate::settings::{Key, Kind, TOPIC_KEYS};

/// Settings that only the cluster has.
pub const CLUSTER_KEYS: &[Key] = &[
    Key {
        name: "default_partitions",
        kind: Kind::Count,
        default: "1",
        min: 1,
        max: crate::PARTITIONS_PER_TOPIC_MAX as i64,
        help: "Partitions of a topic that is created without saying how many.",
        ..Key::BASE
    },
    Key {
        name: "default_replication_factor",
        kind: Kind::Count,
        default: "3",
        min: 1,
        max: crate::REPLICATION_FACTOR_MAX as i64,
        help: "Replicas of a topic that is created without saying how many. A standalone cluster starts with 1.",
        ..Key::BASE
    },
];

/// The row of a cluster setting, its own or the default of a topic's; the error offers the nearest name.
///
/// # Errors
/// [`Error::ConfigUnknown`].
pub fn cluster_key(name: &str) -> Result<&'static Key, Error> {
    if let Ok(key) = find(CLUSTER_KEYS, name) {
        return Ok(key);
    }
    find(TOPIC_KEYS, name).map_err(|error| match find(CLUSTER_KEYS, name) {
        // Whichever table has a near name offers it.
        Err(Error::ConfigUnknown { name, nearest: Some(nearest) }) => {
            Error::ConfigUnknown { name, nearest: Some(nearest) }
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_are_searched_and_both_offer_names() {
        assert_eq!(cluster_key("default_partitions").unwrap().name, "default_partitions");
        assert_eq!(cluster_key("retention_ms").unwrap().name, "retention_ms");
        for (given, meant) in [("default_partition", "default_partitions"), ("retention_mss", "retention_ms")]
        {
            let error = cluster_key(given).unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
    }
}
