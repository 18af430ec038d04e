//! What the controllers are told, and tell, of a log directory that has failed (correctness rule 35).

use std::sync::atomic::Ordering;

use tokio::time::Instant;
use tonic::Status;
use weir_cluster::Row;
use weir_metadata::FailDirectory;
use weir_proto::internal::v1 as wire;
use weir_runtime::Reason;
use weir_types::DirectoryId;

use super::Cluster;

impl Cluster {
    /// The last words of this process: a write or sync has failed in its log directory. A controller that may not be
    /// followed is not told, for it would write about this broker what others take for its history.
    pub(crate) async fn tell_failed(
        &self,
        directory: DirectoryId,
        failure: u64,
        until: Instant,
    ) -> Result<(), Status> {
        self.has_failed.store(true, Ordering::Release);
        let by = match (self.registration.get(), self.earlier) {
            (Some(_), _) => self.registered_as(),
            // It fails while it starts: to the controllers it is the one that was registered before.
            (None, Some((cluster_id, earlier))) => {
                self.controllers.belong_to(cluster_id);
                earlier
            }
            (None, None) => return Ok(()),
        };
        if self.trouble().is_some() {
            return Ok(());
        }
        let failed = FailDirectory { by, directory, failure }.to_wire();
        let request = wire::FailDirectoryRequest { failed: Some(failed) };
        let told = self.controllers.call(until, |mut client| {
            let request = request.clone();
            async move { client.fail_directory(request).await }
        });
        told.await.map(drop)
    }

    /// The controllers have it on record that a write or sync has failed in the log directory of this registration. If that
    /// was here, this process is about to end.
    pub(super) fn distrusted(&self) {
        if self.has_failed.load(Ordering::Acquire) {
            return;
        }
        let why = "a write or sync has failed in the log directory of this broker, as the controllers have it on record, but \
                   not in this process: do two run on copies of one log directory? this one ends; look at its disk, and \
                   if that is good say so (weir broker trust)";
        if !self.over.is_requested() {
            tracing::error!("{why}");
        }
        self.over.request(Reason::Failed { task: "broker/registration".to_owned(), why: why.to_owned() });
        self.last_beat.cancel();
    }
}
