//! What a server takes before anybody uses it. Thirty threads with a heap each are cheap, if the first touch of a heap
//! takes a page of 4 KiB and not one of 2 MiB.

use anyhow::{Context, Result, ensure};
use weir_tests::process::Setup;

/// A budget for what is not the program's file: what a debug build takes is the same as in a release build.
const ANONYMOUS_KIB_MAX: u64 = 20 << 10;

#[tokio::test]
async fn an_idle_server_takes_no_huge_pages_and_little_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Setup::new(folder.path().join("data")).start().await?;
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.pid()))?;
    let kib = |name: &str| -> Result<u64> {
        let line = maps.lines().find_map(|line| line.strip_prefix(name)).with_context(|| maps.clone())?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    // Where the system gives huge pages to whoever does not object, the first one is there before the program begins.
    ensure!(kib("AnonHugePages:")? <= 4 << 10, "{maps}");
    ensure!(kib("Anonymous:")? <= ANONYMOUS_KIB_MAX, "{maps}");
    server.stop().await
}
