//! Batches that are not what was written. A leader sends them as they lie on its disk, and does not open them. If its disk
//! is to blame, another replica has what was written: so the leader is asked for plain records, which it has to open the
//! batch for, and then gives way; what was wanted is read again from whoever leads then. If the way here is to blame, or a
//! replica nearby, it is read again as well, from the leader.
//!
//! A task asks and waits, whatever the caller does meanwhile, and tells the consumer by its queue.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::WeakUnboundedSender;
use weir_proto::v1;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;

use super::fetcher::Item;
use super::subscription::Wanted;
use crate::backoff::Backoff;
use crate::client::Inner;
use crate::offsets::Isolation;
use crate::{Error, Result};

/// How often one batch is read again.
const AGAIN_MAX: usize = 5;

/// What came of a partition otherwise than it was written, since something came as it was.
#[derive(Debug)]
pub(super) struct Suspects {
    again: usize,
    backoff: Backoff,
}

impl Default for Suspects {
    fn default() -> Self {
        Self { again: 0, backoff: Backoff::usual() }
    }
}

impl Suspects {
    /// Something is wrong. How long to wait before it is read again; gives the error back if that was often enough.
    pub(super) fn note(&mut self, inner: &Inner, error: Error) -> Result<Duration> {
        if self.again >= AGAIN_MAX {
            *self = Self::default();
            return Err(error);
        }
        self.again += 1;
        tracing::warn!(%error, "a batch is not what was written: it is read again");
        Ok(self.backoff.next(&*inner.os, None))
    }
}

/// Asks whoever leads a partition for the next record, and tells the consumer what came of it once the time to wait is over.
pub(super) fn look(
    inner: &Arc<Inner>,
    at: &Wanted,
    isolation: Isolation,
    wait: Duration,
    told: WeakUnboundedSender<Item>,
) {
    let (asking, at) = (Arc::clone(inner), at.clone());
    inner.io.spawn(async move {
        let (said, ()) = tokio::join!(ask(&asking, &at, isolation), tokio::time::sleep(wait));
        if let Some(told) = told.upgrade() {
            // The consumer may be gone.
            let _gone = told.send(Item::Looked { id: at.id, generation: at.generation, said });
        }
    });
}

/// What whoever leads a partition says of the next record; `None`: it can be read there.
async fn ask(inner: &Arc<Inner>, at: &Wanted, isolation: Isolation) -> Option<Error> {
    let wanted = v1::FetchPartition {
        topic: at.topic.as_ref().to_owned(),
        partition: at.partition,
        offset: at.offset,
        bytes_max: 1,
        leader_epoch: None,
    };
    let request = v1::FetchRequest {
        partitions: vec![wanted],
        wait_ms: Some(0),
        isolation: v1::Isolation::from(isolation).into(),
        ..v1::FetchRequest::default()
    };
    let asked = inner.call("Fetch", request, |channel, request| async move {
        ConsumerServiceClient::new(channel).fetch(request).await
    });
    match asked.await {
        Ok(answer) => answer.partitions.first()?.failure.as_ref().map(Error::from_failure),
        Err(error) => Some(error),
    }
}
