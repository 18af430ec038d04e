//! `weir broker`: the brokers of the cluster.

mod describe;
mod directory;
mod last;
mod list;
mod remove;
mod trust;

pub(crate) use directory::{full, is_told, said_of_full};

use clap::{Args, Subcommand};
use serde_json::Value;
use weir_proto::v1::{BrokerDescription, BrokerState, ListBrokersRequest};

use crate::error::{Error, Result};
use crate::output;
use crate::session::Session;

/// The listener that is for clients.
const PUBLIC: &str = "public";

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
    Trust(trust::Trust),
}

impl Broker {
    /// Whether looking again makes sense.
    pub(crate) fn watchable(&self) -> bool {
        !matches!(self.command, Command::Remove(_) | Command::Trust(_))
    }

    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::List(command) => command.run(session).await,
            Command::Describe(command) => command.run(session).await,
            Command::Remove(command) => command.run(session).await,
            Command::Trust(command) => command.run(session).await,
        }
    }
}

/// A broker's id, as the command line has it.
pub(crate) fn parse_id(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
        let node = match text.starts_with("broker-") {
            true => "; weir dev status shows which one a node has",
            false => "",
        };
        format!("a broker's id is a number from 1 on, as weir broker list shows it{node}")
    })
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

/// One of them.
async fn find(session: &Session, id: i32) -> Result<BrokerDescription> {
    let mut brokers = all(session).await?;
    match brokers.iter().position(|broker| broker.broker_id == id) {
        Some(at) => Ok(brokers.swap_remove(at)),
        None => {
            let ids: Vec<String> = brokers.iter().map(|broker| broker.broker_id.to_string()).collect();
            Err(Error::NotFound(format!("there is no broker {id}; there are {}", ids.join(", "))))
        }
    }
}

/// A broker that is refused until somebody trusts its disk, in words: what, and what to do.
pub(crate) fn said_of_failed(id: i32) -> String {
    format!(
        "broker {id} has a disk on which a write or sync has failed, and is out of use: look at the disk; if it is good, \
         weir broker trust {id} and start it (weir errors DIRECTORY_FAILED)"
    )
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
        BrokerState::Failed => "failed",
    }
}

/// Where a broker is reached: each listener and its address.
fn endpoints(broker: &BrokerDescription) -> String {
    let each = broker.endpoints.iter().map(|(listener, endpoint)| format!("{listener}={endpoint}"));
    let mut each: Vec<_> = each.collect();
    each.sort();
    each.join(" ")
}

/// Where clients find a broker, or found it last.
pub(crate) fn public_endpoint(broker: &BrokerDescription) -> &str {
    broker.endpoints.get(PUBLIC).map_or("", String::as_str)
}

/// A broker for programs.
fn object(broker: &BrokerDescription) -> Value {
    let mut object = output::proto_json(broker, "weir.v1.BrokerDescription");
    let directories: Vec<Value> = broker.directories.iter().map(directory::object).collect();
    output::set(&mut object, "directories", directories);
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_id_is_is_said() {
        assert_eq!(parse_id("7"), Ok(7));
        for wrong in ["", "0", "-1", "one", "broker-1"] {
            let said = parse_id(wrong).unwrap_err();
            assert!(said.starts_with("a broker's id is a number from 1 on, as weir broker list"), "{said}");
            assert_eq!(said.contains("weir dev status"), wrong == "broker-1", "{said}");
        }
    }
}
