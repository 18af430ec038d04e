//! `weir errors`: the pages of docs/errors, at hand where the error is.

use clap::Args;

use crate::error::{Error, Result};
use crate::errors_book::{self, PAGES};
use crate::output::{Column, Format, Table, View};
use crate::session::Session;
use weir_types::nearest;

/// What an error reason means and what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir errors
  $ weir errors TOPIC_NOT_FOUND
  $ weir errors disk-full")]
pub(crate) struct Errors {
    /// The reason; without it, all of them in a sentence each
    reason: Option<String>,
}

impl Errors {
    pub(crate) fn run(self, session: &Session) -> Result<()> {
        let Some(reason) = self.reason else { return session.print(&list(PAGES)) };
        let Some((name, page)) = errors_book::page(&reason) else {
            let names = PAGES.iter().map(|(name, _)| *name);
            let hint = match nearest(&errors_book::canonical(&reason), names) {
                Some(near) => format!("did you mean {near}?"),
                None => "`weir errors` lists them".to_owned(),
            };
            return Err(Error::NotFound(format!("there is no reason \"{reason}\"; {hint}")));
        };
        match session.format() {
            Format::Table | Format::Wide => session.print_bytes(page.as_bytes()),
            Format::Json | Format::Yaml | Format::Name => session.print(&list(&[(name, page)])),
        }
    }
}

fn list(pages: &[(&str, &str)]) -> View {
    let mut view = View::default();
    let mut table = Table::new(&[Column::left("REASON"), Column::left("MEANING")]);
    for (name, page) in pages {
        let meaning = errors_book::meaning(page);
        table.row([*name, meaning]);
        view.names.push((*name).to_owned());
        view.objects.push(serde_json::json!({ "reason": name, "meaning": meaning, "page": page }));
    }
    view.table(table);
    view
}
