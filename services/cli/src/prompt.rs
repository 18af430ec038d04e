//! Asks before something is lost. Without a terminal nobody can answer, and the command wants `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::error::{Error, Result};

/// Asks, unless it is answered already.
pub(crate) fn confirm(yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "{question} There is no terminal to ask on: say --yes if it is meant"
        )));
    }
    let failed = |source| Error::Io { what: "cannot ask".to_owned(), source };
    write!(io::stderr(), "{question} [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::Failed("nothing was changed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_beforehand_is_enough() {
        assert!(confirm(true, "delete it?").is_ok());
    }
}
