//! `weir context use`.

use clap::Args;

use super::save;
use crate::contexts::Contexts;
use crate::error::Result;
use crate::output::View;
use crate::session::Session;

/// Use a context from now on
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir context use here
  $ weir context use here -o name
  $ weir context use here --dry-run")]
pub(crate) struct Use {
    /// The name
    name: String,
}

impl Use {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let path = session.contexts_path()?;
        let mut contexts = Contexts::load(&path)?;
        let server = contexts.get(&self.name)?.server.clone();
        contexts.current = Some(self.name.clone());
        let object = serde_json::json!({ "name": self.name, "server": server });
        let view = View::sentence(format!("using {}: {server}", self.name), &self.name, object);
        save(session, &path, &contexts, view)
    }
}
