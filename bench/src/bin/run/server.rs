//! A server under test: started fresh for every measurement, stopped and wiped after it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use weir_load::machine;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The yardstick.
    Floor,
    /// `weir standalone`.
    Weir,
}

impl Kind {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Weir => "weir",
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The yardstick.
    pub(crate) floor: PathBuf,
    /// The command line tool.
    pub(crate) weir: PathBuf,
    /// The load generator.
    pub(crate) load: PathBuf,
    /// What `weir standalone` is given beside its directory and port.
    pub(crate) weir_args: Vec<String>,
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    /// host:port of its gRPC listener.
    pub(crate) address: String,
    /// From starting the process to its word that it is ready.
    pub(crate) ready_in: Duration,
}

impl Server {
    /// Starts it on an empty directory and a free port, and waits until it says that it is ready.
    pub(crate) fn start(programs: &Programs, kind: Kind, dir: &Path, fsync: bool) -> anyhow::Result<Self> {
        let data = dir.join("data");
        wipe(&data)?;
        let started = Instant::now();
        let mut command = match kind {
            Kind::Floor => {
                let mut command = Command::new(&programs.floor);
                command.arg("--data-dir").arg(&data);
                if fsync {
                    command.arg("--fsync");
                }
                command
            }
            Kind::Weir => {
                let mut command = Command::new(&programs.weir);
                command.arg("standalone").arg("--data-dir").arg(&data);
                command.args([
                    "--port",
                    "0",
                    "--http-listen",
                    "127.0.0.1:0",
                    "--controller-listen",
                    "127.0.0.1:0",
                ]);
                command.args(["--ready-fd", "1"]).args(&programs.weir_args);
                command
            }
        };
        let log = fs::File::create(dir.join(format!("{}.log", kind.name())))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let stdout = child.stdout.take().context("its stdout")?;
        // What is for people comes on other lines.
        let address = BufReader::new(stdout).lines().map_while(Result::ok).find_map(|line| {
            let ready: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(ready.get("grpc")?.as_str()?.to_owned())
        });
        let Some(address) = address else {
            let _ = child.kill();
            bail!("{} did not say where it listens: see {}/{}.log", kind.name(), dir.display(), kind.name());
        };
        Ok(Self { child, data, address, ready_in: started.elapsed() })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, insists after ten seconds, and removes what it wrote. Its peak memory in MiB.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        let memory = machine::peak_memory_mib(self.pid());
        let deadline = Instant::now() + Duration::from_secs(10);
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::TERM)?;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                eprintln!("not stopped after 10 s: killed");
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        wipe(&self.data)?;
        settle();
        Ok(memory)
    }
}

/// Removes a directory, outside of any timed process.
fn wipe(data: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", data.display()))
        }
        _ => Ok(()),
    }
}

/// Waits until little is left to be written back, so that one run does not pay for the other; ten seconds at most.
pub(crate) fn settle() {
    let deadline = Instant::now() + Duration::from_secs(10);
    while machine::dirty_mib() > 300 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
}
