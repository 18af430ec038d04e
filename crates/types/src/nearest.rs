//! "Did you mean …?"

/// The candidate that was probably meant by `given`, if one is close.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(given, candidate), candidate))
        // A third of the letters may differ: "retention" finds no "compression".
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len().max(given.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let topics = ["flights", "weather", "planes"];
        assert_eq!(nearest("flihgts", topics), Some("flights"));
        assert_eq!(nearest("plane", topics), Some("planes"));
        assert_eq!(nearest("airports", topics), None);
        assert_eq!(nearest("x", []), None);
    }
}
