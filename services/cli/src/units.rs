//! Numbers as people write and read them: `7d`, `31 MB`, `336,776`.

use std::time::Duration;

use weir_types::units;

/// Reads a length of time: `500ms`, `30s`, `1h30m`, `7d`. Settings take a bare number as milliseconds; here, where
/// people expect seconds, it is refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a length of time such as 500ms, 30s, 5m, 1h30m or 7d");
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let ms = units::milliseconds(text).map_err(|_| wrong())?;
    u64::try_from(ms).map(Duration::from_millis).map_err(|_| wrong())
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

/// A rate: `16 MB/s`.
pub(crate) fn rate(bytes_count: u64, time: Duration) -> String {
    let per_second = bytes_count as f64 / time.as_secs_f64().max(1e-9);
    format!("{}/s", bytes(per_second as u64))
}

/// A measured time: `0.4 ms`, `1.9 s`, `3 min`.
pub(crate) fn elapsed(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 0.095 {
        format!("{:.0} us", ms * 1e3)
    } else if ms < 9.95 {
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

/// The number of a partition.
pub(crate) fn parse_partition(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 0);
    number.ok_or_else(|| "partitions have numbers from 0 on".to_owned())
}

/// How many there are to be of something.
pub(crate) fn parse_count(text: &str) -> Result<i32, String> {
    let number = text.parse().ok().filter(|number| *number >= 1);
    number.ok_or_else(|| "it takes a number, 1 or more".to_owned())
}

/// A setting in milliseconds, in words: `7 days`.
pub(crate) fn duration_words(ms: i64) -> String {
    const WORDS: [(i64, &str); 4] =
        [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    match WORDS.iter().find(|(size, _)| ms != 0 && ms % size == 0) {
        Some((size, word)) => counted(ms / size, word),
        None => counted(ms, "millisecond"),
    }
}

/// A value of a setting as people read it, by its unit.
pub(crate) fn setting(value: &str, unit: &str) -> String {
    match (unit, value.parse::<i64>()) {
        ("ms", Ok(ms)) => units::show_milliseconds(ms),
        ("bytes", Ok(size)) => units::show_bytes(size),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        for bad in ["", "s", "30", "-1", "unlimited", "1 week", "1e9", "1.2.3s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown() {
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
