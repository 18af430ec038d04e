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

/// Reads the name of a topic, where a whole topic is meant.
pub(crate) fn parse_topic(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the name of the topic is empty: write it, such as flights".to_owned());
    }
    match text.parse::<Reference>() {
        Ok(Reference { partition: Some(_), topic, .. }) => Err(format!(
            "\"{text}\" is a part of topic {topic}, and this is about whole topics (weir partition describe \
             {topic}/0 shows a partition)"
        )),
        // Whether it is one, and what a name may hold, the server knows.
        _ => Ok(text.to_owned()),
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
    fn a_whole_topic_is_neither_empty_nor_a_partition() {
        assert_eq!(parse_topic("a.b_c-D").as_deref(), Ok("a.b_c-D"));
        assert!(parse_topic("").unwrap_err().contains("topic is empty"));
        for part in ["flights/3", "flights/3@1042"] {
            let error = parse_topic(part).unwrap_err();
            assert!(error.contains(part) && error.contains("whole topics"), "{error}");
        }
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
