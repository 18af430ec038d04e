//! The log directories of brokers. Path and space are a broker's own word: of one that has not answered they are unknown.

use serde_json::Value;
use weir_proto::v1::{BrokerDescription, LogDirectory};

use crate::output::{self, Column, Table, UNKNOWN};
use crate::units;

/// Whether its broker has said how it is.
pub(crate) fn is_told(directory: &LogDirectory) -> bool {
    !directory.path.is_empty()
}

/// Whether appends are refused for want of space.
fn is_full(directory: &LogDirectory) -> bool {
    is_told(directory)
        && directory.online
        && (directory.missing_bytes > 0 || directory.available_bytes < directory.reserved_bytes)
}

/// The directories in which appends are refused, with their brokers, as far as those have said so.
pub(crate) fn full(brokers: &[BrokerDescription]) -> impl Iterator<Item = (i32, &LogDirectory)> {
    brokers.iter().flat_map(|broker| {
        let full = broker.directories.iter().filter(|directory| is_full(directory));
        full.map(|directory| (broker.broker_id, directory))
    })
}

/// A directory in which appends are refused, in words: which, how much is left, the limit, what to do.
pub(crate) fn said_of_full((broker, directory): (i32, &LogDirectory)) -> String {
    format!(
        "broker {broker}: {} has {} free and keeps {} (disk_reserved_bytes): appends are refused until there \
         is room; delete records or topics, shorten retention, or add space (weir errors DISK_FULL)",
        directory.path,
        bytes(directory.available_bytes),
        bytes(directory.reserved_bytes)
    )
}

fn bytes(bytes: i64) -> String {
    units::binary_bytes(bytes.max(0).unsigned_abs())
}

fn health(directory: &LogDirectory) -> String {
    if !directory.failures.is_empty() {
        "failed: out of use until it is trusted (weir broker trust)".to_owned()
    } else if !is_told(directory) {
        UNKNOWN.to_owned()
    } else if !directory.online {
        "offline".to_owned()
    } else if is_full(directory) {
        format!("full: refuses appends, keeps {} free", bytes(directory.reserved_bytes))
    } else {
        "ok".to_owned()
    }
}

/// Whether its broker knows how much room there is.
fn has_space(directory: &LogDirectory) -> bool {
    is_told(directory) && directory.online
}

pub(super) fn table(directories: &[LogDirectory]) -> Table {
    let mut table = Table::new(&[
        Column::left("DIRECTORY"),
        Column::right("SIZE"),
        Column::right("FREE"),
        Column::left("STATUS"),
        Column::left("PATH"),
    ]);
    for directory in directories {
        let space = |size: i64| if has_space(directory) { bytes(size) } else { UNKNOWN.to_owned() };
        table.row([
            directory.directory_id.clone(),
            space(directory.total_bytes),
            space(directory.available_bytes),
            health(directory),
            if is_told(directory) { directory.path.clone() } else { UNKNOWN.to_owned() },
        ]);
    }
    table
}

/// For programs: null is unknown.
pub(super) fn object(directory: &LogDirectory) -> Value {
    let mut object = output::proto_json(directory, "weir.v1.LogDirectory");
    let mut unknown = Vec::new();
    if !has_space(directory) {
        unknown.extend(["totalBytes", "availableBytes"]);
    }
    if !is_told(directory) {
        unknown.extend(["path", "reservedBytes", "missingBytes"]);
        // That one has failed the controllers know.
        unknown.extend(directory.failures.is_empty().then_some("online"));
    }
    unknown.into_iter().for_each(|field| output::set(&mut object, field, Value::Null));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> LogDirectory {
        LogDirectory {
            path: "/data".into(),
            online: true,
            total_bytes: 1 << 40,
            available_bytes: 1 << 30,
            reserved_bytes: 1 << 30,
            ..LogDirectory::default()
        }
    }

    #[test]
    fn a_full_disk_is_not_ok() {
        assert_eq!(health(&told()), "ok");
        assert_eq!(health(&LogDirectory { online: false, ..told() }), "offline");
        let failed = LogDirectory { failures: vec![77], ..LogDirectory::default() };
        assert!(health(&failed).starts_with("failed: out of use until"));
        let full = LogDirectory { available_bytes: (1 << 30) - 1, ..told() };
        assert_eq!(health(&full), "full: refuses appends, keeps 1 GiB free");
        // One that Weir itself has filled stops a batch above the line.
        assert!(is_full(&LogDirectory { missing_bytes: 1, ..told() }));
    }

    #[test]
    fn a_directory_whose_broker_has_not_answered_is_neither_ok_nor_empty() {
        let silent = LogDirectory { online: true, ..LogDirectory::default() };
        assert_eq!(health(&silent), "unknown");
        assert!(!is_full(&silent));
        for field in ["path", "totalBytes", "availableBytes", "online", "reservedBytes", "missingBytes"] {
            assert!(object(&silent)[field].is_null(), "{field}");
        }
        let failed = LogDirectory { failures: vec![77], ..LogDirectory::default() };
        assert_eq!(object(&failed)["online"], false);
        // One that cannot be looked at has a path, and no space that anybody knows of.
        let offline = object(&LogDirectory { online: false, total_bytes: 0, ..told() });
        assert!(offline["totalBytes"].is_null() && offline["path"] == "/data", "{offline}");
        assert_eq!(object(&told())["availableBytes"], 1 << 30);
    }
}
