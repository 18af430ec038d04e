//! The ways out of what does not pass by itself, walked by the command line in a cluster of real processes: a quorum that
//! is lost, a controller and a broker that never come back, a log that has rotted and that nobody else has.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_runtime::testing::until;
use weir_tests::dev::{Dev, text};

const UP: [&str; 7] = ["up", "--brokers", "3", "--controllers", "3", "--timeout", "60s"];

/// The controllers, as a broker lists them.
fn controllers(dev: &Dev, server: &str) -> Result<Vec<Value>> {
    let said = dev.weir(&["-s", server, "controller", "list", "-o", "json"])?;
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn data(dev: &Dev, node: &str) -> PathBuf {
    dev.dir().join(node).join("data")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_is_lost_is_recovered_and_a_controller_that_is_lost_is_replaced() -> Result<()> {
    let dev = Dev::new()?;
    dev.dev(&UP)?;
    let server = dev.of("broker-1", "address")?;
    dev.weir(&["-s", &server, "topic", "create", "before"])?;
    until("every controller has everything", async || {
        let Ok(known) = controllers(&dev, &server) else { return false };
        known.len() == 3 && known.iter().all(|one| text(one, "logIndex") == text(&known[0], "logIndex"))
    })
    .await;

    // Two of three are gone with their disks.
    dev.dev(&["kill", "controller-2", "controller-3"])?;
    let dir = data(&dev, "controller-1");
    let dir = dir.to_string_lossy();
    let in_use = dev.refused(&["controller", "recover", &dir, "--dry-run"])?;
    ensure!(in_use.contains("is in use by another process"), "{in_use}");
    dev.dev(&["kill", "controller-1"])?;
    for lost in ["controller-2", "controller-3"] {
        fs::remove_dir_all(data(&dev, lost))?;
    }
    let mut would = String::new();
    until("what was killed has ended", async || {
        match dev.weir(&["controller", "recover", &dir, "--dry-run"]) {
            Ok(said) => {
                would = said;
                true
            }
            Err(_) => false,
        }
    })
    .await;
    ensure!(
        would.contains("it knows 1 topic and 3 brokers, and 2 other controllers to be given up"),
        "{would}"
    );
    ensure!(would.contains("dry run: nothing changed"), "{would}");
    let done = dev.weir(&["controller", "recover", &dir, "--yes"])?;
    ensure!(done.contains("is the only one of cluster"), "{done}");

    // It leads alone, the brokers follow it, and new ones with empty folders join.
    dev.dev(&["start", "controller-1"])?;
    dev.until_said("broker-1", &["status"], "1 of 1 controllers").await?;
    dev.until_done("broker-2", &["topic", "create", "alone", "--if-absent"]).await?;
    dev.dev(&["start", "controller-2"])?;
    dev.dev(&["start", "controller-3"])?;
    let said = dev.until_said("broker-1", &["status", "--check"], "3 of 3 controllers").await?;
    ensure!(said.contains("3 of 3 brokers, 3 of 3 controllers, 0 offline"), "{said}");
    let lines = dev.folder().join("lines");
    fs::write(&lines, "one\ntwo\n")?;
    dev.until_done("broker-3", &["produce", "before", "-i", &lines.to_string_lossy()]).await?;

    // One is lost for good: it is replaced, and taken out.
    let leading = |known: &[Value]| {
        known.iter().find(|one| text(one, "leader") == "true").map(|one| text(one, "endpoint"))
    };
    let known = controllers(&dev, &server)?;
    let leads = leading(&known).context("one leads")?;
    let lost = ["controller-2", "controller-3"].into_iter().find(|name| {
        dev.of(name, "address").is_ok_and(|address| !address.is_empty() && port(&address) != port(&leads))
    });
    let lost = lost.context("one of two does not lead")?;
    let address = dev.of(lost, "address")?;
    let of_lost = known.iter().find(|one| port(&text(one, "endpoint")) == port(&address));
    let old = text(of_lost.context("it is listed")?, "voterId");
    dev.dev(&["kill", lost])?;
    fs::remove_dir_all(data(&dev, lost))?;
    dev.until_said("broker-1", &["status"], "2 of 3 controllers").await?;
    dev.dev(&["start", lost])?;
    dev.until_said("broker-1", &["status"], "of 4 controllers").await?;
    let would = dev.weir(&["-s", &server, "controller", "remove", &old, "--dry-run"])?;
    ensure!(would.contains(&format!("would remove controller {old} ")), "{would}");
    let done = dev.weir(&["-s", &server, "controller", "remove", &old, "--yes"])?;
    ensure!(done.contains(&format!("removed controller {old} ")) && done.contains("3 vote"), "{done}");
    dev.until_said("broker-1", &["status", "--check"], "3 of 3 controllers").await?;
    ensure!(controllers(&dev, &server)?.iter().all(|one| text(one, "voterId") != old));
    dev.dev(&["down"])?;
    Ok(())
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

/// Flips a bit in the middle of the only segment of a topic's log in a broker's folder.
fn rot(broker: &Path, topic: &str) -> Result<()> {
    let logs = fs::read_dir(broker.join("logs"))?.collect::<std::io::Result<Vec<_>>>()?;
    let log = logs.iter().find(|log| log.file_name().to_string_lossy().starts_with(&format!("{topic}-0.")));
    let path = log.context("its log is here")?.path().join("00000000000000000000.log");
    let mut bytes = fs::read(&path)?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).context("it is empty")? ^= 4;
    Ok(fs::write(path, bytes)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_rots_goes_on_as_far_as_it_is_whole_and_a_broker_that_is_lost_is_removed() -> Result<()> {
    let dev = Dev::new()?;
    dev.dev(&UP)?;
    let server = dev.of("broker-1", "address")?;
    dev.weir(&["-s", &server, "topic", "create", "alone", "-r", "1"])?;
    let lines = dev.folder().join("lines");
    fs::write(&lines, "one\ntwo\n")?;
    let lines = lines.to_string_lossy();
    // Batches of two records.
    for _ in 0..10 {
        dev.until_done("broker-1", &["produce", "alone", "-i", &lines]).await?;
    }
    let described = dev.weir(&["-s", &server, "partition", "describe", "alone/0", "-o", "json"])?;
    let described: Value = serde_json::from_str(described.lines().next().context("it is described")?)?;
    let leader = text(&described, "leader");
    let holder = format!("broker-{leader}");
    let asked = if leader == "1" { "broker-2" } else { "broker-1" };
    let server = dev.of(asked, "address")?;

    dev.dev(&["kill", &holder])?;
    rot(&data(&dev, &holder), "alone")?;
    dev.dev(&["start", &holder])?;
    let waits = dev.until_said(asked, &["status"], "alone/0 waits for a person").await?;
    // Only the broker that has the log knows what is wrong with it, and another one is asked.
    let described = dev.weir(&["-s", &server, "partition", "describe", "alone/0"])?;
    for (what, said) in [("status", waits), ("describe", described)] {
        let is_named = said.contains("00000000000000000000.log") && said.contains("damaged: byte ");
        ensure!(is_named, "{what} does not say where the log is damaged: {said}");
    }
    // It says first what is lost, and does nothing without that number.
    let elect = ["partition", "elect", "alone/0", "--unclean"];
    let would = dev.until_said(asked, &elect, "would be cut off, and kept in a folder beside it").await?;
    let (_, number) = would
        .split_once("to do it: weir partition elect alone/0 --unclean --accept-loss ")
        .context("no number is said")?;
    let lost: i64 = number.split_whitespace().next().context("a number")?.parse()?;
    ensure!((1..20).contains(&lost), "{would}");
    let accept = |number: i64| {
        let number = number.to_string();
        move |dev: &Dev, server: &str| {
            dev.weir(&[&["-s", server], &elect[..], &["--accept-loss", &number, "--yes"]].concat())
        }
    };
    let refused = accept(lost + 1)(&dev, &server).err().context("another loss was accepted")?.to_string();
    ensure!(
        refused.contains(&format!("{lost} records would be lost, and {} were accepted", lost + 1)),
        "{refused}"
    );
    let unknown = [&["-s", &server], &elect[..], &["--accept-loss", "unknown", "--yes"]].concat();
    let refused = dev.refused(&unknown)?;
    ensure!(refused.contains(&format!("{lost} records would be lost, and no more")), "{refused}");
    let done = accept(lost)(&dev, &server)?;
    ensure!(done.contains(&format!("alone/0 is led by {leader} (before: none)")), "{done}");
    let read = dev.until_done(asked, &["consume", "alone", "--until", "end", "-o", "json"]).await?;
    let records = i64::try_from(read.lines().filter(|line| line.contains("\"value")).count())?;
    ensure!(records == 20 - lost, "{records} of {lost} lost: {read}");
    dev.until_done(asked, &["produce", "alone", "-i", &lines]).await?;
    let kept = fs::read_dir(data(&dev, &holder).join("logs"))?.filter_map(Result::ok);
    ensure!(kept.filter(|entry| entry.file_name().to_string_lossy().ends_with(".damaged")).count() == 1);
    dev.until_done(asked, &["status", "--check"]).await?;

    // A broker never comes back.
    dev.weir(&["-s", &server, "topic", "create", "of-three"])?;
    let gone =
        (1..=3).map(|id| id.to_string()).find(|id| *id != leader && *id != asked[7..]).context("a third")?;
    let serves = dev.refused(&["-s", &server, "broker", "remove", &gone, "--yes"])?;
    ensure!(serves.contains("stop it first"), "{serves}");
    dev.dev(&["kill", &format!("broker-{gone}")])?;
    dev.until_said(asked, &["broker", "list"], "fenced").await?;
    let holds = dev.refused(&["-s", &server, "broker", "remove", &gone, "--yes"])?;
    ensure!(holds.contains("--disk-lost"), "{holds}");
    let would = dev.weir(&["-s", &server, "broker", "remove", &gone, "--disk-lost", "--dry-run"])?;
    ensure!(would.contains(&format!("would remove broker {gone} (fenced")), "{would}");
    let done = dev.weir(&["-s", &server, "broker", "remove", &gone, "--disk-lost", "--yes"])?;
    ensure!(done.contains(&format!("removed broker {gone} (fenced")), "{done}");
    dev.until_said(asked, &["status"], "2 of 2 brokers").await?;
    let again = dev.weir(&["-s", &server, "broker", "remove", &gone, "--disk-lost", "--yes"])?;
    ensure!(again.contains(&format!("broker {gone} is removed already")), "{again}");
    let listed = dev.weir(&["-s", &server, "broker", "list"])?;
    ensure!(listed.contains("and 1 removed (weir broker list --all)"), "{listed}");
    let described = dev.weir(&["-s", &server, "partition", "describe", "of-three/0"])?;
    let of_gone = format!("the replica on broker {gone} is gone: its broker was removed");
    ensure!(described.contains(&of_gone), "{described}");
    let back = dev.dev(&["start", &format!("broker-{gone}")]).err().context("it was taken back")?.to_string();
    ensure!(back.contains("removed"), "{back}");
    dev.dev(&["down"])?;
    Ok(())
}
