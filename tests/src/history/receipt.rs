//! What receipts claim, held against what topics promise.

use anyhow::{Result, ensure};

/// What a receipt claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whether it is committed.
    pub committed: bool,
    /// Whether it is the answer to a repetition.
    pub duplicate: bool,
    /// In how many replicas it is written.
    pub written: i32,
    /// On how many disks it is.
    pub flushed: i32,
    /// In how many zones it is.
    pub zones: i32,
}

/// What a topic promises of its acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// How many replicas there are.
    pub replicas: i32,
    /// How many of them have what is committed.
    pub min_insync: i32,
    /// Whether they have it on disk: class `fsync`.
    pub on_disk: bool,
}

impl Claim {
    /// Whether it can be what the topic promises (correctness rule 43), of an append with acks ALL.
    ///
    /// # Errors
    /// What it claims that cannot be.
    pub fn check(&self, promise: Promise) -> Result<()> {
        // A repetition is told who has it now, which may be fewer: of what is committed they are those in sync.
        let least = if self.duplicate { 1 } else { promise.min_insync };
        let disks = if promise.on_disk { least } else { 0 }..=self.written;
        ensure!(
            self.committed
                && (least..=promise.replicas).contains(&self.written)
                && disks.contains(&self.flushed)
                && (1..=self.written).contains(&self.zones),
            "a receipt claims what cannot be, where {promise:?}: {self:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_claims_what_is_promised() {
        let promise = Promise { replicas: 3, min_insync: 2, on_disk: true };
        let claim = Claim { committed: true, duplicate: false, written: 3, flushed: 2, zones: 1 };
        let is_true = |claim: Claim| claim.check(promise).is_ok();
        assert!(is_true(claim) && is_true(Claim { written: 2, zones: 2, ..claim }));
        assert!(is_true(Claim { duplicate: true, written: 1, flushed: 1, ..claim }));
        let in_memory = Promise { on_disk: false, ..promise };
        assert!(Claim { flushed: 0, ..claim }.check(in_memory).is_ok());
        for lie in [
            Claim { committed: false, ..claim },
            Claim { written: 1, flushed: 1, ..claim },
            Claim { written: 4, ..claim },
            Claim { flushed: 1, ..claim },
            Claim { flushed: 3, written: 2, ..claim },
            Claim { zones: 0, ..claim },
            Claim { zones: 4, ..claim },
        ] {
            assert!(!is_true(lie), "{lie:?}");
        }
    }
}
