//! One setting: what it is called, what it may be, what it does.

use weir_types::nearest;

use crate::Error;
use crate::settings::{Kind, Value};
use weir_types::units::{show_bytes, show_milliseconds};

/// A row of a table of settings. Validation, replies and the generated documentation all read the same rows.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// How its value is written.
    pub kind: Kind,
    /// The value if nobody sets one, as a person would write it.
    pub default: &'static str,
    /// The least number allowed (not for choices).
    pub min: i64,
    /// The greatest number allowed (not for choices).
    pub max: i64,
    /// Whether -1, "unlimited", is allowed beside `min..=max`.
    pub unlimited: bool,
    /// Words that are understood but not built yet, each with what is missing.
    pub not_yet: &'static [&'static str],
    /// What it does, in a sentence.
    pub help: &'static str,
    /// Whether a change works only after a restart.
    pub needs_restart: bool,
    /// Whether it is decided when the topic is made and never changes after.
    pub fixed_at_creation: bool,
    /// Whether the cluster's value is copied into a topic when it is made: a later change of the cluster's value
    /// does not reach topics that exist.
    pub copied_at_creation: bool,
}

impl Key {
    /// What most settings are; rows name what differs.
    pub(crate) const BASE: Self = Self {
        name: "",
        kind: Kind::Count,
        default: "",
        min: 0,
        max: i64::MAX,
        unlimited: false,
        not_yet: &[],
        help: "",
        needs_restart: false,
        fixed_at_creation: false,
        copied_at_creation: false,
    };

    /// What the stored value counts: "bytes", "ms", or nothing.
    pub fn unit(&self) -> &'static str {
        self.kind.unit()
    }

    /// The default as a value.
    pub fn default_value(&self) -> Value {
        self.parse(self.default).unwrap_or(Value::Number(-1))
    }

    /// The value that `text` means, within the limits.
    ///
    /// # Errors
    /// [`Error::ConfigInvalid`], with what would have been taken.
    pub fn parse(&self, text: &str) -> Result<Value, Error> {
        let invalid = |wanted: String| Error::ConfigInvalid {
            name: self.name.to_owned(),
            value: text.chars().take(64).collect(),
            wanted,
        };
        if self.not_yet.contains(&text.trim()) {
            return Err(Error::NotBuiltYet { what: format!("{} = {}", self.name, text.trim()) });
        }
        let value = self.kind.parse(text).map_err(invalid)?;
        if let Value::Number(number) = value {
            let unlimited = self.unlimited && number == -1;
            if !unlimited && !(self.min..=self.max).contains(&number) {
                return Err(invalid(self.range()));
            }
        }
        Ok(value)
    }

    /// What the value may be, as people write it.
    pub fn range(&self) -> String {
        let shown = |number: i64| match self.kind {
            Kind::Bytes => show_bytes(number),
            Kind::Duration => show_milliseconds(number),
            Kind::Count | Kind::Choice(_) => number.to_string(),
        };
        let unlimited = if self.unlimited { ", or unlimited" } else { "" };
        match self.kind {
            Kind::Choice(words) => words.join(", "),
            _ if self.max == i64::MAX => format!("from {}{unlimited}", shown(self.min)),
            _ => format!("{} to {}{unlimited}", shown(self.min), shown(self.max)),
        }
    }
}

/// The row of a name; the error offers the nearest one.
pub(crate) fn find(table: &'static [Key], name: &str) -> Result<&'static Key, Error> {
    table.iter().find(|key| key.name == name).ok_or_else(|| Error::ConfigUnknown {
        name: name.chars().take(64).collect(),
        nearest: nearest(name, table.iter().map(|key| key.name)).map(str::to_owned),
    })
}
