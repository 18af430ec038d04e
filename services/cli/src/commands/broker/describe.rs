//! `weir broker describe`.

use clap::Args;

use super::{directory, endpoints, find, object, state};
use crate::error::Result;
use crate::output::View;
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
    #[arg(value_parser = super::parse_id)]
    id: i32,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let broker = &find(session, self.id).await?;
        let rack = if broker.rack.is_empty() { String::new() } else { format!(", rack {}", broker.rack) };
        let stopped = if broker.stopped { " (stopped in order)" } else { "" };
        let mut view = View::sentence(
            format!(
                "broker {}: {}{stopped}, weir {}{rack}, leads {} of {}",
                broker.broker_id,
                state(broker.state()),
                broker.version,
                broker.leaders,
                units::counted(broker.replicas.max(0), "replica")
            ),
            broker.broker_id.to_string(),
            object(broker),
        );
        view.line(format!("endpoints {}", endpoints(broker)));
        view.line("");
        view.table(directory::table(&broker.directories));
        Ok(view)
    }
}
