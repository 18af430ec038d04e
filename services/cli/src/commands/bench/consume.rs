//! `weir bench consume`.

use clap::Args;
use weir_load::consume as load;
use weir_load::leaders::shares;
use weir_proto::v1::Route;

use super::{Common, led, size, timed, view};
use crate::error::{Error, Result};
use crate::offsets;
use crate::reference::Reference;
use crate::session::Session;

/// Read a topic from its start to its end, checking every batch: throughput
#[derive(Debug, Args)]
#[command(after_help = "\
Every offset must follow the one before, and every checksum must hold.

Examples:
  $ weir bench consume
  $ weir bench consume --topic bench8 --clients 2
  $ weir bench consume --credit 1MiB")]
pub(crate) struct Consume {
    #[command(flatten)]
    common: Common,
    /// How much the server may have on the way, a connection
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = size)]
    credit: usize,
}

impl Consume {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let topic = Reference { topic: self.common.topic.clone(), partition: None, offset: None };
        let partitions = offsets::partitions(session, &[topic]).await?;
        let extents = offsets::extents(session, &partitions).await?;
        let ranges: Vec<(i32, i64, i64)> =
            extents.iter().filter(|e| e.end > e.start).map(|e| (e.partition, e.start, e.end)).collect();
        if ranges.is_empty() {
            let topic = &self.common.topic;
            return Err(Error::NotFound(format!("topic \"{topic}\" holds no records; weir bench produce")));
        }
        let partitions: Vec<i32> = ranges.iter().map(|(partition, ..)| *partition).collect();
        let led = led(session, &self.common.topic, &partitions).await?;
        let ranges: Vec<_> = ranges.into_iter().zip(led.into_iter().map(|(_, leader)| leader)).collect();
        let plans = shares(&ranges, usize::from(self.common.clients)).into_iter().map(|(server, ranges)| {
            load::Plan {
                server,
                route: Route::Direct,
                topic: self.common.topic.clone(),
                ranges: ranges.into(),
                credit_bytes: i64::try_from(self.credit).unwrap_or(i64::MAX),
                check_crc: true,
            }
        });
        let report = timed(plans, load::Consumer::open, load::Consumer::run).await?;
        session.print(&view("read and checked", &report))
    }
}
