//! An image in parts, for snapshots: small pieces that are written and read one after another, never the whole
//! in one buffer.

use std::sync::Arc;

use weir_types::{BrokerId, ClusterId, PartitionId, TopicId};

use crate::authors::Authors;
use crate::broker::Broker;
use crate::event::Controller;
use crate::image::Image;
use crate::settings::Settings;
use crate::topic::{Partition, Topic, TopicSummary};

/// What an image has only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// The version.
    pub version: i64,
    /// Who wrote it and those before.
    pub authors: Authors,
    /// The cluster's id; `None` until it is initialised.
    pub cluster_id: Option<ClusterId>,
    /// The feature level.
    pub feature_level: i32,
    /// The cluster's settings.
    pub settings: Settings,
    /// The id the next new broker gets.
    pub next_broker_id: i32,
    /// The first id of the next block of producer ids.
    pub next_producer_id: i64,
}

/// Puts an image together from its parts: the head first, a topic before its partitions.
#[derive(Debug)]
pub struct ImageParts {
    image: Image,
}

impl Image {
    /// What there is only once. The rest: [`Image::brokers`], [`Image::controllers`], [`Image::topics`].
    pub fn head(&self) -> ImageHead {
        ImageHead {
            version: self.version,
            authors: self.authors.clone(),
            cluster_id: self.cluster_id,
            feature_level: self.feature_level,
            settings: self.settings.as_ref().clone(),
            next_broker_id: self.next_broker_id,
            next_producer_id: self.next_producer_id,
        }
    }
}

impl ImageParts {
    /// Begins an image.
    pub fn new(head: ImageHead) -> Self {
        let image = Image {
            version: head.version,
            authors: head.authors,
            cluster_id: head.cluster_id,
            feature_level: head.feature_level,
            settings: Arc::new(head.settings),
            next_broker_id: head.next_broker_id,
            next_producer_id: head.next_producer_id,
            ..Image::default()
        };
        Self { image }
    }

    /// Adds a broker.
    pub fn broker(&mut self, broker: Broker) {
        Arc::make_mut(&mut self.image.brokers).insert(BrokerId(broker.id.0), broker);
    }

    /// Adds a controller.
    pub fn controller(&mut self, controller: Controller) {
        Arc::make_mut(&mut self.image.controllers).insert(controller.id, controller);
    }

    /// Adds a topic; its partitions follow.
    pub fn topic(&mut self, summary: TopicSummary) {
        self.image.put_topic(Topic {
            id: summary.id,
            name: summary.name,
            replication_factor: summary.replication_factor,
            config: summary.config,
            copied: summary.copied,
            revision: summary.revision,
            created_ms: summary.created_ms,
            partitions: crate::SharedMap::new(),
        });
    }

    /// Adds a partition of a topic that was added before.
    pub fn partition(&mut self, topic: TopicId, number: i32, partition: Partition) {
        self.image.put_partition(PartitionId { topic, partition: number }, partition);
    }

    /// The image.
    pub fn finish(self) -> Image {
        self.image
    }
}
