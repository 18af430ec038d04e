//! Partitions in a line of a log: how many, and the first few.

use std::fmt;

use weir_metadata::Image;
use weir_types::PartitionId;

/// Named in one line.
const NAMED_MAX: usize = 5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    count: usize,
    first: Vec<String>,
}

impl Names {
    /// One more; it is named if it is one of the first.
    pub(super) fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED_MAX {
            self.first.push(name());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join(", "))?;
        if self.count > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

/// What people call a partition; its id, where the image does not know its topic.
pub(super) fn of(image: &Image, id: PartitionId) -> String {
    match image.topic(id.topic) {
        Some(topic) => format!("{}/{}", topic.name, id.partition),
        None => id.to_string(),
    }
}
