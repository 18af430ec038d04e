//! Records from a file or a pipe: lines, CSV, JSON. Read and cut in large pieces; keys and values are slices of
//! what was read.

mod csv;
mod json;
mod lines;
mod reader;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

pub(crate) use csv::Csv;
pub(crate) use json::Json;
pub(crate) use lines::Lines;
pub(crate) use reader::{Batch, read};

/// The longest record that is looked for the end of, in bytes: no topic allows larger batches.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// A record as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Name and value, in order.
    pub headers: Vec<(String, Bytes)>,
    /// Milliseconds since 1970, if the record says when.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// The length of its value.
    pub(crate) fn value_bytes(&self) -> u64 {
        self.value.as_ref().map_or(0, |value| value.len() as u64)
    }
}

/// Why the input is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Malformed {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// Cuts input into records.
pub(crate) trait Cutter: Send {
    /// Takes whole records from the front of `input`, leaving what is not whole yet. `last`: nothing follows.
    fn cut(&mut self, input: &mut BytesMut, last: bool, out: &mut VecDeque<Record>) -> Result<(), Malformed>;
}

/// Takes whole lines from the front, without their line feeds, and gives each to `each` with its number.
fn for_each_line(
    input: &mut BytesMut,
    last: bool,
    line: &mut u64,
    mut each: impl FnMut(Bytes, u64) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    // Everything up to the last line feed is whole: one split, then slices that share it.
    let whole = match memchr::memrchr(b'\n', input) {
        Some(end) => end + 1,
        None if last => input.len(),
        None if input.len() > RECORD_BYTES_MAX => {
            return Err(Malformed { line: *line + 1, what: too_long() });
        }
        None => return Ok(()),
    };
    let whole = if last { input.len() } else { whole };
    let text = input.split_to(whole).freeze();
    let mut start = 0;
    while start < text.len() {
        let rest = text.get(start..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest).map_or(text.len(), |i| start + i);
        *line += 1;
        each(text.slice(start..end), *line)?;
        start = end + 1;
    }
    Ok(())
}

fn too_long() -> String {
    "longer than 64 MiB, which no topic takes; is this the right format? (weir produce --help)".to_owned()
}

/// All records of an input, cut in pieces of every size: for tests.
#[cfg(test)]
fn all_ways(make: impl Fn() -> Box<dyn Cutter>, input: &[u8]) -> Result<Vec<Record>, Malformed> {
    let run = |piece: usize| {
        let (mut cutter, mut buffer, mut out) = (make(), BytesMut::new(), VecDeque::new());
        for part in input.chunks(piece) {
            buffer.extend_from_slice(part);
            cutter.cut(&mut buffer, false, &mut out)?;
        }
        cutter.cut(&mut buffer, true, &mut out)?;
        assert!(buffer.is_empty(), "input is left");
        Ok::<_, Malformed>(out.into_iter().collect::<Vec<_>>())
    };
    let whole = run(input.len().max(1));
    for piece in 1..input.len() {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
    whole
}
