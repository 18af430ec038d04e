//! `weir context`: servers by name.

mod add;
mod list;
mod remove;
mod r#use;

use std::path::Path;

use clap::{Args, Subcommand};

use crate::contexts::Contexts;
use crate::error::Result;
use crate::output::View;
use crate::session::Session;

/// Servers by name
#[derive(Debug, Args)]
#[command(after_help = "\
Kept in ~/.config/weir/contexts.toml. The server is: --server, else WEIR_SERVER, else the
context's, else localhost:9347; -v says which.

Examples:
  $ weir context add here localhost:9347
  $ weir context use here
  $ weir context list")]
pub(crate) struct Context {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(aliases = ["create", "set"])]
    Add(add::Add),
    Use(r#use::Use),
    #[command(alias = "ls")]
    List(list::List),
    #[command(aliases = ["rm", "delete"])]
    Remove(remove::Remove),
}

/// Keeps what a command has changed, unless it is a dry run, and prints what it says.
fn save(session: &Session, path: &Path, contexts: &Contexts, mut view: View) -> Result<()> {
    if session.dry_run() {
        view.line("dry run: nothing changed");
    } else {
        contexts.save(path)?;
        // Who has just chosen a server would not look for another reason why another one answers.
        if let Some(server) = session.server_of_environment()? {
            session.say(0, &format!("WEIR_SERVER={server} is set and goes before the context in use"));
        }
    }
    session.print(&view)
}

impl Context {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        match self.command {
            Command::Add(command) => command.run(session),
            Command::Use(command) => command.run(session),
            Command::List(command) => command.run(session),
            Command::Remove(command) => command.run(session),
        }
    }
}
