//! Partitions, or topics, in a line of a log: how many, and the first few.

use std::fmt;

use weir_metadata::Image;
use weir_types::PartitionId;

/// Named in one line.
const NAMED_MAX: usize = 5;

/// How many things a line of a log speaks of, and the first few of their names: what happens to one of thousands mostly
/// happens to all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    count: usize,
    first: Vec<String>,
}

impl Names {
    /// One more; it is named if it is one of the first.
    pub fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(name());
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        if self.count > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

/// What was said of a partition by its id, as people call it.
pub fn by_name(said: &str, image: &Image, id: PartitionId) -> String {
    said.replace(&id.to_string(), &partition_name(image, id))
}

/// What people call a partition; its id, where the image does not know its topic.
pub fn partition_name(image: &Image, id: PartitionId) -> String {
    match image.topic(id.topic) {
        Some(topic) => format!("{}/{}", topic.name, id.partition),
        None => id.to_string(),
    }
}
