//! Servers that say nothing, and servers that are not there: a command ends when its time is over, names whom it asked
//! and what it waited for, and says whether that may have been done.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use weir_runtime::testing::PATIENCE;
use weir_tests::api::Api;
use weir_tests::binary;
use weir_tests::process::{Process, Setup};

const MAYBE: i32 = 6;
const UNREACHABLE: i32 = 5;

async fn weir(arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(binary::weir()?);
    command.args(arguments).env_remove("WEIR_SERVER").stdin(Stdio::null()).kill_on_drop(true);
    let Output { status, stderr, .. } = timeout(PATIENCE, command.output()).await.context("it goes on")??;
    Ok((status.code(), String::from_utf8(stderr)?))
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_waited_for_once() -> Result<()> {
    for (command, code, asked) in [
        ("topic list", UNREACHABLE, "ListTopics"),
        ("status", UNREACHABLE, "ListBrokers"),
        ("health", UNREACHABLE, "HealthCheck"),
        ("topic create t", MAYBE, "CreateTopic"),
        ("topic create t --dry-run", UNREACHABLE, "CreateTopic"),
        ("config set retention_ms=1d", UNREACHABLE, "UpdateConfigs"),
        ("call MetadataService/GetServerInfo", UNREACHABLE, "GetServerInfo"),
        ("call TopicService/DeleteTopic {\"name\":\"t\"}", MAYBE, "DeleteTopic"),
        ("produce t", UNREACHABLE, "GetServerInfo"),
        ("consume t", UNREACHABLE, "GetMetadata"),
        ("doctor", UNREACHABLE, "GetServerInfo"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        for form in ["table", "json"] {
            let mut arguments = vec!["-s", &*address, "--timeout", "1s", "--yes", "-o", form];
            arguments.extend(command.split(' '));
            // The listener's queue takes connections; nobody reads.
            let (ended, said) = weir(&arguments).await?;
            ensure!(ended == Some(code), "{command}: {ended:?} {said}");
            for part in [&*address, "--server", asked, "1s", "--timeout"] {
                ensure!(said.contains(part), "{command}: no {part:?} in {said}");
            }
            let applied = if code == MAYBE { "maybe applied" } else { "not applied" };
            if form == "json" {
                let error: Value = serde_json::from_str(&said)?;
                let facts = (&error["error"]["code"], &error["error"]["reason"], &error["error"]["applied"]);
                let applied = if code == MAYBE { "MAYBE" } else { "NO" };
                ensure!(facts == (&4.into(), &"DEADLINE_EXCEEDED".into(), &applied.into()), "{said}");
                ensure!(error["exitCode"] == code, "{said}");
            } else {
                ensure!(said.contains(&format!("DEADLINE_EXCEEDED, {applied};")), "{command}: {said}");
            }
        }
        // Nobody looked around there after the time was over.
        let mut connections = 0;
        while let Ok(Ok(_)) = timeout(Duration::ZERO, listener.accept()).await {
            connections += 1;
        }
        ensure!(connections <= 2, "{command}: {connections} connections of 2 runs");
    }
    Ok(())
}

/// A consumer of a server that has a record, which it has read.
async fn consuming(server: &Process, arguments: &[&str]) -> Result<tokio::process::Child> {
    let api = Api::connect(server.addr()).await?;
    api.create_topic("t", 1, &[]).await?;
    api.write("t", 0, [b"hello"]).await?;
    let mut command = Command::new(binary::weir()?);
    command.args(["-s", server.addr(), "consume", "t"]).args(arguments).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout was asked for")?).lines();
    ensure!(timeout(PATIENCE, lines.next_line()).await??.as_deref() == Some("hello"));
    // Whoever reads its output must not go.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(child)
}

#[tokio::test]
async fn a_consumer_whose_server_is_gone_says_where_it_was_and_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let address = server.addr().to_owned();
    let child = consuming(&server, &["--timeout", "1s"]).await?;
    server.kill().await?;
    let output = timeout(PATIENCE, child.wait_with_output()).await.context("it goes on")??;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(UNREACHABLE), "{said}");
    let last = said.lines().find(|line| line.starts_with("error: ")).context(said.clone())?;
    let told =
        format!("error: no Weir answers at {address} (from --server): connection refused; is it started?");
    ensure!(last.starts_with(&told), "{said}");
    ensure!(last.contains("-s HOST:PORT") && !last.contains("standalone"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_consumer_whose_server_hangs_ends_when_its_time_is_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let address = server.addr().to_owned();
    let child = consuming(&server, &["--timeout", "1s"]).await?;
    server.send(Signal::STOP)?;
    let output = timeout(PATIENCE, child.wait_with_output()).await.context("it goes on")??;
    server.kill().await?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(UNREACHABLE), "{said}");
    for part in [&*address, "Consume", "1s", "--server", "not applied"] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

/// A way to a server that can be taken away.
async fn way_to(server: &str) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (way, server) = (listener.local_addr()?.to_string(), server.to_owned());
    let task = tokio::spawn(async move {
        // All of them end with this task.
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let server = server.clone();
            connections.spawn(async move {
                if let Ok(mut to) = TcpStream::connect(server).await {
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    Ok((way, task))
}

#[tokio::test]
async fn of_several_servers_one_that_hangs_is_passed_over() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    Api::connect(server.addr()).await?.create_topic("t", 1, &[]).await?;
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let both = format!("{},{}", silent.local_addr()?, server.addr());
    for command in ["status", "topic list", "produce t/0", "consume t --until end"] {
        let mut arguments = vec!["-s", &*both, "--timeout", "10s"];
        arguments.extend(command.split(' '));
        let (ended, said) = weir(&arguments).await?;
        ensure!(ended == Some(0), "{command}: {ended:?} {said}");
    }
    server.stop().await
}

#[tokio::test]
async fn a_consumer_goes_on_at_the_next_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let api = Api::connect(server.addr()).await?;
    api.create_topic("t", 1, &[]).await?;
    api.write("t", 0, [b"before"]).await?;
    let (way, task) = way_to(server.addr()).await?;
    let mut command = Command::new(binary::weir()?);
    command.args(["-s", &format!("{way},{}", server.addr()), "consume", "t"]).kill_on_drop(true);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout was asked for")?).lines();
    ensure!(timeout(PATIENCE, lines.next_line()).await??.as_deref() == Some("before"));
    task.abort();
    api.write("t", 0, [b"after"]).await?;
    ensure!(timeout(PATIENCE, lines.next_line()).await??.as_deref() == Some("after"));
    server.stop().await
}

#[tokio::test]
async fn what_is_no_command_line_is_said_in_the_form_that_was_asked_for() -> Result<()> {
    for arguments in [
        &["-o", "json", "topic", "create"][..],
        &["topic", "list", "--nonsense", "--output=json"],
        &["-ojson", "no-such-command"],
        &["--output", "json", "consume", "t", "--from", "yesterday"],
        &["-o", "json", "-s", "a:b", "topic", "list"],
        &["-o", "json", "--dry-run", "standalone"],
    ] {
        let (ended, said) = weir(arguments).await?;
        ensure!(ended == Some(2), "{arguments:?}: {ended:?} {said}");
        let error: Value = serde_json::from_str(&said).with_context(|| format!("{arguments:?}: {said}"))?;
        ensure!((&error["exitCode"], &error["error"]["code"]) == (&2.into(), &3.into()), "{said}");
        let message = error["error"]["message"].as_str().context("a message")?;
        ensure!(!message.is_empty() && !message.starts_with("error"), "{said}");
    }
    let (_, said) = weir(&["topic", "create"]).await?;
    ensure!(said.starts_with("error: the following") && said.contains("Usage:"), "{said}");
    Ok(())
}
