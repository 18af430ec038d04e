//! Asks before something is lost. Without a terminal nobody can answer, and the command wants `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use weir_runtime::blocking;

use crate::error::{Error, Result};
use crate::session::Session;

/// Asks, unless it is answered already. Who waits for the answer is a thread that may: Ctrl-C is heard meanwhile.
pub(crate) async fn confirm(session: &Session, question: &str) -> Result<()> {
    if session.yes() {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "nothing was changed: there is no terminal on which to ask \"{question}\"; say --yes if that is meant"
        )));
    }
    let failed = |source| Error::Io { what: "cannot ask".to_owned(), source };
    write!(io::stderr(), "{question} [y/N] ").map_err(failed)?;
    let answer = blocking(session.os(), || {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    match answer.await.map_err(failed)?.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Failed("nothing was changed".to_owned())),
    }
}
