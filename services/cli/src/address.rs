//! Which server: the flag, else `WEIR_SERVER`, else the context, else `localhost:9347`.

use std::fmt;

use crate::contexts::Contexts;
use crate::error::{Error, Result};

/// The port of the public API.
pub(crate) const DEFAULT_PORT: u16 = 9347;

/// A server's address, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// A host name or IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who named it.
    pub source: Source,
}

/// Who named an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `--server`.
    Flag,
    /// `WEIR_SERVER`.
    Environment,
    /// A context, by its name.
    Context(String),
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--server"),
            Self::Environment => f.write_str("WEIR_SERVER"),
            Self::Context(name) => write!(f, "context {name}"),
            Self::Default => f.write_str("the default"),
        }
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

/// Finds the address. A context that was asked for by name goes before the environment.
pub(crate) fn resolve(
    flag: Option<&str>,
    environment: Option<&str>,
    context: Option<&str>,
    contexts: &Contexts,
) -> Result<Address> {
    if let Some(text) = flag {
        return parse(text, Source::Flag);
    }
    if let Some(name) = context {
        return parse(&contexts.get(name)?.server, Source::Context(name.to_owned()));
    }
    if let Some(text) = environment.filter(|text| !text.is_empty()) {
        return parse(text, Source::Environment);
    }
    if let Some(name) = &contexts.current {
        return parse(&contexts.get(name)?.server, Source::Context(name.clone()));
    }
    Ok(Address { host: "localhost".to_owned(), port: DEFAULT_PORT, source: Source::Default })
}

/// Reads `HOST`, `HOST:PORT`, `[IPV6]:PORT`.
pub(crate) fn parse(text: &str, source: Source) -> Result<Address> {
    let wrong = |why: &str| {
        let who = &source;
        Error::Usage(format!(
            "the server \"{text}\" (from {who}) {why}: write HOST:PORT, such as localhost:9347"
        ))
    };
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(wrong(&format!("begins with {scheme}://")));
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("has no closing bracket"))?;
        (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")))
    } else {
        match text.split_once(':') {
            // Several colons and no brackets: an IPv6 address without a port.
            Some((_, rest)) if rest.contains(':') => (text, Some("")),
            Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
            None => (text, Some("")),
        }
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err(wrong("has no host name"));
    }
    let port = match port {
        Some("") => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong("has no port number"))?,
        None => return Err(wrong("has no port number")),
    };
    Ok(Address { host: host.to_owned(), port, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::Context;

    fn contexts() -> Contexts {
        let mut contexts = Contexts::default();
        contexts.contexts.insert("prod".to_owned(), Context { server: "weir.example:443".to_owned() });
        contexts.contexts.insert("here".to_owned(), Context { server: "127.0.0.1".to_owned() });
        contexts
    }

    #[test]
    fn the_nearer_word_wins() {
        let mut known = contexts();
        let found = |flag, env, context, known: &Contexts| {
            let address = resolve(flag, env, context, known).unwrap();
            (address.to_string(), address.source.to_string())
        };
        let is = |a: &str, s: &str| (a.to_owned(), s.to_owned());
        assert_eq!(found(None, None, None, &known), is("localhost:9347", "the default"));
        known.current = Some("here".to_owned());
        assert_eq!(found(None, None, None, &known), is("127.0.0.1:9347", "context here"));
        assert_eq!(found(None, Some("b:1"), None, &known), is("b:1", "WEIR_SERVER"));
        assert_eq!(found(None, Some("b:1"), Some("prod"), &known), is("weir.example:443", "context prod"));
        assert_eq!(found(Some("a"), Some("b:1"), Some("prod"), &known), is("a:9347", "--server"));
    }

    #[test]
    fn ipv6_is_written_as_everywhere() {
        for (text, shown) in
            [("[::1]:9000", "[::1]:9000"), ("::1", "[::1]:9347"), ("[fe80::1]", "[fe80::1]:9347")]
        {
            assert_eq!(parse(text, Source::Flag).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nonsense_is_refused_with_who_said_it() {
        for bad in
            ["", ":9347", "host:", "host:x", "host:0", "host:70000", "http://host:9347", "[::1", "a b:1"]
        {
            let error = parse(bad, Source::Environment).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("from WEIR_SERVER"), "{error}");
        }
    }
}
