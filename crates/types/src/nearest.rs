//! "Did you mean …?"

/// How many candidates are looked at, and how many pairs of letters are compared in all: of a hundred thousand topics
/// the first stand for all, and who misspells one costs a server milliseconds at most.
const LOOKED_AT_MAX: usize = 2_000;
const PAIRS_MAX: usize = 1 << 18;

/// The candidate that was probably meant by `given`, if one is close.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut pairs_left = PAIRS_MAX;
    // A third of the letters may differ: "retention" finds no "compression".
    let is_near = |differs: usize, candidate: &str| differs * 3 <= candidate.len().max(given.len());
    candidates
        .into_iter()
        .take(LOOKED_AT_MAX)
        // The lengths alone tell most of them apart.
        .filter(|candidate| is_near(candidate.len().abs_diff(given.len()), candidate))
        .map_while(|candidate| {
            pairs_left = pairs_left.checked_sub(candidate.len().saturating_mul(given.len()))?;
            Some((strsim::damerau_levenshtein(given, candidate), candidate))
        })
        .filter(|(distance, candidate)| is_near(*distance, candidate))
        .min()
        .map(|(_, candidate)| candidate)
}

/// What [`nearest`] found, as the end of a sentence; nothing, if it found none.
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let topics = ["flights", "weather", "planes"];
        assert_eq!(nearest("flihgts", topics), Some("flights"));
        assert_eq!(nearest("plane", topics), Some("planes"));
        assert_eq!(nearest("airports", topics), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(did_you_mean(nearest("plane", topics)), "; did you mean \"planes\"?");
        assert_eq!(did_you_mean(nearest("airports", topics)), "");
    }

    #[test]
    fn what_was_meant_is_not_sought_among_all_nor_for_what_is_far_too_long() {
        let names = (0..30_000).map(|n| format!("topic-{n:05}")).collect::<Vec<_>>();
        let looked_at = Cell::new(0);
        let seen = |given: &str| {
            looked_at.set(0);
            nearest(given, names.iter().map(|name| &**name).inspect(|_| looked_at.set(looked_at.get() + 1)))
        };
        assert_eq!(seen("topik-00003"), Some("topic-00003"));
        assert_eq!((seen("t"), looked_at.get()), (None, LOOKED_AT_MAX));
        assert_eq!((seen(&"x".repeat(4 << 20)), looked_at.get()), (None, LOOKED_AT_MAX));
        let long = (0..1_000).map(|n| format!("{n:0250}")).collect::<Vec<_>>();
        let mut compared = 0;
        let _ = nearest(&"0".repeat(250), long.iter().map(|name| &**name).inspect(|_| compared += 1));
        assert!(compared <= 1 + PAIRS_MAX / (250 * 250), "{compared}");
    }
}
