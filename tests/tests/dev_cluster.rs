//! `weir dev`: a cluster of real processes, made, hurt, stopped and started by the command line alone.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_runtime::testing::until;
use weir_tests::dev::{Dev, text};

/// What the cluster calls a node.
fn id(node: &Value) -> Option<i64> {
    node.get("id").and_then(Value::as_i64)
}

fn log(dir: &Path, node: &str) -> String {
    std::fs::read_to_string(dir.join(node).join("log")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_controllers_and_three_brokers_live_through_the_loss_of_one_each() -> Result<()> {
    let dev = Dev::new()?;
    let said = dev.dev(&["up", "--brokers", "3", "--controllers", "3", "--timeout", "60s"])?;
    ensure!(said.contains("ready in"), "{said}");
    let nodes = dev.nodes()?;
    let ready = nodes.iter().filter(|node| text(node, "state") == "READY").count();
    ensure!(ready == 6 && nodes.len() == 6, "{nodes:?}");
    let server = dev.of("broker-1", "address")?;
    // What the cluster calls them is said beside what they are called here.
    for (role, list) in [("controller", ["controller", "list"]), ("broker", ["broker", "list"])] {
        let mut ids: Vec<i64> =
            nodes.iter().filter(|node| text(node, "role") == role).filter_map(id).collect();
        ids.sort_unstable();
        let listed = dev.weir(&["-s", &server, list[0], list[1], "-o", "name"])?;
        let listed: Vec<i64> = listed.lines().filter_map(|line| line.trim().parse().ok()).collect();
        ensure!(ids.len() == 3 && ids == listed, "{role}: {ids:?}, {listed:?}");
    }
    let doctor = dev.weir(&["-s", &server, "doctor"])?;
    ensure!(doctor.contains("broker 1 of 3"), "broker-1 is not broker 1: {doctor}");
    dev.weir(&["-s", &server, "topic", "create", "greetings", "-r", "1"])?;

    // Again: everything runs, and the same processes go on.
    let pids = |nodes: &[Value]| nodes.iter().map(|node| text(node, "pid")).collect::<Vec<_>>();
    dev.dev(&["up", "--timeout", "60s"])?;
    ensure!(pids(&dev.nodes()?) == pids(&nodes));

    // Changes go on without one controller, and without any one of them: each is killed and started in turn. The loss
    // is said, and so is the return.
    for number in 1..=3 {
        let controller = format!("controller-{number}");
        dev.dev(&["kill", &controller])?;
        ensure!(dev.of(&controller, "state")? == "STOPPED");
        ensure!(!dev.dir().join(&controller).join("pid").exists(), "its pid is somebody else's in time");
        let topic = format!("without-{number}");
        dev.until_done("broker-1", &["topic", "create", &topic, "-r", "1", "--if-absent"]).await?;
        let check = ["-s", &server, "status", "--check"];
        let mut said = String::new();
        until("the controller is missed", async || {
            said = dev.weir(&check).map_or_else(|error| error.to_string(), |_| String::new());
            said.contains("2 of 3 controllers")
        })
        .await;
        ensure!(said.contains("is away: the one that leads has not heard it for"), "{said}");
        let doctor = dev.refused(&["-s", &server, "doctor"])?;
        ensure!(doctor.contains("fail  controller ") && doctor.contains("1 controller is away"), "{doctor}");
        let listed = dev.weir(&["-s", &server, "controller", "list"])?;
        let away: Vec<&str> = listed.lines().filter(|line| line.contains(" away ")).collect();
        ensure!(away.len() == 1 && away[0].contains(" votes "), "{listed}");
        dev.dev(&["start", &controller])?;
        let said = dev.until_done("broker-1", &["status", "--check"]).await?;
        ensure!(said.contains("3 of 3 controllers"), "{said}");
    }

    // A topic of the usual three replicas takes records without any one of the brokers.
    dev.weir(&["-s", &server, "topic", "create", "orders"])?;
    let lines = dev.folder().join("lines");
    std::fs::write(&lines, "one\ntwo\n")?;
    let lines = lines.to_string_lossy();
    let produce = ["produce", "orders", "-i", &lines];
    dev.until_done("broker-1", &produce).await?;
    dev.dev(&["kill", "broker-1"])?;
    dev.until_done("broker-3", &produce).await?;
    dev.dev(&["start", "broker-1"])?;

    // One that hangs is seen, and goes on.
    dev.dev(&["pause", "broker-3"])?;
    ensure!(dev.of("broker-3", "state")? == "PAUSED");
    dev.dev(&["resume", "broker-3"])?;
    until("broker-3 is ready again", async || {
        dev.of("broker-3", "state").is_ok_and(|state| state == "READY")
    })
    .await;

    dev.dev(&["down"])?;
    ensure!(dev.nodes()?.iter().all(|node| text(node, "state") == "STOPPED"));
    ensure!(dev.dev(&["down"])?.contains("nothing runs"));
    // The same cluster again, and not a second one.
    dev.dev(&["up", "--timeout", "60s"])?;
    let topics = dev.until_done("broker-1", &["topic", "list", "-o", "name"]).await?;
    ensure!(topics.contains("greetings") && topics.contains("without-3"), "{topics}");
    dev.dev(&["down"])?;
    for node in ["controller-1", "broker-1"] {
        ensure!(log(&dev.dir(), node).contains("SIGTERM received"), "{node}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_cluster_serves_topics_of_its_size_and_grows() -> Result<()> {
    let dev = Dev::new()?;
    dev.dev(&["up", "--brokers", "1", "--controllers", "1"])?;
    let server = dev.of("broker-1", "address")?;
    dev.weir(&["-s", &server, "topic", "create", "greetings"])?;
    dev.weir(&["-s", &server, "bench", "produce", "--topic", "greetings", "--total", "1MiB", "--yes"])?;
    dev.dev(&["up", "--brokers", "2"])?;
    ensure!(dev.of("broker-2", "state")? == "READY");
    let brokers = dev.weir(&["-s", &server, "broker", "list", "-o", "name"])?;
    ensure!(brokers.lines().count() == 2, "{brokers}");

    // What cannot be is said, and changes nothing.
    for (words, said) in [
        (&["up", "--brokers", "1"][..], "has 2 brokers, not 1: weir dev takes none away"),
        (&["up", "--controllers", "3"][..], "has 1 controller, not 3"),
        (&["up", "--controllers", "2"][..], "1, 3 or 5"),
        (&["kill", "broker-9"][..], "there is no node broker-9"),
        (&["resume", "brokr-1"][..], "did you mean \"broker-1\""),
    ] {
        let error = dev.dev(words).unwrap_err().to_string();
        ensure!(error.contains(said), "{error}");
    }
    ensure!(dev.weir(&["-s", &server, "doctor"])?.contains("broker 1 of 2"));
    dev.dev(&["kill", "broker-2"])?;
    // Before its controller has noticed and after: it is named either way.
    let error = dev.weir(&["-s", &server, "doctor"]).unwrap_err().to_string();
    ensure!(error.contains("fail  broker 2 "), "{error}");
    let error = dev.dev(&["pause", "broker-2"]).unwrap_err().to_string();
    ensure!(error.contains("broker-2 does not run (weir dev start broker-2)"), "{error}");

    // A copy of the folder does nothing to the processes of the original, and does not take them for its own.
    let (cluster, copy) = (dev.dir(), dev.folder().join("copy"));
    let copied = std::process::Command::new("cp").arg("-r").arg(&cluster).arg(&copy).status()?;
    ensure!(copied.success(), "{copied}");
    let copy = copy.to_string_lossy();
    for words in [&["down"][..], &["kill", "broker-1"], &["up"], &["status"]] {
        let said = dev.refused(&[&["dev"], words, &["--dir", &copy]].concat())?;
        ensure!(said.contains("broker-1: is ") || said.contains("controller-1: is "), "{said}");
        ensure!(
            said.contains(&format!("is {copy} a copy of that cluster's folder? Nothing was done.")),
            "{said}"
        );
    }
    ensure!(dev.of("broker-1", "state")? == "READY" && dev.of("controller-1", "state")? == "READY");
    // Nor does it take whoever has its ports for what it was to start.
    for entry in ["broker-1", "broker-2", "controller-1"] {
        std::fs::remove_file(dev.folder().join("copy").join(entry).join("pid")).or_else(|error| {
            if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
        })?;
    }
    let said = dev.refused(&["dev", "up", "--dir", &copy])?;
    ensure!(
        said.contains("controller-1 cannot start: 127.0.0.1:") && said.contains("is held by process "),
        "{said}"
    );
    ensure!(said.contains(&format!(" in {}/controller-1)", cluster.canonicalize()?.display())), "{said}");

    // A broker without its disk is no new one.
    let (data, away) = (dev.dir().join("broker-2/data"), dev.dir().join("away"));
    std::fs::rename(&data, &away)?;
    let error = dev.dev(&["start", "broker-2"]).unwrap_err().to_string();
    ensure!(error.contains("holds no broker's logs, but broker_id says that it is broker 2"), "{error}");
    ensure!(!data.join("logs").exists(), "something was made");
    std::fs::remove_dir_all(&data).or_else(|error| if data.exists() { Err(error) } else { Ok(()) })?;
    std::fs::rename(&away, &data)?;
    dev.dev(&["start", "broker-2"])?;
    dev.dev(&["down"])?;
    Ok(())
}
