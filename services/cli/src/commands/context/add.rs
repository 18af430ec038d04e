//! `weir context add`.

use clap::Args;

use super::save;
use crate::address::{self, Source};
use crate::contexts::{Context, Contexts};
use crate::error::{Error, Result};
use crate::output::View;
use crate::session::Session;

/// Give a server a name, or change the one of that name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir context add here localhost:9347
  $ weir context add staging staging.example:9347
  $ weir context add here localhost:9347 --use")]
pub(crate) struct Add {
    /// The name
    name: String,
    /// The server; of a cluster several, separated by commas
    #[arg(value_name = "HOST:PORT")]
    server: String,
    /// Use it from now on
    #[arg(long = "use")]
    use_it: bool,
}

impl Add {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        if self.name.is_empty() || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        {
            return Err(Error::Usage(format!("\"{}\" is no name: use letters, digits, . _ -", self.name)));
        }
        let server = address::parse(&self.server, Source::Context(self.name.clone()))?.list();
        let path = session.contexts_path()?;
        let mut contexts = Contexts::load(&path)?;
        let before = contexts.contexts.insert(self.name.clone(), Context { server: server.clone() });
        // The only one there is needs no choosing.
        if self.use_it || contexts.contexts.len() == 1 {
            contexts.current = Some(self.name.clone());
        }
        let (verb, was) = match before {
            Some(before) if before.server == server => ("kept", String::new()),
            Some(before) => ("changed", format!("{} -> ", before.server)),
            None => ("added", String::new()),
        };
        let in_use = match &contexts.current {
            Some(current) if *current == self.name => ", in use".to_owned(),
            _ => format!(" (weir context use {})", self.name),
        };
        let line = format!("{verb} {}: {was}{server}{in_use}", self.name);
        let view =
            View::sentence(line, &self.name, serde_json::json!({ "name": self.name, "server": server }));
        save(session, &path, &contexts, view)
    }
}
