//! Two writers of a partition of their own who append with a condition, each at the end that it knows of, and now and then ask
//! for the end: a register that both compare and set (correctness rule 20, `weir_tests::history::Register`). Whoever leads may
//! change between the look at the condition and the commit; whoever is told of an end before it is committed has been told what
//! cannot be.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{sleep, timeout};
use weir_client::{
    AppendOptions, Applied, BatchBuilder, Client, Codec, Delivery, Error, NO_HEADERS, PackedBatch, Producer,
    ProducerConfig,
};
use weir_proto::v1::ErrorReason;
use weir_runtime::Os;
use weir_tests::history::{Mark, Place};

use super::work::{DELIVERY, Sent, Work};
use crate::world::world;

/// Between two attempts, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;
/// One attempt in so many is followed by a question for the end.
const ASKED_EVERY: u64 = 3;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);

impl Work {
    /// The program of such a writer.
    pub(super) async fn compare_and_set(self: Arc<Self>, os: Arc<dyn Os>, writer: u32) -> Result<()> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.begin().await;
        let client = self.connect(&os).await;
        let producer = client.producer(ProducerConfig::new().delivery_timeout(DELIVERY))?;
        let subject = self.subjects.iter().find(|subject| subject.conditional).context("a register")?;
        let place = subject.place(0);
        let (mut number, mut next) = (0, 0);
        while !self.over.load(Ordering::SeqCst) {
            let mark = Mark { writer, number };
            number += 1;
            self.history.lock().sent(mark, &place);
            let (at_us, at_ms) = (world().now_us(), os.wall_ms());
            let sent = Sent { mark, place: place.clone(), at_us, at_ms, promise: subject.promise() };
            next = self.set(&producer, &sent, next).await?;
            if os.random_u64().is_multiple_of(ASKED_EVERY) {
                next = self.look(&client, &place, next).await?;
            }
            sleep(Duration::from_millis(os.random_u64() % PAUSE_MS_MAX)).await;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Appends a record where the log ends for all that its writer knows. Gives what it knows then.
    async fn set(&self, producer: &Producer, sent: &Sent, next: i64) -> Result<i64> {
        let attempt = self.register.lock().sent(sent.mark, next);
        let options = AppendOptions { expected_next_offset: Some(next), ..AppendOptions::default() };
        let batch = packed(sent)?;
        let outcome = match producer.send_batch(&sent.place.topic, sent.place.partition, batch, options).await
        {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        let known = match &outcome {
            Ok(Delivery { offset: Some(offset), .. }) => {
                self.register.lock().appended(attempt, *offset)?;
                offset + 1
            }
            Err(error) if error.is(ErrorReason::OffsetMismatch) => {
                ensure!(
                    error.applied() == Applied::No,
                    "{:?} was refused, and may be there: {error}",
                    sent.mark
                );
                let end = end_of(error)?;
                self.register.lock().mismatched(attempt, end)?;
                end
            }
            _ => next,
        };
        self.told(sent, outcome)?;
        Ok(known)
    }

    /// Asks where the log ends.
    async fn look(&self, client: &Client, place: &Place, next: i64) -> Result<i64> {
        let least = self.register.lock().least();
        match timeout(PATIENCE, client.offsets().latest(&place.topic, place.partition)).await {
            Ok(Ok(end)) => {
                self.register.lock().seen(least, end).with_context(|| place.to_string())?;
                Ok(end)
            }
            Ok(Err(error)) => {
                tracing::info!("{place}: no end is known: {error}");
                Ok(next)
            }
            Err(_) => Ok(next),
        }
    }
}

/// A batch of one record.
fn packed(sent: &Sent) -> Result<PackedBatch> {
    let mut batch = BatchBuilder::new();
    batch.push(sent.at_ms, None, Some(&sent.mark.value()), NO_HEADERS)?;
    Ok(batch.finish(Codec::None)?)
}

/// Where the log ends, as who was refused is told.
fn end_of(error: &Error) -> Result<i64> {
    let end = error.metadata().get("next_offset").with_context(|| format!("no next offset: {error}"))?;
    end.parse().with_context(|| format!("the next offset: {error}"))
}
