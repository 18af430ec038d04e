//! The rules of the public API that buf's lint does not know, held against the compiled protos.

use std::collections::BTreeSet;

use anyhow::Result;
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Names that collide with the language or the runtime in one of the languages we generate for.
const TAKEN_MESSAGES: [&str; 4] = ["Record", "Error", "Message", "ConfigEntry"];
const TAKEN_FIELDS: [&str; 5] = ["from", "in", "global", "import", "class"];

#[test]
fn the_api_keeps_its_rules() -> Result<()> {
    let set = FileDescriptorSet::decode(weir_proto::FILE_DESCRIPTOR_SET)?;
    let public = set.file.iter().filter(|file| file.package() == "weir.v1");
    let wrong: BTreeSet<String> =
        public.clone().flat_map(|file| &file.message_type).flat_map(broken_rules).collect();
    assert_eq!(wrong, BTreeSet::new());
    assert!(public.count() >= 8, "the files of weir.v1 were not looked at");

    for file in set.file.iter().filter(|file| file.package() == "weir.v1") {
        let inner = file.dependency.iter().find(|import| import.starts_with("weir/internal"));
        assert_eq!(inner, None, "{} imports what is internal", file.name());
    }
    Ok(())
}

#[test]
fn each_rule_finds_its_violation() {
    let field = |name: &str, number: i32, kind: Type| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(kind.into()),
        ..Default::default()
    };
    let named = |name: &str, fields: Vec<FieldDescriptorProto>| DescriptorProto {
        name: Some(name.into()),
        field: fields,
        ..Default::default()
    };
    let mut oneof = named("Choice", vec![]);
    oneof.oneof_decl.push(prost_types::OneofDescriptorProto { name: Some("kind".into()), options: None });

    for (message, expected) in [
        (named("Record", vec![]), "Record is a name that is taken in some language"),
        (named("A", vec![field("from", 1, Type::Int32)]), "A.from is a name that is taken in some language"),
        (named("A", vec![field("size", 1, Type::Uint64)]), "A.size: Java has no unsigned integers"),
        (named("A", vec![field("records", 100, Type::Bytes)]), "A: what has a field 100 reserves 101 to max"),
        (named("A", vec![field("b", 101, Type::Bytes)]), "A.b comes after the payload, field 100"),
        (named("A", vec![field("timeout", 1, Type::Int64)]), "A.timeout: times end in _ms"),
        (oneof, "Choice.kind: a oneof is only the frame of a stream"),
    ] {
        assert_eq!(broken_rules(&message), [expected]);
    }
}

fn broken_rules(message: &DescriptorProto) -> Vec<String> {
    let name = message.name();
    let mut wrong = Vec::new();
    if TAKEN_MESSAGES.contains(&name) {
        wrong.push(format!("{name} is a name that is taken in some language"));
    }
    for field in &message.field {
        let shown = format!("{name}.{}", field.name());
        if TAKEN_FIELDS.contains(&field.name()) {
            wrong.push(format!("{shown} is a name that is taken in some language"));
        }
        if matches!(field.r#type(), Type::Uint32 | Type::Uint64 | Type::Fixed64) {
            wrong.push(format!("{shown}: Java has no unsigned integers"));
        }
        if field.number() > 100 {
            wrong.push(format!("{shown} comes after the payload, field 100"));
        }
        let time =
            ["timeout", "deadline", "timestamp", "interval"].iter().any(|word| field.name().ends_with(word));
        if time && matches!(field.r#type(), Type::Int32 | Type::Int64) {
            wrong.push(format!("{shown}: times end in _ms"));
        }
    }
    let has_payload = message.field.iter().any(|field| field.number() == 100);
    if has_payload
        && !message.reserved_range.iter().any(|range| range.start() == 101 && range.end() > 500_000_000)
    {
        wrong.push(format!("{name}: what has a field 100 reserves 101 to max"));
    }
    // `optional` makes a oneof of its own, with an underscore before its name.
    for oneof in message.oneof_decl.iter().filter(|oneof| !oneof.name().starts_with('_')) {
        if oneof.name() != "frame" || !(name.ends_with("StreamRequest") || name.ends_with("StreamResponse")) {
            wrong.push(format!("{name}.{}: a oneof is only the frame of a stream", oneof.name()));
        }
    }
    wrong.extend(message.nested_type.iter().filter(|nested| !is_map(nested)).flat_map(broken_rules));
    wrong
}

fn is_map(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}
