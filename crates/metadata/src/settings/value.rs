//! What people write for a number of bytes or a length of time, and what is stored for it.

use std::fmt;

use weir_types::units::{bytes, milliseconds};

/// How a setting's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number.
    Count,
    /// Bytes: "1048576", "1MiB", "1GB".
    Bytes,
    /// A length of time, stored in milliseconds: "604800000", "7d", "1h30m".
    Duration,
}

impl Kind {
    /// What the stored number counts: "bytes", "ms", or nothing.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Choice(_) | Self::Count => "",
            Self::Bytes => "bytes",
            Self::Duration => "ms",
        }
    }

    /// The value that `text` means. The error says what would have been understood.
    ///
    /// # Errors
    /// What would have been understood.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        match self {
            Self::Choice(words) => words
                .iter()
                .find(|word| **word == text)
                .map(|word| Value::Word(word))
                .ok_or_else(|| format!("one of {}", words.join(", "))),
            Self::Count => text.parse().map(Value::Number).map_err(|_| "a whole number".to_owned()),
            Self::Bytes => bytes(text).map(Value::Number),
            Self::Duration => milliseconds(text).map(Value::Number),
        }
    }
}

/// A setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// One of a choice.
    Word(&'static str),
    /// A number in the setting's unit; -1 stands for "no limit" where that is allowed.
    Number(i64),
}

impl Value {
    /// The number, or -1 of a word.
    pub fn number(self) -> i64 {
        match self {
            Self::Number(number) => number,
            Self::Word(_) => -1,
        }
    }

    /// The word, or nothing of a number.
    pub fn word(self) -> &'static str {
        match self {
            Self::Word(word) => word,
            Self::Number(_) => "",
        }
    }
}

/// The one form in which a value is stored and sent: a word, or decimal digits.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Number(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_names_its_words() {
        let kind = Kind::Choice(&["fsync", "replicated"]);
        assert_eq!(kind.parse("fsync"), Ok(Value::Word("fsync")));
        assert_eq!(kind.parse("Fsync"), Err("one of fsync, replicated".to_owned()));
    }
}
