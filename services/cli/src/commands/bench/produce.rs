//! `weir bench produce`.

use clap::Args;

use super::{Writing, size, view};
use crate::error::Result;
use crate::session::Session;

/// What a connection has unanswered unless told otherwise, in bytes.
const INFLIGHT_BYTES: usize = 16 << 20;

/// Write ready batches, many in flight: throughput
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir bench produce --topic bench8 -p 8 --clients 2 --total 8MiB
  $ weir bench produce --topic bench-one -p 12 -r 1 --min-insync 1 --total 8MiB
  $ weir bench produce --batch 4KiB --rate 100 --total 256KiB")]
pub(crate) struct Produce {
    #[command(flatten)]
    writing: Writing,
    /// The size of a batch
    #[arg(long, default_value = "252KiB", value_name = "SIZE", value_parser = size)]
    batch: usize,
    /// How many batches a connection may have unanswered [default: what makes 16 MiB]
    #[arg(long, value_name = "N")]
    inflight: Option<u64>,
}

impl Produce {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let inflight = self.inflight.unwrap_or((INFLIGHT_BYTES / self.batch) as u64);
        let report = self.writing.run(session, self.batch, inflight).await?;
        session.print(&view("written", &report))
    }
}
