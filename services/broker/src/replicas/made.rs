//! Logs that come and go with their partitions: made where none has been made yet, set aside when nothing names them any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_metadata::Image;
use weir_runtime::blocking;
use weir_types::PartitionId;

use crate::replicas::of_topics::OfTopics;
use crate::replicas::{Known, Log, Replicas, name};

impl Replicas {
    /// Takes logs out of the way that nothing names any more. They are kept for a while: the controller may have
    /// been restored from an old backup, and know less than this disk.
    pub(super) async fn set_aside(&self, known: &mut Known, gone: Vec<PartitionId>) {
        if gone.is_empty() {
            return;
        }
        let failed = match self.log_dir.set_aside(gone.clone()).await {
            Ok(failed) => failed.into_iter().map(|(id, error)| (id, error.to_string())).collect(),
            Err(error) => gone.iter().map(|id| (*id, error.to_string())).collect::<BTreeMap<_, _>>(),
        };
        for id in gone {
            match failed.get(&id) {
                None => {
                    self.replication.leave(id);
                    known.logs.remove(&id);
                    known.unusable.remove(&id);
                }
                Some(why) => {
                    // Nobody knows its name any more.
                    tracing::error!(partition = %id, why, "cannot set the log of a deleted topic aside");
                    known.failed.insert(id, why.as_str().into());
                }
            }
        }
    }

    /// Makes logs that have not been made anywhere yet; the controller is to hear of them.
    pub(super) async fn make(&self, known: &mut Known, image: &Image, make: Vec<PartitionId>) {
        if make.is_empty() {
            return;
        }
        let mut settings = OfTopics::new(image);
        let wanted: Vec<_> = make
            .iter()
            .filter_map(|id| Some((*id, image.topic(id.topic)?.name.to_string(), settings.of(*id)?.0)))
            .collect();
        let dir = self.log_dir.clone();
        let outcomes = match blocking(&self.os, move || dir.create_partitions(wanted)).await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::error!(%error, logs = make.len(), "cannot make logs");
                let why: Arc<str> = format!("its log cannot be made: {error}").into();
                known.failed.extend(make.into_iter().map(|id| (id, why.clone())));
                return;
            }
        };
        for (id, outcome) in outcomes {
            match outcome {
                Ok(partition) => {
                    known.logs.insert(id, Log::opened(partition));
                    known.unreported.insert(id);
                }
                Err(error) => {
                    tracing::error!(topic = name(image, id), partition = id.partition, %error, "cannot make a log");
                    known.failed.insert(id, format!("its log cannot be made: {error}").into());
                }
            }
        }
    }
}
