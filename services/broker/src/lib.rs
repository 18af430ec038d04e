//! The broker: partition logs on local volumes, and the public gRPC calls on them.
//!
//! On the way of a batch it stands between the connection and the log: it checks what can be checked without the
//! partition's state (`ingest`), hands the batch to the partition's claim (`weir-storage`), where `admission` asks
//! the pure core of replication, and says what was promised (`receipts`). What exists it learns from the controller
//! (`cluster`, `replicas`), never from a file of its own. What another broker leads it passes on (`forward`). It does not
//! know groups or transactions yet.

mod admission;
mod arriving;
mod awaited;
mod batch_stream;
mod broker;
mod calls;
mod cluster;
mod compression;
mod consumer_server;
mod contexts;
mod cors;
mod damage;
mod failing;
mod forward;
mod greeting;
mod http;
mod ingest;
mod leaderless;
mod memory;
mod metrics;
mod mutant;
mod near;
mod news;
mod observe;
mod options;
mod plain_message;
mod plain_reader;
mod problems;
mod process;
mod producer_ids;
mod producer_server;
mod reach;
mod reading;
mod receipts;
mod replicas;
mod replication;
mod reports;
mod running;
mod serve;
mod service;
mod start;
mod starting;
#[cfg(test)]
mod testing;
mod times;
mod topic_map;

pub use metrics::page as metrics_page;
pub use mutant::Mutant;
pub use options::Options;
pub use process::main;
pub use running::{Running, start};
pub use start::StartError;
