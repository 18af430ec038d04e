//! `weir broker`: the brokers of the cluster.

mod describe;
mod list;
mod remove;

pub(crate) use describe::{full, said_of_full};

use clap::{Args, Subcommand};
use weir_proto::v1::{BrokerDescription, BrokerState, ListBrokersRequest};

use crate::error::Result;
use crate::session::Session;

/// Brokers
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir broker list
  $ weir broker describe 1
  $ weir broker list -o json")]
pub(crate) struct Broker {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "ls")]
    List(list::List),
    #[command(alias = "show")]
    Describe(describe::Describe),
    #[command(alias = "rm")]
    Remove(remove::Remove),
}

impl Broker {
    /// Whether looking again makes sense.
    pub(crate) fn watchable(&self) -> bool {
        !matches!(self.command, Command::Remove(_))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::List(command) => command.run(session).await,
            Command::Describe(command) => command.run(session).await,
            Command::Remove(command) => command.run(session).await,
        }
    }
}

/// All brokers, also those that are down.
pub(super) async fn all(session: &Session) -> Result<Vec<BrokerDescription>> {
    let mut client = session.admin().await?;
    let mut request = ListBrokersRequest { page_size: 1_000, page_token: String::new() };
    let mut brokers = Vec::new();
    loop {
        let page = session.read(client.list_brokers(session.request(request.clone()))).await?;
        brokers.extend(page.brokers);
        if page.next_page_token.is_empty() {
            return Ok(brokers);
        }
        request.page_token = page.next_page_token;
    }
}

/// How a broker is, in a word.
pub(super) fn state(state: BrokerState) -> &'static str {
    match state {
        BrokerState::Unspecified => "unknown",
        BrokerState::Registered => "registered",
        BrokerState::Active => "active",
        BrokerState::Slow => "slow",
        BrokerState::Draining => "draining",
        BrokerState::Fenced => "fenced",
        BrokerState::Removed => "removed",
    }
}

/// Where a broker is reached: each listener and its address.
fn endpoints(broker: &BrokerDescription) -> String {
    let each = broker.endpoints.iter().map(|(listener, endpoint)| format!("{listener}={endpoint}"));
    each.collect::<Vec<_>>().join(" ")
}
