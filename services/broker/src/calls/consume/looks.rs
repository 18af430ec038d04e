//! How often a leader is asked about what came from there otherwise than it was written, where it finds nothing wrong itself.

/// So often, until something comes that can be opened. It ends at some time: what is damaged may be damaged on its way.
const LOOKS_MAX: u32 = 5;

/// How often it was asked in vain since then. A stream may live for months, and meet other damage every now and then.
#[derive(Debug, Default)]
pub(super) struct Looks(u32);

impl Looks {
    /// Whether what came is to be asked for once more.
    pub(super) fn may_again(&mut self) -> bool {
        self.0 += 1;
        self.0 <= LOOKS_MAX
    }

    /// Something came that could be opened.
    pub(super) fn went_on(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_long_ago_is_not_counted_against_what_is_met_now() {
        let mut looks = Looks::default();
        for _ in 0..10 * LOOKS_MAX {
            assert!(looks.may_again());
            looks.went_on();
        }
        assert_eq!((0..10).filter(|_| looks.may_again()).count(), LOOKS_MAX as usize);
    }
}
