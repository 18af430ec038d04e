//! Every help text ends with three examples, and every example is understood.

use clap::Command;
use weir_cli::command;

/// Every command with its full name, groups included.
fn all(command: &Command, name: &str, out: &mut Vec<(String, Command)>) {
    out.push((name.to_owned(), command.clone()));
    for below in command.get_subcommands() {
        all(below, &format!("{name} {}", below.get_name()), out);
    }
}

fn commands() -> Vec<(String, Command)> {
    let mut root = command();
    // Globals are handed down, as in a real run.
    root.build();
    let mut out = Vec::new();
    all(&root, "weir", &mut out);
    out
}

/// The lines after `Examples:`, without their prompts.
fn examples(help: &str) -> Vec<String> {
    let Some((_, after)) = help.split_once("\nExamples:\n") else { return Vec::new() };
    after.lines().filter_map(|line| line.strip_prefix("  $ ")).map(str::to_owned).collect()
}

/// A command line in words, as a shell would split it: single quotes and nothing else.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

#[test]
fn every_help_ends_with_three_examples_that_parse() {
    for (name, command) in commands() {
        let help = command.clone().render_help().to_string();
        let examples = examples(&help);
        assert_eq!(examples.len(), 3, "{name} --help:\n{help}");
        assert!(
            help.trim_end().ends_with(examples.last().unwrap().as_str()),
            "{name}: text after the examples"
        );
        for example in examples {
            // Of a pipe, the part that is ours.
            let own = example.rsplit(" | ").next().unwrap();
            assert!(own.starts_with("weir "), "{name}: {example}");
            if let Err(error) = weir_cli::command().try_get_matches_from(words(own)) {
                panic!("{name}: {example}\n{error}");
            }
        }
    }
}

#[test]
fn every_example_of_a_command_is_about_that_command() {
    for (name, command) in commands() {
        // A group may show any of its members, the root any command.
        let help = command.clone().render_help().to_string();
        for example in examples(&help) {
            assert!(example.contains(&name), "{name}: {example}");
        }
    }
}

#[test]
fn help_is_readable_everywhere() {
    for (name, command) in commands() {
        let help = command.clone().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        assert!(command.get_about().is_some(), "{name} says nothing about itself");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {} is not explained", argument.get_id());
        }
    }
}

#[test]
fn the_first_screen_lists_every_command() {
    let help = command().render_help().to_string();
    for (name, _) in commands().iter().filter(|(name, _)| name.split(' ').count() == 2) {
        let name = name.trim_start_matches("weir ");
        assert!(help.lines().any(|line| line.trim_start().starts_with(name)), "{name} is not in:\n{help}");
    }
    // What fingers know works and is not advertised.
    for hidden in ["topic ls", "topic rm x", "topic show x", "topic alter x a=b", "broker ls"] {
        let line = format!("weir {hidden}");
        assert!(command().try_get_matches_from(words(&line)).is_ok(), "{line}");
        assert!(!help.contains(hidden), "{hidden}");
    }
}

#[test]
fn what_is_not_understood_is_told_the_nearest() {
    let error = command().try_get_matches_from(words("weir topc list")).unwrap_err();
    assert!(error.to_string().contains("topic"), "{error}");
    let error = command().try_get_matches_from(words("weir topic create a --partition 3")).unwrap_err();
    assert!(error.to_string().contains("--partitions"), "{error}");
    for none in ["weir topic create a -p 0", "weir topic create a -r 0", "weir topic create a -p -1"] {
        assert!(command().try_get_matches_from(words(none)).is_err(), "{none}");
    }
    let error = command().try_get_matches_from(words("weir consume a --from noon")).unwrap_err();
    assert!(error.to_string().contains("@-1h"), "{error}");
}
