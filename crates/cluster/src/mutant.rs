//! Rules that whoever follows the metadata keeps, and that can be taken out: see [`weir_types::mutants`]. Who notices it
//! stands in docs/correctness.md, "Planted bugs".

weir_types::mutants! {
    /// A controller that knows less than was seen is believed (rule 33).
    OlderBelieved,
    /// Another history is followed once it has as many versions (rule 33).
    OtherHistoryFollowed,
}
