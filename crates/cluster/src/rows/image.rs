//! An image as rows, one after another: written and read without ever being whole in one buffer.

use std::collections::BTreeMap;

use weir_metadata::{Author, Authors, Image, ImageHead, ImageParts};
use weir_proto::internal::v1 as pb;
use weir_proto::internal::v1::image_row::Row as Kind;
use weir_types::{PartitionId, TopicId};

use super::{Row, RowError, optional};

impl Row for ImageHead {
    type Wire = pb::ImageHead;

    fn to_wire(&self) -> pb::ImageHead {
        pb::ImageHead {
            version: self.version,
            cluster_id: self.cluster_id.map(|id| id.to_wire()),
            feature_level: self.feature_level,
            settings: self.settings.clone(),
            next_broker_id: self.next_broker_id,
            next_producer_id: self.next_producer_id,
            authors: self
                .authors
                .iter()
                .map(|author| pb::Author { from: author.from, number: author.number })
                .collect(),
        }
    }

    fn from_wire(wire: pb::ImageHead) -> Result<Self, RowError> {
        Ok(Self {
            version: wire.version,
            authors: Authors::new(
                wire.authors
                    .into_iter()
                    .map(|author| Author { from: author.from, number: author.number })
                    .collect(),
            ),
            cluster_id: optional(wire.cluster_id)?,
            feature_level: wire.feature_level,
            settings: wire.settings,
            next_broker_id: wire.next_broker_id,
            next_producer_id: wire.next_producer_id,
        })
    }
}

/// The rows of an image, in the order in which [`ImageReader`] takes them.
pub fn image_rows(image: &Image) -> impl Iterator<Item = pb::ImageRow> {
    let head = std::iter::once_with(|| Kind::Head(image.head().to_wire()));
    let brokers = image.brokers().map(|broker| Kind::Broker(broker.to_wire()));
    let controllers = image.controllers().map(|controller| Kind::Controller(controller.to_wire()));
    let topics = image.topics().flat_map(|topic| {
        let summary = std::iter::once_with(|| Kind::Topic(topic.summary().to_wire()));
        let partition = |number: i32| PartitionId { topic: topic.id, partition: number };
        summary.chain(topic.partitions.iter().map(move |(number, record)| {
            Kind::Partition(pb::PartitionRow {
                partition: Some(partition(*number).to_wire()),
                record: Some(record.to_wire()),
            })
        }))
    });
    head.chain(brokers).chain(controllers).chain(topics).map(|row| pb::ImageRow { row: Some(row) })
}

/// Puts an image together from its rows.
#[derive(Debug, Default)]
pub struct ImageReader {
    parts: Option<ImageParts>,
    /// Partitions that topics announced and that have not come yet.
    expected: BTreeMap<TopicId, i32>,
}

impl ImageReader {
    /// Takes the next row.
    ///
    /// # Errors
    /// A row that makes no sense, or does not belong where it stands.
    pub fn push(&mut self, row: pb::ImageRow) -> Result<(), RowError> {
        let row = row.row.ok_or(RowError::Unknown("kind"))?;
        if let Kind::Head(head) = row {
            self.parts = Some(ImageParts::new(Row::from_wire(head)?));
            self.expected.clear();
            return Ok(());
        }
        let parts = self.parts.as_mut().ok_or(RowError::Missing("head before it"))?;
        match row {
            Kind::Head(_) => {}
            Kind::Broker(row) => parts.broker(Row::from_wire(row)?),
            Kind::Controller(row) => parts.controller(Row::from_wire(row)?),
            Kind::Topic(row) => {
                let topic = weir_metadata::TopicSummary::from_wire(row)?;
                self.expected.insert(topic.id, topic.partitions);
                parts.topic(topic);
            }
            Kind::Partition(row) => {
                let (id, record) = Row::from_wire(row)?;
                let left = self.expected.get_mut(&id.topic).ok_or(RowError::Missing("topic before it"))?;
                *left -= 1;
                parts.partition(id.topic, id.partition, record);
            }
        }
        Ok(())
    }

    /// The image, if all of it was there and it is as an image must be.
    ///
    /// # Errors
    /// If rows are missing, or the image is not as it must be ([`Image::check`]).
    pub fn finish(self) -> Result<Image, RowError> {
        if self.expected.values().any(|left| *left != 0) {
            return Err(RowError::Missing("partitions"));
        }
        let image = self.parts.ok_or(RowError::Missing("head"))?.finish();
        image.check().map_err(|_| RowError::Malformed("content"))?;
        Ok(image)
    }
}
