//! A setting as somebody wrote it, where that was, and the value that came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::value::FromValue;
use crate::{Error, Key, Value};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file, and the line in it.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(variable) => write!(f, "env {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A setting that somebody wrote somewhere.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) key: &'static Key,
    pub(crate) text: String,
    pub(crate) place: Source,
}

impl Given {
    pub(crate) fn resolve(&self) -> Result<Resolved, Error> {
        let value = self.key.kind.parse(&self.text).map_err(|wanted| Error::Invalid {
            key: self.key.name,
            given: self.text.chars().take(100).collect(),
            wanted,
            place: self.place.clone(),
        })?;
        Ok(Resolved { key: self.key, value, source: self.place.clone() })
    }
}

/// A setting with the value in force.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The setting.
    pub key: &'static Key,
    /// The value.
    pub value: Value,
    /// Where it comes from.
    pub source: Source,
}

impl Resolved {
    /// The value that would be in force if nobody had set one, as it is stored and sent.
    pub fn default_stored(&self) -> String {
        // A default that does not parse is found by a test; until then it is shown as it was written.
        self.key.kind.parse(self.key.default).map_or(self.key.default.to_owned(), |value| value.stored())
    }
}

/// The values in force, by name.
#[derive(Clone, Debug)]
pub struct Values(pub(crate) BTreeMap<&'static str, Resolved>);

impl Values {
    /// A value as its field has it.
    pub(crate) fn typed<T: FromValue>(&self, name: &'static str) -> Result<T, Error> {
        let resolved = self.0.get(name);
        resolved.and_then(|resolved| T::from_value(&resolved.value)).ok_or_else(|| Error::Invalid {
            key: name,
            given: resolved.map(|resolved| resolved.value.stored()).unwrap_or_default(),
            wanted: "a value that this machine can hold".to_owned(),
            place: resolved.map_or(Source::Default, |resolved| resolved.source.clone()),
        })
    }
}
