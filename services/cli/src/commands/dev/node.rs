//! One node of the cluster: its files, its addresses, and its process.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep, timeout};
use weir_runtime::Os;

use super::alive::{self, Alive};
use crate::error::{Error, Result};
use crate::{BROKER, CONTROLLER};

/// How often is looked whether something has come about.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a page may take that a healthy process answers at once.
const PAGE: Duration = Duration::from_secs(2);
/// How much of a log is shown of a process that did not start.
const LOG_LINES: usize = 5;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Controller,
    Broker,
}

impl Role {
    /// What its nodes are called before their number.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Broker => "broker",
        }
    }

    /// The name under which this program is one.
    fn program(self) -> &'static str {
        match self {
            Self::Controller => CONTROLLER,
            Self::Broker => BROKER,
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) role: Role,
    /// From 1.
    pub(super) number: u16,
    /// Where others connect to: clients to a broker, everybody to a controller.
    pub(super) addr: SocketAddr,
    pub(super) http: SocketAddr,
    /// Where other brokers connect to.
    pub(super) internal: Option<SocketAddr>,
    /// Where its files are.
    pub(super) dir: PathBuf,
}

impl Node {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.role.word(), self.number)
    }

    /// Its configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("weir.toml")
    }

    /// Where it listens, and for what.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let main = match self.role {
            Role::Controller => "brokers and controllers",
            Role::Broker => "clients",
        };
        let internal = self.internal.map(|addr| ("other brokers", addr));
        [(main, self.addr), ("HTTP", self.http)].into_iter().chain(internal)
    }

    /// What it says.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Below its data directory.
    pub(super) fn data(&self, what: &str) -> PathBuf {
        self.dir.join("data").join(what)
    }

    /// How long its log was when its process was started: before that are earlier lives of it.
    fn began_file(&self) -> PathBuf {
        self.dir.join("log-began")
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Its process, if it runs. One that runs in another folder is not its own: this one is a copy then, and nothing is done to
    /// the processes of the original.
    pub(super) fn alive(&self) -> Result<Option<Alive>> {
        let failed = |source| io_error(format!("cannot see whether {} runs", self.name()), source);
        let Some(alive) = alive::find(&self.pid_file()).map_err(failed)? else { return Ok(None) };
        match alive.elsewhere(&self.dir).map_err(failed)? {
            None => Ok(Some(alive)),
            Some(place) => Err(Error::Failed(format!(
                "process {}, which {} names, runs in {}: is {} a copy of that cluster's folder? Nothing was done. Work on the \
                 original with its own --dir; the copy has the same ports, and can be started once the original is down",
                alive.pid,
                self.pid_file().display(),
                place.display(),
                self.dir.parent().unwrap_or(&self.dir).display()
            ))),
        }
    }

    /// Starts its process with these flags beside its configuration. It goes on when this program ends.
    pub(super) fn spawn(&self, flags: &[String]) -> Result<()> {
        let failed = |source| io_error(format!("cannot start {}", self.name()), source);
        let start = || {
            let log = File::options().create(true).append(true).open(self.log())?;
            fs::write(self.began_file(), log.metadata()?.len().to_string())?;
            // Settings of this shell are not meant for it: everything is in its file.
            let settings =
                std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEIR_"));
            let mut command = Command::new(std::env::current_exe()?);
            for (name, _) in settings {
                command.env_remove(name);
            }
            command
                .arg0(self.role.program())
                .args(["--config", "weir.toml"])
                .args(flags)
                .current_dir(&self.dir)
                // A Ctrl-C at this terminal is not meant for it.
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            command.spawn()
        };
        let mut child = start().map_err(failed)?;
        alive::note(&self.pid_file(), child.id()).map_err(|source| {
            // Nobody would find it again. It may be gone already, which is fine.
            let _ = child.kill();
            failed(source)
        })
    }

    /// Waits until it is ready.
    pub(super) async fn ready(&self, os: &dyn Os, until: Instant) -> Result<()> {
        loop {
            let page = self.page(os, "/readyz").await;
            let name = self.name();
            // Whoever answers in its place does not speak for it.
            if self.alive()?.is_none() {
                return Err(Error::Failed(format!("{name} has ended: {}", self.last_words())));
            }
            let why = match page {
                Ok((200, _)) => return Ok(()),
                Ok((_, why)) => why,
                Err(error) => error.to_string(),
            };
            if Instant::now() >= until {
                return Err(Error::Unreachable(format!(
                    "{name} is not ready yet, and goes on: {why} (its log is {})",
                    self.log().display()
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until its process is gone.
    pub(super) async fn gone(&self, until: Instant) -> Result<()> {
        while self.alive()?.is_some() {
            if Instant::now() >= until {
                let name = self.name();
                return Err(Error::Unreachable(format!(
                    "{name} still stops (weir dev kill {name} does not wait)"
                )));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Takes the note of its process away, which is gone: nobody is to signal whoever has that pid next. For whoever holds the
    /// folder's lock.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(self.pid_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("cannot remove {}", self.pid_file().display()), error))
            }
            _ => Ok(()),
        }
    }

    /// A page of its HTTP listener: the status, and what it says in one line.
    pub(super) async fn page(&self, os: &dyn Os, path: &str) -> io::Result<(u16, String)> {
        let ask = async {
            let mut stream = os.connect(&self.http.ip().to_string(), self.http.port()).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim().to_owned();
            status.map(|status| (status, body)).ok_or_else(|| io::Error::other("no HTTP answers there"))
        };
        timeout(PAGE, ask).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The end of its log, of this life alone.
    fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let began = fs::read_to_string(self.began_file()).ok().and_then(|began| began.parse().ok());
        let said = last_lines(&log, began.unwrap_or(0));
        match said.is_empty() {
            true => format!("it has said nothing (its log is {})", self.log().display()),
            false => format!("{said} (from {})", self.log().display()),
        }
    }
}

/// The last lines of a log behind its first `began` bytes. Whoever has made it shorter since has taken earlier lives away.
fn last_lines(log: &[u8], began: usize) -> String {
    let said = String::from_utf8_lossy(log.get(began..).unwrap_or(log));
    let lines: Vec<&str> = said.lines().collect();
    lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
}

/// What the system refused.
pub(super) fn io_error(what: impl Into<String>, source: io::Error) -> Error {
    Error::Io { what: what.into(), source }
}

/// Reads a node's configuration, for its addresses.
pub(super) fn read(dir: &Path, role: Role, number: u16) -> Result<Node> {
    let path = dir.join("weir.toml");
    let text = fs::read_to_string(&path)
        .map_err(|source| io_error(format!("cannot read {}", path.display()), source))?;
    let wrong = |why: String| Error::Failed(format!("{}: {why}", path.display()));
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let address = |key: &str| {
        let text = table.get(key).and_then(toml::Value::as_str);
        text.and_then(|text| text.parse::<SocketAddr>().ok()).filter(|addr| addr.port() != 0).ok_or_else(
            || wrong(format!("{key} must be an IP address with a port here, so that weir dev finds it")),
        )
    };
    let listen = match role {
        Role::Controller => "controller_listen",
        Role::Broker => "listen",
    };
    let internal = match role {
        Role::Broker if table.contains_key("internal_listen") => Some(address("internal_listen")?),
        Role::Broker | Role::Controller => None,
    };
    let (addr, http) = (address(listen)?, address("http_listen")?);
    Ok(Node { role, number, addr, http, internal, dir: dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_last_lines_of_this_life_are_shown() {
        let log = b"an earlier life\nfailed\nthis one\nbegins\n";
        assert_eq!(last_lines(log, 23), "this one\nbegins");
        assert_eq!(last_lines(log, log.len()), "");
        assert_eq!(last_lines(b"begins\n", 23), "begins", "somebody has made it shorter");
    }
}
