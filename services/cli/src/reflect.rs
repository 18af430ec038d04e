//! The API's own description, compiled in: names of messages, methods and fields, and JSON for all of them.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;

/// Every message and service of the API.
pub(crate) fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    // The set was made by the build that made this program; one that does not decode is empty, and a test sees it.
    POOL.get_or_init(|| DescriptorPool::decode(weir_proto::FILE_DESCRIPTOR_SET).unwrap_or_default())
}

/// A message as JSON with the API's names. Numbers of 64 bits are numbers, not the strings that the mapping
/// prefers (it accepts both): offsets and times fit a double, and jq can compare them.
pub(crate) fn json(message: &impl Message, name: &str) -> Value {
    let bytes = message.encode_to_vec();
    pool()
        .get_message_by_name(name)
        .and_then(|descriptor| DynamicMessage::decode(descriptor, bytes.as_slice()).ok())
        .and_then(|message| dynamic_json(&message, true).ok())
        .unwrap_or(Value::Null)
}

/// A dynamic message as JSON.
pub(crate) fn dynamic_json(
    message: &DynamicMessage,
    skip_defaults: bool,
) -> Result<Value, serde_json::Error> {
    let options = SerializeOptions::new().stringify_64_bit_integers(false).skip_default_fields(skip_defaults);
    message.serialize_with_options(serde_json::value::Serializer, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_there_and_speaks_json() {
        assert!(pool().services().any(|service| service.full_name() == "weir.v1.TopicService"));
        let topic = weir_proto::v1::Topic { name: "a".into(), created_ms: 5, ..Default::default() };
        assert_eq!(json(&topic, "weir.v1.Topic"), serde_json::json!({ "name": "a", "createdMs": 5 }));
    }
}
