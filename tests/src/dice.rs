//! Randomness that a seed repeats, for the choices of a test.

/// A sequence of numbers that depends on the seed alone (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The sequence of `WEIR_SEED`, or of a seed of its own, which is printed: failed tests show it.
    #[must_use]
    pub fn of_this_run() -> Self {
        let seed = given("WEIR_SEED").unwrap_or_else(weir_runtime::random_u64);
        eprintln!("WEIR_SEED={seed} repeats the choices of this run");
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// How often something is repeated: what the environment says, or `usual`.
#[must_use]
pub fn times(variable: &str, usual: u64) -> u64 {
    given(variable).unwrap_or(usual)
}

/// # Panics
/// The variable is set to something else than a number: a run of another kind than was asked for shows nothing.
fn given(variable: &str) -> Option<u64> {
    let given = std::env::var(variable).ok()?;
    Some(given.parse().unwrap_or_else(|_| panic!("{variable}={given} is not a whole number")))
}
