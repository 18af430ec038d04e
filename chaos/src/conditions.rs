//! Two writers of a partition of their own who append with a condition alone, each at the end that it knows of: a register that
//! both compare and set (correctness rule 20, `weir_tests::history::Register`).

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;
use weir_client::{
    AppendOptions, Applied, BatchBuilder, Client, Codec, Delivery, Error, NO_HEADERS, NewTopic, Producer,
    ProducerConfig,
};
use weir_proto::v1::ErrorReason;
use weir_tests::dice::Dice;
use weir_tests::history::{Mark, Place};

use crate::clients::{Clients, connect};

/// Its topic, of class `fsync`.
const TOPIC: &str = "register";
/// Between two attempts, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 50;
/// The numbers of those who write it.
pub(crate) const WRITERS: [u32; 2] = [11, 12];

/// The partition.
pub(crate) fn place() -> Place {
    Place { topic: TOPIC.to_owned(), partition: 0 }
}

/// What it is made with, beside what all topics are.
pub(crate) fn topic() -> NewTopic {
    NewTopic::new(TOPIC).partitions(1).config("durability", "fsync")
}

impl Clients {
    /// Appends until it is over.
    pub(crate) async fn compare_and_set(self: Arc<Self>, writer: u32, mut dice: Dice) -> Result<()> {
        let client = connect(Client::builder()).await?;
        let producer = client.producer(ProducerConfig::new().delivery_timeout(self.delivery))?;
        let (mut number, mut next) = (0, 0);
        while !self.are_over() {
            next = self.set(&producer, Mark { writer, number }, next).await?;
            number += 1;
            sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX))).await;
        }
        Ok(())
    }

    /// Appends a record where the log ends for all that its writer knows. Gives what it knows then.
    async fn set(&self, producer: &Producer, mark: Mark, next: i64) -> Result<i64> {
        let place = place();
        self.history.lock().sent(mark, &place);
        let mut batch = BatchBuilder::new();
        batch.push(0, None, Some(&mark.value()), NO_HEADERS)?;
        let batch = batch.finish(Codec::None)?;
        let attempt = self.register.lock().sent(mark, next);
        let options = AppendOptions { expected_next_offset: Some(next), ..AppendOptions::default() };
        let outcome = match producer.send_batch(&place.topic, place.partition, batch, options).await {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if error.is(ErrorReason::OffsetMismatch) => {
                ensure!(error.applied() == Applied::No, "{mark:?} was refused, and may be there: {error}");
                let end = end_of(&error)?;
                self.register.lock().mismatched(attempt, end)?;
                self.history.lock().refused(mark)?;
                Ok(end)
            }
            Ok(Delivery { offset: Some(offset), .. }) => {
                self.register.lock().appended(attempt, offset)?;
                self.told(mark, &place, outcome)?;
                Ok(offset + 1)
            }
            other => {
                self.told(mark, &place, other)?;
                Ok(next)
            }
        }
    }
}

/// Where the log ends, as who was refused is told.
fn end_of(error: &Error) -> Result<i64> {
    let end = error.metadata().get("next_offset").with_context(|| format!("no next offset: {error}"))?;
    end.parse().with_context(|| format!("the next offset: {error}"))
}
