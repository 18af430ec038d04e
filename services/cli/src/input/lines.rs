//! A line is a record; a separator may part key and value. Only the line feed is taken off: a carriage return
//! before it belongs to the value, so that what comes out is what went in.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{Cutter, Malformed, Record, for_each_line};

/// Cuts lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    separator: Option<Vec<u8>>,
    line: u64,
}

impl Lines {
    /// With a separator between key and value, or without keys.
    pub(crate) fn new(separator: Option<Vec<u8>>) -> Self {
        Self { separator, line: 0 }
    }
}

impl Cutter for Lines {
    fn cut(&mut self, input: &mut BytesMut, last: bool, out: &mut VecDeque<Record>) -> Result<(), Malformed> {
        let separator = self.separator.as_deref();
        for_each_line(input, last, &mut self.line, |text, line| {
            out.push_back(record(text, separator, line)?);
            Ok(())
        })
    }
}

fn record(text: Bytes, separator: Option<&[u8]>, line: u64) -> Result<Record, Malformed> {
    let Some(separator) = separator else {
        return Ok(Record { value: Some(text), ..Record::default() });
    };
    let at = memchr::memmem::find(&text, separator).ok_or_else(|| Malformed {
        line,
        what: format!(
            "no key separator \"{}\" in it; without --key-separator lines have no keys",
            separator.escape_ascii()
        ),
    })?;
    Ok(Record {
        key: Some(text.slice(..at)),
        value: Some(text.slice(at + separator.len()..)),
        ..Record::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::all_ways;

    fn values(input: &[u8]) -> Vec<Vec<u8>> {
        let records = all_ways(|| Box::new(Lines::new(None)), input).unwrap();
        records.into_iter().map(|r| r.value.unwrap().to_vec()).collect()
    }

    #[test]
    fn lines_are_kept_byte_for_byte() {
        assert_eq!(values(b""), Vec::<Vec<u8>>::new());
        assert_eq!(values(b"a"), [b"a".to_vec()]);
        assert_eq!(values(b"a\n"), [b"a".to_vec()]);
        assert_eq!(values(b"a\n\n b \r\n\xff"), [b"a".to_vec(), vec![], b" b \r".to_vec(), vec![0xff]]);
    }

    #[test]
    fn a_separator_parts_key_and_value_once() {
        let make = || Box::new(Lines::new(Some(b"::".to_vec()))) as Box<dyn Cutter>;
        let records = all_ways(make, b"k::v::w\n::x\n").unwrap();
        assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(records[0].value.as_deref(), Some(&b"v::w"[..]));
        assert_eq!(records[1].key.as_deref(), Some(&b""[..]));
        let error = all_ways(make, b"k::v\nnone\n").unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.what.contains("\"::\""), "{error}");
    }
}
