//! Who listens where others can reach it, without TLS and login, says so in its log: a banner is seen by whoever starts
//! it by hand, a log by whoever looks later. Who tells clients an address at which nobody finds it is found out by `weir
//! doctor`.

use std::process::Command;

use anyhow::{Result, ensure};
use weir_tests::binary;
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

#[tokio::test]
async fn a_broker_that_tells_clients_a_wrong_address_is_named_by_doctor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let controller = Setup::controller(folder.path().join("c")).flag("--bootstrap", "true").start().await?;
    let broker = |name: &str| Setup::broker(folder.path().join(name), controller.controller_addr());
    let right = broker("right").start().await?;
    let doctor = || -> Result<_> {
        let output = Command::new(binary::weir()?).args(["-s", right.addr(), "doctor"]).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(said)?))
    };
    let (code, said) = doctor()?;
    ensure!(code == Some(0) && said.starts_with("ok  "), "{code:?}: {said}");

    // Nobody listens there.
    let wrong = broker("wrong").flag("--advertised-address", "127.0.0.1:1").start().await?;
    let (code, said) = doctor()?;
    ensure!(code == Some(5), "an address that cannot be reached is 5: {code:?}: {said}");
    let named: Vec<_> = said.lines().filter(|line| line.starts_with("fail  broker ")).collect();
    ensure!(named.len() == 1 && named[0].starts_with("fail  broker 2 at 127.0.0.1:1: "), "{said}");
    ensure!(
        said.contains("1 address that the server gives to clients cannot be reached from here"),
        "{said}"
    );
    wrong.stop().await?;

    // Somebody else listens there.
    let wrong = broker("wrong").flag("--advertised-address", right.addr()).start().await?;
    let (code, said) = doctor()?;
    ensure!(code == Some(5) && said.contains("broker 1 answers there"), "{code:?}: {said}");
    wrong.stop().await?;
    right.stop().await?;
    controller.stop().await
}
