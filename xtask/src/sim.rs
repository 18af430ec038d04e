//! `cargo xtask sim`: many seeds of the whole-cluster simulation, a process each.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::{Outcome, Steps, cargo, root};

/// Seeds unless told otherwise: as many as a change must pass.
const SEEDS: u64 = 200;
/// One seed in so many is run twice, and must be the same run.
const TWICE_EVERY: u64 = 20;
/// A run takes seconds. One that takes so long will not end.
const RUN_MAX: Duration = Duration::from_secs(180);
/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// What is simulated: seeds take turns.
const SCENARIOS: [&str; 3] = ["brokers", "controllers", "unclean"];
/// Bugs of the simulated disks, and in which scenario they must be noticed by each change.
static PLANTS: [(&str, &str); 3] =
    [("no-sync", "controllers"), ("no-log-sync", "brokers"), ("no-folder-sync", "controllers")];
/// In so many seeds.
const PLANT_SEEDS: u64 = 10;
/// Rules of the product that can be taken out, in which scenario that is noticed. `simulation/src/rules.rs` knows them.
static RULES: [(&str, &str); 10] = [
    ("broker:HalfKept", "brokers"),
    ("broker:LeaderIsAll", "brokers"),
    ("broker:MovedInSilence", "brokers"),
    ("broker:PositionUnchecked", "unclean"),
    ("controller:EveryoneBegins", "controllers"),
    ("controller:NoBarrier", "brokers"),
    ("controller:SnapshotUnsynced", "controllers"),
    ("controller:Unwatched", "controllers"),
    ("controller:VoteForgotten", "controllers"),
    ("metadata:ByProcess", "controllers"),
];
/// The lines of a failed run that are shown.
const LINES: usize = 12;

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    from: u64,
    seeds: u64,
    scenarios: Vec<String>,
    /// A bug that the simulation is given.
    plant: Option<String>,
}

fn asked(args: &[String]) -> Result<Asked, String> {
    let scenarios = SCENARIOS.iter().map(ToString::to_string).collect();
    let mut asked = Asked { from: 1, seeds: SEEDS, scenarios, plant: None };
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{flag} {value}: a whole number is needed"));
        match flag.as_str() {
            "--from" => asked.from = number()?,
            "--seeds" => asked.seeds = number()?,
            "--scenario" if SCENARIOS.contains(&value.as_str()) => asked.scenarios = vec![value.clone()],
            "--scenario" => return Err(format!("there is no scenario {value}: {}", SCENARIOS.join(", "))),
            "--plant" => {
                let known = plants().find(|(plant, _)| plant == value);
                let names = || plants().map(|(plant, _)| *plant).collect::<Vec<_>>().join(", ");
                let (plant, scenario) =
                    known.ok_or_else(|| format!("there is no plant {value}: {}", names()))?;
                asked.plant = Some((*plant).to_owned());
                asked.scenarios = vec![(*scenario).to_owned()];
            }
            other => {
                return Err(format!(
                    "sim does not know {other}: --seeds N, --from S, --scenario NAME, --plant NAME"
                ));
            }
        }
    }
    Ok(asked)
}

/// Every bug that can be planted.
fn plants() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    PLANTS.iter().chain(&RULES)
}

/// What a change must pass: the usual seeds, and the bugs that must be noticed.
pub(crate) fn ci(steps: &mut Steps) -> Result<Outcome, String> {
    let mut outcome = run(steps, &[])?;
    for (plant, _) in PLANTS {
        let args = ["--plant", plant, "--seeds", &PLANT_SEEDS.to_string()];
        outcome = outcome.and(run(steps, &args.map(str::to_owned))?);
    }
    Ok(outcome)
}

/// Builds the simulation and runs the seeds. With a bug planted it has passed if a seed has failed.
pub(crate) fn run(steps: &mut Steps, args: &[String]) -> Result<Outcome, String> {
    let asked = asked(args)?;
    let mut build = cargo();
    build.args(["build", "--locked", "--quiet", "--profile", "sim", "--package", "weir-simulation"]);
    build.args(["--features", "mutants"]);
    if steps.run("the simulation", &mut build)? != Outcome::Passed {
        return Ok(Outcome::Failed);
    }
    let this = std::env::current_exe().map_err(|e| format!("cannot find this program's folder: {e}"))?;
    let target = this.parent().and_then(Path::parent).ok_or("this program is in no target folder")?;
    let program = target.join("sim/weir-simulation");
    let planted = asked.plant.as_ref().map(|plant| format!(", with {plant}")).unwrap_or_default();
    let name = format!("{} seeds from {} on{planted}", asked.seeds, asked.from);
    steps.time(&name, || Runs::new(program, target.join("sim/out"), asked)?.run())
}

/// Runs on their way.
struct Runs {
    program: PathBuf,
    /// Where each run's output goes, to be read when it has failed.
    out: PathBuf,
    asked: Asked,
    next: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
    failed: Mutex<Vec<String>>,
}

