//! A real `weir standalone`, in a process of its own, on free ports.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running server. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    process: Child,
    ready: Value,
}

impl Server {
    /// Starts `program standalone` with these arguments and waits until it is ready. `log` takes what it says on
    /// stdout and stderr. Ports are free ones and data is gone at the end, unless the arguments say otherwise.
    pub fn start(program: &Path, args: &[&str], log: &Path) -> Result<Self> {
        // A shell hands file descriptor 3 over; `exec` keeps the process id.
        let script = "exec \"$0\" standalone \"$@\" --ready-fd 3 3>&1 >\"$LOG\" 2>&1";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .args(args)
            .env("LOG", log)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start sh")?;
        let ready = process.stdout.take().context("the server's descriptor 3 is not piped")?;
        let mut line = String::new();
        BufReader::new(ready).read_line(&mut line)?;
        let Ok(ready) = serde_json::from_str(&line) else {
            // Nothing said: it is ending by itself. Something else said: it would go on.
            if !line.is_empty() {
                process.kill()?;
            }
            let status = process.wait()?;
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("weir standalone {args:?} ended with {status} before it was ready: {line}{said}");
        };
        Ok(Self { process, ready })
    }

    /// One with data that is gone at its end.
    pub fn ephemeral(program: &Path, log: &Path) -> Result<Self> {
        Self::start(program, &["--ephemeral", "--port", "0"], log)
    }

    /// Where it takes gRPC, as `HOST:PORT`.
    pub fn address(&self) -> Result<&str> {
        self.ready("grpc")
    }

    /// Something else of what it said when it was ready.
    pub fn ready(&self, key: &str) -> Result<&str> {
        let value = self.ready.get(key).and_then(Value::as_str);
        value.with_context(|| format!("the server named no {key:?} when it was ready: {}", self.ready))
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> Result<ExitStatus> {
        signal(&self.process, Signal::TERM)?;
        Ok(self.process.wait()?)
    }

    /// Ends it without a chance to do anything, as `kill -9` does.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already: then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a signal to a process of ours that has not been waited for, so that its id is still its own.
pub fn signal(process: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("not a process id")?;
    Ok(kill_process(pid, signal)?)
}

/// A PATH that finds `program` first.
pub fn path_with(program: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folder = program.parent().map(Path::as_os_str).unwrap_or(OsStr::new("."));
    let folders = std::iter::once(folder.into()).chain(std::env::split_paths(&old));
    Ok(std::env::join_paths(folders)?)
}
