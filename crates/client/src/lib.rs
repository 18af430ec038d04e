//! The Rust SDK: a client of a Weir cluster.
//!
//! [`Client`] holds the connections and the map of the cluster. From it come [`Producer`] (records in),
//! [`Consumer`] (batches out), [`Topics`], [`Offsets`] and [`Admin`] (a question, an answer).
//!
//! It speaks the public API and nothing else: what it does, a program with plain generated stubs can do too, in
//! more lines and slower. It decides nothing about the log: whether a batch is appended, and once, is decided by
//! the partition's leader.
//!
//! # Writing and reading
//! ```
//! use std::time::Duration;
//! use weir_client::{Client, ConsumerConfig, NewTopic, Position, ProducerConfig, Record};
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/server.rs"));
//! # fn main() { serve(|address| Box::pin(example(address))) }
//! # async fn example(address: String) -> Result<(), weir_client::Error> {
//! let client = Client::connect(&address).await?;
//! client.topics().create(NewTopic::new("flights").partitions(8)).await?;
//!
//! let producer = client.producer(ProducerConfig::new())?;
//! // Waits only for room; the receipt says, when awaited, what became of the record.
//! let receipt = producer.send("flights", Record::new("EWR to IAH").key("UA")).await?;
//! let delivery = receipt.await?;
//! assert_eq!(delivery.offset, Some(0));
//! assert!(delivery.committed);
//!
//! let mut consumer = client.consumer(ConsumerConfig::new())?;
//! consumer.assign_topic("flights", Position::Earliest).await?;
//! let batch = consumer.poll(Duration::from_secs(10)).await?.expect("a batch is there");
//! for record in &batch {
//!     let record = record?;
//!     assert_eq!((record.key, record.value), (Some(&b"UA"[..]), Some(&b"EWR to IAH"[..])));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Who leads
//! While it has a producer or a consumer, a client has itself told of changes by one of the brokers (`WatchMetadata`), so
//! it goes on at a new leader when the old one died without a word; where a server does not tell, it is asked every
//! [`metadata_age_max`](ClientBuilder::metadata_age_max). A broker that is silent altogether is noticed within four
//! seconds, and another one listened to; a producer that waits for an answer for more than a second does not wait for that.
//!
//! # When something fails
//! Every [`Error`] says whether what failed was carried out, and when to try again. Producers and consumers deal
//! with broken connections and moving leaders themselves; what they report is final.
//! ```
//! use weir_client::{Applied, Client, ErrorReason, NewTopic};
//!
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doc/server.rs"));
//! # fn main() { serve(|address| Box::pin(example(address))) }
//! # async fn example(address: String) -> Result<(), weir_client::Error> {
//! let client = Client::connect(&address).await?;
//! let error = client.topics().get("flihgts").await.unwrap_err();
//! assert_eq!(error.reason(), Some(ErrorReason::TopicNotFound));
//! assert_eq!(error.applied(), Applied::No);
//! assert_eq!(error.retry_after(), None);
//! # Ok(())
//! # }
//! ```

mod admin;
mod backoff;
mod call;
mod channel;
mod client;
mod consumer;
mod duplex;
mod error;
mod hindrance;
mod io;
mod metadata;
mod offsets;
mod producer;
mod record;
mod topics;

pub use admin::{Admin, ConfigScope};
pub use client::{Client, ClientBuilder, DEFAULT_PORT};
pub use consumer::{
    Batch, Consumer, ConsumerConfig, OwnedRecord, PartitionPosition, RecordView, RecordViews, Reset, UntilEnd,
};
pub use error::{Applied, Error, Refusal, Result};
pub use offsets::{Isolation, Offsets, Position};
pub use producer::{
    Acks, AppendOptions, Delivery, Floor, Partitioner, Partitioning, Producer, ProducerConfig, Receipt,
    Totals,
};
pub use record::Record;
pub use topics::{NewTopic, TopicChange, Topics};

/// Batches packed by hand, for [`Producer::send_batch`].
pub use weir_record::{Batch as PackedBatch, BatchBuilder, Codec, NO_HEADERS};
pub use weir_types::Durability;

/// The messages of the public API, where they are returned as they are.
pub use weir_proto::v1 as proto;
pub use weir_proto::v1::ErrorReason;
