//! Sizes and rates as people write and read them.

use std::time::Duration;

/// Reads `4096`, `252KiB`, `1MiB`, `2GiB` (also `k`, `m`, `g`, all powers of two).
///
/// # Errors
/// Says what is not a size.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.get(digits.len()..).unwrap_or("").to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err(format!("{text}: not a size (like 4096, 252KiB, 1MiB, 2GiB)")),
    };
    let count: usize = digits.parse().map_err(|e| format!("{text}: {e}"))?;
    count.checked_mul(1 << shift).ok_or_else(|| format!("{text}: too large"))
}

/// A size in the largest unit that leaves no rest.
#[must_use]
pub fn show_bytes(bytes: usize) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// 10^9 bytes a second.
#[must_use]
pub fn gb_per_s(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / 1e9 / elapsed.as_secs_f64().max(1e-9)
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
        assert_eq!(show_bytes(258_048), "252KiB");
        assert_eq!(show_bytes(100), "100B");
    }
}
