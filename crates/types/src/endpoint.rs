//! Where a server is: a host and a port, as people write them and as they are shown.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A host and a port: `localhost:9347`, `10.0.0.7:9347`, `[::1]:9347`. What is shown is read as the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: String,
    port: u16,
}

/// What was written is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an address: {why}; write HOST:PORT, such as localhost:9347 or [::1]:9347")]
pub struct EndpointError {
    text: String,
    why: &'static str,
}

impl Endpoint {
    /// This machine.
    pub fn localhost(port: u16) -> Self {
        Self { host: "localhost".to_owned(), port }
    }

    /// A name or an IP address; an IPv6 one without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; never 0 where people wrote it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Reads `HOST:PORT`, or `HOST` with the port that is meant where none is written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_default_port(text: &str, port: u16) -> Result<Self, EndpointError> {
        read(text, Some(port))
    }

    /// The same where a URL may stand: `http://HOST:PORT/`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_url(text: &str, port: u16) -> Result<Self, EndpointError> {
        match text.strip_prefix("http://") {
            Some(rest) => read(rest.strip_suffix('/').unwrap_or(rest), Some(port)),
            None => read(text, Some(port)),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `HOST:PORT`.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        read(text, None)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No name has a colon.
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn read(text: &str, default_port: Option<u16>) -> Result<Endpoint, EndpointError> {
    let wrong = |why| EndpointError { text: text.to_owned(), why };
    if text.contains("://") {
        return Err(wrong("it begins with a scheme"));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("its bracket is not closed"))?;
            let host: Ipv6Addr =
                host.parse().map_err(|_| wrong("there is no IPv6 address in its brackets"))?;
            let port = match rest.strip_prefix(':') {
                None if !rest.is_empty() => return Err(wrong("after its bracket comes no port")),
                port => port,
            };
            (host.to_string(), port)
        }
        None => {
            let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
            if port.is_some_and(|port| port.contains(':')) {
                // "::1:9347" is an address, too.
                return Err(wrong("an IPv6 address stands in brackets"));
            }
            if host.is_empty() {
                return Err(wrong("it has no host"));
            }
            if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
                return Err(wrong("a host has letters, digits and . - _"));
            }
            (host.to_owned(), port)
        }
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse().ok().filter(|port| *port != 0);
            port.ok_or_else(|| wrong("its port is not from 1 to 65535"))?
        }
        Some(_) => return Err(wrong("its port is no number")),
        None => default_port.ok_or_else(|| wrong("it has no port"))?,
    };
    Ok(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_in_every_form() {
        for (text, shown) in [
            ("localhost:1", "localhost:1"),
            ("10.0.0.7:9347", "10.0.0.7:9347"),
            ("b_1.weir-0.svc:65535", "b_1.weir-0.svc:65535"),
            ("[::1]:9", "[::1]:9"),
            ("[0:0::1]:9", "[::1]:9"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for (text, shown) in [("a.b", "a.b:9347"), ("[::1]", "[::1]:9347"), ("a:1", "a:1")] {
            assert_eq!(Endpoint::with_default_port(text, 9347).unwrap().to_string(), shown);
        }
        for (text, shown) in [("http://a.b:80/", "a.b:80"), ("http://[::1]", "[::1]:9347"), ("a", "a:9347")] {
            assert_eq!(Endpoint::of_url(text, 9347).unwrap().to_string(), shown);
        }
        assert_eq!("[::1]:9".parse::<Endpoint>().unwrap().host(), "::1");
    }

    #[test]
    fn nonsense_is_refused_and_says_what_is_wrong_with_it() {
        for (text, why) in [
            ("", "no host"),
            (":1", "no host"),
            ("localhost", "no port"),
            ("[::1]", "no port"),
            ("localhost:", "not from 1"),
            ("a:0", "not from 1"),
            ("a:70000", "not from 1"),
            ("a:b", "no number"),
            ("a:+1", "no number"),
            ("a:1/", "no number"),
            ("::1", "brackets"),
            ("::1:9347", "brackets"),
            ("[::1:9", "not closed"),
            ("[a]:9", "no IPv6"),
            ("[::1]9", "no port"),
            ("a b:1", "letters"),
            ("a/b:1", "letters"),
            ("u@a:1", "letters"),
            ("http://a:1", "scheme"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(&format!("\"{text}\"")), "{text}: {error}");
            assert!(error.contains("write HOST:PORT"), "{error}");
        }
        assert!(Endpoint::of_url("https://a:1", 9).unwrap_err().to_string().contains("scheme"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_as_the_same(
            name in "[A-Za-z0-9._-]{1,40}", v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), port in 1..=u16::MAX,
        ) {
            let sockets = [SocketAddr::from((v4, port)), SocketAddr::from((v6, port))].map(Endpoint::from);
            for endpoint in [Endpoint { host: name, port }].into_iter().chain(sockets) {
                let shown = endpoint.to_string();
                prop_assert_eq!(&shown.parse::<Endpoint>().unwrap(), &endpoint);
                prop_assert_eq!(&Endpoint::with_default_port(&shown, 1).unwrap(), &endpoint);
                prop_assert_eq!(&Endpoint::of_url(&format!("http://{shown}/"), 1).unwrap(), &endpoint);
            }
        }

        #[test]
        fn whatever_is_written_is_refused_or_shown_as_it_is_meant(text in "[a-c0-9:./\\[\\]@ -]{0,12}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
