//! `weir partition list`.

use clap::Args;
use weir_proto::v1::DescribePartitionsRequest;

use super::{described, view};
use crate::error::Result;
use crate::session::Session;

/// All partitions of all topics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir partition list
  $ weir partition list --problems
  $ weir partition list -o name")]
pub(crate) struct List {
    /// Only those whose files have a problem
    #[arg(long)]
    problems: bool,
}

impl List {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        session
            .show(|| async {
                let request =
                    DescribePartitionsRequest { problems_only: self.problems, ..Default::default() };
                view(session, &described(session, request).await?).await
            })
            .await
    }
}
