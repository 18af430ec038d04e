//! A block as commands with what they print, and the comparison with what they really print.
//!
//! Some things differ from run to run: how long something took, and what `…` stands for. Everything else is
//! compared word by word; how columns are spaced does not matter.

/// A command and the lines that the page shows below it; none: whatever it prints is right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// For a shell.
    pub command: String,
    /// The lines shown. `…` within a word stands for anything without a space, alone on a line for any lines.
    pub shows: Vec<String>,
}

/// The steps of a `console` block. Lines before the first `$ ` belong to nothing and are left out.
#[must_use]
pub fn console(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: continued(command, &mut lines), shows: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            step.shows.push(line.to_owned());
        }
    }
    for step in &mut steps {
        while step.shows.last().is_some_and(|line| line.trim().is_empty()) {
            step.shows.pop();
        }
    }
    steps
}

/// The steps of an `sh` block: a command a line, without comments and empty lines.
#[must_use]
pub fn shell(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            steps.push(Step { command: continued(line, &mut lines), shows: Vec::new() });
        }
    }
    steps
}

/// The examples at the end of a help text.
#[must_use]
pub fn help_examples(help: &str) -> Vec<String> {
    let after = help.split_once("\nExamples:\n").map_or("", |(_, after)| after);
    after.lines().filter_map(|line| line.trim_start().strip_prefix("$ ")).map(str::to_owned).collect()
}

/// A command that ends with a backslash goes on in the next line.
fn continued<'a>(first: &str, lines: &mut impl Iterator<Item = &'a str>) -> String {
    let mut command = first.to_owned();
    while command.ends_with('\\') {
        command.push('\n');
        command.push_str(lines.next().unwrap_or_default());
    }
    command
}

/// What is wrong with what was printed, or nothing.
#[must_use]
pub fn difference(shown: &[String], printed: &str) -> Option<String> {
    if shown.is_empty() {
        return None;
    }
    let printed: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut at = 0;
    let mut anything_between = false;
    for line in shown.iter().filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            anything_between = true;
            continue;
        }
        let rest = printed.get(at..).unwrap_or_default();
        let reach = if anything_between { rest.len() } else { rest.len().min(1) };
        match rest.iter().take(reach).position(|candidate| alike(line, candidate)) {
            Some(found) => at += found + 1,
            None => {
                return Some(format!("it should print\n  {line}\nwhere it printed\n  {}", rest.join("\n  ")));
            }
        }
        anything_between = false;
    }
    let rest = printed.get(at..).unwrap_or_default();
    (!anything_between && !rest.is_empty()).then(|| format!("it also printed\n  {}", rest.join("\n  ")))
}

fn alike(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (shape(shown), shape(printed));
    shown.len() == printed.len() && shown.iter().zip(&printed).all(|(a, b)| word_alike(a, b))
}

fn word_alike(shown: &str, printed: &str) -> bool {
    match shown.split_once('…') {
        Some((start, end)) => {
            printed.len() >= start.len() + end.len() && printed.starts_with(start) && printed.ends_with(end)
        }
        None => shown == printed,
    }
}

/// The words of a line, with measured figures replaced by what they measure.
fn shape(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let measured = match word.trim_end_matches([',', ')', ';']) {
            "us" | "µs" | "ms" | "s" => "<time>",
            "kB/s" | "MB/s" | "GB/s" | "records/s" => "<rate>",
            _ => {
                words.push(word.to_owned());
                continue;
            }
        };
        match words.last_mut().filter(|last| is_number(last)) {
            Some(number) => {
                *number = measured.to_owned();
                number.push_str(word.trim_start_matches(|c: char| c.is_alphabetic() || c == '/'));
            }
            None => words.push(word.to_owned()),
        }
    }
    words
}

fn is_number(word: &str) -> bool {
    word.chars().any(|c| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_console_block_is_commands_with_output() {
        let steps = console("# Weir\n$ weir topic create a\ncreated a\n\n$ echo x | \\\n  weir produce a\n");
        assert_eq!(
            steps,
            [
                Step { command: "weir topic create a".into(), shows: lines(&["created a"]) },
                Step { command: "echo x | \\\n  weir produce a".into(), shows: vec![] },
            ]
        );
    }

    #[test]
    fn a_shell_block_is_commands() {
        let commands: Vec<_> =
            shell("# first\nweir a\n\n  weir b \\\n  c\n").into_iter().map(|s| s.command).collect();
        assert_eq!(commands, ["weir a", "weir b \\\n  c"]);
    }

    #[test]
    fn examples_are_found_at_the_end_of_a_help_text() {
        let help = "Usage: weir x\n\n  $ not one\n\nExamples:\n  $ weir x 1\n  $ echo | weir x 2\n";
        assert_eq!(help_examples(help), ["weir x 1", "echo | weir x 2"]);
        assert_eq!(help_examples("nothing"), [""; 0]);
    }

    #[test]
    fn measured_figures_and_spacing_may_differ() {
        let shown = lines(&["greetings/0@0  1 record, 5 B, on disk, 0.4 ms"]);
        assert_eq!(difference(&shown, "greetings/0@0   1 record, 5 B, on disk, 12 ms\n"), None);
        assert_eq!(difference(&shown, "greetings/0@0   1 record, 5 B, on disk, 0.9 s\n"), None);
        assert!(difference(&shown, "greetings/0@1   1 record, 5 B, on disk, 12 ms\n").is_some());
        assert!(difference(&shown, "greetings/0@0   1 record, 6 B, on disk, 12 ms\n").is_some());
        assert!(
            difference(&lines(&["ready in 0.1 s, 16 MB/s, all"]), "ready in 2 s, 900 kB/s, none").is_some()
        );
    }

    #[test]
    fn an_ellipsis_stands_for_a_word_or_for_lines() {
        let shown = lines(&["cluster 7f3a…, broker 1", "…", "end"]);
        assert_eq!(difference(&shown, "cluster 7f3a99, broker 1\na\nb\nend\n"), None);
        assert_eq!(difference(&shown, "cluster 7f3a99, broker 1\nend\n"), None);
        assert!(difference(&shown, "cluster 8f3a99, broker 1\nend\n").is_some());
        assert!(difference(&shown, "cluster 7f3a99, broker 1\na\n").is_some());
    }

    #[test]
    fn a_line_too_much_or_too_few_is_a_difference() {
        let shown = lines(&["a", "b"]);
        assert_eq!(difference(&shown, "a\n\nb\n"), None);
        assert!(difference(&shown, "a\n").is_some_and(|why| why.contains("should print\n  b")));
        assert!(difference(&shown, "a\nb\nc\n").is_some_and(|why| why.contains("also printed\n  c")));
        assert_eq!(difference(&[], "anything"), None);
        assert_eq!(difference(&lines(&["a", "…"]), "a\nb\nc\n"), None);
    }
}
