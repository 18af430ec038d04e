//! `weir broker describe`.

use clap::Args;
use weir_proto::v1::{BrokerDescription, LogDirectory};

use super::{endpoints, find, state};
use crate::error::Result;
use crate::output::{self, Column, Table, View};
use crate::session::Session;
use crate::units;

/// A broker: how it is, what it holds, its directories and their space
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir broker describe 1
  $ weir broker describe 1 -o yaml
  $ weir broker describe 1 -o json")]
pub(crate) struct Describe {
    /// The broker's id
    id: i32,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let broker = &find(session, self.id).await?;
        let rack = if broker.rack.is_empty() { String::new() } else { format!(", rack {}", broker.rack) };
        let mut view = View::sentence(
            format!(
                "broker {}: {}, weir {}{rack}, leads {} of {} replicas",
                broker.broker_id,
                state(broker.state()),
                broker.version,
                broker.leaders,
                broker.replicas
            ),
            broker.broker_id.to_string(),
            output::proto_json(broker, "weir.v1.BrokerDescription"),
        );
        view.line(format!("endpoints {}", endpoints(broker)));
        view.line("");
        view.table(directories(&broker.directories));
        Ok(view)
    }
}

/// Whether appends are refused for want of space.
fn is_full(directory: &LogDirectory) -> bool {
    directory.online && (directory.missing_bytes > 0 || directory.available_bytes < directory.reserved_bytes)
}

/// The directories in which appends are refused, with their brokers, as far as the broker that answers knows.
pub(crate) fn full(brokers: &[BrokerDescription]) -> impl Iterator<Item = (i32, &LogDirectory)> {
    brokers.iter().flat_map(|broker| {
        let full = broker.directories.iter().filter(|directory| is_full(directory));
        full.map(|directory| (broker.broker_id, directory))
    })
}

/// A directory in which appends are refused, in words: which, how much is left, the limit, what to do.
pub(crate) fn said_of_full((broker, directory): (i32, &LogDirectory)) -> String {
    let bytes = |bytes: i64| units::binary_bytes(bytes.max(0).unsigned_abs());
    format!(
        "broker {broker}: {} has {} free and keeps {} (disk_reserved_bytes): appends are refused until there \
         is room; delete records or topics, shorten retention, or add space (weir errors DISK_FULL)",
        directory.path,
        bytes(directory.available_bytes),
        bytes(directory.reserved_bytes)
    )
}

fn health(directory: &LogDirectory) -> String {
    if !directory.failures.is_empty() {
        "failed: out of use until it is trusted (weir broker trust)".to_owned()
    } else if !directory.online {
        "offline".to_owned()
    } else if is_full(directory) {
        format!(
            "full: refuses appends, keeps {} free",
            units::bytes(directory.reserved_bytes.max(0).unsigned_abs())
        )
    } else {
        "ok".to_owned()
    }
}

fn directories(directories: &[LogDirectory]) -> Table {
    let mut table = Table::new(&[
        Column::left("DIRECTORY"),
        Column::right("SIZE"),
        Column::right("FREE"),
        Column::left("STATUS"),
        Column::left("PATH"),
    ]);
    for directory in directories {
        let space = |bytes: i64| match directory.path.is_empty() {
            // Only the broker itself knows.
            true => "?".to_owned(),
            false => units::bytes(bytes.max(0).unsigned_abs()),
        };
        table.row([
            directory.directory_id.clone(),
            space(directory.total_bytes),
            space(directory.available_bytes),
            health(directory),
            directory.path.clone(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_not_ok() {
        let directory = |online, available_bytes| {
            health(&LogDirectory {
                online,
                available_bytes,
                reserved_bytes: 1 << 30,
                ..LogDirectory::default()
            })
        };
        assert_eq!(directory(true, 1 << 30), "ok");
        assert_eq!(directory(false, 0), "offline");
        let failed = LogDirectory { failures: vec![77], ..LogDirectory::default() };
        assert!(health(&failed).starts_with("failed: out of use until"));
        assert!(directory(true, (1 << 30) - 1).starts_with("full: refuses appends, keeps 1"));
        // One that Weir itself has filled stops a batch above the line.
        let filled =
            LogDirectory { online: true, available_bytes: 9, missing_bytes: 1, ..LogDirectory::default() };
        assert!(is_full(&filled));
    }
}
