//! A local cluster under test: real processes, as `weir dev` starts them, which is what a person gets who types it. What
//! happens to a process goes straight to it: a command in between would be measured with it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How long one command of `weir dev` may take.
const PATIENCE: &str = "120s";

/// `weir dev`, on one folder.
#[derive(Clone, Debug)]
pub struct Dev {
    weir: PathBuf,
    dir: PathBuf,
}

/// One of its nodes, whether it runs or not.
#[derive(Clone, Debug)]
pub struct Node {
    /// As `weir dev` calls it: `broker-1`.
    pub name: String,
    /// `host:port` of its gRPC listener: for clients of a broker, for everybody of a controller.
    pub address: String,
    /// `host:port` of its HTTP listener.
    pub http: String,
    /// Its part of the folder.
    pub dir: PathBuf,
}

/// A cluster of which nothing is left in the end: neither a process nor a file.
#[derive(Debug)]
pub struct Scratch {
    /// Its commands.
    pub dev: Dev,
    /// Its brokers, by number.
    pub brokers: Vec<Node>,
    /// Its controllers, by number.
    pub controllers: Vec<Node>,
}

impl Dev {
    /// The commands of this program for the cluster in this folder, which may have none yet.
    #[must_use]
    pub fn new(weir: &Path, dir: &Path) -> Self {
        Self { weir: weir.to_owned(), dir: dir.to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `weir dev`, with these words.
    ///
    /// # Errors
    /// What it says.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.run_by(Command::new(&self.weir), words)
    }

    /// The same in a network namespace, where what it starts stays. It takes root.
    ///
    /// # Errors
    /// What it says.
    pub fn run_in(&self, namespace: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(&self.weir);
        self.run_by(command, words)
    }

    fn run_by(&self, mut command: Command, words: &[&str]) -> anyhow::Result<String> {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_")) {
            command.env_remove(name);
        }
        command.arg("dev").args(words).arg("--dir").arg(&self.dir).args(["--timeout", PATIENCE]);
        let output = command.output().with_context(|| format!("running {command:?}"))?;
        if !output.status.success() {
            bail!("weir dev {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The brokers, by number.
    ///
    /// # Errors
    /// A configuration cannot be read.
    pub fn brokers(&self) -> anyhow::Result<Vec<Node>> {
        self.nodes("broker", "listen")
    }

    /// The controllers, by number.
    ///
    /// # Errors
    /// A configuration cannot be read.
    pub fn controllers(&self) -> anyhow::Result<Vec<Node>> {
        self.nodes("controller", "controller_listen")
    }

    /// The nodes of a kind, with the address that their configurations have under `key`: the one that others are told.
    fn nodes(&self, kind: &str, key: &str) -> anyhow::Result<Vec<Node>> {
        let named = (1..).map(|number| format!("{kind}-{number}"));
        let there = named.map(|name| (self.dir.join(&name), name)).take_while(|(dir, _)| dir.is_dir());
        let node = |(dir, name): (PathBuf, String)| {
            let text = fs::read_to_string(dir.join("weir.toml"))?;
            let value = |key: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
                let value = line.with_context(|| format!("{name} has no {key}"))?;
                anyhow::Ok(value.trim().trim_matches('"').to_owned())
            };
            let (address, http) = (value(key)?, value("http_listen")?);
            Ok(Node { name, address, http, dir })
        };
        there.map(node).collect()
    }
}

impl Scratch {
    /// Makes a cluster in a folder that is not there yet, and waits until all of it is ready.
    ///
    /// # Errors
    /// What `weir dev up` says.
    pub fn start(weir: &Path, dir: &Path, brokers: u16, controllers: u16) -> anyhow::Result<Self> {
        ensure!(!dir.exists(), "{} is there: a cluster under test gets a folder of its own", dir.display());
        let mut scratch = Self { dev: Dev::new(weir, dir), brokers: Vec::new(), controllers: Vec::new() };
        let (brokers, controllers) = (brokers.to_string(), controllers.to_string());
        scratch.dev.run(&["up", "--brokers", &brokers, "--controllers", &controllers])?;
        scratch.brokers = scratch.dev.brokers()?;
        scratch.controllers = scratch.dev.controllers()?;
        Ok(scratch)
    }

    /// All of it: controllers first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.controllers.iter().chain(&self.brokers)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.dev.run(&["down"]) {
            eprintln!("{error}: killed");
            for node in self.nodes() {
                let _ = node.signal(Signal::KILL);
            }
        }
        let _ = fs::remove_dir_all(self.dev.dir());
    }
}

impl Node {
    /// Its process, as its file says: the last one, if it does not run.
    ///
    /// # Errors
    /// It has never run.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let path = self.dir.join("pid");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        pid.with_context(|| format!("{} is no pid file", path.display()))
    }

    /// Sends a signal to its process.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Whether its process has ended.
    ///
    /// # Errors
    /// It has never run.
    pub fn is_gone(&self) -> anyhow::Result<bool> {
        Ok(test_kill_process(self.pid()?).is_err())
    }

    /// Sums over its labels what `/metrics` says of one metric; `None`: the page has none, or there is no page.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<f64> {
        let page = self.page("/metrics").ok()?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            rest.starts_with([' ', '{']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.reduce(|sum, next| sum + next)
    }

    /// A page of its HTTP listener.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn page(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// Its resident memory, in KiB; 0 if it is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let Ok(pid) = self.pid() else { return 0 };
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }
}

/// Looks every few milliseconds until something holds. How long that took.
///
/// # Errors
/// It does not come about.
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(begun.elapsed())
}
