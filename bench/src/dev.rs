//! A local cluster under test: real processes, as `weir dev` starts them, taken down and wiped at the end.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// How long one command of `weir dev` may take.
const PATIENCE: &str = "120s";

/// A cluster that runs.
#[derive(Debug)]
pub struct Dev {
    weir: PathBuf,
    dir: PathBuf,
    /// Its nodes: controllers first, by number.
    pub nodes: Vec<Node>,
}

/// One of its nodes.
#[derive(Clone, Debug)]
pub struct Node {
    /// As `weir dev` calls it: `broker-1`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `host:port` of its gRPC listener: for clients of a broker, for everybody of a controller.
    pub address: String,
    /// `host:port` of its HTTP listener.
    pub http: String,
}

impl Dev {
    /// Makes a cluster in a folder that is not there yet, and waits until all of it is ready.
    ///
    /// # Errors
    /// What `weir dev up` says.
    pub fn start(weir: &Path, dir: &Path, brokers: u16, controllers: u16) -> anyhow::Result<Self> {
        ensure!(!dir.exists(), "{} is there: a cluster under test gets a folder of its own", dir.display());
        let mut dev = Self { weir: weir.to_owned(), dir: dir.to_owned(), nodes: Vec::new() };
        let (brokers, controllers) = (brokers.to_string(), controllers.to_string());
        dev.run(&["up", "--brokers", &brokers, "--controllers", &controllers])?;
        dev.look()?;
        Ok(dev)
    }

    /// `weir dev`, with these words.
    ///
    /// # Errors
    /// What it says.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.weir);
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

    /// Looks again which processes there are.
    ///
    /// # Errors
    /// What `weir dev status` says.
    pub fn look(&mut self) -> anyhow::Result<()> {
        let text =
            |node: &Value, field: &str| node.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
        let nodes = self.run(&["status", "-o", "json"])?;
        let nodes = nodes.lines().map(|line| {
            let node: Value = serde_json::from_str(line)?;
            let pid = node.get("pid").and_then(Value::as_u64).unwrap_or(0);
            Ok(Node {
                name: text(&node, "name"),
                pid: u32::try_from(pid)?,
                address: text(&node, "address"),
                http: text(&node, "http"),
            })
        });
        self.nodes = nodes.collect::<anyhow::Result<_>>()?;
        Ok(())
    }

    /// The brokers.
    pub fn brokers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.name.starts_with("broker-"))
    }

    /// The controllers.
    pub fn controllers(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.name.starts_with("controller-"))
    }
}

impl Drop for Dev {
    /// Nothing is left: neither a process nor a file.
    fn drop(&mut self) {
        if let Err(error) = self.run(&["down"]) {
            eprintln!("{error}: killed");
            for node in self.nodes.clone() {
                let _ = self.run(&["kill", &node.name]);
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Node {
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
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
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
