//! Names of topics: what is allowed, and what was meant.

use crate::Error;

/// Longest name of a topic, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Names that begin so are the system's own.
const INTERNAL_PREFIX: &str = "__";

/// Checks the form of a topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, neither "." nor "..".
///
/// # Errors
/// [`Error::TopicNameInvalid`], with what is wrong.
pub(crate) fn check_topic_name(name: &str) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::TopicNameInvalid { name: name.chars().take(64).collect(), why });
    if name.is_empty() {
        return refuse("it is empty".into());
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return refuse(format!("it has {} bytes, at most {TOPIC_NAME_BYTES_MAX} are allowed", name.len()));
    }
    if name == "." || name == ".." {
        return refuse("\".\" and \"..\" mean folders".into());
    }
    match name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(bad) => refuse(format!("{bad:?} is not one of a-z A-Z 0-9 . _ -")),
        None => Ok(()),
    }
}

/// Whether a name is the system's own.
pub fn is_internal(name: &str) -> bool {
    name.starts_with(INTERNAL_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_folder_and_a_url_can_carry() {
        for good in ["a", "flights", "A.b_c-9", "__x", "...", &"x".repeat(249)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "é", "a\0", &"x".repeat(250)] {
            assert!(matches!(check_topic_name(bad), Err(Error::TopicNameInvalid { .. })), "{bad}");
        }
    }
}
