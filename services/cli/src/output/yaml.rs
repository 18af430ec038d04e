//! JSON values as YAML. Every JSON string is a YAML string, so only plain words are written without quotes.

use std::io::{self, Write};

use serde_json::Value;

/// Writes one document, without the line that separates documents.
pub(super) fn write(to: &mut dyn Write, value: &Value) -> io::Result<()> {
    match value {
        Value::Object(map) if !map.is_empty() => block(to, value, 0, false),
        Value::Array(items) if !items.is_empty() => block(to, value, 0, false),
        other => writeln!(to, "{}", scalar(other)),
    }
}

/// Writes an object or array with content. `inline`: the first line goes on where the cursor is (after `- `).
fn block(to: &mut dyn Write, value: &Value, indent: usize, mut inline: bool) -> io::Result<()> {
    let mut start = |to: &mut dyn Write| {
        let pad = if std::mem::take(&mut inline) { 0 } else { indent };
        write!(to, "{:pad$}", "")
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                start(to)?;
                write!(to, "{}:", text(name))?;
                if has_content(value) {
                    writeln!(to)?;
                    block(to, value, indent + 2, false)?;
                } else {
                    writeln!(to, " {}", scalar(value))?;
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                start(to)?;
                write!(to, "- ")?;
                if has_content(item) {
                    block(to, item, indent + 2, true)?;
                } else {
                    writeln!(to, "{}", scalar(item))?;
                }
            }
        }
        other => writeln!(to, "{}", scalar(other))?,
    }
    Ok(())
}

fn has_content(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// A string: plain where no reader can take it for anything else.
fn text(string: &str) -> String {
    let plain = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && string.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@'));
    let word = string.to_ascii_lowercase();
    // What some reader of YAML 1.1 takes for a truth value, nothing, or a number.
    let reserved = matches!(
        word.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "null" | "y" | "n" | "inf" | "nan"
    );
    if plain && !reserved { string.to_owned() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_are_indented_and_doubtful_words_are_quoted() {
        let value = serde_json::json!({
            "name": "flights",
            "id": "00ff",
            "on": true,
            "empty": {},
            "none": [],
            "word": "no",
            "text": "a: b\n",
            "partitions": [{ "leader": 1, "isr": [1, 2] }, [3]],
        });
        let mut out = Vec::new();
        write(&mut out, &value).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "name: flights\nid: \"00ff\"\n\"on\": true\nempty: {}\nnone: []\nword: \"no\"\ntext: \"a: b\\n\"\npartitions:\n  - leader: 1\n    isr:\n      - 1\n      - 2\n  - - 3\n"
        );
    }
}
