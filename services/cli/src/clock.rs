//! Times of day as people write and read them, in UTC.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// Reads `2026-11-20`, `2026-11-20T10:00`, `2026-11-20T10:00Z`, `2026-11-20T10:00+01:00`; without an offset it is
/// UTC. Milliseconds since 1970.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    let local = match text.parse::<DateTime>() {
        Ok(time) => time,
        Err(_) => text.parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
    };
    local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// Shows milliseconds since 1970 as `2026-11-20T10:00:00.000Z`; what no calendar reaches as the number.
pub(crate) fn show(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(timestamp) => format!("{timestamp:.3}"),
        Err(_) => ms.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_an_offset_are_utc() {
        let ten = 1_795_168_800_000;
        for text in [
            "2026-11-20T10:00Z",
            "2026-11-20T10:00",
            "2026-11-20T10:00:00.000Z",
            "2026-11-20 10:00",
            "2026-11-20T11:00+01:00",
        ] {
            assert_eq!(parse(text), Some(ten), "{text}");
        }
        assert_eq!(parse("2026-11-20"), Some(ten - 10 * 3_600_000));
        assert_eq!(parse("yesterday"), None);
    }

    #[test]
    fn a_time_shown_is_read_back() {
        assert_eq!(show(1_795_168_800_123), "2026-11-20T10:00:00.123Z");
        assert_eq!(parse(&show(1_795_168_800_123)), Some(1_795_168_800_123));
        assert_eq!(show(i64::MAX), i64::MAX.to_string());
    }
}
