//! `weir broker trust`.

use clap::Args;
use weir_proto::v1::{BrokerDescription, TrustBrokerRequest};

use super::{find, object, state};
use crate::error::Result;
use crate::output::{self, View};
use crate::prompt;
use crate::session::Session;

/// Let a broker use its log directory again, after a write or sync has failed in it
#[derive(Debug, Args)]
#[command(after_help = "\
A broker ends when a write or sync fails, and is refused from then on: what its disk says after that proves nothing.
Look at the disk first (dmesg, smartctl). Saying that it is good lets the broker start again with what the disk gives
back now; where others are in sync it gets the rest from them. If it is not good, start the broker with an empty data
directory on another disk instead, and take this one out (weir broker remove ID --disk-lost).
What fails after it was shown is another failure, and is not meant.

Examples:
  $ weir broker trust 1 --dry-run
  $ weir broker trust 1 --yes
  $ weir broker trust 1 --yes -o json")]
pub(crate) struct Trust {
    /// The broker's id
    #[arg(value_parser = super::parse_id)]
    id: i32,
}

impl Trust {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let broker = find(session, self.id).await?;
        let dry_run = session.dry_run();
        let failed = failed(&broker);
        if failed.is_empty() {
            let line = format!(
                "broker {} ({}): no log directory of it has failed; nothing to do",
                self.id,
                state(broker.state())
            );
            return session.print(&view(line, &broker, false));
        }
        let what = format!("log directory {} of broker {}", failed.join(", "), self.id);
        if !dry_run {
            let question = format!(
                "A write or sync has failed in {what}. Is its disk good again, so that what it gives back is to be believed?"
            );
            prompt::confirm(session, &question).await?;
        }
        let request = TrustBrokerRequest {
            broker_id: self.id,
            validate_only: dry_run,
            failures: broker.directories.iter().flat_map(|directory| &directory.failures).copied().collect(),
        };
        let mut client = session.admin().await?;
        session.change(client.trust_broker(session.request(request))).await?;
        let line = match dry_run {
            true => format!("would trust {what}"),
            false => format!("trusted {what}: the broker may be started"),
        };
        let mut view = view(line, &broker, !dry_run);
        if dry_run {
            view.line("dry run: nothing changed");
        }
        session.print(&view)
    }
}

/// The directories that have failed, by their ids.
fn failed(broker: &BrokerDescription) -> Vec<String> {
    let failed = broker.directories.iter().filter(|directory| !directory.failures.is_empty());
    failed.map(|directory| directory.directory_id.clone()).collect()
}

fn view(line: String, broker: &BrokerDescription, trusted: bool) -> View {
    let mut object = object(broker);
    output::set(&mut object, "trusted", trusted);
    View::sentence(line, broker.broker_id.to_string(), object)
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::LogDirectory;

    use super::*;

    #[test]
    fn only_what_has_failed_is_named() {
        let directory = |id: &str, failures: &[i64]| LogDirectory {
            directory_id: id.to_owned(),
            failures: failures.to_vec(),
            ..LogDirectory::default()
        };
        let broker = BrokerDescription {
            directories: vec![directory("a", &[]), directory("b", &[77])],
            ..BrokerDescription::default()
        };
        assert_eq!(failed(&broker), ["b"]);
    }
}
