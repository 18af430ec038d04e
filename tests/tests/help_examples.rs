//! Every example that a `--help` ends with does what it says, run in a shell against a server of its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_tests::binary;
use weir_tests::docs::transcript::help_examples;
use weir_tests::docs::world::World;

#[tokio::test]
async fn every_example_runs() -> Result<()> {
    let weir = binary::weir()?;
    let mut commands = Vec::new();
    collect(&weir, &[], &mut commands)?;
    ensure!(commands.len() > 20, "only {} commands have a --help", commands.len());

    // Most examples leave everything as it was for the next one.
    let shared = furnished(&weir, "").await?;
    let mut wrong = String::new();
    for (command, examples) in commands {
        for example in examples {
            let ran = if example.contains("weir dev") {
                run_dev(&shared, &example).await
            } else {
                run(&weir, &shared, &example).await
            };
            if let Err(error) = ran {
                writeln!(wrong, "{command} --help: {error:#}\n")?;
            }
        }
    }
    for dir in ["./weir-dev", "./cluster"] {
        if shared.folder().join(dir).exists() {
            shared.must(&format!("weir dev down --dir {dir}")).await.context("taking the clusters down")?;
        }
    }
    ensure!(wrong.is_empty(), "examples that do not run:\n{wrong}");
    Ok(())
}

/// The commands below `path`, with their examples: those that the help lists.
fn collect(weir: &Path, path: &[String], found: &mut Vec<(String, Vec<String>)>) -> Result<()> {
    let output = Command::new(weir).args(path).arg("--help").output().context("cannot start weir")?;
    let help = String::from_utf8(output.stdout)?;
    let name = format!("weir {}", path.join(" "));
    let examples = help_examples(&help);
    ensure!(!examples.is_empty(), "{name} --help has no examples:\n{help}");
    found.push((name, examples));

    let listed = help.split_once("\nCommands:\n").map_or("", |(_, after)| after);
    for line in listed.lines().take_while(|line| !line.is_empty()) {
        // Further lines of a description are indented deeper.
        let Some(entry) = line.strip_prefix("  ").filter(|entry| !entry.starts_with(' ')) else { continue };
        let below = entry.split_whitespace().next().unwrap_or_default().to_owned();
        collect(weir, &[path, &[below]].concat(), found)?;
    }
    Ok(())
}

async fn run(weir: &Path, shared: &World, example: &str) -> Result<()> {
    if example.contains("weir standalone") && !example.contains("--print-config") {
        // Free ports beside whatever the example shows: another Weir may be running here.
        let free = "--listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --controller-listen 127.0.0.1:0";
        return World::new(weir.to_owned())?.interrupt(&format!("{example} {free}")).await.map(drop);
    }
    let own = if changes(example) { Some(furnished(weir, example).await?) } else { None };
    let world = own.as_ref().unwrap_or(shared);
    if needs_a_loss(example) {
        return world.refused(example).await.map(drop);
    }
    if goes_on(example) { world.interrupt(example).await } else { world.must(example).await }.map(drop)
}

/// One about a local cluster, of which there is a small one: what the example undoes has been done, and what it does is
/// undone by the next.
async fn run_dev(world: &World, example: &str) -> Result<()> {
    let first = [
        "weir dev resume broker-1 controller-1 || true",
        "weir dev up --brokers 1 --controllers 1 --port 23347",
    ];
    for command in first.iter().skip(usize::from(!world.folder().join("weir-dev").exists())) {
        world.must(command).await.context("preparing")?;
    }
    for (undoes, does) in [("dev resume", "dev pause"), ("dev start", "dev kill")] {
        if example.contains(undoes) {
            world.must(&example.replace(undoes, does)).await.context("preparing")?;
        }
    }
    world.must(example).await.map(drop)
}

/// Whether it is for a cluster that has lost something: where all is well it is refused.
fn needs_a_loss(example: &str) -> bool {
    let ways_out = ["controller remove", "controller recover", "broker remove", "--unclean"];
    ways_out.iter().any(|command| example.contains(command))
}

/// Whether other examples would notice that it has run.
fn changes(example: &str) -> bool {
    let lasting =
        ["topic create", "topic delete", "topic set", "topic trim", "config set", "config unset", "context"];
    lasting.iter().any(|command| example.contains(command))
}

/// A world with what examples take for granted (topics with records, a file, a context), less what this one is
/// about to make.
async fn furnished(weir: &Path, example: &str) -> Result<World> {
    let mut world = World::new(weir.to_owned())?;
    world.serve().await?;
    let mut flights = String::from("carrier,flight,origin\n");
    let carriers = ["UA", "AA", "B6", "DL", "EV", "MQ", "US", "WN", "VX", "FL"].into_iter().cycle();
    for (number, carrier) in carriers.take(2_000).enumerate() {
        writeln!(flights, "{carrier},{number},JFK")?;
    }
    fs::write(world.folder().join("flights.csv"), flights)?;

    let mut prepare = vec!["weir context add here localhost:9347"];
    for (topic, commands) in [
        (
            "greetings",
            "weir topic create greetings && printf 'good morning\ngood evening\n' | weir produce greetings",
        ),
        (
            "flights",
            "weir topic create flights -p 8 && weir produce flights -i flights.csv --csv --key-column carrier",
        ),
        ("orders", "weir topic create orders"),
        ("events", "weir topic create events"),
    ] {
        if !example.contains(&format!("topic create {topic}")) || example.contains("--if-absent") {
            prepare.push(commands);
        }
    }
    if example.is_empty() {
        prepare
            .push("weir bench produce --total 4MiB && weir bench produce --topic bench8 -p 8 --total 4MiB");
    }
    for command in prepare {
        world.must(command).await.context("preparing")?;
    }
    Ok(world)
}

/// Whether it goes on until somebody presses Ctrl-C.
fn goes_on(example: &str) -> bool {
    let follows =
        example.contains("weir consume") && !example.contains("--until") && !example.contains(" -n ");
    follows || example.contains(" -w") || example.contains("--watch")
}
