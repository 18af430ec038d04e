//! `-o json` is one form for all commands: an object a line, names in camelCase, every field there whatever its value,
//! numbers as numbers, enums without their prefix. No command is left out of this test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::binary;
use weir_tests::docs::world::World;

/// Commands in an order in which each finds what it needs. Two in a row that show the same kind of thing, as different
/// as it gets, must show the same fields.
const COMMANDS: &[&str] = &[
    "weir topic create a -p 2",
    "weir topic create b --set retention_ms=1d",
    "weir topic create c --if-absent",
    "printf 'x\n' | weir produce a -p 0",
    "printf 'k:x\n' | weir produce a -p 1 --key-separator : -H h=v",
    "weir produce b </dev/null",
    "weir consume a --until end",
    "weir topic list",
    "weir topic describe a b",
    "weir topic set a retention_ms=2d --partitions 3 --yes",
    "weir topic trim a/1 --before end --yes",
    "weir partition describe a",
    "weir partition list",
    "weir broker list",
    "weir broker describe 1",
    "weir broker trust 1 --yes",
    "weir partition elect a --yes",
    "weir controller list",
    "weir cluster finalize --yes",
    "weir status",
    "weir config list",
    "weir config get retention_ms",
    "weir config set retention_ms=14d --yes",
    "weir config unset retention_ms --yes",
    "weir doctor",
    "weir bench produce --total 1MiB",
    "weir bench latency --total 64KiB",
    "weir bench consume",
    "weir errors",
    "weir errors NO_LEADER",
    "weir call list",
    "weir call list TopicService",
    "weir context add here localhost:9347",
    "weir context use here",
    "weir context list",
    "weir context remove here",
    "weir health",
    "weir version",
    "weir version --client",
    "weir topic delete b --yes",
    "weir topic delete nope --if-exists --yes",
    "weir dev up --brokers 1 --controllers 1 --port 25347 --timeout 60s",
    "weir dev status",
    "weir dev pause broker-1",
    "weir dev resume broker-1",
    "weir dev kill broker-1 controller-1",
    "weir dev start broker-1 controller-1",
    "weir dev down",
    "weir segment verify weir-data/logs",
    "weir segment dump weir-data/logs",
];

/// Those that print no results of their own.
const OTHERS: &[&str] = &["weir standalone", "weir completion"];
/// Those that take away what this world has only one of.
const NEED_MORE: &[&str] = &["weir broker remove", "weir controller remove", "weir controller recover"];
/// What has the form of requests, enums in full.
const AS_REQUESTS: &str = "weir call MetadataService/GetMetadata '{\"topics\": [\"a\"]}'";
/// Objects whose keys are names of settings or facts, with text as values.
const MAPS: [&str; 2] = ["config", "metadata"];
/// The text of settings.
const SETTINGS: [&str; 2] = ["value", "defaultValue"];

#[tokio::test]
async fn every_command_has_the_one_form() -> Result<()> {
    let weir = binary::weir()?;
    let mut leaves = BTreeSet::new();
    collect(&weir, "weir", &mut leaves)?;
    let is_tried = |leaf: &&String| ![OTHERS, NEED_MORE].concat().contains(&leaf.as_str());
    for leaf in leaves.iter().filter(is_tried) {
        let tried = COMMANDS.iter().chain([&AS_REQUESTS]).any(|command| command.contains(leaf.as_str()));
        ensure!(tried, "{leaf} is not tried here");
    }
    let mut world = World::new(weir)?;
    world.serve().await?;
    let mut shapes: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for command in COMMANDS {
        let printed = world.must(&format!("{command} -o json")).await?;
        for line in printed.lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("{command}: {line}"))?;
            let object = value.as_object().with_context(|| format!("{command}: {line}"))?;
            check(&value, true).with_context(|| format!("{command}: {line}"))?;
            let keys: BTreeSet<String> = object.keys().cloned().collect();
            let leaf =
                leaves.iter().filter(|leaf| command.contains(leaf.as_str())).max_by_key(|leaf| leaf.len());
            let leaf = leaf.with_context(|| format!("{command} is no command"))?;
            // Services and their methods are two things.
            if leaf != "weir call" {
                let shape = shapes.entry(leaf).or_insert_with(|| keys.clone());
                ensure!(*shape == keys, "{command}: {keys:?}, and before {shape:?}");
            }
        }
    }
    let called: Value = serde_json::from_str(&world.must(&format!("{AS_REQUESTS} -o json")).await?)?;
    check(&called, true)?;
    ensure!(called["topics"][0]["partitions"][0]["partition"] == 0, "{called}");
    ensure!(called["version"].is_i64(), "{called}");
    Ok(())
}

#[tokio::test]
async fn failures_have_it_too() -> Result<()> {
    let mut world = World::new(binary::weir()?)?;
    world.serve().await?;
    let mut shape = None;
    for (command, code, exit) in [
        ("weir topic describe nope", 5, 3),
        ("weir topic create 'a b'", 3, 1),
        ("weir topic set a", 3, 2),
        ("weir consume nope", 5, 3),
        ("weir topic list -s localhost:1", 14, 5),
    ] {
        let printed = world.refused(&format!("{command} -o json")).await?;
        let value: Value = serde_json::from_str(printed.trim()).with_context(|| printed.clone())?;
        check(&value, true)?;
        ensure!((&value["error"]["code"], &value["exitCode"]) == (&code.into(), &exit.into()), "{value}");
        ensure!(value["error"]["applied"] == "NO", "{value}");
        let keys = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
        let both = (keys(&value), keys(&value["error"]));
        ensure!(*shape.get_or_insert_with(|| both.clone()) == both, "{value}");
    }
    Ok(())
}

/// Whether names and values keep the rule, here and below. `text`: strings may be looked at.
fn check(value: &Value, text: bool) -> Result<()> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_alphanumeric());
            ensure!(plain, "\"{name}\" is no camelCase");
            if MAPS.contains(&name.as_str()) {
                ensure!(value.is_object() || value.is_null(), "{name} is {value}");
                return Ok(());
            }
            check(value, !SETTINGS.contains(&name.as_str()))
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check(item, text)),
        Value::String(string) if text => {
            let digits = !string.is_empty() && string.chars().all(|c| c.is_ascii_digit());
            // An id has 32 digits.
            ensure!(!digits || string.len() == 32, "the number {string} is a string");
            let prefixes = ["ERROR_REASON_", "APPLIED_", "CONFIG_SOURCE_", "BROKER_STATE_", "DURABILITY_"];
            ensure!(!prefixes.iter().any(|prefix| string.starts_with(prefix)), "{string} has its prefix");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The commands that have none below them.
fn collect(weir: &Path, name: &str, found: &mut BTreeSet<String>) -> Result<()> {
    let output = Command::new(weir).args(name.split(' ').skip(1)).arg("--help").output()?;
    let help = String::from_utf8(output.stdout)?;
    let Some((_, listed)) = help.split_once("\nCommands:\n") else {
        found.insert(name.to_owned());
        return Ok(());
    };
    for line in listed.lines().take_while(|line| !line.is_empty()) {
        let Some(entry) = line.strip_prefix("  ").filter(|entry| !entry.starts_with(' ')) else { continue };
        collect(weir, &format!("{name} {}", entry.split_whitespace().next().unwrap_or_default()), found)?;
    }
    Ok(())
}
