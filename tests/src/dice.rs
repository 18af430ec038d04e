//! Randomness that a seed repeats, for the choices of a test.

pub use weir_runtime::testing::Dice;
use weir_runtime::testing::random_seed;

/// The sequence of `WEIR_SEED`, or of a seed of its own, which is printed: failed tests show it.
#[must_use]
pub fn of_this_run() -> Dice {
    let seed = given("WEIR_SEED").unwrap_or_else(random_seed);
    eprintln!("WEIR_SEED={seed} repeats the choices of this run");
    Dice::new(seed)
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
