//! The streams of a broker, at a whole Weir in this process: what they bound, how they end, and what is seen of it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod browser;
mod connection;
mod fetch;
mod plain;
mod produce;
mod seen;
mod world;
