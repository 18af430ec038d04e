//! Positions in a log, as `--from` and `--until` take them: `start`, `end`, `N`, `-N`, `@time`, `@-1h`.

use std::fmt;
use std::str::FromStr;

use crate::{clock, units};

/// How a position is written, for help texts.
pub(crate) const FORMS: &str =
    "start, end, an offset, -N (so many before the end), @2026-11-20T10:00Z or @-1h";

/// A position, before anybody has asked where that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// The first record still there.
    Start,
    /// After the last record.
    End,
    /// An offset.
    Offset(i64),
    /// So many records before the end.
    Last(i64),
    /// The first record of this time or later.
    Time(When),
}

impl Position {
    /// Whether it is counted from the end of a partition.
    pub(crate) fn needs_end(self) -> bool {
        matches!(self, Self::End | Self::Last(_))
    }
}

/// A time, fixed or counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Milliseconds since 1970 UTC.
    At(i64),
    /// So many milliseconds ago.
    Ago(i64),
}

impl When {
    /// In milliseconds since 1970 UTC.
    pub(crate) fn resolve(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::Ago(ms) => now_ms.saturating_sub(ms),
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "start" | "earliest" | "beginning" => return Ok(Self::Start),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        if let Some(time) = text.strip_prefix('@') {
            return when(time).map(Self::Time).ok_or_else(|| {
                format!("\"{text}\" is not a time such as @2026-11-20, @2026-11-20T10:00Z or @-1h")
            });
        }
        let wrong = || format!("\"{text}\" is not a position: {FORMS}");
        match text.strip_prefix('-') {
            Some(last) => last.parse().ok().filter(|n| *n >= 0).map(Self::Last).ok_or_else(wrong),
            None => text.parse().ok().filter(|n| *n >= 0).map(Self::Offset).ok_or_else(wrong),
        }
    }
}

fn when(text: &str) -> Option<When> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = units::parse_duration(ago).ok()?;
        return i64::try_from(ago.as_millis()).ok().map(When::Ago);
    }
    // Twelve digits of milliseconds are 1973; fewer are seconds by mistake.
    if text.len() >= 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(When::At);
    }
    clock::parse(text).map(When::At)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Last(n) => write!(f, "-{n}"),
            Self::Time(When::At(ms)) => write!(f, "@{}", clock::show(*ms)),
            Self::Time(When::Ago(ms)) => write!(f, "@-{}", weir_types::units::show_milliseconds(*ms)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        for (text, position) in [
            ("start", Position::Start),
            ("end", Position::End),
            ("0", Position::Offset(0)),
            ("1042", Position::Offset(1042)),
            ("-5", Position::Last(5)),
            ("@2026-11-20T10:00Z", Position::Time(When::At(1_795_168_800_000))),
            ("@1795168800000", Position::Time(When::At(1_795_168_800_000))),
            ("@-1h", Position::Time(When::Ago(3_600_000))),
        ] {
            assert_eq!(text.parse(), Ok(position), "{text}");
            assert_eq!(position.to_string().parse(), Ok(position), "{position}");
        }
    }

    #[test]
    fn what_is_no_position_is_told_the_forms() {
        for bad in ["", "-", "--5", "1.5", "ende", "-x", "99999999999999999999"] {
            let error = bad.parse::<Position>().unwrap_err();
            assert!(error.contains("@-1h"), "{error}");
        }
        for bad in ["@", "@noon", "@1795168800", "@-", "@+1h"] {
            assert!(bad.parse::<Position>().unwrap_err().contains("not a time"), "{bad}");
        }
    }

    #[test]
    fn a_time_ago_is_counted_from_now() {
        assert_eq!(When::Ago(1_000).resolve(5_000), 4_000);
        assert_eq!(When::At(1_000).resolve(5_000), 1_000);
    }
}
