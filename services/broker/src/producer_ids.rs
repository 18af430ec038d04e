//! Producer ids, given out from blocks that the controller allots: one raft entry for a thousand producers.

use std::ops::Range;

use tokio::sync::Mutex;
use tonic::Status;
use weir_proto::internal::v1::AllocateProducerIdsRequest;
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;

use crate::cluster::Cluster;

/// What is left of the current block.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds(Mutex<Range<i64>>);

impl ProducerIds {
    /// An id that nobody else has or will get. Ids that a stop leaves unused are never used.
    pub(crate) async fn next(&self, cluster: &Cluster) -> Result<i64, Status> {
        // Held while a block is fetched: everybody who waits wants an id of the same block. Cancellation leaves
        // the old, empty block.
        let mut left = self.0.lock().await;
        loop {
            if let Some(id) = left.next() {
                return Ok(id);
            }
            let given_out = cluster.image().next_producer_id();
            // Sent twice, it takes two blocks, and one is never used.
            let request = AllocateProducerIdsRequest { broker: Some(cluster.broker_epoch()) };
            let block = cluster
                .change(
                    request,
                    |mut client, request| async move { client.allocate_producer_ids(request).await },
                )
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
