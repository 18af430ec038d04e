//! `weir broker remove`.

use clap::Args;
use weir_proto::v1::{BrokerDescription, BrokerState, RemoveBrokerRequest};

use super::{find, last, object, state};
use crate::error::Result;
use crate::output::{self, View};
use crate::prompt;
use crate::session::Session;
use crate::units;

/// Take a broker out of the cluster for good: one that is down, and holds no replicas or has lost its disk
#[derive(Debug, Args)]
#[command(after_help = "\
Its id is never used again, and its directory is refused if it comes back. With --disk-lost nobody waits for the
replicas that were on it any more: of a partition that no other replica is known to have whole, the longest log
leads (unclean_recovery = longest) or a person decides (weir partition elect --unclean). If it was started again since
it was shown, nothing is removed.

Examples:
  $ weir broker remove 4 --dry-run
  $ weir broker remove 4 --yes
  $ weir broker remove 4 --disk-lost --dry-run")]
pub(crate) struct Remove {
    /// The broker's id
    #[arg(value_parser = super::parse_id)]
    id: i32,
    /// Its disk is gone for good: remove it although it holds replicas
    #[arg(long)]
    disk_lost: bool,
}

impl Remove {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let broker = find(session, self.id).await?;
        if broker.state() == BrokerState::Removed {
            let line = format!("broker {} is removed already; nothing to do", self.id);
            return session.print(&view(line, &broker, false, &[]));
        }
        let what = format!(
            "broker {} ({}, {})",
            self.id,
            state(broker.state()),
            units::counted(broker.replicas, "replica")
        );
        let dry_run = session.dry_run();
        let last = if self.disk_lost { last::ask(session, self.id).await? } else { Vec::new() };
        let loses = last::said(&last);
        if !dry_run {
            if let Some(loses) = &loses {
                session.say(0, &format!("broker {}: {loses}", self.id));
            }
            let also = if self.disk_lost { ", with everything on its disk" } else { "" };
            prompt::confirm(session, &format!("Remove {what} for good{also}?")).await?;
        }
        let request = RemoveBrokerRequest {
            broker_id: self.id,
            validate_only: dry_run,
            disk_lost: self.disk_lost,
            expected_epoch: Some(broker.broker_epoch),
        };
        let mut client = session.admin().await?;
        session.change(client.remove_broker(session.request(request))).await?;
        let line = if dry_run { format!("would remove {what}") } else { format!("removed {what}") };
        let mut view = view(line, &broker, !dry_run, &last);
        match loses {
            Some(loses) if dry_run => view.line(loses),
            Some(_) => last::said_of_lost(&last).into_iter().for_each(|said| view.line(said)),
            None => {}
        }
        if dry_run {
            view.line("dry run: nothing changed");
        }
        session.print(&view)
    }
}

fn view(line: String, broker: &BrokerDescription, removed: bool, last: &[last::Last]) -> View {
    let mut object = object(broker);
    output::set(&mut object, "removed", removed);
    let names: Vec<_> = last.iter().map(|one| one.name.clone()).collect();
    output::set(&mut object, "lastComplete", names);
    View::sentence(line, broker.broker_id.to_string(), object)
}
