//! Sending: records into the SDK's producer, receipts out of it. Receipts are looked at in the order of the
//! records, as they come; only so many are kept that a slow server does not fill the memory.

use std::collections::VecDeque;

use bytes::Bytes;
use weir_client::{Applied, Client, Codec, Delivery, Producer, ProducerConfig, Receipt};
use weir_proto::v1::GetServerInfoRequest;

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
    /// In the order of the records.
    receipts: VecDeque<Awaited>,
    server: Address,
}

/// A record whose receipt is awaited.
struct Awaited {
    receipt: Receipt,
    sent: Sent,
}

/// A record: its number, counted from 1, and the bytes of its value.
#[derive(Clone, Copy)]
struct Sent {
    number: u64,
    bytes: u64,
}

impl Sender {
    /// Connects and finds the topic.
    pub(super) async fn open(session: &Session, options: &Produce, partition: Option<i32>) -> Result<Self> {
        let mut server = session.say_address()?;
        // The SDK waits for brokers that start, as programs do; a person is told at once what they wait for.
        let mut metadata = session.metadata().await?;
        session.read(metadata.get_server_info(session.request(GetServerInfoRequest {}))).await?;
        if !server.others.is_empty() {
            // One that hangs, or starts, is not asked first.
            server = server.beginning_with(&session.address()?);
        }
        // So far nothing is sent, whatever does not answer.
        let fail = |error: weir_client::Error| Error::of(&error.of_a_read(), &server);
        let client = Client::builder()
            .name(concat!("weir-cli/", env!("CARGO_PKG_VERSION")))
            .os(session.os().clone())
            .connect_timeout(session.timeout())
            .call_timeout(session.timeout())
            .connect(&server.list())
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

    /// The producer, for whoever looks at what is in its way.
    pub(super) fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Sends a record and takes in the receipts that have come. Cancel safe: the record is then not sent and not
    /// counted, or both.
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
        let bytes = record.value_bytes();
        let receipt = self.producer.send(&self.topic, out).await;
        summary.read(bytes);
        let sent = Sent { number: summary.records_read(), bytes };
        match receipt {
            Ok(receipt) => self.receipts.push_back(Awaited { receipt, sent }),
            Err(error) => return self.note(Err(error), sent, summary),
        }
        while let Some((result, sent)) =
            self.receipts.front().and_then(|first| Some((first.receipt.try_get()?, first.sent)))
        {
            self.receipts.pop_front();
            self.note(result, sent, summary)?;
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
        // The first Ctrl-C ended reading; the second one ends waiting, and what has no answer then may be written.
        let result = tokio::select! {
            result = all => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(Error::Interrupted),
        };
        for Awaited { receipt, sent } in std::mem::take(&mut self.receipts) {
            match receipt.try_get() {
                Some(known) => drop(self.note(known, sent, summary)),
                None => summary.failed(sent.number, Applied::Maybe),
            }
        }
        summary.done(self.producer.totals().bytes);
        result
    }

    async fn next(&mut self, summary: &mut Summary) -> Result<()> {
        // It stays in the queue while it is waited for: who stops waiting has not lost it.
        let Some(Awaited { receipt, sent }) = self.receipts.front_mut() else { return Ok(()) };
        let (result, sent) = (receipt.await, *sent);
        self.receipts.pop_front();
        self.note(result, sent, summary)
    }

    /// Counts what became of a record.
    fn note(&self, result: weir_client::Result<Delivery>, sent: Sent, summary: &mut Summary) -> Result<()> {
        match result {
            Ok(delivery) => {
                summary.delivered(&delivery, sent.bytes);
                Ok(())
            }
            Err(error) => {
                summary.failed(sent.number, error.applied());
                Err(Error::of(&error, &self.server))
            }
        }
    }
}
