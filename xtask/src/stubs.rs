//! `cargo xtask stubs`: the stubs of other languages, generated, compiled and tried.
//!
//! Each language is a small project under `clients/` with its own lock file. Its `conformance` program encodes
//! the messages that `clients/README.md` describes; what it prints must be what is kept in
//! `tests/data/encoders`, which the tests of the workspace decode.

mod languages;

use std::fs;
use std::process::{Command, Stdio};

use languages::{LANGUAGES, Language};

use crate::steps::{Outcome, Steps, root};
use crate::tools::Tools;

/// Does the languages named, or all of them.
pub(crate) fn run(steps: &mut Steps, names: &[String]) -> Result<Outcome, String> {
    let known = LANGUAGES.map(|language| language.name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there are no stubs for {unknown:?}, only for {}", known.join(", ")));
    }
    let tools = Tools::fetch()?;
    let mut outcome = Outcome::Passed;
    for language in LANGUAGES {
        if names.is_empty() || names.iter().any(|name| name == language.name) {
            outcome = outcome.and(try_out(steps, &language, &tools)?);
        }
    }
    Ok(outcome)
}

fn try_out(steps: &mut Steps, language: &Language, tools: &Tools) -> Result<Outcome, String> {
    let name = language.name;
    if let Some(missing) = language.needs.iter().find(|program| !is_on_path(program)) {
        return Ok(steps.skip(&format!("{name} stubs"), &format!("no {missing} on the PATH")));
    }
    if steps.time(&format!("{name} stubs: generate and compile"), || (language.build)(tools))?
        != Outcome::Passed
    {
        return Ok(Outcome::Failed);
    }
    steps.time(&format!("{name} stubs: encode"), || encode(language))
}

/// Holds what the language's encoder prints against what is kept of it.
fn encode(language: &Language) -> Result<Outcome, String> {
    let mut program = (language.conformance)();
    let output = program
        .arg("encode")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot start {:?}: {e}", program.get_program()))?;
    if !output.status.success() {
        return Ok(Outcome::Failed);
    }
    let kept = root().join(format!("tests/data/encoders/{}.txt", language.name));
    match fs::read(&kept) {
        Ok(bytes) if bytes == output.stdout => Ok(Outcome::Passed),
        Ok(_) => {
            eprintln!(
                "the encoder of {} says something else than {}. If that is right, delete the file and run this again.",
                language.name,
                kept.display()
            );
            Ok(Outcome::Failed)
        }
        Err(_) => {
            fs::write(&kept, &output.stdout).map_err(|e| format!("cannot write {}: {e}", kept.display()))?;
            eprintln!("{} was not there and is now: look at it, commit it, run this again", kept.display());
            Ok(Outcome::Failed)
        }
    }
}

fn is_on_path(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
