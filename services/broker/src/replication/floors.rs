//! Acknowledgements that wait for more than the topic asks: a floor that a caller has named (correctness rule 43).

use tokio::time::Instant;
use weir_storage::Holders;
use weir_types::Offset;

/// In how many replicas and zones an append must be before it is acknowledged; 0: no demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) replicas: usize,
    pub(crate) zones: usize,
    /// Whether only replicas count that have it on disk.
    pub(crate) on_disk: bool,
}

impl Floor {
    /// Whether so many are enough.
    pub(crate) fn is_met(&self, holders: Holders) -> bool {
        let replicas = if self.on_disk { holders.flushed } else { holders.written };
        replicas >= self.replicas && holders.zones >= self.zones
    }
}

/// Called exactly once, with who has it, or once nobody will say any more: this replica does not lead, or it took too
/// long. It must not block.
pub(crate) type Met = Box<dyn FnOnce(Option<Holders>) + Send>;

/// What waits until enough replicas have what lies before an offset.
pub(crate) struct Waiting {
    pub(crate) end: Offset,
    pub(crate) floor: Floor,
    pub(crate) until: Instant,
    pub(crate) met: Met,
}

impl Waiting {
    /// What becomes of it, if that is known by now; else it waits on.
    pub(crate) fn look(self, holders: Holders) -> Result<(Met, Option<Holders>), Self> {
        if self.floor.is_met(holders) {
            Ok((self.met, Some(holders)))
        } else if self.until <= Instant::now() {
            Ok((self.met, None))
        } else {
            Err(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_what_the_caller_has_named() {
        let holders = Holders { written: 3, flushed: 2, zones: 1 };
        let met = |replicas, zones, on_disk| Floor { replicas, zones, on_disk }.is_met(holders);
        assert!(met(0, 0, true) && met(3, 1, false) && met(2, 0, true));
        assert!(!met(4, 0, false) && !met(3, 0, true) && !met(0, 2, false));
    }
}
