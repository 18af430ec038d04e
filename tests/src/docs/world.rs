//! Where the commands of a document run: a folder, a server, and the topics that the documents talk about.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::server::{Server, path_with, signal};

/// A server of its own, and an empty folder in which commands run.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    program: PathBuf,
    server: Option<Server>,
}

impl World {
    /// Without a server, until [`World::serve`].
    pub fn new(program: PathBuf) -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, program, server: None })
    }

    /// Starts a server with these arguments beside those that give it free ports.
    pub fn serve(&mut self, args: &[&str]) -> Result<()> {
        let log = self.folder.path().join(".server.log");
        self.server = Some(Server::start(&self.program, args, &log)?);
        Ok(())
    }

    /// The folder in which commands run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &str) -> Result<Output> {
        self.shell(command)?.output().with_context(|| format!("cannot run {command}"))
    }

    /// Runs a command that must succeed; returns what it printed, with this server's address as the documents
    /// write it.
    pub fn must(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "$ {command}\nended with {}\n{out}{err}", output.status);
        self.as_documented(&out)
    }

    /// Runs a command that goes on for ever: waits for its first line (on stdout or stderr), presses Ctrl-C, and
    /// returns all that it printed.
    pub fn interrupt(&self, command: &str) -> Result<String> {
        let mut shell = self.shell(&format!("exec {command} 2>&1"))?;
        let mut process = shell.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("stdout is not piped")?);
        let mut printed = String::new();
        lines.read_line(&mut printed)?;
        signal(&process, Signal::INT)?;
        lines.read_to_string(&mut printed)?;
        let code = process.wait()?.code();
        ensure!(matches!(code, Some(0 | 130)), "$ {command}\nended with {code:?} after Ctrl-C\n{printed}");
        self.as_documented(&printed)
    }

    fn shell(&self, command: &str) -> Result<Command> {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -o pipefail\n{command}")]).stdin(Stdio::null());
        shell.current_dir(self.folder()).env("PATH", path_with(&self.program)?);
        // Nothing of the person who runs the tests reaches the commands.
        shell.env("HOME", self.folder()).env_remove("XDG_CONFIG_HOME");
        shell.env("WEIR_CONTEXTS", self.folder().join(".contexts.toml"));
        if let Some(server) = &self.server {
            shell.env("WEIR_SERVER", server.address()?);
        }
        Ok(shell)
    }

    fn as_documented(&self, printed: &str) -> Result<String> {
        Ok(match &self.server {
            Some(server) => printed.replace(server.address()?, "localhost:9347"),
            None => printed.to_owned(),
        })
    }
}
