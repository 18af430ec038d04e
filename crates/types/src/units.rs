//! Numbers of bytes and lengths of time, as people write them: in configuration files, settings of topics, and on
//! the command line alike. Whole numbers only, so that every machine computes the same.

const NO_LIMIT: [&str; 3] = ["-1", "unlimited", "none"];

/// Bytes: a number with or without a unit, decimal (kB, MB, GB, TB) or binary (KiB, MiB, GiB, TiB), or
/// "unlimited" for -1.
///
/// # Errors
/// What would have been understood.
pub fn bytes(text: &str) -> Result<i64, String> {
    const WANTED: &str = "bytes, like 1048576, 1MiB or 1GB";
    if NO_LIMIT.contains(&text) {
        return Ok(-1);
    }
    let (number, unit) = split(text).ok_or(WANTED)?;
    let factor: i64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(WANTED.to_owned()),
    };
    scaled(number, factor).ok_or_else(|| WANTED.to_owned())
}

/// Milliseconds: a number with or without a unit (ms, s, m, h, d, w), several after one another, or "unlimited"
/// for -1.
///
/// # Errors
/// What would have been understood.
pub fn milliseconds(text: &str) -> Result<i64, String> {
    const WANTED: &str = "a length of time, like 500ms, 10s, 1h30m or 7d (a bare number is milliseconds)";
    if NO_LIMIT.contains(&text) {
        return Ok(-1);
    }
    let mut rest = text;
    let mut total: i64 = 0;
    loop {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let factor: i64 = match unit.trim() {
            "" if rest.len() == text.len() && tail.is_empty() => 1,
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(WANTED.to_owned()),
        };
        total = scaled(number, factor).and_then(|ms| total.checked_add(ms)).ok_or(WANTED)?;
        if tail.is_empty() {
            return Ok(total);
        }
        rest = tail;
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    (!number.is_empty()).then_some((number, unit.trim()))
}

/// `number * factor` exactly; a fraction ("1.5") must come out whole. No float is involved, so that every
/// machine computes the same.
fn scaled(number: &str, factor: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.contains('.') && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let mut total = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    if !fraction.is_empty() {
        let parts = fraction.parse::<i64>().ok()?.checked_mul(factor)?;
        let base = 10_i64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        if parts % base != 0 {
            return None;
        }
        total = total.checked_add(parts / base)?;
    }
    Some(total)
}

/// Bytes as a person would write them: the largest binary unit that divides them ("16MiB"), else plain digits. What
/// [`bytes`] reads back.
pub fn show_bytes(bytes: i64) -> String {
    show(bytes, &[(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")], "")
}

/// Milliseconds as a person would write them: the largest unit that divides them ("7d", "30s"). What
/// [`milliseconds`] reads back.
pub fn show_milliseconds(ms: i64) -> String {
    show(ms, &[(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")], "ms")
}

fn show(number: i64, units: &[(i64, &str)], smallest: &str) -> String {
    match number {
        ..0 => "unlimited".to_owned(),
        0 => "0".to_owned(),
        _ => match units.iter().find(|(factor, _)| number % factor == 0) {
            Some((factor, unit)) => format!("{}{unit}", number / factor),
            None => format!("{number}{smallest}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_what_people_write() {
        let cases = [
            ("0", 0),
            ("1048576", 1 << 20),
            ("1MiB", 1 << 20),
            ("1 MiB", 1 << 20),
            ("1.5GiB", 3 << 29),
            ("10k", 10_240),
            ("1GB", 1_000_000_000),
            ("-1", -1),
            ("unlimited", -1),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "MiB", "1XB", "-5", "1.", "0.3B", "9999999999GiB", "1e3", "１"] {
            assert!(bytes(bad).unwrap_err().contains("1MiB"), "{bad}");
        }
    }

    #[test]
    fn times_are_what_people_write() {
        let cases = [
            ("0", 0),
            ("604800000", 604_800_000),
            ("7d", 604_800_000),
            ("1w", 604_800_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("500ms", 500),
            ("2 h", 7_200_000),
            ("unlimited", -1),
        ];
        for (text, expected) in cases {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
        for bad in ["", "d", "7 dogs", "1h30", "-7d", "1.5ms", "99999999999999d"] {
            assert!(milliseconds(bad).unwrap_err().contains("7d"), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for (number, shown) in
            [(0, "0"), (-1, "unlimited"), (1, "1"), (1 << 20, "1MiB"), (3 << 29, "1536MiB")]
        {
            assert_eq!(show_bytes(number), shown);
            assert_eq!(bytes(shown), Ok(number));
        }
        let times = [
            (0, "0"),
            (-1, "unlimited"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (5_400_000, "90m"),
            (604_800_000, "7d"),
        ];
        for (number, shown) in times {
            assert_eq!(show_milliseconds(number), shown);
            assert_eq!(milliseconds(shown), Ok(number));
        }
    }
}
