//! How topics, partitions and records are named: `flights`, `flights/3`, `flights/3@1042`.

use std::fmt;
use std::str::FromStr;

/// A topic, one of its partitions, or one of its records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: Option<i32>,
    /// The record; only with a partition.
    pub offset: Option<i64>,
}

impl Reference {
    /// One record.
    pub(crate) fn record(topic: &str, partition: i32, offset: i64) -> Self {
        Self { topic: topic.to_owned(), partition: Some(partition), offset: Some(offset) }
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("\"{text}\" {what}: write flights, flights/3 (partition) or flights/3@1042 (record)")
        };
        let (place, offset) = match text.split_once('@') {
            Some((place, offset)) => {
                let offset: Option<i64> = offset.parse().ok().filter(|n| *n >= 0);
                (place, Some(offset.ok_or_else(|| wrong("has no number after the @"))?))
            }
            None => (text, None),
        };
        let (topic, partition) = match place.split_once('/') {
            Some((topic, number)) => {
                let number: Option<i32> = number.parse().ok().filter(|n| *n >= 0);
                (topic, Some(number.ok_or_else(|| wrong("has no number after the /"))?))
            }
            None => (place, None),
        };
        if topic.is_empty() {
            return Err(wrong("has no topic"));
        }
        if partition.is_none() && offset.is_some() {
            return Err(wrong("has an offset but no partition"));
        }
        Ok(Self { topic: topic.to_owned(), partition, offset })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, "/{partition}")?;
        }
        if let Some(offset) = self.offset {
            write!(f, "@{offset}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_written() {
        for text in ["flights", "flights/3", "flights/3@1042", "a.b_c-D/0@0"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let record: Reference = "flights/3@1042".parse().unwrap();
        assert_eq!((record.partition, record.offset), (Some(3), Some(1042)));
    }

    #[test]
    fn what_is_none_of_them_is_told_how() {
        for bad in
            ["", "/3", "flights/", "flights/x", "flights/-1", "flights@3", "flights/3@", "flights/3@-1"]
        {
            assert!(bad.parse::<Reference>().unwrap_err().contains("flights/3@1042"), "{bad}");
        }
    }
}
