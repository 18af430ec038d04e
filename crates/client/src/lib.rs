//! The Rust SDK: a client of a Weir cluster.
//!
//! [`Client`] holds the connections and the map of the cluster. From it come [`Producer`] (records in),
//! [`Consumer`] (batches out), [`Topics`], [`Offsets`] and [`Admin`] (a question, an answer).
//!
//! It speaks the public API and nothing else: what it does, a program with plain generated stubs can do too, in
//! more lines and slower. It decides nothing about the log: whether a batch is appended, and once, is decided by
//! the partition's leader.

mod address;
mod admin;
mod backoff;
mod call;
mod channel;
mod client;
mod codec;
mod consumer;
mod duplex;
mod error;
mod io;
mod metadata;
mod offsets;
mod producer;
mod record;
mod topics;

pub use address::DEFAULT_PORT;
pub use admin::{Admin, ConfigScope};
pub use client::{Client, ClientBuilder};
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
