//! Who listens where others can reach it, without TLS and login, says so in its log: a banner is seen by whoever starts
//! it by hand, a log by whoever looks later.

use anyhow::{Result, ensure};
use weir_tests::process::Setup;

#[tokio::test]
async fn a_listener_that_others_reach_is_named_in_the_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("alone")).start().await?;
    ensure!(!server.log().contains("without TLS"), "loopback is nobody else's: {}", server.log());
    server.stop().await?;

    let open = Setup::new(folder.path().join("open"));
    let open = open.flag("--listen", "0.0.0.0:0").flag("--controller-listen", "0.0.0.0:0");
    let server = open.start().await?;
    let log = server.log();
    let warned: Vec<_> = log.lines().filter(|line| line.contains("without TLS")).collect();
    ensure!(warned.len() == 2 && warned.iter().all(|line| line.contains("WARN")), "{log}");
    for listener in ["gRPC", "controller"] {
        ensure!(warned.iter().any(|line| line.contains(&format!("{listener:?}"))), "{log}");
    }
    server.stop().await
}
