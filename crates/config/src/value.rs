//! A setting's value, and the types that the roles' structs have for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_types::units;

use crate::{Kind, LogFormat};

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, in bytes or milliseconds where it counts these.
    Number(i64),
    /// Whatever fits the machine.
    Auto,
    /// On or off.
    Switch(bool),
    /// Text, a word, a path, or one address.
    Text(String),
    /// Where to listen.
    Listen(SocketAddr),
    /// Several addresses.
    List(Vec<String>),
}

impl Value {
    /// As it is stored and sent: digits for a number, in the kind's unit.
    pub fn stored(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Auto => "auto".to_owned(),
            Self::Switch(on) => on.to_string(),
            Self::Text(text) => text.clone(),
            Self::Listen(address) => address.to_string(),
            Self::List(list) => list.join(","),
        }
    }

    /// As it would stand in the file.
    pub(crate) fn in_toml(&self, kind: Kind) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match (self, kind) {
            (Self::Number(number), Kind::Bytes(..) | Kind::BytesOrAuto(..)) => {
                quoted(&units::show_bytes(*number))
            }
            (Self::Number(number), Kind::Time(..)) => quoted(&units::show_milliseconds(*number)),
            (Self::Number(_) | Self::Switch(_), _) => self.stored(),
            (Self::Auto | Self::Text(_) | Self::Listen(_), _) => quoted(&self.stored()),
            (Self::List(list), _) => {
                format!("[{}]", list.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// A type that a value can be turned into. `None`: the value is of another kind, or too large for the type.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $expression:expr;)+) => {
        $(impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $expression,
                    _ => None,
                }
            }
        })+
    };
}

from_value! {
    i32: Value::Number(number) => Self::try_from(*number).ok();
    usize: Value::Number(number) => Self::try_from(*number).ok();
    u64: Value::Number(number) => Self::try_from(*number).ok();
    Duration: Value::Number(ms) => u64::try_from(*ms).ok().map(Self::from_millis);
    bool: Value::Switch(on) => Some(*on);
    String: Value::Text(text) => Some(text.clone());
    PathBuf: Value::Text(text) => Some(text.into());
    SocketAddr: Value::Listen(address) => Some(*address);
    Vec<String>: Value::List(list) => Some(list.clone());
    LogFormat: Value::Text(word) => Self::of(word);
}

macro_rules! from_value_or_auto {
    ($($type:ty),+) => {
        $(impl FromValue for Option<$type> {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    Value::Auto => Some(None),
                    other => <$type>::from_value(other).map(Some),
                }
            }
        })+
    };
}

from_value_or_auto!(i32, usize, u64, SocketAddr);

impl FromValue for Option<String> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
            _ => None,
        }
    }
}
