//! What fingers know from other programs: a word of where it is here, under the parser's own message. Looked at only
//! when a command line was not understood.

use clap::error::{ContextKind, ContextValue};

use crate::position::Position;

/// The way to what was probably meant.
pub(crate) fn hint(arguments: &[String]) -> Option<String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    for pair in words.windows(2) {
        match *pair {
            ["topic", "consume"] => {
                return Some("reading is a command of its own: weir consume TOPIC".into());
            }
            ["topic", "produce"] => {
                return Some("writing is a command of its own: weir produce TOPIC".into());
            }
            ["context", "current" | "current-context" | "show" | "get-contexts"] => {
                return Some("weir context list, which marks the one in use".into());
            }
            ["context", "rename"] => {
                return Some("weir context add NEW HOST:PORT, then weir context remove OLD".into());
            }
            ["cluster", "info" | "health"] => return Some("the cluster at a glance: weir status".into()),
            ["-o" | "--offset", at] if at.parse::<Position>().is_ok() => {
                return Some(format!("-o is the form of the output; where to begin: --from {at}"));
            }
            ["topic", "trim" | "trim-records"] if flag(&words, "--until").is_some() => {
                return Some("what lies before a position goes: --before POSITION".to_owned());
            }
            ["topic", verb @ ("create" | "set" | "alter")] => {
                if let Some(setting) = words.iter().find_map(|word| setting(word)) {
                    let how = if verb == "create" { "--set " } else { "" };
                    return Some(format!("a setting has no flag of its own: {how}{setting}=VALUE"));
                }
            }
            ["-t" | "--topic", _] | ["produce", _] if flag(&words, "--durability").is_some() => {
                return Some(
                    "durability is decided when a topic is created: --set durability=VALUE".to_owned(),
                );
            }
            _ => {}
        }
    }
    words.iter().find_map(|word| match *word {
        "--offset" => Some("where to begin: --from start|end|OFFSET".to_owned()),
        "-b" | "--brokers" | "--bootstrap-server" => Some("the server: -s HOST:PORT".to_owned()),
        "-t" | "--topic" | "-C" | "-P" => {
            Some("the topic has no flag: weir consume TOPIC, weir produce TOPIC".to_owned())
        }
        "-e" => Some("to stop at the end: --until end".to_owned()),
        _ => None,
    })
}

/// The settings of topics.
const SETTINGS: [&str; 12] = [
    "batch_bytes_max",
    "cleanup_policy",
    "compression",
    "durability",
    "max_timestamp_ahead_ms",
    "min_insync_replicas",
    "retention_bytes",
    "retention_ms",
    "segment_bytes",
    "segment_ms",
    "timestamp_type",
    "unclean_recovery",
];

/// The setting that somebody took for a flag, also by its beginning.
fn setting(word: &str) -> Option<&'static str> {
    let name = word.strip_prefix("--")?.split('=').next()?.replace('-', "_");
    let is_it = |setting: &&&str| **setting == name || setting.starts_with(&format!("{name}_"));
    SETTINGS.iter().find(is_it).copied()
}

/// A flag, with or without its value behind it.
fn flag<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find(|word| word.split('=').next() == Some(name)).copied()
}

/// Takes back what the parser says of its own accord and does not help here: to pass a flag that there is none of as a value, and
/// the hidden names of commands. Where it is known better, its guess at a flag, too.
pub(crate) fn without_guesses(error: &mut clap::Error, command: &clap::Command, known: bool) {
    error.remove(ContextKind::Suggested);
    if known {
        error.remove(ContextKind::SuggestedArg);
    }
    let near = match error.remove(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::String(one)) => vec![one],
        Some(ContextValue::Strings(several)) => several,
        _ => Vec::new(),
    };
    let near: Vec<_> = near.into_iter().filter(|name| is_shown(command, name)).collect();
    if !near.is_empty() {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
    }
}

/// Whether a command has this name, and not only answers to it.
fn is_shown(command: &clap::Command, name: &str) -> bool {
    command.get_subcommands().any(|below| below.get_name() == name || is_shown(below, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<String> {
        hint(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn habits_are_answered() {
        for (line, here) in [
            ("weir consume t -o start", "--from start"),
            ("weir consume t -o end", "--from end"),
            ("weir consume t -o -5", "--from -5"),
            ("weir consume t --offset oldest", "--from start|end|OFFSET"),
            ("weir topic consume t", "weir consume TOPIC"),
            ("weir topic produce t", "weir produce TOPIC"),
            ("weir -b localhost:9092 -t x -C", "-s HOST:PORT"),
            ("weir consume -t x", "weir consume TOPIC"),
            ("weir consume x -e", "--until end"),
            ("weir cluster info", "weir status"),
            ("weir context current", "weir context list"),
            ("weir context rename a b", "weir context add NEW"),
            ("weir topic create t --durability replicated", "--set durability=VALUE"),
            ("weir topic create t --min-insync=2", "--set min_insync_replicas=VALUE"),
            ("weir topic set t --retention-ms 1d", ": retention_ms=VALUE"),
            ("weir produce t --durability fsync", "--set durability=VALUE"),
            ("weir topic trim t --until 5", "--before POSITION"),
        ] {
            assert!(of(line).is_some_and(|words| words.contains(here)), "{line}: {:?}", of(line));
        }
    }

    #[test]
    fn other_mistakes_are_left_alone() {
        assert_eq!(of("weir topc list"), None);
        assert_eq!(of("weir consume t -o jsn"), None);
        assert_eq!(of("weir topic create t --partition 3"), None);
    }

    #[test]
    fn nobody_is_sent_to_what_there_is_none_of() {
        let said = |line: &str| {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let mut error = crate::command().try_get_matches_from(&words).unwrap_err();
            without_guesses(&mut error, &crate::command(), hint(&words).is_some());
            error.to_string()
        };
        for (line, absent) in [
            ("weir topic create t --durability fsync", "as a value"),
            ("weir topic trim t --until 5", "tip:"),
            ("weir topic trimm t", "trim-records"),
            ("weir topic lis", "'ls'"),
        ] {
            assert!(!said(line).contains(absent), "{}", said(line));
        }
        assert!(said("weir topic trimm t").contains("'trim'"), "{}", said("weir topic trimm t"));
        assert!(said("weir topic create a --partition 3").contains("--partitions"));
    }
}
