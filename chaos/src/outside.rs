//! Histories one after the other, each in a network of its own that is removed whatever happens.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use weir_runtime::testing::random_seed;
use weir_tests::small_disk::SmallDisk;
use weir_tests::tools::skip;

use crate::asked::{Asked, Scenario};
use crate::network::{Network, impossible, namespace, remove_leftovers};
use crate::slow;
use crate::summary::Summary;
use crate::who::Who;

/// A history takes so long at most beside the time in which things break.
const AROUND: Duration = Duration::from_secs(900);
/// Seeds that are drawn stay short: people type them again.
const SEEDS: u64 = 1_000_000_000;

/// Somebody wanted it to end.
#[derive(Debug)]
struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Runs them all. What this machine cannot do is skipped; where `CI` is set, it has failed.
pub(crate) async fn run(asked: Asked) -> Result<()> {
    if let Some(why) = impossible() {
        return skip(&format!("no history was made: {why}"));
    }
    remove_leftovers()?;
    let first = asked.seed.unwrap_or_else(|| random_seed() % SEEDS);
    let (mut all, mut failed, mut skipped) = (Summary::default(), Vec::new(), 0);
    for (seed, turn) in (first..).zip(0..asked.histories) {
        let in_turn = Scenario::ALL.get(usize::try_from(turn)? % Scenario::ALL.len());
        let scenario = asked.scenario.or(in_turn.copied()).context("there are scenarios")?;
        let again = format!(
            "cargo xtask chaos --histories 1 --seconds {} --seed {seed} --scenario {}",
            asked.breaking().as_secs(),
            scenario.name()
        );
        println!("\nhistory {} of {}: {again}", turn + 1, asked.histories);
        if scenario == Scenario::PowerLoss
            && let Some(why) = SmallDisk::keeps_power().await
        {
            match skip(&why) {
                Ok(()) => skipped += 1,
                Err(error) => {
                    println!("FAILED: {error:#}");
                    failed.push(again);
                }
            }
            continue;
        }
        if scenario == Scenario::SlowDisk
            && let Some(why) = slow::impossible().await
        {
            println!("SKIPPED: {why}");
            skipped += 1;
            continue;
        }
        let folder = asked.out.join(format!("{}-{seed}", scenario.name()));
        let done = history(&asked, scenario, seed, &folder).await;
        match done.and_then(|()| Summary::read(&folder)) {
            Ok(summary) => {
                all.add(summary);
                fs::remove_dir_all(&folder)?;
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                println!("FAILED: {error:#}\n  its files are in {}\n  again: {again}", folder.display());
                failed.push(again);
            }
        }
    }
    println!("\n{} histories, {skipped} skipped, {} failed: {all}", asked.histories, failed.len());
    ensure!(failed.is_empty(), "failed, each again:\n  {}", failed.join("\n  "));
    Ok(())
}

async fn history(asked: &Asked, scenario: Scenario, seed: u64, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (folder, programs): (PathBuf, PathBuf) = (folder.canonicalize()?, asked.programs.canonicalize()?);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let network = Network::lay()?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace(network.prefix(), Who::Clients)]).arg(std::env::current_exe()?);
    command.args(["--inside", network.prefix(), "--scenario", scenario.name()]);
    command.args(["--seed", &seed.to_string(), "--seconds", &asked.breaking().as_secs().to_string()]);
    command.arg("--programs").arg(programs).arg("--out").arg(&folder);
    // A file system in a file goes where the rest is: nothing stays elsewhere of a history that is killed.
    command.env("TMPDIR", &folder);
    command.stderr(File::create(folder.join("clients.log"))?).kill_on_drop(true).process_group(0);
    let mut inside = command.spawn().context("cannot start ip netns exec")?;
    // Whichever it is, the network goes with this function, and who is in it.
    let status = tokio::select! {
        status = timeout(asked.breaking() + AROUND, inside.wait()) => status.context("the history does not end")??,
        _ = interrupt.recv() => return Err(Interrupted.into()),
        _ = terminate.recv() => return Err(Interrupted.into()),
    };
    drop(network);
    if !status.success() {
        let said = fs::read_to_string(folder.join("clients.log")).unwrap_or_default();
        let panic = said.lines().rfind(|line| line.contains("panic: ")).unwrap_or_default();
        bail!("{status} {panic}");
    }
    Ok(())
}
