//! Batches that are not what was written. A leader sends them as they lie on its disk, and does not open them. If its disk
//! is to blame, another replica has what was written: so the leader is asked for plain records, which it has to open the
//! batch for, and then gives way; what was wanted is read again from whoever leads then. If the way here is to blame, it
//! is read again as well.

use weir_proto::v1;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;

use super::handle::Consumer;
use crate::backoff::Backoff;
use crate::{Error, ErrorReason, Result};

/// How often one batch is read again.
const AGAIN_MAX: usize = 5;

/// What came of a partition otherwise than it was written, since something came as it was.
#[derive(Debug)]
pub(super) struct Suspects {
    /// What is wrong with the last one, until somebody has asked about it.
    last: Option<Error>,
    again: usize,
    backoff: Backoff,
}

impl Default for Suspects {
    fn default() -> Self {
        Self { last: None, again: 0, backoff: Backoff::usual() }
    }
}

impl Suspects {
    /// What is wanted is another thing by now, or the same again.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// Whether it is to be read again.
    pub(super) fn has(&self) -> bool {
        self.last.is_some()
    }

    /// Something is wrong. Gives it back if it was read again often enough.
    pub(super) fn note(&mut self, error: Error) -> Result<()> {
        if self.again >= AGAIN_MAX {
            self.again = 0;
            return Err(error);
        }
        self.again += 1;
        self.last = Some(error);
        Ok(())
    }
}

impl Consumer {
    /// Has suspects read again, once their leaders have looked at them. Cancel safe: what was not asked to its end is asked
    /// again.
    pub(super) async fn look_at_suspects(&mut self) -> Result<()> {
        let is_suspect = |(id, at): (&i64, &super::handle::Assigned)| at.suspects.has().then_some(*id);
        while let Some(id) = self.partitions.iter().find_map(is_suspect) {
            let said = self.ask_plainly(id).await;
            let Some(assigned) = self.partitions.get_mut(&id) else { continue };
            let wait = assigned.suspects.backoff.next(&*self.inner.os, None);
            let is_hopeless = said.as_ref().is_some_and(|said| said.is(ErrorReason::PartitionDamaged));
            if is_hopeless {
                assigned.suspects = Suspects::default();
                self.stop(id);
                return said.map_or(Ok(()), Err);
            }
            tokio::time::sleep(wait).await;
            if let Some(error) = self.partitions.get_mut(&id).and_then(|at| at.suspects.last.take()) {
                tracing::warn!(%error, "a batch is not what was written: it is read again");
            }
            self.change(id, |_| ());
        }
        Ok(())
    }

    /// What whoever leads a partition says of the next record; `None`: it can be read there.
    async fn ask_plainly(&self, id: i64) -> Option<Error> {
        let at = &self.partitions.get(&id)?.wanted;
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
            isolation: v1::Isolation::from(self.config.isolation).into(),
            ..v1::FetchRequest::default()
        };
        let asked = self.inner.call("Fetch", request, |channel, request| async move {
            ConsumerServiceClient::new(channel).fetch(request).await
        });
        match asked.await {
            Ok(answer) => answer.partitions.first()?.failure.as_ref().map(Error::from_failure),
            Err(error) => Some(error),
        }
    }
}
