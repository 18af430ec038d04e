//! Settings of topics and of the cluster: one table each, read by validation, by replies and by the docs.

mod cluster;
mod key;
mod reference;
mod topic;
mod value;

pub use cluster::{CLUSTER_KEYS, cluster_key};
pub use key::Key;
pub use reference::reference;
pub use topic::{
    CleanupPolicy, Compression, Layers, Settings, Source, TOPIC_KEYS, TimestampType, TopicSettings,
    UncleanRecovery, topic_key,
};
pub use value::{Kind, Value};
