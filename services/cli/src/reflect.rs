//! The API's own description, compiled in: names of messages, methods and fields, and JSON for all of them.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    SerializeOptions,
};
use serde_json::Value;

/// Every message and service of the API.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The set was made by the build that made this program; one that does not decode is empty, and a test sees it.
    POOL.get_or_init(|| DescriptorPool::decode(weir_proto::FILE_DESCRIPTOR_SET).unwrap_or_default())
}

/// A message as JSON for programs, the one form of `-o json`: the API's names, every field there (null where there is
/// none), numbers of 64 bits as numbers, values of enums without the name of the enum.
pub(crate) fn json(message: &impl Message, name: &str) -> Value {
    let bytes = message.encode_to_vec();
    pool()
        .get_message_by_name(name)
        .and_then(|descriptor| DynamicMessage::decode(descriptor, bytes.as_slice()).ok())
        .and_then(|message| dynamic_json(&message, true).ok())
        .unwrap_or(Value::Null)
}

/// The same of a dynamic message. `short`: values of enums without the name of the enum, which nothing takes as input.
///
/// Numbers of 64 bits are numbers, not the strings that the protobuf mapping prefers (it accepts both): offsets and
/// times fit a double, and jq can compare them.
pub(crate) fn dynamic_json(message: &DynamicMessage, short: bool) -> Result<Value, serde_json::Error> {
    let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(false);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    Ok(whole(value, &message.descriptor(), short))
}

/// With null for every field that the mapping leaves out.
fn whole(value: Value, message: &MessageDescriptor, short: bool) -> Value {
    // Those of Google have forms of their own.
    let Value::Object(mut fields) = value else { return value };
    let field = |field: FieldDescriptor| {
        let value = fields.remove(field.json_name()).unwrap_or_default();
        (field.json_name().to_owned(), whole_field(value, &field.kind(), short))
    };
    message.fields().map(field).collect()
}

fn whole_field(value: Value, kind: &Kind, short: bool) -> Value {
    match (value, kind) {
        (Value::Array(items), kind) => items.into_iter().map(|item| whole_field(item, kind, short)).collect(),
        // A map: its keys are no names of ours. In order, for a message has none of its own.
        (Value::Object(entries), Kind::Message(message)) if message.is_map_entry() => {
            let kind = message.map_entry_value_field().kind();
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|(one, _), (other, _)| one.cmp(other));
            entries.into_iter().map(|(key, value)| (key, whole_field(value, &kind, short))).collect()
        }
        (value, Kind::Message(message)) => whole(value, message, short),
        (Value::String(name), Kind::Enum(of)) if short => {
            name.strip_prefix(&prefix(of.name())).map_or(Value::String(name.clone()), Value::from)
        }
        (value, _) => value,
    }
}

/// What the values of an enum begin with: `ErrorReason` is `ERROR_REASON_`.
fn prefix(name: &str) -> String {
    let mut prefix = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(c.to_ascii_uppercase());
    }
    prefix + "_"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_there_and_speaks_json() {
        assert!(pool().services().any(|service| service.full_name() == "weir.v1.TopicService"));
        let topic = weir_proto::v1::Topic { name: "a".into(), created_ms: 5, ..Default::default() };
        let topic = json(&topic, "weir.v1.Topic");
        assert_eq!((&topic["name"], &topic["createdMs"]), (&"a".into(), &5.into()));
    }

    #[test]
    fn every_field_is_there_and_enums_are_short() {
        let failure = weir_proto::v1::Failure {
            reason: weir_proto::v1::ErrorReason::NoLeader.into(),
            metadata: [("a_b".to_owned(), "c".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(
            json(&failure, "weir.v1.Failure").to_string(),
            "{\"topic\":\"\",\"partition\":0,\"code\":0,\"reason\":\"NO_LEADER\",\"message\":\"\",\
             \"applied\":\"UNSPECIFIED\",\"retryAfterMs\":null,\"metadata\":{\"a_b\":\"c\"}}"
        );
        let endpoints = ["c", "a", "d", "b"].map(|listener| (listener.to_owned(), "h:1".to_owned()));
        let broker = weir_proto::v1::BrokerDescription { endpoints: endpoints.into(), ..Default::default() };
        let listeners = json(&broker, "weir.v1.BrokerDescription")["endpoints"].clone();
        assert_eq!(listeners.as_object().unwrap().keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        let topic = weir_proto::v1::Topic {
            effective: vec![weir_proto::v1::ConfigValue { source: 1, ..Default::default() }],
            ..Default::default()
        };
        let topic = json(&topic, "weir.v1.Topic");
        assert_eq!(topic["config"], serde_json::json!({}));
        assert_eq!((&topic["effective"][0]["source"], &topic["revision"]), (&"DEFAULT".into(), &0.into()));
        let descriptor = pool().get_message_by_name("weir.v1.Failure").unwrap();
        let message = DynamicMessage::decode(descriptor, failure.encode_to_vec().as_slice()).unwrap();
        assert_eq!(dynamic_json(&message, false).unwrap()["reason"], "ERROR_REASON_NO_LEADER");
    }
}
