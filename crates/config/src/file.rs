//! Settings in a file: TOML, all at the top level, each with the line it stands on.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::given::{Given, Source};
use crate::{Error, Role, Standalone, all_keys};

/// The settings in the file `path`, which holds `text`.
pub(crate) fn settings(path: &Path, text: &str) -> Result<Vec<Given>, Error> {
    let line_of =
        |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    let wrong = |line: usize, what: String| Error::File { path: path.to_owned(), line, what };
    let table = DeTable::parse(text)
        .map_err(|e| wrong(e.span().map_or(1, line_of), e.message().to_lowercase()))?
        .into_inner();

    let mut settings = Vec::new();
    for (name, value) in &table {
        let line = line_of(name.span());
        let place = Source::File(path.to_owned(), line);
        let name: &str = name.get_ref();
        if let (DeValue::Table(_), true) = (value.get_ref(), is_section(name)) {
            return Err(wrong(line, format!("settings stand at the top level: leave out the line [{name}]")));
        }
        let Some(key) = all_keys().find(|key| key.name == name) else {
            let nearest = weir_types::nearest(name, all_keys().map(|key| key.name)).map(str::to_owned);
            return Err(Error::Unknown { name: name.to_owned(), place, nearest });
        };
        let Some(text) = written(value) else {
            let given = text.get(value.span()).unwrap_or_default().to_owned();
            return Err(Error::Invalid { key: key.name, given, wanted: key.kind.wanted(), place });
        };
        settings.push(Given { key, text, place });
    }
    // Tables are sorted by name; people read from the top.
    settings.sort_by_key(|given| match given.place {
        Source::File(_, line) => line,
        _ => 0,
    });
    Ok(settings)
}

fn is_section(name: &str) -> bool {
    Standalone::SECTIONS.iter().any(|section| section.title == name) || name == Standalone::NAME
}

/// A value as it would be written in the environment; `None` for what no setting can be.
fn written(value: &Spanned<DeValue<'_>>) -> Option<String> {
    match value.get_ref() {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Array(list) => {
            let texts = list.iter().map(|one| match one.get_ref() {
                DeValue::String(text) => Some(text.as_ref()),
                _ => None,
            });
            texts.collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(&'static str, String, String)>, String> {
        let settings = settings(Path::new("weir.toml"), text).map_err(|e| e.to_string())?;
        Ok(settings.into_iter().map(|given| (given.key.name, given.text, given.place.to_string())).collect())
    }

    #[test]
    fn each_setting_knows_its_line() {
        let text = "# a comment\n\nrack = \"b\"\nbootstrap = true\ncontrollers = [\n  \"a:1\",\n  \"b:2\"\n]\nconnections_max = 1_000\n";
        let expected = [
            ("rack", "b", "weir.toml:3"),
            ("bootstrap", "true", "weir.toml:4"),
            ("controllers", "a:1,b:2", "weir.toml:5"),
            ("connections_max", "1000", "weir.toml:9"),
        ];
        let expected: Vec<_> =
            expected.iter().map(|(k, v, p)| (*k, (*v).to_owned(), (*p).to_owned())).collect();
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases = [
            (
                "rack = \"b\"\nlisen = \"x\"",
                "weir.toml:2: there is no setting \"lisen\"; did you mean \"listen\"?",
            ),
            (
                "frobnicate = 1",
                "weir.toml:1: there is no setting \"frobnicate\"; docs/configuration.md lists them",
            ),
            (
                "\n[broker]\nrack = \"b\"",
                "weir.toml:2: settings stand at the top level: leave out the line [broker]",
            ),
            ("rack = 1.5", "weir.toml:1: rack = \"1.5\" is not text"),
            ("controllers = [1]", "weir.toml:1: controllers = \"[1]\" is not hosts"),
            ("rack = \"a\"\nrack = \"b\"", "weir.toml:2: duplicate key"),
            ("rack = ", "weir.toml:1: "),
            ("a.b = 1", "weir.toml:1: there is no setting \"a\""),
        ];
        for (text, expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }
}
