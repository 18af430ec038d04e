//! Where the commands of a document run: a folder, a server, and nothing of the person who runs the tests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::process::{Process, Setup};

/// Where the documents say that a server is.
const DOCUMENTED: &str = "localhost:9347";
/// Where they say that it answers HTTP.
const DOCUMENTED_HTTP: &str = "localhost:9348";

/// An empty folder in which commands run, and a server once there is one.
#[derive(Debug)]
pub struct World {
    folder: TempDir,
    /// Folders of programs, found before those of the PATH.
    programs: Vec<PathBuf>,
    server: Option<Process>,
}

impl World {
    /// Without a server, until [`World::serve`]. `program` is found on the PATH of the commands.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn new(program: PathBuf) -> Result<Self> {
        let mut world = Self { folder: tempfile::tempdir()?, programs: Vec::new(), server: None };
        world.also_find(&program);
        Ok(world)
    }

    /// Another program that commands find.
    pub fn also_find(&mut self, program: &Path) {
        self.programs.extend(program.parent().map(Path::to_owned));
    }

    /// Starts a server, with its data beside what the commands write.
    ///
    /// # Errors
    /// It does not start; with what it said.
    pub async fn serve(&mut self) -> Result<()> {
        self.server = Some(Setup::new(self.folder().join("weir-data")).start().await?);
        Ok(())
    }

    /// Stops the server, if there is one; [`World::serve`] starts another on the same data.
    ///
    /// # Errors
    /// It did not end in order.
    pub async fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.stop().await,
            None => Ok(()),
        }
    }

    /// The folder in which commands run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server, if one was started.
    #[must_use]
    pub fn server(&self) -> Option<&Process> {
        self.server.as_ref()
    }

    /// Runs a command that must succeed; returns what it printed on stdout, with this server's address as the
    /// documents write it. In the command it may stand like that too.
    ///
    /// # Errors
    /// It failed, or a part of its pipe did; with all that it printed.
    pub async fn must(&self, command: &str) -> Result<String> {
        let output = self.shell(command)?.output().await.with_context(|| format!("cannot run {command}"))?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "$ {command}\nended with {}\n{out}{err}", output.status);
        Ok(self.as_documented(&out))
    }

    /// Runs a command that fails, and gives what it prints, errors included.
    ///
    /// # Errors
    /// It did not fail.
    pub async fn refused(&self, command: &str) -> Result<String> {
        let output = self.shell(command)?.output().await.with_context(|| format!("cannot run {command}"))?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        ensure!(!output.status.success(), "$ {command}\ndid not fail\n{printed}");
        Ok(self.as_documented(&printed))
    }

    /// Runs a command that goes on for ever: waits for its first line (on stdout or stderr), presses Ctrl-C, and
    /// returns all that it printed.
    ///
    /// # Errors
    /// It ended by itself, or Ctrl-C did not end it as it should.
    pub async fn interrupt(&self, command: &str) -> Result<String> {
        let mut process = self.shell(&format!("exec {command} 2>&1"))?.stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("stdout was asked for")?);
        let mut printed = String::new();
        lines.read_line(&mut printed).await?;
        let pid = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(pid.with_context(|| format!("$ {command}\nended by itself: {printed}"))?, Signal::INT)?;
        lines.read_to_string(&mut printed).await?;
        let code = process.wait().await?.code();
        ensure!(matches!(code, Some(0 | 130)), "$ {command}\nended with {code:?} after Ctrl-C\n{printed}");
        Ok(self.as_documented(&printed))
    }

    fn shell(&self, command: &str) -> Result<Command> {
        let mut shell = Command::new("bash");
        let address = self.server.as_ref().map_or(DOCUMENTED, Process::addr);
        let command = command.replace(DOCUMENTED, address);
        shell.args(["-c", &format!("set -o pipefail\n{command}")]).stdin(Stdio::null()).kill_on_drop(true);
        let foreign = std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("WEIR_"));
        shell.env_clear().envs(foreign).env_remove("XDG_CONFIG_HOME");
        shell.current_dir(self.folder()).env("HOME", self.folder()).env("PATH", self.path()?);
        if let Some(server) = &self.server {
            shell.env("WEIR_SERVER", server.addr());
        }
        Ok(shell)
    }

    /// A PATH that finds the programs first.
    fn path(&self) -> Result<OsString> {
        let old = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(self.programs.iter().cloned().chain(std::env::split_paths(&old)))?)
    }

    fn as_documented(&self, printed: &str) -> String {
        let Some(server) = &self.server else { return printed.to_owned() };
        let mut printed = printed.to_owned();
        for (address, documented) in [(server.addr(), DOCUMENTED), (server.http_addr(), DOCUMENTED_HTTP)] {
            printed = printed.replace(address, documented);
            // Loopback has several names; the port is what differs.
            if let (Some((_, port)), Some((_, usual))) =
                (address.rsplit_once(':'), documented.rsplit_once(':'))
            {
                printed = printed.replace(&format!(":{port}"), &format!(":{usual}"));
            }
        }
        printed
    }
}
