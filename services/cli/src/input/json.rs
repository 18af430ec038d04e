//! JSON lines: one object a line, the API's `NewRecord`: `{"keyText": "k", "valueText": "v", "headers": []}`.
//! What `weir consume -f json` writes is taken as it is: where a record was is left out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::{Map, Value};
use weir_proto::v1::NewRecord;

use super::{Cutter, Malformed, Record, for_each_line};
use crate::reflect;

/// What a record that was read says of where it was.
const PLACE: [&str; 6] = ["topic", "partition", "offset", "leaderEpoch", "leader_epoch", "kind"];

/// Cuts lines of JSON.
#[derive(Debug)]
pub(crate) struct Json {
    message: MessageDescriptor,
    line: u64,
}

impl Json {
    /// One for a whole input. `None`: the API's description lacks the message, which a test rules out.
    pub(crate) fn new() -> Option<Self> {
        Some(Self { message: reflect::pool().get_message_by_name("weir.v1.NewRecord")?, line: 0 })
    }
}

impl Cutter for Json {
    fn cut(&mut self, input: &mut BytesMut, last: bool, out: &mut VecDeque<Record>) -> Result<(), Malformed> {
        let message = &self.message;
        for_each_line(input, last, &mut self.line, |text, line| {
            if text.iter().all(u8::is_ascii_whitespace) {
                return Ok(());
            }
            out.push_back(record(message, &text).map_err(|what| Malformed { line, what })?);
            Ok(())
        })
    }
}

fn record(message: &MessageDescriptor, text: &[u8]) -> Result<Record, String> {
    let mut value: Value = serde_json::from_slice(text)
        .map_err(|error| format!("not a JSON object: {error} (one object a line)"))?;
    let Some(object) = value.as_object_mut() else {
        return Err("not a JSON object: write {\"keyText\": \"k\", \"valueText\": \"v\"}".to_owned());
    };
    for name in PLACE {
        object.remove(name);
    }
    let (empty_key, empty_value) = (is_empty_text(object, "key"), is_empty_text(object, "value"));
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(message.clone(), value, &options).map_err(|error| {
        format!("{error}; a record has key or keyText, value or valueText, headers, timestampMs, tombstone (key and value in base64)")
    })?;
    let record: NewRecord = message.transcode_to().map_err(|error| error.to_string())?;
    let key = one_of(record.key, record.key_text, "key")?.or(empty_key.then(Bytes::new));
    let value = one_of(record.value, record.value_text, "value")?.or(empty_value.then(Bytes::new));
    match (&value, record.tombstone) {
        (None, false) => return Err("no value; write \"tombstone\": true if that is meant".to_owned()),
        (Some(_), true) => return Err("both a value and tombstone: choose one".to_owned()),
        _ => {}
    }
    let headers = record.headers.into_iter().map(|header| (header.key, header.value)).collect();
    Ok(Record { key, value, headers, timestamp_ms: record.timestamp_ms })
}

/// Whether an empty text is given, which is an empty key or value and not none. Where the bytes are named too they
/// decide: `weir consume` names both, and null bytes with an empty text are what was not there.
fn is_empty_text(object: &Map<String, Value>, name: &str) -> bool {
    let texts = [format!("{name}Text"), format!("{name}_text")];
    !object.contains_key(name) && texts.iter().any(|text| object.get(text).is_some_and(|given| given == ""))
}

fn one_of(bytes: Option<Bytes>, text: String, name: &str) -> Result<Option<Bytes>, String> {
    match (bytes, text.is_empty()) {
        (Some(_), false) => Err(format!("both {name} and {name}Text: choose one")),
        (None, false) => Ok(Some(Bytes::from(text))),
        (bytes, true) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::all_ways;

    fn records(input: &str) -> Result<Vec<Record>, Malformed> {
        all_ways(|| Box::new(Json::new().unwrap()), input.as_bytes())
    }

    #[test]
    fn text_and_base64_headers_and_time() {
        let read = records(
            "{\"keyText\":\"k\",\"valueText\":\"v\",\"headers\":[{\"key\":\"h\",\"value\":\"eA==\"}],\"timestampMs\":5}\n\n{\"value\":\"/wA=\"}\n{\"key_text\":\"k\",\"tombstone\":true}",
        )
        .unwrap();
        assert_eq!(read[0].key.as_deref(), Some(&b"k"[..]));
        assert_eq!(read[0].headers, [("h".to_owned(), Bytes::from_static(b"x"))]);
        assert_eq!(read[0].timestamp_ms, Some(5));
        assert_eq!(read[1].value.as_deref(), Some(&[0xff, 0][..]));
        assert_eq!((&read[2].value, read[2].timestamp_ms), (&None, None));
    }

    #[test]
    fn what_consume_writes_is_taken() {
        let line = "{\"topic\":\"t\",\"partition\":1,\"offset\":\"7\",\"timestampMs\":9,\"valueText\":\"v\",\"leaderEpoch\":2}";
        let read = records(line).unwrap();
        assert_eq!((read[0].timestamp_ms, read[0].value.as_deref()), (Some(9), Some(&b"v"[..])));
    }

    #[test]
    fn an_empty_text_is_there_and_what_consume_says_was_not_there_is_not() {
        let empty = Some(Bytes::new());
        for (line, key, value) in [
            ("{\"keyText\":\"\",\"valueText\":\"a\"}", &empty, &Some(Bytes::from("a"))),
            ("{\"key_text\":\"\",\"value_text\":\"\"}", &empty, &empty),
            ("{\"valueText\":\"\"}", &None, &empty),
            ("{\"keyText\":null,\"valueText\":\"\"}", &None, &empty),
            ("{\"key\":\"\",\"keyText\":\"\",\"value\":\"\",\"valueText\":\"\"}", &empty, &empty),
            ("{\"key\":null,\"keyText\":\"\",\"value\":\"\",\"valueText\":\"\"}", &None, &empty),
            (
                "{\"key\":null,\"keyText\":\"\",\"value\":null,\"valueText\":\"\",\"tombstone\":true}",
                &None,
                &None,
            ),
        ] {
            let read = records(line).unwrap();
            assert_eq!((&read[0].key, &read[0].value), (key, value), "{line}");
        }
        let error = records("{\"valueText\":\"\",\"tombstone\":true}").unwrap_err();
        assert!(error.what.contains("choose one"), "{error}");
    }

    #[test]
    fn mistakes_name_the_line_and_the_way_out() {
        for (bad, hint) in [
            ("hello", "one object a line"),
            ("[1]", "valueText"),
            ("{}", "tombstone"),
            ("{\"valu\":\"x\"}", "valueText"),
            ("{\"value\":\"not base64!\"}", "base64"),
            ("{\"value\":\"eA==\",\"valueText\":\"x\"}", "choose one"),
            ("{\"valueText\":\"x\",\"tombstone\":true}", "choose one"),
        ] {
            let error = records(&format!("{{\"valueText\":\"ok\"}}\n{bad}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{bad}");
            assert!(error.what.contains(hint), "{bad}: {error}");
        }
    }
}
