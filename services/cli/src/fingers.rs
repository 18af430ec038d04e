//! What fingers know from other programs: a word of where it is here, under the parser's own message. Looked at only
//! when a command line was not understood.

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
        ] {
            assert!(of(line).is_some_and(|words| words.contains(here)), "{line}: {:?}", of(line));
        }
    }

    #[test]
    fn other_mistakes_are_left_alone() {
        assert_eq!(of("weir topc list"), None);
        assert_eq!(of("weir consume t -o jsn"), None);
    }
}
