//! The public calls: a file for each group of them, with what only that one needs in a folder of its name.

pub(crate) mod admin;
pub(crate) mod append_outcome;
pub(crate) mod consume;
pub(crate) mod delete_records;
pub(crate) mod fetch;
pub(crate) mod fetch_stream;
pub(crate) mod list_offsets;
pub(crate) mod metadata;
pub(crate) mod open_producer;
pub(crate) mod produce;
pub(crate) mod produce_stream;
pub(crate) mod shared;
pub(crate) mod topics;
pub(crate) mod watch_metadata;
