//! What survives a power loss: the draws, apart from what they are drawn for.

use crate::dice::Dice;

/// What is left of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of it: the disk holds exactly what was synced.
    Nothing,
    /// All of it: as if the last moment before the power loss had been synced.
    Everything,
    /// Each page, length and row of names by lot, from this seed. How much survives on the whole is drawn too,
    /// so that many seeds hold both ends and everything between.
    Drawn(u64),
}

/// The lots of one power loss.
#[derive(Debug)]
pub(super) struct Lots {
    survival: Survival,
    dice: Dice,
    pages_eighths: u64,
    names_eighths: u64,
}

impl Lots {
    pub(super) fn new(survival: Survival) -> Self {
        let mut dice = Dice::new(match survival {
            Survival::Drawn(seed) => seed,
            Survival::Nothing | Survival::Everything => 0,
        });
        let (pages_eighths, names_eighths) = match survival {
            Survival::Nothing => (0, 0),
            Survival::Everything => (8, 8),
            Survival::Drawn(_) => (dice.below(9), dice.below(9)),
        };
        Self { survival, dice, pages_eighths, names_eighths }
    }

    /// Which of `durable`, a state in between (if there was one) and `current` a page or length has.
    pub(super) fn state(&mut self, has_between: bool) -> State {
        if self.dice.below(8) >= self.pages_eighths {
            State::Durable
        } else if has_between && self.survival != Survival::Everything && self.dice.below(8) < 3 {
            State::Between
        } else {
            State::Current
        }
    }

    /// How many of the last `n` changes of a folder, counted from the oldest, survive.
    pub(super) fn names(&mut self, n: usize) -> usize {
        match self.survival {
            Survival::Nothing => 0,
            Survival::Everything => n,
            Survival::Drawn(_) if self.dice.below(8) < self.names_eighths => {
                // Not evenly: all of them is the case that happens most.
                if self.dice.below(8) < 4 { n } else { self.dice.below(n as u64 + 1) as usize }
            }
            Survival::Drawn(_) => 0,
        }
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.dice.below(bound)
    }
}

/// One of the states a page or length had since it was last synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Durable,
    Between,
    Current,
}
