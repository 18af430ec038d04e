//! Somebody who changes topics while they are written and read: min.insync, partitions, preferred leaders, and where logs
//! begin.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;
use weir_client::{Client, TopicChange};
use weir_runtime::Os;

use super::subject::Subject;
use super::work::Work;

/// Between two changes, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 4_000;
/// A topic is given no more partitions than that.
const PARTITIONS_MAX: i32 = 8;

/// What is changed in this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes {
    pub(super) mins: bool,
    pub(super) partitions: bool,
    pub(super) starts: bool,
}

impl Work {
    /// The program of its machine.
    pub(super) async fn change(self: Arc<Self>, os: Arc<dyn Os>, changes: Changes) -> Result<()> {
        self.begin().await;
        let client = self.connect(&os).await;
        while !self.over.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(os.random_u64() % PAUSE_MS_MAX)).await;
            let subject = self.any_subject(&*os);
            let changed = match os.random_u64() % 3 {
                0 if changes.mins => min_insync(&client, subject, &*os).await,
                1 if changes.partitions => partitions(&client, subject).await,
                2 if changes.starts => self.start(&client, subject, &*os).await,
                _ => Ok(()),
            };
            if let Err(error) = changed {
                tracing::info!(topic = subject.name, "not changed, or nobody knows: {error}");
            }
        }
        std::future::pending().await
    }

    /// Deletes the oldest records of a partition.
    async fn start(&self, client: &Client, subject: &Subject, os: &dyn Os) -> Result<(), weir_client::Error> {
        let partition = subject.any_partition(os);
        let offsets = client.offsets();
        let start = offsets.earliest(subject.name, partition).await?;
        let end = offsets.latest(subject.name, partition).await?;
        let before = start + (os.random_u64() % (1 + end.saturating_sub(start).unsigned_abs())).cast_signed();
        // From here on they may be gone, whatever the answer.
        self.history.lock().deleted(&subject.place(partition), before);
        self.ages.lock().asked(&subject.place(partition), before);
        client.topics().delete_records(subject.name, &[(partition, before)]).await.map(drop)
    }
}

async fn min_insync(client: &Client, subject: &Subject, os: &dyn Os) -> Result<(), weir_client::Error> {
    let min = 1 + os.random_u64() % subject.replicas.unsigned_abs() as u64;
    let change = TopicChange::new().set("min_insync_replicas", min.to_string());
    client.topics().update(subject.name, change).await.map(drop)
}

async fn partitions(client: &Client, subject: &Subject) -> Result<(), weir_client::Error> {
    let count = (subject.partitions() + 1).min(PARTITIONS_MAX);
    let (_, after) = client.topics().update(subject.name, TopicChange::new().partitions(count)).await?;
    subject.has_partitions(after.partitions);
    Ok(())
}
