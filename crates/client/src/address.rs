//! Where a broker is: `host:port`.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The port of the public API where none is said.
pub const DEFAULT_PORT: u16 = 9347;

/// A host and a port. IPv6 addresses stand in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::invalid(format!("\"{text}\" is not an address: write host:port"));
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let (host, port) = if let Some(rest) = bare.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(malformed)?;
            (host, after.strip_prefix(':'))
        } else {
            match bare.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(malformed()),
                Some((host, port)) => (host, Some(port)),
                None => (bare, None),
            }
        };
        if host.is_empty() || host.contains(['/', ' ', '@']) {
            return Err(malformed());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| malformed())?,
            None => DEFAULT_PORT,
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_every_form() {
        for (text, shown) in [
            ("localhost:1", "localhost:1"),
            ("localhost", "localhost:9347"),
            ("http://a.b:80/", "a.b:80"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:9347"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", ":1", "a:b", "a:70000", "::1", "a/b:1", "[::1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
