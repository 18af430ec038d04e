//! How `weir consume` writes a record: a template such as `%p@%o %T %k %v\n`, JSON, or the value alone.
//!
//! One record a few hundred thousand times a second passes here: the template is read once, and a record is
//! written straight into the output.

use std::io::{self, Write};
use std::str::FromStr;

use weir_proto::v1::StoredRecord;

use crate::{clock, output};

/// The directives, for the help text.
pub(crate) const HELP: &str = "\
The format is json (a record a line, as weir produce --json takes it), raw (values, nothing
between them), or a text with
  %t topic   %p partition   %o offset   %r topic/partition@offset   %e leader epoch
  %k key     %v value       %h headers as name=value,name=value
  %T time (2026-11-20T10:00:00.000Z)    %m time in milliseconds since 1970
  %K, %V     length of key and value in bytes, -1 if there is none
  %%  a percent sign;  \\n \\t \\r \\0 \\\\ \\x00 as elsewhere";

/// What a record is written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    /// One JSON object a line, with the API's names.
    Json,
    /// The value's bytes and nothing else.
    Raw,
    /// A template.
    Template(Vec<Piece>),
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes as they are.
    Literal(Vec<u8>),
    /// A field of the record.
    Field(Field),
}

/// A field of a record, as a template names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// `%t`
    Topic,
    /// `%p`
    Partition,
    /// `%o`
    Offset,
    /// `%r`
    Reference,
    /// `%e`
    LeaderEpoch,
    /// `%k`
    Key,
    /// `%v`
    Value,
    /// `%h`
    Headers,
    /// `%T`
    Time,
    /// `%m`
    Milliseconds,
    /// `%K`
    KeyLength,
    /// `%V`
    ValueLength,
}

impl Default for RecordFormat {
    /// The value and a line end.
    fn default() -> Self {
        Self::Template(vec![Piece::Field(Field::Value), Piece::Literal(b"\n".to_vec())])
    }
}

impl FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => return Ok(Self::Json),
            "raw" => return Ok(Self::Raw),
            "" => return Err("the format is empty: json, raw, or a text such as '%p@%o %k %v\\n'".to_owned()),
            _ => {}
        }
        // A word without any directive prints the same for every record, which nobody wants.
        if !text.contains(['%', '\\']) {
            return Err(format!("\"{text}\" is no format: json, raw, or a text such as '%p@%o %k %v\\n'"));
        }
        template(text).map(Self::Template)
    }
}

fn template(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => {
                let field = match chars.next() {
                    Some('%') => {
                        literal.push(b'%');
                        continue;
                    }
                    Some(letter) => field(letter).ok_or_else(|| {
                        format!(
                            "%{letter} is not known; there are %t %p %o %r %e %k %v %h %T %m %K %V and %%"
                        )
                    })?,
                    None => return Err("the format ends with a lone %; %% is a percent sign".to_owned()),
                };
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Field(field));
            }
            '\\' => literal.push(escape(&mut chars)?),
            other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn field(letter: char) -> Option<Field> {
    Some(match letter {
        't' => Field::Topic,
        'p' => Field::Partition,
        'o' => Field::Offset,
        'r' => Field::Reference,
        'e' => Field::LeaderEpoch,
        'k' => Field::Key,
        'v' => Field::Value,
        'h' => Field::Headers,
        'T' => Field::Time,
        'm' => Field::Milliseconds,
        'K' => Field::KeyLength,
        'V' => Field::ValueLength,
        _ => return None,
    })
}

/// The byte that follows a backslash.
fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    Ok(match chars.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2).ok_or_else(|| {
                format!("\\x{digits} is not a byte: write two hexadecimal digits, such as \\x1f")
            })?
        }
        Some(other) => {
            return Err(format!("\\{other} is not known; there are \\n \\t \\r \\0 \\\\ and \\x1f"));
        }
        None => return Err("the text ends with a lone backslash; \\\\ is a backslash".to_owned()),
    })
}

/// A text with escapes as bytes: separators, delimiters.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(escape(&mut chars)?),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(out)
}

impl RecordFormat {
    /// Writes one record.
    pub(crate) fn write(&self, to: &mut impl Write, record: &StoredRecord) -> io::Result<()> {
        match self {
            Self::Json => {
                writeln!(to, "{}", json(record))
            }
            Self::Raw => to.write_all(record.value.as_deref().unwrap_or_default()),
            Self::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Literal(bytes) => to.write_all(bytes)?,
                        Piece::Field(field) => write_field(to, *field, record)?,
                    }
                }
                Ok(())
            }
        }
    }
}

fn write_field(to: &mut impl Write, field: Field, record: &StoredRecord) -> io::Result<()> {
    let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |b| i64::try_from(b.len()).unwrap_or(i64::MAX));
    match field {
        Field::Topic => to.write_all(record.topic.as_bytes()),
        Field::Partition => write!(to, "{}", record.partition),
        Field::Offset => write!(to, "{}", record.offset),
        Field::Reference => write!(to, "{}/{}@{}", record.topic, record.partition, record.offset),
        Field::LeaderEpoch => write!(to, "{}", record.leader_epoch),
        Field::Key => to.write_all(record.key.as_deref().unwrap_or_default()),
        Field::Value => to.write_all(record.value.as_deref().unwrap_or_default()),
        Field::Headers => {
            for (i, header) in record.headers.iter().enumerate() {
                if i > 0 {
                    to.write_all(b",")?;
                }
                to.write_all(header.key.as_bytes())?;
                to.write_all(b"=")?;
                to.write_all(&header.value)?;
            }
            Ok(())
        }
        Field::Time => to.write_all(clock::show(record.timestamp_ms).as_bytes()),
        Field::Milliseconds => write!(to, "{}", record.timestamp_ms),
        Field::KeyLength => write!(to, "{}", length(record.key.as_deref())),
        Field::ValueLength => write!(to, "{}", length(record.value.as_deref())),
    }
}

