//! `weir bench latency`.

use clap::Args;

use super::{Writing, size, view};
use crate::error::Result;
use crate::session::Session;

/// Write small batches, one in flight: how long an acknowledgement takes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir bench latency --total 1MiB
  $ weir bench latency --batch 1KiB --rate 200 --total 64KiB
  $ weir bench latency --topic bench-memory --durability replicated --total 1MiB")]
pub(crate) struct Latency {
    #[command(flatten)]
    writing: Writing,
    /// The size of a batch
    #[arg(long, default_value = "4KiB", value_name = "SIZE", value_parser = size)]
    batch: usize,
    /// How many batches a connection may have unanswered
    #[arg(long, default_value_t = 1, value_name = "N")]
    inflight: u64,
}

impl Latency {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let report = self.writing.run(session, self.batch, self.inflight).await?;
        session.print(&view("acknowledged", &report))
    }
}
