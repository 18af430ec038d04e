//! `weir status`: the health of the cluster at a glance.

mod health;
mod quorum;
mod seen;
#[cfg(test)]
mod tests;
mod unreached;

use clap::Args;

pub(crate) use health::{Health, serves};
pub(crate) use seen::Seen;

use crate::error::{Error, Result};
use crate::output::View;
use crate::session::Session;

/// How many partitions of a kind are named one by one.
const NAMED: usize = 10;

/// The health of the cluster at a glance
#[derive(Debug, Args)]
#[command(after_help = "\
What is not well: a broker that does not serve or that other brokers do not reach, a controller that
is away, controllers without a leader, partitions that are offline, under-replicated or damaged, a
disk that has failed, is slow, or too full to append to, or of which nobody can tell.

Examples:
  $ weir status
  $ weir status -o json
  $ weir status --check")]
pub(crate) struct Status {
    /// End with exit code 1 if something is not well (for scripts and monitors)
    #[arg(long)]
    check: bool,
}

impl Status {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if !self.check {
            return session.show(|| async { Ok(look(session).await?.0) }).await;
        }
        let (view, well) = look(session).await?;
        session.print(&view)?;
        if well { Ok(()) } else { Err(Error::Failed("not all is well (weir doctor says more)".to_owned())) }
    }
}

/// How it is, and whether that is well.
async fn look(session: &Session) -> Result<(View, bool)> {
    let Health { sentence, problems, object, .. } = Health::of(&Seen::ask(session).await?);
    let well = problems.is_empty();
    let mut view = View::sentence(sentence, if well { "ok" } else { "unwell" }, object);
    problems.iter().for_each(|problem| view.line(format!("  {problem}")));
    Ok((view, well))
}
