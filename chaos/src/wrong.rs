//! What can be wrong, as single things that are done and undone. Faults overlap: a thing is wrong as long as any of them
//! wants it so.

use std::collections::BTreeMap;

use crate::trouble::Trouble;
use crate::who::Who;

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// It has no process.
    Dead(Who),
    /// Its process was told to stop, and has until this is over.
    Stopped(Who),
    /// Its process hangs.
    Paused(Who),
    /// What the first sends does not reach the second.
    Cut(Who, Who),
    /// Its wire is pulled out.
    Unplugged(Who),
    /// Its wire carries little.
    Narrow(Who),
    /// What the first sends has this trouble to reach the second.
    Troubled(Trouble, Who, Who),
    /// Its disk has no room.
    Full(Who),
    /// What it writes gets to its disk seconds later.
    Slow(Who),
}

/// How often each is wanted.
#[derive(Debug, Default)]
pub(crate) struct Wrongs(BTreeMap<Wrong, u32>);

impl Wrongs {
    /// One more wants it. Whether it has to be done.
    #[must_use]
    pub(crate) fn begin(&mut self, wrong: Wrong) -> bool {
        let count = self.0.entry(wrong).or_default();
        *count += 1;
        *count == 1
    }

    /// One less wants it. Whether it has to be undone.
    #[must_use]
    pub(crate) fn end(&mut self, wrong: Wrong) -> bool {
        let Some(count) = self.0.get_mut(&wrong) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.0.remove(&wrong);
        true
    }

    /// Whether it is so.
    pub(crate) fn is(&self, wrong: Wrong) -> bool {
        self.0.contains_key(&wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_want_is_undone_with_the_second() {
        let (mut wrongs, cut) = (Wrongs::default(), Wrong::Cut(Who::Broker(1), Who::Clients));
        assert!(wrongs.begin(cut));
        assert!(!wrongs.begin(cut));
        assert!(wrongs.begin(Wrong::Cut(Who::Clients, Who::Broker(1))));
        assert!(!wrongs.end(cut));
        assert!(wrongs.is(cut));
        assert!(wrongs.end(cut));
        assert!(!wrongs.is(cut) && !wrongs.end(cut));
    }
}