/// The record as an object: a key or value that is text stands in `keyText` or `valueText`, any other as base64 in
/// `key` or `value`, and where there is none both are null. An empty one is empty in both.
fn json(record: &StoredRecord) -> serde_json::Value {
    let record = as_text(record);
    let mut object = output::proto_json(&record, "weir.v1.StoredRecord");
    for (bytes, text, name) in
        [(&record.key, &record.key_text, "keyText"), (&record.value, &record.value_text, "valueText")]
    {
        // The API has an empty text where there is none.
        if text.is_empty() && bytes.as_ref().is_none_or(|bytes| !bytes.is_empty()) {
            output::set(&mut object, name, serde_json::Value::Null);
        }
    }
    object
}

/// The record with key and value as text where they are text, as the API itself would give them.
fn as_text(record: &StoredRecord) -> StoredRecord {
    let mut record = record.clone();
    for (bytes, text) in
        [(&mut record.key, &mut record.key_text), (&mut record.value, &mut record.value_text)]
    {
        if let Some(utf8) =
            bytes.as_deref().and_then(|b| std::str::from_utf8(b).ok()).filter(|t| !t.is_empty())
        {
            *text = utf8.to_owned();
            *bytes = None;
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_proto::v1::Header;

    fn record() -> StoredRecord {
        StoredRecord {
            topic: "flights".into(),
            partition: 3,
            offset: 1042,
            timestamp_ms: 1_795_168_800_000,
            key: Some("UA".into()),
            value: Some(bytes::Bytes::from_static(b"1,2")),
            headers: vec![
                Header { key: "a".into(), value: "1".into() },
                Header { key: "b".into(), value: "2".into() },
            ],
            leader_epoch: 7,
            ..StoredRecord::default()
        }
    }

    fn shown(format: &str, record: &StoredRecord) -> String {
        let mut out = Vec::new();
        format.parse::<RecordFormat>().unwrap().write(&mut out, record).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_directive_writes_its_field() {
        assert_eq!(shown(r"%p@%o %T %k %v\n", &record()), "3@1042 2026-11-20T10:00:00.000Z UA 1,2\n");
        assert_eq!(
            shown(r"%t|%r|%e|%m|%h|%K|%V|%%\t\x41\\", &record()),
            "flights|flights/3@1042|7|1795168800000|a=1,b=2|2|3|%\tA\\"
        );
        assert_eq!(shown("raw", &record()), "1,2");
    }

    #[test]
    fn what_is_absent_is_empty_with_length_minus_one() {
        let tombstone = StoredRecord { tombstone: true, ..StoredRecord::default() };
        assert_eq!(shown("[%k|%v|%K|%V]", &tombstone), "[||-1|-1]");
    }

    #[test]
    fn the_default_is_the_value_and_a_line_end() {
        let mut out = Vec::new();
        RecordFormat::default().write(&mut out, &record()).unwrap();
        assert_eq!(out, b"1,2\n");
    }

    #[test]
    fn json_has_text_where_it_is_text_and_base64_where_not() {
        let json: serde_json::Value = serde_json::from_str(&shown("json", &record())).unwrap();
        assert_eq!(json["keyText"], "UA");
        assert_eq!(json["valueText"], "1,2");
        assert_eq!(json["offset"], 1042);
        assert_eq!(json["timestampMs"], 1_795_168_800_000_i64);
        let binary = StoredRecord { value: Some(vec![0xff, 0].into()), ..StoredRecord::default() };
        let json: serde_json::Value = serde_json::from_str(&shown("json", &binary)).unwrap();
        assert_eq!(json["value"], "/wA=");
        assert_eq!((&json["partition"], &json["offset"]), (&0.into(), &0.into()));
    }

    #[test]
    fn json_has_null_for_a_key_or_value_that_is_not_there() {
        let of = |record: &StoredRecord| -> serde_json::Value {
            serde_json::from_str(&shown("json", record)).unwrap()
        };
        let fields = |record: &StoredRecord| {
            let json = of(record);
            ["key", "keyText", "value", "valueText"].map(|name| json[name].clone())
        };
        let null = serde_json::Value::Null;
        let no_key = StoredRecord { key: None, ..record() };
        assert_eq!(fields(&no_key), [null.clone(), null.clone(), null.clone(), "1,2".into()]);
        let tombstone = StoredRecord { value: None, tombstone: true, ..record() };
        assert_eq!(fields(&tombstone), [null.clone(), "UA".into(), null.clone(), null.clone()]);
        let binary = StoredRecord { key: Some(vec![0xff, 0].into()), ..record() };
        assert_eq!(fields(&binary), ["/wA=".into(), null.clone(), null, "1,2".into()]);
        // An empty one is there, and says so in both.
        let empty = StoredRecord { key: Some("".into()), value: Some("".into()), ..record() };
        assert_eq!(fields(&empty), [""; 4].map(serde_json::Value::from));
    }

    #[test]
    fn mistakes_are_told_what_there_is() {
        for (bad, hint) in [
            ("%z", "%T"),
            ("%", "%%"),
            ("\\q", "\\n"),
            ("x\\", "\\\\"),
            ("\\xg1", "\\x1f"),
            ("jsn", "json"),
            ("", "raw"),
        ] {
            let error = bad.parse::<RecordFormat>().unwrap_err();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
}
