//! `weir context remove`.

use clap::Args;

use super::save;
use crate::contexts::Contexts;
use crate::error::Result;
use crate::output::View;
use crate::session::Session;

/// Forget a context; the server is not touched
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir context remove here
  $ weir context remove here -o name
  $ weir context remove here --dry-run")]
pub(crate) struct Remove {
    /// The name
    name: String,
}

impl Remove {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let path = session.contexts_path()?;
        let mut contexts = Contexts::load(&path)?;
        let server = contexts.get(&self.name)?.server.clone();
        contexts.contexts.remove(&self.name);
        let current = contexts.current.take_if(|current| *current == self.name).is_some();
        let rest = if current { "; none is in use now (weir context use)" } else { "" };
        let object = serde_json::json!({ "name": self.name, "server": server });
        let view = View::sentence(format!("removed {}: {server}{rest}", self.name), &self.name, object);
        save(session, &path, &contexts, view)
    }
}
