//! `weir partition describe`.

use clap::Args;
use weir_proto::v1::DescribePartitionsRequest;

use super::{described, view};
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::View;
use crate::reference::Reference;
use crate::session::Session;

/// Where partitions stand: leader, replicas, first and next offset, size
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ weir partition describe flights
  $ weir partition describe flights/3 greetings/0 -o wide
  $ weir partition describe flights/3 -o json")]
pub(crate) struct Describe {
    /// Topics or partitions
    #[arg(required = true, value_name = "TOPIC[/PARTITION]")]
    what: Vec<Reference>,
}

impl Describe {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        if let Some(record) = self.what.iter().find(|what| what.offset.is_some()) {
            return Err(Error::Usage(format!("{record} is a record; read it with weir consume {record}")));
        }
        session.show(|| self.look(session)).await
    }

    async fn look(&self, session: &Session) -> Result<View> {
        let wanted = offsets::partitions(session, &self.what).await?;
        let mut topics: Vec<&str> = wanted.iter().map(|(topic, _)| topic.as_str()).collect();
        topics.dedup();
        let mut partitions = Vec::new();
        for topic in topics {
            let numbers = wanted.iter().filter(|(name, _)| name == topic).map(|(_, number)| *number);
            let request = DescribePartitionsRequest {
                topic: topic.to_owned(),
                partitions: numbers.collect(),
                ..DescribePartitionsRequest::default()
            };
            partitions.extend(described(session, request).await?);
        }
        view(session, &partitions).await
    }
}
