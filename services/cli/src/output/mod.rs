//! How results are shown: a table for people, JSON or YAML for programs, names for the next command.

mod table;
mod yaml;

use std::io::{self, Write};

use clap::ValueEnum;
use prost::Message;
use serde_json::Value;

pub(crate) use table::{Column, Table};

/// What stands for people where nobody has told; for programs it is null.
pub(crate) const UNKNOWN: &str = "unknown";

/// The form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, or sentences
    #[default]
    Table,
    /// The same with more columns
    Wide,
    /// One object a line, with the API's names
    Json,
    /// The same as YAML
    Yaml,
    /// Names, one a line
    Name,
}

/// A result: for people a table or lines, for programs objects, for the next command names.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// What people see, part by part.
    pub parts: Vec<Part>,
    /// What programs see.
    pub objects: Vec<Value>,
    /// What the next command takes.
    pub names: Vec<String>,
}

/// A part of what people see.
#[derive(Debug)]
pub(crate) enum Part {
    /// A sentence, a line of its own.
    Line(String),
    /// Columns.
    Table(Table),
}

impl View {
    /// One sentence about one thing.
    pub(crate) fn sentence(line: impl Into<String>, name: impl Into<String>, object: Value) -> Self {
        Self { parts: vec![Part::Line(line.into())], objects: vec![object], names: vec![name.into()] }
    }

    /// Adds a sentence for people.
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.parts.push(Part::Line(line.into()));
    }

    /// Adds a table for people.
    pub(crate) fn table(&mut self, table: Table) {
        self.parts.push(Part::Table(table));
    }

    /// Writes it in one form.
    pub(crate) fn write(&self, to: &mut dyn Write, format: Format) -> io::Result<()> {
        match format {
            Format::Table | Format::Wide => self.parts.iter().try_for_each(|part| match part {
                Part::Line(line) => writeln!(to, "{line}"),
                Part::Table(table) => table.write(to, format == Format::Wide),
            }),
            Format::Json => self.objects.iter().try_for_each(|object| writeln!(to, "{object}")),
            Format::Yaml => {
                for (i, object) in self.objects.iter().enumerate() {
                    if i > 0 {
                        writeln!(to, "---")?;
                    }
                    yaml::write(to, object)?;
                }
                Ok(())
            }
            Format::Name => self.names.iter().try_for_each(|name| writeln!(to, "{name}")),
        }
    }
}

/// A message as JSON with the API's names.
pub(crate) fn proto_json(message: &impl Message, name: &str) -> Value {
    crate::reflect::json(message, name)
}

/// Adds a field to an object.
pub(crate) fn set(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_result_in_every_form() {
        let mut table = Table::new(&[Column::left("NAME"), Column::right("SIZE"), Column::left("ID").wide()]);
        table.row(["a", "1 kB", "x1"]);
        table.row(["long-name", "999 MB", "x2"]);
        let view = View {
            parts: vec![Part::Table(table)],
            objects: vec![serde_json::json!({ "name": "a" }), serde_json::json!({ "name": "long-name" })],
            names: vec!["a".into(), "long-name".into()],
        };
        let shown = |format| {
            let mut out = Vec::new();
            view.write(&mut out, format).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(Format::Table), "NAME         SIZE\na            1 kB\nlong-name  999 MB\n");
        assert_eq!(
            shown(Format::Wide),
            "NAME         SIZE  ID\na            1 kB  x1\nlong-name  999 MB  x2\n"
        );
        assert_eq!(shown(Format::Json), "{\"name\":\"a\"}\n{\"name\":\"long-name\"}\n");
        assert_eq!(shown(Format::Yaml), "name: a\n---\nname: long-name\n");
        assert_eq!(shown(Format::Name), "a\nlong-name\n");
    }
}
