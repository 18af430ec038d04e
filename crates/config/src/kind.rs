//! What a setting's value may be, and how people write it.

use std::net::{Ipv4Addr, SocketAddr};

use weir_types::{Endpoint, units};

use crate::Value;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, from the first to the second: "1048576", "1MiB", "1GB".
    Bytes(i64, i64),
    /// Bytes, from the first to the second, or "auto".
    BytesOrAuto(i64, i64),
    /// A length of time, in milliseconds from the first to the second: "500ms", "10s", "1h30m", "7d".
    Time(i64, i64),
    /// A whole number, from the first to the second.
    Count(i64, i64),
    /// A whole number, from the first to the second, or "auto".
    CountOrAuto(i64, i64),
    /// true or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// A file or folder.
    Path,
    /// Where to listen: an address of this machine and a port.
    Listen,
    /// Where to listen, or "auto".
    ListenOrAuto,
    /// Where others connect to: host and port. May be empty.
    Address,
    /// Several of those. In the environment and as a flag separated by commas.
    Addresses,
    /// Several origins of web pages, or * for all. May be empty. Separated as addresses are.
    Origins,
}

impl Kind {
    /// What a stored number counts: "bytes", "ms", or nothing.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Bytes(..) | Self::BytesOrAuto(..) => "bytes",
            Self::Time(..) => "ms",
            _ => "",
        }
    }

    /// What it may be, in a few words, for a table.
    pub(crate) fn brief(self) -> String {
        match self {
            Self::Bytes(min, max) => format!("{} to {}", units::show_bytes(min), units::show_bytes(max)),
            Self::BytesOrAuto(min, max) => format!("{}, auto", Self::Bytes(min, max).brief()),
            Self::Time(min, max) => {
                format!("{} to {}", units::show_milliseconds(min), units::show_milliseconds(max))
            }
            Self::Count(min, max) => format!("{min} to {max}"),
            Self::CountOrAuto(min, max) => format!("{min} to {max}, auto"),
            Self::Switch => "true, false".to_owned(),
            Self::Choice(words) => words.join(", "),
            Self::Text => "text".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Listen => "IP:PORT".to_owned(),
            Self::ListenOrAuto => "IP:PORT, auto".to_owned(),
            Self::Address => "HOST:PORT, or empty".to_owned(),
            Self::Addresses => "HOST:PORT, several".to_owned(),
            Self::Origins => "http(s)://HOST[:PORT], several, or *, or empty".to_owned(),
        }
    }

    /// What is understood, to be put after "is not".
    pub(crate) fn wanted(self) -> String {
        match self {
            Self::Bytes(..) => format!("a number of bytes, {}", self.brief()),
            Self::BytesOrAuto(min, max) => format!("{}, or auto", Self::Bytes(min, max).wanted()),
            Self::Time(..) => format!("a length of time, {}, like 500ms, 10s, 1h30m", self.brief()),
            Self::Count(..) => format!("a whole number, {}", self.brief()),
            Self::CountOrAuto(min, max) => format!("a whole number, {min} to {max}, or auto"),
            Self::Switch => "true or false".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Text => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Listen => {
                "an address of this machine with a port, like 127.0.0.1:9347 or [::]:9347".to_owned()
            }
            Self::ListenOrAuto => format!("{}, or auto", Self::Listen.wanted()),
            Self::Address => "a host with a port, like broker-1.example:9347".to_owned(),
            Self::Addresses => "hosts with ports, separated by commas, like c1:9349, c2:9349".to_owned(),
            Self::Origins => "origins as browsers send them, separated by commas, like https://app.example, \
                 http://localhost:3000; or * for all"
                .to_owned(),
        }
    }

    /// The value that `text` means. The error says what would have been understood.
    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let number = |number: Result<i64, String>, min: i64, max: i64| {
            let within = number.ok().filter(|number| (min..=max).contains(number));
            within.map(Value::Number)
        };
        let value = match self {
            Self::Time(min, max) => number(units::milliseconds(text), min, max),
            Self::BytesOrAuto(..) | Self::CountOrAuto(..) | Self::ListenOrAuto if text == "auto" => {
                Some(Value::Auto)
            }
            Self::Bytes(min, max) | Self::BytesOrAuto(min, max) => number(units::bytes(text), min, max),
            Self::Count(min, max) | Self::CountOrAuto(min, max) => number(plain_number(text), min, max),
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Text => Some(Value::Text(text.to_owned())),
            Self::Path => Some(Value::Text(text.to_owned())).filter(|_| !text.is_empty()),
            Self::Listen | Self::ListenOrAuto => listen(text).map(Value::Listen),
            Self::Address => {
                Some(Value::Text(text.to_owned())).filter(|_| text.is_empty() || is_address(text))
            }
            Self::Addresses => several(text, is_address).map(Value::List),
            Self::Origins => several(text, is_origin).map(Value::List),
        };
        value.ok_or_else(|| self.wanted())
    }
}

