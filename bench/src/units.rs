//! Sizes as people write and read them.

use weir_types::units;

/// Reads `4096`, `252KiB`, `1MiB`, `2GiB` (also `k`, `m`, `g`, all powers of two), as the settings of Weir do.
///
/// # Errors
/// Says what is not a size.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let bytes = units::bytes(text).map_err(|wanted| format!("{text} is not {wanted}"))?;
    usize::try_from(bytes).map_err(|_| format!("{text} is no size of anything"))
}

/// A size in the largest unit that leaves no rest.
#[must_use]
pub fn show_bytes(bytes: usize) -> String {
    units::show_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse_bytes("252KiB"), Ok(258_048));
        assert_eq!(parse_bytes("1m"), Ok(1 << 20));
        assert_eq!(parse_bytes("17"), Ok(17));
        assert!(parse_bytes("1 parsec").is_err());
        assert!(parse_bytes("").is_err());
        assert!(parse_bytes("unlimited").is_err());
        assert_eq!(show_bytes(258_048), "252KiB");
        assert_eq!(show_bytes(100), "100");
    }
}
