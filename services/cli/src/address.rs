//! Which server: the flag, else `WEIR_SERVER`, else the context, else `localhost:9347`.

use std::fmt;

use weir_client::DEFAULT_PORT;
use weir_types::Endpoint;

use crate::contexts::Contexts;
use crate::error::{Error, Result};

/// A server's address, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Host and port.
    pub endpoint: Endpoint,
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
    /// A broker, by its id: so it tells its clients.
    Broker(i32),
    /// Nobody.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("--server"),
            Self::Environment => f.write_str("WEIR_SERVER"),
            Self::Context(name) => write!(f, "context {name}"),
            Self::Broker(id) => write!(f, "what broker {id} advertises"),
            Self::Default => f.write_str("the default"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
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
    Ok(Address { endpoint: Endpoint::localhost(DEFAULT_PORT), source: Source::Default })
}

/// Reads `HOST` or `HOST:PORT`.
pub(crate) fn parse(text: &str, source: Source) -> Result<Address> {
    match Endpoint::with_default_port(text, DEFAULT_PORT) {
        Ok(endpoint) => Ok(Address { endpoint, source }),
        Err(error) => Err(Error::Usage(format!("the server (from {source}): {error}"))),
    }
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
    fn nonsense_is_refused_with_who_said_it() {
        for bad in ["", "host:x", "http://host:9347"] {
            let error = parse(bad, Source::Environment).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("from WEIR_SERVER"), "{error}");
        }
    }
}
