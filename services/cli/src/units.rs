//! Numbers as people write and read them: `7d`, `31 MB`, `336,776`.

use std::time::Duration;

/// Reads a length of time: `500ms`, `30s`, `5m`, `1h`, `7d`; a number alone is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time such as 500ms, 30s, 5m, 1h or 7d");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// Reads a size: `512`, `64KiB`, `10MB`, `1GiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is not a size such as 512, 64KiB or 10MB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let bytes = number * factor;
    if bytes.is_finite() && bytes < 9e18 { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A count with separators: `336,776`.
pub(crate) fn count(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        out.push('-');
    }
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its word: `1 record`, `8 partitions`.
pub(crate) fn counted(number: impl Into<i128>, one: &str) -> String {
    let number: i128 = number.into();
    let many = match one.strip_suffix('y') {
        // "1 entry", "2 entries", but "2 days".
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if one.ends_with("ch") || one.ends_with('s') => format!("{one}es"),
        _ => format!("{one}s"),
    };
    format!("{} {}", count(number), if number == 1 { one } else { &many })
}

/// A size in decimal units: `5 B`, `1.2 GB`, `31 MB`.
pub(crate) fn bytes(size: u64) -> String {
    scaled(size, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A limit in binary units: `4 MiB`.
pub(crate) fn binary_bytes(size: u64) -> String {
    scaled(size, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(size: u64, step: u64, units: &[&str]) -> String {
    let mut value = size as f64;
    let mut unit = units.first().copied().unwrap_or_default();
    for next in units.iter().skip(1) {
        // 999.6 would be shown as 1000.
        if value < step as f64 - 0.5 {
            break;
        }
        value /= step as f64;
        unit = next;
    }
    if unit == "B" || value >= 9.95 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// A measured time: `0.4 ms`, `1.9 s`, `3 min`.
pub(crate) fn elapsed(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if ms < 59_950.0 {
        format!("{:.1} s", ms / 1e3)
    } else if ms < 3_570_000.0 {
        format!("{:.0} min", ms / 60e3)
    } else {
        format!("{:.1} h", ms / 3_600e3)
    }
}

const PARTS: [(i64, &str, &str); 5] = [
    (86_400_000, "d", "day"),
    (3_600_000, "h", "hour"),
    (60_000, "m", "minute"),
    (1_000, "s", "second"),
    (1, "ms", "millisecond"),
];

/// A setting in milliseconds, short: `7d`, `90m`, `unlimited`.
pub(crate) fn duration_short(ms: i64) -> String {
    if ms < 0 {
        return "unlimited".to_owned();
    }
    let (size, short, _) = whole_part(ms);
    format!("{}{short}", ms / size)
}

/// A setting in milliseconds, in words: `7 days`.
pub(crate) fn duration_words(ms: i64) -> String {
    let (size, _, word) = whole_part(ms);
    counted(ms / size, word)
}

/// The largest unit that measures it without a remainder.
fn whole_part(ms: i64) -> (i64, &'static str, &'static str) {
    let fits = |(size, _, _): &&(i64, &str, &str)| ms != 0 && ms % size == 0;
    PARTS.iter().find(fits).copied().unwrap_or((1, "ms", "millisecond"))
}

/// A value of a setting as people read it, by its unit.
pub(crate) fn setting(value: &str, unit: &str) -> String {
    match (unit, value.parse::<i64>()) {
        ("ms", Ok(ms)) => duration_short(ms),
        ("bytes", Ok(size)) if size < 0 => "unlimited".to_owned(),
        ("bytes", Ok(size)) => {
            let size = size.unsigned_abs();
            // Whole binary sizes are what people set; others are shown exactly.
            let text = binary_bytes(size);
            if parse_bytes(&text.replace(' ', "")) == Ok(size) {
                text.replace(' ', "")
            } else {
                value.to_owned()
            }
        }
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "s", "-1s", "1 week", "1e9", "1.2.3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("10MB"), Ok(10_000_000));
        assert_eq!(parse_bytes("512"), Ok(512));
        assert!(parse_bytes("ten").is_err());
        for (size, text) in [
            (5, "5 B"),
            (999, "999 B"),
            (1_000, "1 kB"),
            (999_600, "1 MB"),
            (1_200_000_000, "1.2 GB"),
            (31_053_472, "31 MB"),
        ] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(binary_bytes(4 << 20), "4 MiB");
    }

    #[test]
    fn counts_have_separators_and_plurals() {
        assert_eq!(count(336_776), "336,776");
        assert_eq!(count(-1_000), "-1,000");
        assert_eq!(count(12), "12");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(0, "record"), "0 records");
        assert_eq!(counted(2, "batch"), "2 batches");
        assert_eq!(counted(2, "entry"), "2 entries");
    }

    #[test]
    fn times_are_shown() {
        for (ms, text) in [(0.4, "0.4 ms"), (12.0, "12 ms"), (1_900.0, "1.9 s"), (180_000.0, "3 min")] {
            assert_eq!(elapsed(Duration::from_secs_f64(ms / 1e3)), text);
        }
        assert_eq!(duration_short(604_800_000), "7d");
        assert_eq!(duration_short(90_000), "90s");
        assert_eq!(duration_short(-1), "unlimited");
        assert_eq!(duration_short(0), "0ms");
        assert_eq!(duration_words(604_800_000), "7 days");
        assert_eq!(duration_words(3_600_000), "1 hour");
    }

    #[test]
    fn settings_are_shown_by_their_unit() {
        assert_eq!(setting("604800000", "ms"), "7d");
        assert_eq!(setting("1048576", "bytes"), "1MiB");
        assert_eq!(setting("1000001", "bytes"), "1000001");
        assert_eq!(setting("-1", "bytes"), "unlimited");
        assert_eq!(setting("zstd", ""), "zstd");
    }
}
