//! Producer ids, given out from blocks that the controller allots: one raft entry for a thousand producers.

use std::ops::Range;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use weir_proto::internal::v1::AllocateProducerIdsRequest;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use crate::cluster::Cluster;

/// How long a broker that begins to serve tries to get some.
const STOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What is left of the current block.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds(Mutex<Range<i64>>);

impl ProducerIds {
    /// Sees to it that there are some, so that producers are opened also while no controller answers. Without one now the
    /// first that is opened asks.
    pub(crate) async fn stock(&self, cluster: &Cluster) {
        if let Err(status) = self.next(cluster, Instant::now() + STOCK_TIMEOUT).await {
            tracing::debug!(%status, "no producer ids in stock");
        }
    }

    /// An id that nobody else has or will get. Ids that a stop leaves unused are never used. Answered by then.
    pub(crate) async fn next(&self, cluster: &Cluster, until: Instant) -> Result<i64, Status> {
        // Held while a block is fetched: everybody who waits wants an id of the same block. Cancellation leaves
        // the old, empty block.
        let out_of_time = || {
            let said = "no controller has given out producer ids in time";
            Problem::new(ErrorReason::ControllerUnavailable, said).status()
        };
        let mut left = timeout_at(until, self.0.lock()).await.map_err(|_| out_of_time())?;
        loop {
            if let Some(id) = left.next() {
                return Ok(id);
            }
            let given_out = cluster.image().next_producer_id();
            // Sent twice, it takes two blocks, and one is never used.
            let request = AllocateProducerIdsRequest { broker: Some(cluster.broker_epoch()) };
            let block = cluster
                .change_by(until, request, |mut client, request| async move {
                    client.allocate_producer_ids(request).await
                })
                .await?;
            if block.first < given_out {
                // Two producers of one id would take each other's batches for repetitions.
                let said = format!(
                    "the controller gives out producer id {} again, {given_out} would be next: was it restored \
                     from a backup?",
                    block.first
                );
                return Err(Problem::new(ErrorReason::ControllerUnavailable, said).status());
            }
            *left = block.first..block.first + block.count;
        }
    }
}
