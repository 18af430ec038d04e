//! The real binary as a process of its own: started, waited for, stopped, killed, started again.
//!
//! A server says on a pipe that it is ready and where it listens; nothing here waits for a time to pass. What it
//! writes to stderr goes to a file beside its data; a test that fails prints its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use weir_runtime::testing::{PATIENCE, until};

use crate::binary;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    program: Program,
    data_dir: PathBuf,
    flags: BTreeMap<&'static str, String>,
    env: Vec<(String, String)>,
    log: PathBuf,
}

/// What is started.
#[derive(Clone, Copy, Debug)]
enum Program {
    Standalone,
    Broker,
    Controller,
}

impl Program {
    /// The program and its first words.
    fn words(self) -> Result<Vec<PathBuf>> {
        Ok(match self {
            Self::Standalone => vec![binary::weir()?, "standalone".into()],
            Self::Broker => vec![binary::program("weir-broker", "weir-broker")?],
            Self::Controller => vec![binary::program("weir-controller", "weir-controller")?],
        })
    }
}

impl Setup {
    /// `weir standalone` on this data directory, with a free port for each listener.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self::of(Program::Standalone, data_dir, &["--listen", "--http-listen", "--controller-listen"])
    }

    /// `weir-broker` of the cluster of this controller, in the same way.
    pub fn broker(data_dir: impl Into<PathBuf>, controller: &str) -> Self {
        Self::of(Program::Broker, data_dir, &["--listen", "--internal-listen", "--http-listen"])
            .flag("--controllers", controller)
    }

    /// `weir-controller`, in the same way.
    pub fn controller(data_dir: impl Into<PathBuf>) -> Self {
        Self::of(Program::Controller, data_dir, &["--controller-listen", "--http-listen"])
    }

    fn of(program: Program, data_dir: impl Into<PathBuf>, listeners: &[&'static str]) -> Self {
        let data_dir = data_dir.into();
        let log = data_dir.with_extension("log");
        let flags = listeners.iter().map(|flag| (*flag, "127.0.0.1:0".to_owned())).collect();
        Self { program, data_dir, flags, env: Vec::new(), log }
    }

    /// With this flag, instead of the one that there was of this name.
    #[must_use]
    pub fn flag(mut self, flag: &'static str, value: impl Into<String>) -> Self {
        self.flags.insert(flag, value.into());
        self
    }

    /// With this setting in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its words in this file.
    #[must_use]
    pub fn log(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = log.into();
        self
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// It ended instead; with what it said.
    pub async fn start(&self) -> Result<Process> {
        self.spawn().await?.ready().await
    }

    /// Starts it, expecting that it refuses to serve.
    ///
    /// # Errors
    /// It serves.
    pub async fn refused(&self) -> Result<Refused> {
        let mut starting = self.spawn().await?;
        if let Some(line) = starting.ready_line().await? {
            bail!("it should not have started, but is ready: {line}");
        }
        let status = starting.server.wait().await?;
        Ok(Refused { status, said: starting.server.log() })
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// There is no binary.
    pub async fn spawn(&self) -> Result<Starting> {
        let stderr = File::options().create(true).append(true).open(&self.log)?;
        // What is set for the tests is not meant for the server, which refuses settings that it does not know.
        let not_ours = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("WEIR_"));
        // The shell gives the pipe its number, and is then replaced by the server.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3>&1 1>&2", "sh"])
            .args(self.program.words()?)
            .args(["--ready-fd", "3", "--data-dir"])
            .arg(&self.data_dir)
            .args(self.flags.iter().flat_map(|(flag, value)| [*flag, value]))
            .env_clear()
            .envs(not_ours)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()?;
        let ready = BufReader::new(child.stdout.take().context("the pipe was asked for")?);
        let server = Process { child, log: self.log.clone(), ready: Value::Null, over: false };
        Ok(Starting { server, ready })
    }
}

/// A server that did not start.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said.
    pub said: String,
}

/// A server on its way.
#[derive(Debug)]
pub struct Starting {
    server: Process,
    ready: BufReader<ChildStdout>,
}

