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
    /// Other brokers of the same cluster: asked, in this order, where that one is not there.
    pub others: Vec<Endpoint>,
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

impl Address {
    /// One alone.
    pub(crate) fn alone(endpoint: Endpoint, source: Source) -> Self {
        Self { endpoint, others: Vec::new(), source }
    }

    /// Each of them alone.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> {
        let all = std::iter::once(&self.endpoint).chain(&self.others);
        all.map(|endpoint| Self::alone(endpoint.clone(), self.source.clone()))
    }

    /// The same, this one first.
    pub(crate) fn beginning_with(self, first: &Self) -> Self {
        let others = self.each().map(|one| one.endpoint).filter(|one| *one != first.endpoint).collect();
        Self { endpoint: first.endpoint.clone(), others, ..self }
    }

    /// All of them, as they are written.
    pub(crate) fn list(&self) -> String {
        self.each().map(|one| one.to_string()).collect::<Vec<_>>().join(",")
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
    Ok(Address::alone(Endpoint::localhost(DEFAULT_PORT), Source::Default))
}

/// Reads `HOST` or `HOST:PORT`, or several of them with commas between.
pub(crate) fn parse(text: &str, source: Source) -> Result<Address> {
    let read = text.split(',').map(|one| {
        Endpoint::with_default_port(one.trim(), DEFAULT_PORT)
            .map_err(|error| Error::Usage(format!("the server (from {source}): {error}")))
    });
    let mut read = read.collect::<Result<Vec<_>>>()?.into_iter();
    match read.next() {
        Some(endpoint) => Ok(Address { endpoint, others: read.collect(), source }),
        None => Err(Error::Usage(format!("the server (from {source}) is empty"))),
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
    fn several_brokers_of_a_cluster_are_named_with_commas() {
        let several = parse("a, [::1]:7,b:8", Source::Flag).unwrap();
        assert_eq!(
            (several.to_string(), several.list()),
            ("a:9347".to_owned(), "a:9347,[::1]:7,b:8".to_owned())
        );
        let each: Vec<_> = several.each().map(|one| one.list()).collect();
        assert_eq!(each, ["a:9347", "[::1]:7", "b:8"]);
    }

    #[test]
    fn nonsense_is_refused_with_who_said_it() {
        for bad in ["", "host:x", "http://host:9347", "a:1,", "a:1,,b:1"] {
            let error = parse(bad, Source::Environment).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("from WEIR_SERVER"), "{error}");
        }
    }
}
