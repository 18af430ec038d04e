//! Runs of the simulation, a process each, as many at a time as there are cores.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::steps::root;

/// One seed in so many is run twice, and must be the same run. An odd number, so that each scenario has its turn.
const TWICE_EVERY: u64 = 21;
/// A run takes seconds. One that takes so long will not end.
const RUN_MAX: Duration = Duration::from_secs(180);
/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(15);
/// The lines of a failed run that are shown.
const LINES: usize = 12;
/// What the simulation ends with if it does not know what it was asked for.
const NOT_UNDERSTOOD: i32 = 2;

/// Runs to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) from: u64,
    pub(super) seeds: u64,
    /// Seeds take turns.
    pub(super) scenarios: Vec<String>,
    /// A bug that the simulation is given.
    pub(super) plant: Option<String>,
    /// Whether one that fails is enough.
    pub(super) until_one_fails: bool,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) seed: u64,
    pub(super) scenario: String,
    /// The last lines of what it said.
    pub(super) why: String,
}

impl Failed {
    /// What runs it again, with all that happens in it.
    pub(super) fn command(&self) -> String {
        let Self { seed, scenario, .. } = self;
        format!("cargo run --profile sim -p weir-simulation -- {scenario} {seed} --trace")
    }

    /// What was wrong, in a line.
    pub(super) fn reason(&self) -> &str {
        let said = self.why.lines().find_map(|line| line.split_once(" FAILED: "));
        said.map_or_else(|| self.why.lines().last().unwrap_or_default(), |(_, reason)| reason)
    }
}

/// Runs on their way.
pub(super) struct Runs<'a> {
    program: PathBuf,
    /// Where each run's output goes, to be read when it has failed.
    out: PathBuf,
    wanted: &'a Wanted,
    next: AtomicU64,
    done: AtomicU64,
    over: AtomicBool,
    failed: Mutex<Vec<Failed>>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(program: PathBuf, out: PathBuf, wanted: &'a Wanted) -> Result<Self, String> {
        std::fs::create_dir_all(&out).map_err(|e| format!("cannot make {}: {e}", out.display()))?;
        let (next, done) = (AtomicU64::new(wanted.from), AtomicU64::new(0));
        let (over, failed) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { program, out, wanted, next, done, over, failed })
    }

    /// Makes them. Those that failed, in the order of their seeds: where one is enough, the first is the first of all seeds
    /// that fails, because those before it have been run to their ends.
    pub(super) fn run(self) -> Result<Vec<Failed>, String> {
        let side_by_side = thread::available_parallelism().map_or(1, |cores| cores.get());
        thread::scope(|scope| {
            let workers: Vec<_> = (0..side_by_side).map(|_| scope.spawn(|| self.work())).collect();
            scope.spawn(|| self.tell());
            let ended =
                workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err("a panic".into())));
            let ended: Result<Vec<()>, String> = ended.collect();
            self.over.store(true, Ordering::SeqCst);
            ended
        })?;
        let mut failed = self.failed.into_inner().map_err(|_| "a worker panicked")?;
        failed.sort_by_key(|failed| failed.seed);
        Ok(failed)
    }

    fn tell(&self) {
        let mut told = Instant::now();
        while !self.over.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                eprintln!("{} of {} seeds done", self.done.load(Ordering::SeqCst), self.wanted.seeds);
            }
        }
    }

    fn work(&self) -> Result<(), String> {
        loop {
            let is_found = || self.failed.lock().map_or(true, |failed| !failed.is_empty());
            if self.wanted.until_one_fails && is_found() {
                return Ok(());
            }
            let seed = self.next.fetch_add(1, Ordering::SeqCst);
            if seed >= self.wanted.from.saturating_add(self.wanted.seeds) {
                return Ok(());
            }
            let scenarios = &self.wanted.scenarios;
            let scenario = scenarios.get((seed % scenarios.len() as u64) as usize).map_or("", String::as_str);
            if let Some(why) = self.try_seed(scenario, seed)? {
                let failed = Failed { seed, scenario: scenario.to_owned(), why };
                if self.wanted.plant.is_none() {
                    eprintln!("\nseed {seed} ({scenario}) failed:\n{}\n  {}", failed.why, failed.command());
                }
                self.failed.lock().map_err(|_| "a worker panicked")?.push(failed);
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
        if seed.is_multiple_of(TWICE_EVERY) && self.wanted.plant.is_none() {
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
        command.args(self.wanted.plant.iter().flat_map(|plant| ["--plant", plant]));
        command.stdout(out.try_clone().map_err(failed)?).stderr(out);
        let ended = wait(&mut command).map_err(failed)?;
        let mut said =
            std::fs::read(&path).map(|said| String::from_utf8_lossy(&said).into_owned()).map_err(failed)?;
        match ended {
            Some(status) if status.success() => return Ok((true, said)),
            // A bug that it has never heard of is not one that it has noticed.
            Some(status) if status.code() == Some(NOT_UNDERSTOOD) => {
                return Err(format!("the simulation does not understand {command:?}:\n{said}"));
            }
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
