//! CSV (RFC 4180): the first row names the columns; each further row is a record, its value the row as it stands
//! in the file, its key one column's content. Rows may hold line ends inside quotes.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{Cutter, Malformed, RECORD_BYTES_MAX, Record, too_long};
use weir_types::nearest;

/// Cuts rows.
#[derive(Debug)]
pub(crate) struct Csv {
    reader: Reader,
    key_column: Option<String>,
    header_seen: bool,
    /// The place of the key among the fields, once the header is read.
    key_index: Option<usize>,
    columns: usize,
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// The line a row begins in, from 1.
    line: u64,
}

/// How far a row reaches.
enum Row {
    Whole {
        bytes: usize,
        fields: usize,
    },
    Partial,
    /// The input is over and a quote is open, in the last of these fields.
    Unclosed {
        fields: usize,
    },
    End,
}

/// What the reader is given.
enum Given {
    Input,
    /// A line end of ours behind the input: it ends every row but one with an open quote.
    LineEnd,
    Nothing,
}

impl Csv {
    /// With the column whose content is the key, if any, and the delimiter.
    pub(crate) fn new(key_column: Option<String>, delimiter: u8) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(delimiter).build(),
            key_column,
            header_seen: false,
            key_index: None,
            columns: 0,
            fields: vec![0; 4096],
            ends: vec![0; 64],
            line: 1,
        }
    }

    /// Reads one row from the start of `input` into `fields` and `ends`.
    fn row(&mut self, input: &[u8], last: bool) -> Row {
        self.reader.reset();
        let (mut written, mut fields) = (0, 0);
        let (mut given, mut rest) = (Given::Input, input);
        loop {
            let result = self.reader.read_record(
                rest,
                self.fields.get_mut(written..).unwrap_or_default(),
                self.ends.get_mut(fields..).unwrap_or_default(),
            );
            let (result, n_in, n_out, n_ends) = result;
            rest = rest.get(n_in..).unwrap_or_default();
            written += n_out;
            fields += n_ends;
            match result {
                ReadRecordResult::InputEmpty => match given {
                    Given::Input if !last => return Row::Partial,
                    Given::Input => (given, rest) = (Given::LineEnd, b"\n"),
                    // An empty input means to this reader that nothing follows.
                    Given::LineEnd | Given::Nothing => given = Given::Nothing,
                },
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => match given {
                    Given::Input => return Row::Whole { bytes: input.len() - rest.len(), fields },
                    Given::LineEnd => return Row::Whole { bytes: input.len(), fields },
                    Given::Nothing => return Row::Unclosed { fields },
                },
                ReadRecordResult::End => return Row::End,
            }
        }
    }

    fn field(&self, index: usize) -> &[u8] {
        let start = match index.checked_sub(1) {
            Some(before) => self.ends.get(before).copied().unwrap_or(0),
            None => 0,
        };
        let end = self.ends.get(index).copied().unwrap_or(start);
        self.fields.get(start..end).unwrap_or_default()
    }

    fn header(&mut self, fields: usize) -> Result<(), Malformed> {
        self.header_seen = true;
        self.columns = fields;
        let Some(wanted) = &self.key_column else { return Ok(()) };
        let names: Vec<String> =
            (0..fields).map(|i| String::from_utf8_lossy(self.field(i)).into_owned()).collect();
        self.key_index = names.iter().position(|name| name == wanted);
        if self.key_index.is_some() {
            return Ok(());
        }
        let hint = match nearest(wanted, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("there are {}", names.join(", ")),
        };
        Err(Malformed { line: self.line, what: format!("no column is called \"{wanted}\"; {hint}") })
    }
}

impl Cutter for Csv {
    fn cut(&mut self, input: &mut BytesMut, last: bool, out: &mut VecDeque<Record>) -> Result<(), Malformed> {
        if !self.header_seen && input.starts_with(b"\xef\xbb\xbf") {
            // A byte order mark, as spreadsheets write it.
            let _ = input.split_to(3);
        }
        // Rows are slices of one piece; what is not whole goes back.
        let mut rest = std::mem::take(input).freeze();
        while !rest.is_empty() {
            match self.row(&rest, last) {
                Row::Whole { bytes, fields } => {
                    let raw = rest.split_to(bytes);
                    // A line feed may follow a carriage return that already ended the row.
                    let text = trim(&raw);
                    if !self.header_seen {
                        self.header(fields)?;
                    } else if fields != self.columns {
                        let what = format!(
                            "{fields} fields, but the header has {}; is a quote or the delimiter wrong?",
                            self.columns
                        );
                        return Err(Malformed { line: self.line, what });
                    } else {
                        let key = self.key_index.map(|i| Bytes::copy_from_slice(self.field(i)));
                        out.push_back(Record { key, value: Some(text), ..Record::default() });
                    }
                    self.line += memchr::memchr_iter(b'\n', &raw).count() as u64;
                }
                Row::Partial => {
                    if rest.len() > RECORD_BYTES_MAX {
                        let what = format!("{}; is a quote never closed?", too_long());
                        return Err(Malformed { line: self.line, what });
                    }
                    break;
                }
                Row::Unclosed { fields } => {
                    // The field goes on from the quote to the end, and to the line end that was added.
                    let ends = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
                    let within = ends(self.field(fields.saturating_sub(1))).saturating_sub(1);
                    let what =
                        "a quote is not closed (a quote within quotes is written twice: \"\")".to_owned();
                    return Err(Malformed { line: (self.line + ends(&rest)).saturating_sub(within), what });
                }
                Row::End => {
                    rest.clear();
                }
            }
        }
        *input = rest.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        Ok(())
    }
}

