//! `weir bench` in a cluster: any broker may be named, and what is measured goes to the leaders.

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_tests::binary;
use weir_tests::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_broker_can_be_named_and_every_leader_has_its_part() -> Result<()> {
    let weir = binary::weir()?;
    let cluster = Cluster::start(3).await;
    for at in 0..3 {
        let bench = async |topic: &str, words: &[&str]| -> Result<Value> {
            let mut command = Command::new(&weir);
            command.args(["-s", &cluster.addr(at).to_string(), "-o", "json", "bench"]).args(words);
            command.args(["--topic", topic]);
            let output = command.output()?;
            let (said, why) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.success(), "bench {} by broker {at}: {why}", words.join(" "));
            Ok(serde_json::from_str(&said)?)
        };
        for (replicas, min) in [("1", "1"), ("3", "2")] {
            let topic = format!("bench-{at}-{replicas}");
            let size = ["--total", "6MiB", "--batch", "64KiB", "-p", "12"];
            let words = [&["produce"], &size[..], &["-r", replicas, "--min-insync", min]].concat();
            let written = bench(&topic, &words).await?;
            ensure!(written.get("batches") == Some(&Value::from(96)), "{written}");
            let leaders = cluster.leaders(&topic).await;
            ensure!((0..3).all(|broker| leaders.contains(&broker)), "{leaders:?}");
            let read = bench(&topic, &["consume", "--clients", "2"]).await?;
            ensure!(read.get("batches") == Some(&Value::from(96)), "{read}");
            let late =
                bench(&topic, &["latency", "--total", "128KiB", "--replication-factor", replicas]).await?;
            ensure!(late.get("latencyUs").is_some_and(Value::is_object), "{late}");
        }
    }
    cluster.stop().await;
    Ok(())
}
