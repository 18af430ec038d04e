//! `weir broker list`.

use clap::Args;

use super::{all, endpoints, state};
use crate::error::Result;
use crate::output::{self, Column, Table, View};
use crate::session::Session;

/// The brokers, also those that are down
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir broker list
  $ weir broker list -o wide
  $ weir broker list -o json")]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| look(session)).await
    }
}

async fn look(session: &Session) -> Result<View> {
    let mut view = View::default();
    let mut table = Table::new(&[
        Column::right("ID"),
        Column::left("STATE"),
        Column::left("RACK"),
        Column::right("LEADS"),
        Column::right("REPLICAS"),
        Column::left("VERSION"),
        Column::left("ENDPOINTS"),
        Column::right("EPOCH").wide(),
    ]);
    for broker in all(session).await? {
        table.row([
            broker.broker_id.to_string(),
            state(broker.state()).to_owned(),
            broker.rack.clone(),
            broker.leaders.to_string(),
            broker.replicas.to_string(),
            broker.version.clone(),
            endpoints(&broker),
            broker.broker_epoch.to_string(),
        ]);
        view.names.push(broker.broker_id.to_string());
        view.objects.push(output::proto_json(&broker, "weir.v1.BrokerDescription"));
    }
    view.table(table);
    Ok(view)
}
