//! A cluster of real processes that has lost what it needs, as somebody at the command line sees it: a partition that nobody leads
//! beside others, brokers that die while no quorum of controllers is there, and brokers that are started then.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::dev::{Dev, text};

/// The partition of topic `t` that a broker leads.
fn led_by(dev: &Dev, server: &str, broker: &str) -> Result<String> {
    let listed = dev.weir(&["-s", server, "partition", "describe", "t", "-o", "json"])?;
    let partitions = listed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let led = partitions.iter().find(|one| text(one, "leader") == broker);
    Ok(text(led.context("every broker leads one")?, "partition"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_is_read_and_what_is_waited_for_is_said() -> Result<()> {
    let dev = Dev::new()?;
    dev.dev(&["up", "--brokers", "3", "--controllers", "3", "--timeout", "60s"])?;
    let server = dev.of("broker-1", "address")?;
    dev.weir(&[
        "-s",
        &server,
        "topic",
        "create",
        "t",
        "-p",
        "3",
        "-r",
        "1",
        "--set",
        "min_insync_replicas=1",
    ])?;
    let lines = dev.folder().join("lines");
    for partition in ["0", "1", "2"] {
        fs::write(&lines, format!("in {partition}\n"))?;
        let partition = format!("t/{partition}");
        dev.until_done("broker-1", &["produce", &partition, "-i", &lines.to_string_lossy()]).await?;
    }
    let (second, third) = (led_by(&dev, &server, "2")?, led_by(&dev, &server, "3")?);

    // One partition that nobody leads keeps nobody from the others.
    dev.dev(&["kill", "broker-2"])?;
    dev.until_said("broker-1", &["status"], "1 offline").await?;
    let said = dev.refused(&["-s", &server, "consume", "t", "--until", "end"])?;
    ensure!(said.contains("exit status: 6"), "{said}");
    for number in ["0", "1", "2"] {
        ensure!(
            said.contains(&format!("in {number}\n")) == (number != second),
            "t/{second} is offline: {said}"
        );
    }
    ensure!(said.contains(&format!("t/{second} is left out: ")), "{said}");
    ensure!(said.contains(&format!("1 partition left out (t/{second}); the others are read")), "{said}");
    let alone = dev.refused(&["-s", &server, "consume", &format!("t/{second}"), "--until", "end"])?;
    ensure!(alone.contains("exit status: 5") && alone.contains("NO_LEADER"), "{alone}");
    dev.dev(&["start", "broker-2"])?;
    dev.until_said("broker-1", &["status"], "3 of 3 brokers, 3 of 3 controllers, 0 offline").await?;

    // Without a quorum nobody decides that a broker is dead: that it does not answer is said.
    dev.dev(&["kill", "controller-1", "controller-2"])?;
    dev.dev(&["kill", "broker-3"])?;
    let silent = "1 whose leader does not answer";
    let said = dev.until_said("broker-1", &["status"], silent).await?;
    ensure!(
        said.contains("3 of 3 brokers as last known, ") && said.contains(", 0 offline as last known, "),
        "{said}"
    );
    ensure!(said.contains(&format!("nobody else leads what it leads (t/{third}) before a quorum")), "{said}");

    // A broker that is started then says what it waits for, to whoever asks.
    let not_ready =
        dev.refused(&["dev", "start", "broker-3", "--timeout", "2s", "--dir", &dev.dir().to_string_lossy()])?;
    ensure!(not_ready.contains("broker-3 is not ready yet, and goes on"), "{not_ready}");
    let started = dev.of("broker-3", "address")?;
    for words in
        [&["status"][..], &["doctor"], &["produce", "t", "-i", &lines.to_string_lossy()], &["topic", "list"]]
    {
        let said = dev.refused(&[&["-s", &started], words].concat())?;
        ensure!(said.contains("exit status: 5") && said.contains("CONTROLLER_UNAVAILABLE"), "{said}");
        ensure!(
            said.contains("broker 3 at 127.0.0.1:") && said.contains(" is up and does not serve yet: "),
            "{said}"
        );
        ensure!(said.contains("a quorum of them is needed (127.0.0.1:"), "{said}");
    }
    // Of several servers one that serves is asked.
    let said = dev.weir(&["-s", &format!("{started},{server}"), "topic", "list", "-o", "name"])?;
    ensure!(said.contains("t\n"), "{said}");
    dev.dev(&["up", "--timeout", "60s"])?;
    dev.until_said("broker-3", &["status", "--check"], "3 of 3 brokers, 3 of 3 controllers, 0 offline")
        .await?;
    dev.dev(&["down"])?;
    Ok(())
}
