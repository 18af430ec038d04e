//! The map of the cluster as this client knows it: which broker leads which partition.
//!
//! Nothing here is authority. A broker that does not lead refuses, and what it refuses with is the occasion to
//! look at the map again. The map never goes back: brokers learn of changes at different times, and one that lags
//! must not undo what another has said.
//!
//! While a producer or a consumer lives, the client watches one broker for changes (`follow`); errors make it ask.

mod cache;
mod follow;
mod map;

pub(crate) use cache::Cache;
pub(crate) use map::{Broker, Map, Topic};
