//! The public calls, a file for each, and what several of them share.

pub(crate) mod admin;
pub(crate) mod answers;
pub(crate) mod append_outcome;
pub(crate) mod consume;
pub(crate) mod delete_records;
pub(crate) mod ending;
pub(crate) mod fetch;
pub(crate) mod fetch_stream;
pub(crate) mod hello;
pub(crate) mod list_offsets;
pub(crate) mod message_limit;
pub(crate) mod metadata;
pub(crate) mod open_producer;
pub(crate) mod page;
pub(crate) mod plain_records;
pub(crate) mod produce;
pub(crate) mod produce_stream;
pub(crate) mod start;
pub(crate) mod topics;
pub(crate) mod watch_metadata;
