//! "Did you mean …": the nearest of the names there are.

/// The name nearest to what was written, if any is near enough to be what was meant.
pub(crate) fn nearest<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = written.to_lowercase();
    // A third of the letters may differ: a slip of the finger, not another word.
    let allowed = (written.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed || (written.len() >= 3 && name.starts_with(written)))
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let names = ["flights", "greetings", "orders"];
        assert_eq!(nearest("flihgts", names), Some("flights"));
        assert_eq!(nearest("Flights", names), Some("flights"));
        assert_eq!(nearest("greet", names), Some("greetings"));
        assert_eq!(nearest("payments", names), None);
    }
}
