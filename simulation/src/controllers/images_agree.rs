//! There is one history of the metadata: whoever is at a version has the same image as everybody else who is or was at it,
//! and nobody goes back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Result, ensure};
use weir_metadata::Image;

/// So many versions are remembered; who is further behind is not compared.
const VERSIONS: usize = 2_000;

/// What was seen at each version, and where each observer is.
#[derive(Default)]
pub(crate) struct Images {
    seen: BTreeMap<i64, (String, Arc<Image>)>,
    order: VecDeque<i64>,
    /// By observer and life: a process that starts again begins with what its snapshot holds.
    at: BTreeMap<(String, u64), i64>,
}

impl Images {
    /// An observer, in one of its lives, has this image.
    pub(crate) fn see(&mut self, who: &str, life: u64, image: &Arc<Image>) -> Result<()> {
        let version = image.version();
        let at = self.at.entry((who.to_owned(), life)).or_insert(version);
        ensure!(version >= *at, "{who} went back from version {at} to {version}");
        let moved = version > *at;
        *at = version;
        match self.seen.get(&version) {
            Some((_, known)) if Arc::ptr_eq(known, image) || !moved => {}
            Some((other, known)) => {
                ensure!(
                    known == image,
                    "{who} and {other} differ at version {version}:\n{known:?}\n{image:?}"
                );
            }
            None => {
                self.seen.insert(version, (who.to_owned(), image.clone()));
                self.order.push_back(version);
                if self.order.len() > VERSIONS
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.seen.remove(&oldest);
                }
            }
        }
        Ok(())
    }
}
