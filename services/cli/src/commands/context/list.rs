//! `weir context list`.

use clap::Args;

use crate::error::Result;
use crate::output::{Column, Table, View};
use crate::session::Session;

/// The contexts there are, and which is in use
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir context list
  $ weir context list -o name
  $ weir context list -o json")]
pub(crate) struct List {}

impl List {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let contexts = session.contexts()?;
        let mut view = View::default();
        let mut table = Table::new(&[Column::left("NAME"), Column::left("SERVER"), Column::left("IN USE")]);
        for (name, context) in &contexts.contexts {
            let current = contexts.current.as_ref() == Some(name);
            table.row([name.as_str(), context.server.as_str(), if current { "yes" } else { "" }]);
            view.objects
                .push(serde_json::json!({ "name": name, "server": context.server, "current": current }));
            view.names.push(name.clone());
        }
        view.table(table);
        session.print(&view)
    }
}
