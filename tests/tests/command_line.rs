//! What the command line says where something is not as its user thinks, with the real binary against a real server.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;
use weir_tests::binary;
use weir_tests::docs::world::World;

/// Nothing that is waited for here takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn world() -> Result<World> {
    let mut world = World::new(binary::weir()?)?;
    world.serve().await?;
    world.must("weir topic create flights -p 2").await?;
    Ok(world)
}

/// Runs a command that ends with this exit code, and gives all that it printed.
async fn ends(world: &World, command: &str, code: i32) -> Result<String> {
    world.must(&format!("{command} 2>&1; test $? = {code} || {{ echo ended otherwise; false; }}")).await
}

#[tokio::test]
async fn what_is_meant_is_said_where_it_is_not_done() -> Result<()> {
    let world = world().await?;
    for (command, code, words) in [
        ("weir consume flights --from 99999999", 3, "is out of range"),
        ("weir topic set flihgts retention_ms=1d", 3, "did you mean \"flights\"?"),
        ("echo x | weir produce flights -p -1", 2, "partitions have numbers from 0 on"),
        ("weir topic create x -p -1", 2, "1 or more"),
        ("weir topic create x -p 0", 2, "1 or more"),
        ("weir topic set flights --partitions -3", 2, "1 or more"),
        ("weir config set retention_ms=1d --broker 1", 2, "those of its process"),
        ("weir config unset retention_ms --broker 1", 2, "those of its process"),
        ("weir context remove nobody", 3, "weir context list"),
        ("weir consume flihgts", 3, "TOPIC_NOT_FOUND, not applied"),
        ("echo x | weir produce nope --dry-run", 3, "TOPIC_NOT_FOUND, not applied"),
        ("weir bench produce --topic made --dry-run", 2, "no --dry-run"),
        (
            "weir call TopicService/CreateTopic '{\"topic\": {\"name\": \"made\"}}' --dry-run",
            2,
            "validateOnly",
        ),
        ("weir call TopicService/DeleteTopic '{\"name\": \"flights\"}' --dry-run", 2, "validateOnly"),
        ("printf 'a,b\\n1,\"x\\n2,y\\n' | weir produce flights --csv", 1, "line 2: a quote is not closed"),
    ] {
        let said = ends(&world, command, code).await?;
        ensure!(said.contains(words), "{command}: {said}");
    }
    // What was refused was not done.
    ensure!(world.must("weir topic list -o name").await?.trim() == "flights");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_changes_nothing() -> Result<()> {
    let world = world().await?;
    for command in [
        "printf 'a\\nb\\n' | weir produce flights",
        "weir config set retention_ms=14d --yes",
        "weir context add here localhost:9347",
        "weir context add there localhost:9348",
    ] {
        world.must(command).await?;
    }
    let state = "weir topic list -o name; weir topic describe flights -o json; weir config list -o json; \
                 weir context list -o json; weir consume flights --until end -o json | sort";
    let before = world.must(state).await?;
    for command in [
        "weir topic create other",
        "weir topic set flights retention_ms=1d -p 4 --yes",
        "weir topic trim flights --before end --yes",
        "weir topic delete flights --yes",
        "weir config set retention_ms=1d --yes",
        "weir config unset retention_ms --yes",
        "weir context add other localhost:9349 --use",
        "weir context use there",
        "weir context remove here",
        "echo c | weir produce flights",
    ] {
        world.must(&format!("{command} --dry-run")).await?;
        ensure!(world.must(state).await? == before, "{command} --dry-run changes something");
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_there_is_compared_with_what_was_asked_for() -> Result<()> {
    let world = world().await?;
    let same = world.must("weir topic create flights --if-absent -p 2 --set retention_ms=7d").await?;
    ensure!(!same.contains("not as asked for"), "{same}");
    let other = "weir topic create flights --if-absent -p 8 --set retention_ms=1d --set compression=zstd";
    let said = world.must(other).await?;
    for words in ["exists flights", "partitions 2, not 8", "retention_ms 7d -> 1d", "compression"] {
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn an_input_that_is_written_in_part_says_why_and_where_to_go_on() -> Result<()> {
    let world = world().await?;
    let mut lines = "short\n".repeat(3);
    lines.push_str(&"x".repeat(2 << 20));
    lines.push_str("\nlast\n");
    fs::write(world.folder().join("lines"), lines)?;
    let said = ends(&world, "weir produce flights -p 0 -i lines", 6).await?;
    for words in ["RECORD_TOO_LARGE, not applied", "3 of 4 records are acknowledged; go on from record 4"] {
        ensure!(said.contains(words), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_check_fails_where_something_is_not_well() -> Result<()> {
    let mut world = world().await?;
    world.must("weir status --check").await?;
    world.must("echo x | weir produce flights -p 0").await?;
    world.stop().await?;
    let logs = fs::read_dir(world.folder().join("weir-data/logs"))?.collect::<Result<Vec<_>, _>>()?;
    let of_the_first = |name: &str| name.starts_with("flights-0.");
    let folder = logs.iter().find(|entry| of_the_first(&entry.file_name().to_string_lossy()));
    fs::remove_file(folder.context("no log")?.path().join("00000000000000000000.log"))?;
    world.serve().await?;

    world.must("weir status").await?;
    let said = ends(&world, "weir status --check", 1).await?;
    ensure!(said.contains("1 offline") && said.contains("not all is well"), "{said}");
    // What is wrong is a sentence, and the table stays one.
    for command in ["weir partition list", "weir partition describe flights", "weir topic describe flights"] {
        let said = world.must(command).await?;
        let (rows, rest): (Vec<_>, Vec<_>) =
            said.lines().partition(|line| !line.contains("segments are missing"));
        ensure!(rest.iter().any(|line| line.starts_with("flights/0: ")), "{said}");
        ensure!(rows.iter().all(|line| line.len() < 150), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_ends_the_command_also_where_nothing_is_to_be_said() -> Result<()> {
    let world = world().await?;
    world.must("echo hello | weir produce flights -p 0").await?;
    let server = world.server().context("it serves")?.addr();
    let mut command = Command::new(binary::weir()?);
    command.args(["-s", server, "consume", "flights"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut consuming = command.kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(consuming.stdout.take().context("stdout was asked for")?).lines();
    ensure!(timeout(PATIENCE, lines.next_line()).await??.as_deref() == Some("hello"));
    drop(lines);
    let status = timeout(PATIENCE, consuming.wait()).await.context("it goes on for nobody")??;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}
