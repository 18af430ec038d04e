//! What several calls do alike. No call of its own is here.

pub(crate) mod ending;
pub(crate) mod hello;
pub(crate) mod message_limit;
pub(crate) mod page;