/// The row without line ends around it.
fn trim(raw: &Bytes) -> Bytes {
    let is_end = |b: &u8| matches!(b, b'\n' | b'\r');
    let start = raw.iter().position(|b| !is_end(b)).unwrap_or(raw.len());
    let end = raw.iter().rposition(|b| !is_end(b)).map_or(start, |i| i + 1);
    raw.slice(start..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::all_ways;

    fn pairs(key: Option<&str>, input: &str) -> Result<Vec<(String, String)>, Malformed> {
        let make = || Box::new(Csv::new(key.map(str::to_owned), b',')) as Box<dyn Cutter>;
        let text = |b: Option<Bytes>| b.map_or("-".to_owned(), |b| String::from_utf8(b.to_vec()).unwrap());
        Ok(all_ways(make, input.as_bytes())?.into_iter().map(|r| (text(r.key), text(r.value))).collect())
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn rows_are_kept_as_they_stand_and_keyed_by_a_column() {
        assert_eq!(
            pairs(Some("carrier"), "id,carrier\n1,UA\r\n2,\"B6\"\n\n3,\n4,AA").unwrap(),
            [pair("UA", "1,UA"), pair("B6", "2,\"B6\""), pair("", "3,"), pair("AA", "4,AA")]
        );
        assert_eq!(pairs(None, "a,b\n1,2\n").unwrap(), [pair("-", "1,2")]);
    }

    #[test]
    fn quotes_hold_delimiters_quotes_and_line_ends() {
        assert_eq!(
            pairs(Some("k"), "k,v\n\"a,\"\"b\nc\",1\nd,\"\n2\"\n").unwrap(),
            [pair("a,\"b\nc", "\"a,\"\"b\nc\",1"), pair("d", "d,\"\n2\"")]
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_name() {
        assert_eq!(pairs(Some("k"), "\u{feff}k,v\n1,2\n").unwrap(), [pair("1", "1,2")]);
    }

    #[test]
    fn an_empty_input_and_a_lone_header_hold_no_records() {
        assert_eq!(pairs(Some("k"), "").unwrap(), []);
        assert_eq!(pairs(Some("k"), "k,v\n").unwrap(), []);
    }

    #[test]
    fn a_quote_that_is_not_closed_names_the_line_it_was_opened_in() {
        for (input, line) in [
            ("a,b\n1,\"x\n2,y\n3,z\n", 2),
            ("a,b\n1,\"x\n2,y\n3,z", 2),
            ("a,b\n1,2\n\n\"3,4\n", 4),
            ("a,b\r\n1,2\r\n\r\n3,\"4\r\n5,6\r\n", 4),
            ("a,b\n\"1\n1\",\"2\n\"\"2\n", 3),
            ("a,b\n1,\"", 2),
            ("a,\"b\n1,2\n", 1),
        ] {
            let error = pairs(None, input).unwrap_err();
            assert_eq!(
                (error.line, error.what.contains("a quote is not closed")),
                (line, true),
                "{input:?}: {error}"
            );
        }
        // What came before is there; a quote that the last line closes is fine.
        let (mut input, mut out) = (BytesMut::from("a,b\n1,2\n3,\"x\n4,y\n"), VecDeque::new());
        assert!(Csv::new(None, b',').cut(&mut input, true, &mut out).is_err());
        assert_eq!(out.len(), 1);
        assert_eq!(pairs(None, "a,b\n1,\"x\ny\"").unwrap(), [pair("-", "1,\"x\ny\"")]);
        assert_eq!(pairs(None, "a,b\n1,x\"y\n").unwrap(), [pair("-", "1,x\"y")]);
    }

    #[test]
    fn mistakes_name_the_line_and_the_way_out() {
        let error = pairs(Some("carier"), "id,carrier\n1,UA\n").unwrap_err();
        assert!(error.to_string().contains("did you mean \"carrier\"?"), "{error}");
        let error = pairs(None, "a,b\n1,2\n1,2,3\n").unwrap_err();
        assert_eq!(error.line, 3);
        assert!(error.what.contains("3 fields"), "{error}");
    }
}
