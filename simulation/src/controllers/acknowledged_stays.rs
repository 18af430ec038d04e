//! What a client was told of its changes stays true: a topic whose creation was acknowledged is there, under the id that
//! was told, one whose deletion was acknowledged is not, and neither is one whose creation was refused as not applied.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use weir_metadata::Image;

/// What a client knows of a topic. Names are never used again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may be there or not: an answer is outstanding, or said so.
    Open,
    /// It is there, under this id.
    There(String),
    /// It is not there: it was deleted, or never made.
    Gone,
}

/// What clients were told of all topics.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    topics: BTreeMap<String, Fate>,
    /// Changes that were acknowledged.
    pub(crate) acknowledged: u64,
}

impl Ledger {
    /// A client knows this from here on.
    pub(crate) fn note(&mut self, topic: &str, fate: Fate) {
        self.acknowledged += u64::from(fate != Fate::Open);
        self.topics.insert(topic.to_owned(), fate);
    }

    /// An answer to a request that was repeated is the first one's.
    pub(crate) fn same_again(&self, topic: &str, id: &str) -> Result<()> {
        match self.topics.get(topic) {
            Some(Fate::There(known)) if known != id => {
                bail!("topic {topic} was made as {known}, and the same request again says {id}")
            }
            _ => Ok(()),
        }
    }

    /// Holds an image against it.
    pub(crate) fn check(&self, image: &Image) -> Result<()> {
        for (name, fate) in &self.topics {
            let found = image.topic_named(name).map(|topic| topic.id.to_string());
            match (fate, found) {
                (Fate::Open, _) | (Fate::Gone, None) => {}
                (Fate::There(id), Some(found)) if *id == found => {}
                (fate, found) => {
                    bail!(
                        "topic {name} is {fate:?} for its client, and at version {} {found:?}",
                        image.version()
                    )
                }
            }
        }
        for topic in image.topics_after("") {
            ensure!(self.topics.contains_key(topic.name.as_ref()), "nobody made topic {}", topic.name);
        }
        Ok(())
    }
}