impl Starting {
    /// Waits until it serves.
    ///
    /// # Errors
    /// It ended instead; with what it said.
    pub async fn ready(mut self) -> Result<Process> {
        match self.ready_line().await? {
            Some(line) => {
                self.server.ready =
                    serde_json::from_str(&line).with_context(|| format!("ready line {line:?}"))?;
                Ok(self.server)
            }
            None => {
                let status = self.server.wait().await?;
                bail!("the server ended with {status} before it was ready: {}", self.server.log())
            }
        }
    }

    /// Waits until it has written these words to stderr.
    ///
    /// # Errors
    /// It has ended without them.
    pub async fn says(&mut self, words: &str) -> Result<()> {
        self.server.says(words).await
    }

    /// Kills it in the middle of its start, or just after.
    ///
    /// # Errors
    /// It was gone already.
    pub async fn kill(mut self) -> Result<()> {
        self.server.send(Signal::KILL)?;
        self.server.wait().await.map(drop)
    }

    async fn ready_line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.ready.read_line(&mut line))
            .await
            .context("it neither serves nor ends")??;
        Ok((read > 0).then_some(line))
    }
}

/// A server that serves. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    ready: Value,
    /// Its end was expected.
    over: bool,
}

impl Process {
    /// `host:port` of the public gRPC listener.
    #[must_use]
    pub fn addr(&self) -> &str {
        self.listener("grpc")
    }

    /// `host:port` of the HTTP listener.
    #[must_use]
    pub fn http_addr(&self) -> &str {
        self.listener("http")
    }

    /// `host:port` of a controller's listener.
    #[must_use]
    pub fn controller_addr(&self) -> &str {
        self.listener("controller")
    }

    fn listener(&self, name: &str) -> &str {
        self.ready.get(name).and_then(Value::as_str).unwrap_or("the ready line names no such listener")
    }

    /// The whole ready line.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Everything it wrote to stderr since the data directory was new.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process id; 0 once it is gone.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Waits until it has written these words to stderr.
    ///
    /// # Errors
    /// It has ended without them.
    pub async fn says(&mut self, words: &str) -> Result<()> {
        let mut lives = Ok(());
        until(words, async || {
            lives = self.lives();
            lives.is_err() || self.log().contains(words)
        })
        .await;
        if self.log().contains(words) { Ok(()) } else { lives }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(&self, signal: Signal) -> Result<()> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(kill_process(pid.context("the server is gone")?, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let status = timeout(PATIENCE, self.child.wait()).await.context("the server does not end")??;
        self.over = true;
        Ok(status)
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// It does not: with how it ended and what it said.
    pub fn lives(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the server ended with {status}: {}", self.log());
        }
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// It was gone already.
    pub async fn kill(mut self) -> Result<()> {
        self.send(Signal::KILL)?;
        self.wait().await.map(drop)
    }

    /// SIGTERM, and an orderly end.
    ///
    /// # Errors
    /// The end was not orderly.
    pub async fn stop(self) -> Result<()> {
        self.send(Signal::TERM)?;
        self.stopped().await
    }

    /// An orderly end after a signal that was sent before.
    ///
    /// # Errors
    /// The end was not orderly.
    pub async fn stopped(mut self) -> Result<()> {
        let status = self.wait().await?;
        ensure!(status.success(), "the server ended with {status}: {}", self.log());
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.over {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default();
            eprintln!("a test ended before its server did, which said last:\n{}", last.join("\n"));
        }
    }
}

/// A port that is free now and stays so for its next listener: below those that the system gives to connections, so
/// that a client that tries to reconnect never meets itself.
///
/// # Errors
/// None is free.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    static ASKED: AtomicU16 = AtomicU16::new(0);
    // Tests run beside each other, in other processes and in this one: each begins elsewhere, and goes on elsewhere.
    let from = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    let mut ports = std::iter::repeat_with(|| FIRST + (from + ASKED.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .take(usize::from(COUNT));
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}
