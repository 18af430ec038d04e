//! What topics say of their logs.

use weir_metadata::Image;
use weir_metadata::settings::TopicSettings;
use weir_storage::LogConfig;
use weir_types::{Durability, PartitionId, TopicId};

use crate::mutant::Mutant;

/// Settings as logs know them, looked up once a topic.
pub(super) struct OfTopics<'a> {
    image: &'a Image,
    last: Option<(TopicId, (LogConfig, Durability))>,
}

impl<'a> OfTopics<'a> {
    pub(super) fn new(image: &'a Image) -> Self {
        Self { image, last: None }
    }

    /// What a partition's topic says; `None`: there is none.
    pub(super) fn of(&mut self, id: PartitionId) -> Option<(LogConfig, Durability)> {
        if self.last.as_ref().is_none_or(|(topic, _)| *topic != id.topic) {
            let settings = self.image.topic_settings(self.image.topic(id.topic)?);
            self.last = Some((id.topic, (log_config(&settings), settings.durability)));
        }
        self.last.as_ref().map(|(_, found)| found.clone())
    }
}

fn log_config(settings: &TopicSettings) -> LogConfig {
    LogConfig {
        durability: settings.durability,
        segment_bytes: settings.segment_bytes.unsigned_abs(),
        segment_ms: settings.segment_ms,
        retention_ms: settings.retention_ms.map(|ms| if Mutant::HalfKept.is_planted() { ms / 2 } else { ms }),
        retention_bytes: settings.retention_bytes.map(i64::unsigned_abs),
        ..LogConfig::default()
    }
}
