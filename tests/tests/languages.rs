//! Plain stubs with default channel settings do everything against a real server, in four languages
//! (clients/README.md says what "everything" is).

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::binary;
use weir_tests::languages::LANGUAGES;
use weir_tests::layering::Workspace;
use weir_tests::process::Setup;

#[tokio::test]
async fn python() -> Result<()> {
    try_out("python").await
}

#[tokio::test]
async fn go() -> Result<()> {
    try_out("go").await
}

#[tokio::test]
async fn java() -> Result<()> {
    try_out("java").await
}

#[tokio::test]
async fn typescript() -> Result<()> {
    try_out("typescript").await
}

async fn try_out(name: &str) -> Result<()> {
    let language = LANGUAGES.iter().find(|language| language.name == name).context("no such language")?;
    let (Some(mut conformance), Some(mut quickstart)) =
        (language.program("conformance")?, language.program("quickstart")?)
    else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;

    let said = output(conformance.args(["roundtrip", server.addr()]))?;
    ensure!(said.contains("1009 records in and out"), "{said}");

    let create = ["topic", "create", "greetings", "--server", server.addr()];
    output(Command::new(binary::weir()?).args(create))?;
    let said = output(quickstart.arg(server.addr()))?;
    ensure!(said.starts_with('0') && said.contains("hello"), "{said}");
    server.stop().await
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{:?} ended with {}\n{out}{err}", command.get_program(), output.status);
    Ok(out.into_owned())
}

/// What clients/README.md shows of reading an error is what the programs above run.
#[test]
fn the_code_shown_is_the_code_that_is_run() -> Result<()> {
    let clients = Workspace::root().join("clients");
    let page = fs::read_to_string(clients.join("README.md"))?;
    let (_, section) = page.split_once("## Why a call failed\n").context("no such section")?;
    for (fence, file) in [
        ("python", "python/reason.py"),
        ("go", "go/conformance/reason.go"),
        ("java", "java/src/main/java/dev/weir/examples/Reason.java"),
        ("typescript", "typescript/src/reason.ts"),
    ] {
        let shown = section.split_once(&format!("```{fence}\n")).and_then(|(_, rest)| rest.split_once("```"));
        let (shown, _) = shown.with_context(|| format!("no {fence}"))?;
        let run = fs::read_to_string(clients.join(file))?;
        ensure!(shown.lines().count() > 4 && run.contains(shown), "{file} does not have:\n{shown}");
    }
    Ok(())
}