fn plain_number(text: &str) -> Result<i64, String> {
    // "1_000" is how TOML lets people write it.
    text.replace('_', "").parse().map_err(|_| String::new())
}

fn listen(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().ok(),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<Endpoint>().is_ok()
}

/// Scheme, host and port, and nothing behind them: what is compared with what a browser sends.
fn is_origin(text: &str) -> bool {
    let Some(place) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return text == "*";
    };
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !place.is_empty() && place.chars().all(|c| lower(c) || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
}

fn several(text: &str, is_one: fn(&str) -> bool) -> Option<Vec<String>> {
    let list: Vec<_> =
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect();
    list.iter().all(|one| is_one(one)).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        let number = Value::Number;
        let text = |text: &str| Value::Text(text.to_owned());
        let cases = [
            (Kind::Bytes(0, 1 << 30), "16MiB", number(16 << 20)),
            (Kind::Time(0, 100_000), " 1m30s ", number(90_000)),
            (Kind::Count(1, 9_999), "1_000", number(1_000)),
            (Kind::CountOrAuto(1, 9), "auto", Value::Auto),
            (Kind::BytesOrAuto(1, 4096), "auto", Value::Auto),
            (Kind::BytesOrAuto(1, 4096), "2KiB", Value::Number(2048)),
            (Kind::CountOrAuto(1, 9), "9", number(9)),
            (Kind::Switch, "true", Value::Switch(true)),
            (Kind::Choice(&["people", "json"]), "json", text("json")),
            (Kind::Text, "", text("")),
            (Kind::Path, "./weir-data", text("./weir-data")),
            (Kind::Origins, "", Value::List(Vec::new())),
            (
                Kind::Origins,
                "https://app.example, http://localhost:3000",
                Value::List(vec!["https://app.example".into(), "http://localhost:3000".into()]),
            ),
            (Kind::Origins, "*", Value::List(vec!["*".into()])),
            (Kind::Listen, "localhost:0", Value::Listen(SocketAddr::from(([127, 0, 0, 1], 0)))),
            (Kind::ListenOrAuto, "auto", Value::Auto),
            (Kind::Listen, "0.0.0.0:9347", Value::Listen(SocketAddr::from(([0, 0, 0, 0], 9_347)))),
            (Kind::Address, "", text("")),
            (Kind::Address, "[::1]:9347", text("[::1]:9347")),
            (Kind::Addresses, "", Value::List(vec![])),
            (Kind::Addresses, "a:1, b-2.c:65535 ,", Value::List(vec!["a:1".into(), "b-2.c:65535".into()])),
        ];
        for (kind, written, expected) in cases {
            assert_eq!(kind.parse(written), Ok(expected), "{kind:?} {written:?}");
        }
    }

    #[test]
    fn what_is_refused_says_what_would_do() {
        let cases = [
            (Kind::Bytes(1 << 10, 1 << 30), "1GB1", "1KiB to 1GiB"),
            (Kind::Bytes(1 << 10, 1 << 30), "1023", "1KiB to 1GiB"),
            (Kind::Bytes(0, 9), "unlimited", "0 to 9"),
            (Kind::Time(1_000, 60_000), "61s", "1s to 1m"),
            (Kind::Count(1, 5), "6", "1 to 5"),
            (Kind::Count(1, 5), "auto", "1 to 5"),
            (Kind::CountOrAuto(1, 5), "automatic", "or auto"),
            (Kind::BytesOrAuto(1, 1024), "1MiB", "1 to 1KiB, or auto"),
            (Kind::Switch, "yes", "true or false"),
            (Kind::Choice(&["a", "b"]), "c", "one of a, b"),
            (Kind::Path, "", "a path"),
            (Kind::Listen, "9347", "127.0.0.1:9347"),
            (Kind::Origins, "app.example", "https://app.example"),
            (Kind::Origins, "https://app.example/", "https://app.example"),
            (Kind::Origins, "https://App.example", "https://app.example"),
            (Kind::Listen, ":9347", "127.0.0.1:9347"),
            (Kind::Listen, "auto", "127.0.0.1:9347"),
            (Kind::ListenOrAuto, "none", "or auto"),
            (Kind::Listen, "example.com:1", "of this machine"),
            (Kind::Address, "example.com", "with a port"),
            (Kind::Address, "example.com:0", "with a port"),
            (Kind::Address, "http://example.com:1", "with a port"),
            (Kind::Address, "[example.com]:1", "with a port"),
            (Kind::Addresses, "a:1,b", "separated by commas"),
        ];
        for (kind, written, wanted) in cases {
            let error = kind.parse(written).unwrap_err();
            assert!(error.contains(wanted), "{kind:?} {written:?}: {error}");
        }
    }
}