impl Runs {
    fn new(program: PathBuf, out: PathBuf, asked: Asked) -> Result<Self, String> {
        std::fs::create_dir_all(&out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
        let (next, done) = (AtomicU64::new(asked.from), AtomicU64::new(0));
        Ok(Self { program, out, asked, next, done, over: AtomicBool::new(false), failed: Mutex::default() })
    }

    fn run(&self) -> Result<Outcome, String> {
        let side_by_side = thread::available_parallelism().map_or(1, |cores| cores.get());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..side_by_side).map(|_| scope.spawn(|| self.work())).collect();
            scope.spawn(|| self.tell());
            let ended =
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into())));
            let ended: Result<(), String> = ended.collect();
            self.over.store(true, Ordering::SeqCst);
            ended
        })?;
        let failed = self.failed.lock().map_err(|_| "a worker panicked")?;
        if let Some(plant) = &self.asked.plant {
            eprintln!("{plant} is noticed by {} of {} seeds", failed.len(), self.asked.seeds);
            return Ok(if failed.is_empty() { Outcome::Failed } else { Outcome::Passed });
        }
        if failed.is_empty() {
            return Ok(Outcome::Passed);
        }
        eprintln!(
            "\n{} of {} seeds failed. Each again, with all that happens in it:",
            failed.len(),
            self.asked.seeds
        );
        failed.iter().for_each(|command| eprintln!("  {command}"));
        Ok(Outcome::Failed)
    }

    fn tell(&self) {
        let mut told = Instant::now();
        while !self.over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                eprintln!("{} of {} seeds done", self.done.load(Ordering::SeqCst), self.asked.seeds);
            }
        }
    }

    fn work(&self) -> Result<(), String> {
        loop {
            let seed = self.next.fetch_add(1, Ordering::SeqCst);
            if seed >= self.asked.from.saturating_add(self.asked.seeds) {
                return Ok(());
            }
            let scenarios = &self.asked.scenarios;
            let scenario = scenarios.get((seed % scenarios.len() as u64) as usize).map_or("", String::as_str);
            if let Some(why) = self.try_seed(scenario, seed)? {
                let command =
                    format!("cargo run --profile sim -p weir-simulation -- {scenario} {seed} --trace");
                if self.asked.plant.is_none() {
                    eprintln!("\nseed {seed} ({scenario}) failed:\n{why}\n  {command}");
                }
                self.failed.lock().map_err(|_| "a worker panicked")?.push(command);
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What is wrong with a seed, if something is.
    fn try_seed(&self, scenario: &str, seed: u64) -> Result<Option<String>, String> {
        let (held, said) = self.once(scenario, seed)?;
        if !held {
            let lines: Vec<&str> = said.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
            return Ok(Some(last.join("\n")));
        }
        if seed.is_multiple_of(TWICE_EVERY) {
            let (_, again) = self.once(scenario, seed)?;
            if again != said {
                return Ok(Some(format!("run twice, it is not the same:\n{said}{again}")));
            }
        }
        Ok(None)
    }

    /// One run: whether it held, and what it said.
    fn once(&self, scenario: &str, seed: u64) -> Result<(bool, String), String> {
        let path = self.out.join(format!("{scenario}-{seed}.log"));
        let failed = |e: io::Error| format!("{scenario} {seed}: {e}");
        let out = File::create(&path).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.current_dir(root()).args([scenario, &seed.to_string()]);
        command.args(self.asked.plant.iter().flat_map(|plant| ["--plant", plant]));
        command.stdout(out.try_clone().map_err(failed)?).stderr(out);
        let ended = wait(&mut command).map_err(failed)?;
        let mut said =
            std::fs::read(&path).map(|said| String::from_utf8_lossy(&said).into_owned()).map_err(failed)?;
        match ended {
            Some(status) if status.success() => return Ok((true, said)),
            Some(status) => said.push_str(&format!("{status}\n")),
            None => said.push_str(&format!("it was ended after {RUN_MAX:?}\n")),
        }
        Ok((false, said))
    }
}

/// Waits for a program; `None` if it had to be ended.
fn wait(command: &mut Command) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > RUN_MAX {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Result<Asked, String> {
        asked(&args.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_says_which_seeds() {
        let all = of(&[]).unwrap();
        assert_eq!((all.from, all.seeds, all.scenarios.len()), (1, SEEDS, SCENARIOS.len()));
        let some = of(&["--seeds", "3", "--from", "7", "--scenario", "controllers"]).unwrap();
        assert_eq!(some, Asked { from: 7, seeds: 3, scenarios: vec!["controllers".to_owned()], plant: None });
        assert!(of(&["--seeds"]).unwrap_err().contains("needs a value"));
        assert!(of(&["--seeds", "many"]).unwrap_err().contains("many"));
        assert!(of(&["--scenario", "none"]).unwrap_err().contains("controllers"));
        assert_eq!(of(&["--plant", "no-sync"]).unwrap().plant.as_deref(), Some("no-sync"));
        assert!(of(&["--plant", "none"]).unwrap_err().contains("no-log-sync"));
        assert!(of(&["--verbose", "1"]).unwrap_err().contains("--verbose"));
    }
}
