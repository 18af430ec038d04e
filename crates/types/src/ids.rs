//! Ids. Those of 128 bits are random and written as 32 hexadecimal digits everywhere: on disk, on the wire, in
//! folder names.

use std::fmt;
use std::str::FromStr;

/// An id was not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{given}\" is not {digits} hexadecimal digits")]
pub struct ParseIdError {
    what: &'static str,
    given: String,
    digits: usize,
}

fn parse_hex(what: &'static str, given: &str, digits: usize) -> Result<u128, ParseIdError> {
    let malformed = || ParseIdError { what, given: given.chars().take(64).collect(), digits };
    // Lower case only: one id has one name, also as a folder.
    if given.len() != digits || !given.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(malformed());
    }
    u128::from_str_radix(given, 16).map_err(|_| malformed())
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $digits:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                Ok(Self(parse_hex($what, s, $digits)? as $int))
            }
        }
    };
}

hex_id!(
    /// A cluster's id: random, given when it is initialised. What belongs to another cluster is refused.
    ClusterId, u128, 32, "cluster id"
);
hex_id!(
    /// A topic's id. A topic deleted and created again has another, so that nothing of the old one is taken for
    /// the new one's.
    TopicId, u128, 32, "topic id"
);
hex_id!(
    /// A log directory's id: random, given when the directory is first used, kept in it. A restored copy starts
    /// under a new one.
    DirectoryId, u128, 32, "directory id"
);
hex_id!(
    /// Tells two lives of one partition in one directory apart (correctness rule 38).
    Incarnation, u64, 16, "incarnation"
);

/// A broker's id: given by the controller, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BrokerId(pub i32);

impl fmt::Display for BrokerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = TopicId(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Incarnation(u64::MAX).to_string().parse(), Ok(Incarnation(u64::MAX)));
    }

    #[test]
    fn an_id_has_one_spelling() {
        for bad in ["", "ab", "000000000000000000000000000000AB", "+00000000000000000000000000000ab"] {
            let error = bad.parse::<TopicId>().unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }
}
