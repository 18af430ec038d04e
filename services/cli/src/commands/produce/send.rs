//! Sending: records into the SDK's producer, receipts out of it. Receipts are looked at in the order of the
//! records, as they come; only so many are kept that a slow server does not fill the memory.

use std::collections::VecDeque;

use bytes::Bytes;
use weir_client::{Client, Codec, Producer, ProducerConfig, Receipt};

use super::summary::Summary;
use super::{Acks, Compression, Produce};
use crate::address::Address;
use crate::error::{Error, Result};
use crate::input::Record;
use crate::session::Session;

/// How many records may wait for their receipts. The producer's own bound is in bytes; this one is for short records.
const WAITING_MAX: usize = 256 << 10;

/// A producer, and the receipts that are awaited.
pub(super) struct Sender {
    producer: Producer,
    topic: String,
    partition: Option<i32>,
    key: Option<Bytes>,
    headers: Vec<(String, Bytes)>,
    receipts: VecDeque<Receipt>,
    server: Address,
}

impl Sender {
    /// Connects and finds the topic.
    pub(super) async fn open(session: &Session, options: &Produce, partition: Option<i32>) -> Result<Self> {
        let server = session.say_address()?;
        let fail = |error: weir_client::Error| Error::of_client(&error, &server);
        let client = Client::builder()
            .name(concat!("weir-cli/", env!("CARGO_PKG_VERSION")))
            .os(session.os().clone())
            .connect_timeout(session.timeout())
            .call_timeout(session.timeout())
            .connect(&server.to_string())
            .await
            .map_err(fail)?;
        let mut config = ProducerConfig::new()
            .compression(match options.compression {
                Compression::None => Codec::None,
                Compression::Gzip => Codec::Gzip,
                Compression::Zstd => Codec::Zstd,
                Compression::Lz4 => Codec::Lz4,
            })
            .acks(match options.acks {
                Acks::All => weir_client::Acks::All,
                Acks::Leader => weir_client::Acks::Leader,
                Acks::None => weir_client::Acks::None,
            });
        if session.timeout_given() {
            config = config.delivery_timeout(session.timeout());
        }
        let producer = client.producer(config).map_err(fail)?;
        producer.look_up(&options.what.topic).await.map_err(fail)?;
        Ok(Self {
            producer,
            topic: options.what.topic.clone(),
            partition,
            key: options.key.clone().map(Bytes::from),
            headers: options.headers.clone(),
            receipts: VecDeque::new(),
            server,
        })
    }

    /// Sends a record and takes in the receipts that have come.
    pub(super) async fn send(&mut self, record: Record, summary: &mut Summary) -> Result<()> {
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .chain(&self.headers)
            .map(|(name, value)| (name.as_str(), &value[..]))
            .collect();
        let mut out = match &record.value {
            Some(value) => weir_client::Record::new(value),
            None => weir_client::Record::default(),
        };
        out = out.headers(&headers);
        if let Some(key) = record.key.as_ref().or(self.key.as_ref()) {
            out = out.key(key);
        }
        if let Some(partition) = self.partition {
            out = out.partition(partition);
        }
        if let Some(timestamp_ms) = record.timestamp_ms {
            out = out.timestamp_ms(timestamp_ms);
        }
        let receipt = self.producer.send(&self.topic, out).await;
        self.receipts.push_back(receipt.map_err(|error| Error::of_client(&error, &self.server))?);
        while let Some(result) = self.receipts.front().and_then(Receipt::try_get) {
            self.receipts.pop_front();
            summary.delivered(&result.map_err(|error| Error::of_client(&error, &self.server))?);
        }
        if self.receipts.len() >= WAITING_MAX {
            self.next(summary).await?;
        }
        Ok(())
    }

    /// Sends what is left and waits for all receipts. The first failure; what came before it is in the summary.
    pub(super) async fn finish(mut self, summary: &mut Summary) -> Result<()> {
        let all = async {
            // Failures are in the receipts, each with its record.
            let _in_receipts = self.producer.flush().await;
            let mut failure = Ok(());
            while !self.receipts.is_empty() {
                let result = self.next(summary).await;
                failure = failure.and(result);
            }
            failure
        };
        // The first Ctrl-C ended reading; the second one ends waiting.
        let result = tokio::select! {
            result = all => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        };
        summary.done(self.producer.totals().bytes);
        result
    }

    async fn next(&mut self, summary: &mut Summary) -> Result<()> {
        let Some(receipt) = self.receipts.pop_front() else { return Ok(()) };
        summary.delivered(&receipt.await.map_err(|error| Error::of_client(&error, &self.server))?);
        Ok(())
    }
}
