//! `weir call describe`: messages, enums, services and methods as their proto files say it, comments included.

use std::fmt::Write as _;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind};
use prost_reflect::{MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::error::{Error, Result};
use crate::reflect;
use weir_types::nearest;

/// What a name stands for, in the language of proto files.
pub(super) fn describe(name: &str) -> Result<String> {
    let pool = reflect::pool();
    // The package may be left out, and a method may follow its service with a slash.
    let dotted = name.trim_start_matches('/').replace('/', ".");
    for full in [dotted.clone(), format!("weir.v1.{dotted}")] {
        if let Some(message) = pool.get_message_by_name(&full) {
            return Ok(of_message(&message, 0));
        }
        if let Some(values) = pool.get_enum_by_name(&full) {
            return Ok(of_enum(&values));
        }
        if let Some(service) = pool.get_service_by_name(&full) {
            return Ok(of_service(&service));
        }
        let method = full.rsplit_once('.').and_then(|(service, method)| {
            pool.get_service_by_name(service)?.methods().find(|m| m.name() == method)
        });
        if let Some(method) = method {
            // Whoever asks for a method wants to know what goes in and out.
            let (input, output) = (of_message(&method.input(), 0), of_message(&method.output(), 0));
            return Ok(format!("{}\n{input}\n{output}", of_method(&method, 0)));
        }
    }
    let names: Vec<String> = pool
        .all_messages()
        .map(|message| message.name().to_owned())
        .chain(pool.all_enums().map(|values| values.name().to_owned()))
        .chain(pool.services().map(|service| service.name().to_owned()))
        .collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    Err(Error::NotFound(format!("nothing in the API is called \"{name}\"{hint} (weir call list)")))
}

fn of_message(message: &MessageDescriptor, indent: usize) -> String {
    let mut text = comment(&message.parent_file(), message.path(), indent);
    let pad = " ".repeat(indent);
    let _ = writeln!(text, "{pad}message {} {{", message.name());
    let mut within = None;
    for field in message.fields() {
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let name = oneof.as_ref().map(|oneof| oneof.name().to_owned());
        if within != name {
            if within.is_some() {
                let _ = writeln!(text, "{pad}  }}");
            }
            if let Some(name) = &name {
                let _ = writeln!(text, "{pad}  oneof {name} {{");
            }
            within = name;
        }
        text.push_str(&of_field(&field, indent + if within.is_some() { 4 } else { 2 }));
    }
    if within.is_some() {
        let _ = writeln!(text, "{pad}  }}");
    }
    for inner in message.child_messages().filter(|inner| !inner.is_map_entry()) {
        text.push_str(&of_message(&inner, indent + 2));
    }
    let _ = writeln!(text, "{pad}}}");
    text
}

fn of_field(field: &FieldDescriptor, indent: usize) -> String {
    let mut text = comment(&field.parent_message().parent_file(), field.path(), indent);
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let part = |field: FieldDescriptor| kind_name(&field.kind());
            format!("map<{}, {}>", part(entry.map_entry_key_field()), part(entry.map_entry_value_field()))
        }
        kind => kind_name(&kind),
    };
    let label = match field.cardinality() {
        Cardinality::Repeated if !field.is_map() => "repeated ",
        _ if field.field_descriptor_proto().proto3_optional() => "optional ",
        _ => "",
    };
    let _ = writeln!(text, "{:indent$}{label}{kind} {} = {};", "", field.name(), field.number());
    text
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().trim_start_matches("weir.v1.").to_owned(),
        Kind::Enum(values) => values.full_name().trim_start_matches("weir.v1.").to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn of_enum(values: &EnumDescriptor) -> String {
    let mut text = comment(&values.parent_file(), values.path(), 0);
    let _ = writeln!(text, "enum {} {{", values.name());
    for value in values.values() {
        text.push_str(&comment(&values.parent_file(), value.path(), 2));
        let _ = writeln!(text, "  {} = {};", value.name(), value.number());
    }
    text.push_str("}\n");
    text
}

fn of_service(service: &ServiceDescriptor) -> String {
    let mut text = comment(&service.parent_file(), service.path(), 0);
    let _ = writeln!(text, "service {} {{", service.name());
    service.methods().for_each(|method| text.push_str(&of_method(&method, 2)));
    text.push_str("}\n");
    text
}

fn of_method(method: &MethodDescriptor, indent: usize) -> String {
    let mut text = comment(&method.parent_service().parent_file(), method.path(), indent);
    let stream = |yes: bool| if yes { "stream " } else { "" };
    let _ = writeln!(
        text,
        "{:indent$}rpc {}({}{}) returns ({}{});",
        "",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name()
    );
    text
}

/// The comment above a thing in its file.
fn comment(file: &FileDescriptor, path: &[i32], indent: usize) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|location| location.path == path));
    let words = location.and_then(|location| location.leading_comments.as_deref()).unwrap_or_default();
    words.lines().map(|line| format!("{:indent$}// {}\n", "", line.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_as_in_its_file() {
        let text = describe("TopicPartition").unwrap();
        assert_eq!(
            text,
            "// One partition of one topic.\nmessage TopicPartition {\n  // The topic's name.\n  string topic = 1;\n  // The partition's number, from 0.\n  int32 partition = 2;\n}\n"
        );
        let text = describe("weir.v1.Topic").unwrap();
        assert!(text.contains("  map<string, string> config = 5;\n"), "{text}");
        let text = describe("ProduceStreamRequest").unwrap();
        assert!(text.contains("  oneof frame {\n    // First.\n    ProduceHello hello = 1;\n"), "{text}");
    }

    #[test]
    fn enums_services_and_methods_are_shown_too() {
        assert!(describe("Acks").unwrap().contains("  ACKS_ALL = 3;\n"));
        let rpc = "rpc Consume(ConsumeRequest) returns (stream ConsumeResponse);";
        assert!(describe("ConsumerService").unwrap().contains(rpc));
        let method = describe("ConsumerService/Consume").unwrap();
        assert!(method.contains(rpc) && method.contains("message ConsumeResponse {"), "{method}");
        let error = describe("Topik").unwrap_err().to_string();
        assert!(error.contains("did you mean Topic?"), "{error}");
    }
}
