//! A node: its folder, its flags, its process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::network::namespace;
use crate::who::Who;

/// How long a process may take to end that was told to end in order.
const STOP: Duration = Duration::from_secs(60);
/// What a broker leaves free on its disk as a rule.
const RESERVED: &str = "16MiB";
/// When a broker that looks at it closely calls its disk slow, and quick again.
const CLOSELY: [&str; 3] =
    ["--slow-flush-ms=500ms", "--slow-disk-after-ms=1500ms", "--quick-disk-after-ms=3s"];
/// Becomes the program, where the machine seems to have been booted anew.
const REBOOTED: &str = r#"mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@""#;
/// The lines of a log that are shown of a process that ended by itself.
const LINES: usize = 12;

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    who: Who,
    /// The namespaces' prefix.
    network: String,
    program: PathBuf,
    data: PathBuf,
    log: PathBuf,
    /// What a broker leaves free on its disk.
    reserved: &'static str,
    /// Flags beside the usual ones.
    more: &'static [&'static str],
    /// A file with the boot id of its machine, if that is not the one of this machine.
    boot: Option<PathBuf>,
    process: Option<Child>,
}

impl Node {
    /// One that does not run yet. Its files will be in `home`, what it says in `folder`.
    pub(crate) fn new(who: Who, network: &str, programs: &Path, folder: &Path, home: &Path) -> Result<Self> {
        let (role, network) =
            (if matches!(who, Who::Broker(_)) { "broker" } else { "controller" }, network.to_owned());
        fs::create_dir_all(home)?;
        let program = programs.join(format!("weir-{role}"));
        ensure!(program.exists(), "{} is not there: build it first", program.display());
        let log = folder.join(format!("{who}.log"));
        let data = home.join("data");
        Ok(Self {
            who,
            network,
            program,
            data,
            log,
            reserved: RESERVED,
            more: &[],
            boot: None,
            process: None,
        })
    }

    /// It keeps no room: its disk becomes full under its writes.
    pub(crate) fn keep_no_room(&mut self) {
        self.reserved = "0";
    }

    /// A slow disk is found out soon.
    pub(crate) fn look_at_disk_closely(&mut self) {
        self.more = &CLOSELY;
    }

    /// Its machine has been booted since: from its next start on it sees the boot id in this file.
    pub(crate) fn booted(&mut self, id: &Path) {
        self.boot = Some(id.to_owned());
    }

    /// Where its files are; they need not be there.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Starts its process, with these flags beside the usual ones.
    pub(crate) fn start(&mut self, more: &[String]) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let settings = std::env::vars_os().map(|(name, _)| name);
        let mut command = Command::new("ip");
        // `ip` becomes the program: its process is the node's.
        command.args(["netns", "exec", &namespace(&self.network, self.who)]);
        if let Some(boot) = &self.boot {
            // What `ip` starts has mounts of its own.
            command.args(["sh", "-c", REBOOTED]).arg(boot);
        }
        command.arg(&self.program);
        command.arg("--data-dir").arg(&self.data).args(self.flags()).args(more);
        settings.filter(|name| name.to_string_lossy().starts_with("WEIR_")).for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        // A Ctrl-C is not meant for it: whoever laid the network ends it.
        command.process_group(0);
        self.process = Some(command.spawn().with_context(|| format!("cannot start {}", self.who))?);
        Ok(())
    }

    /// It listens on loopback, where its [door](crate::doors) dials, and is known by where the door is.
    fn flags(&self) -> Vec<String> {
        let ip = self.who.ip();
        let flags = match self.who {
            Who::Controller(_) => vec![
                "--controller-listen=127.0.0.1:9349".to_owned(),
                format!("--controller-advertised-address={ip}:9349"),
            ],
            _ => vec![
                "--listen=127.0.0.1:9347".to_owned(),
                format!("--advertised-address={ip}:9347"),
                "--internal-listen=127.0.0.1:9350".to_owned(),
                format!("--internal-advertised-address={ip}:9350"),
                format!("--controllers={}", Who::CONTROLLERS.map(Who::endpoint).join(",")),
                format!("--disk-reserved-bytes={}", self.reserved),
                "--checkpoint-interval-ms=2s".to_owned(),
            ],
        };
        flags
            .into_iter()
            .chain(["--http-listen=0.0.0.0:9348".to_owned(), "--drain-ms=5s".to_owned()])
            .chain(self.more.iter().map(ToString::to_string))
            .collect()
    }

    /// Whether there is a process.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Sends a signal, if there is somebody to get it.
    pub(crate) fn send(&self, signal: Signal) {
        let pid = self.process.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            // It may have ended by itself, which is noticed elsewhere.
            let _ = kill_process(pid, signal);
        }
    }

    /// kill -9, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.send(Signal::KILL);
        if let Some(mut process) = self.process.take() {
            timeout(STOP, process.wait()).await.with_context(|| format!("{} does not die", self.who))??;
        }
        Ok(())
    }

    /// Waits for the end of one that was told to end in order.
    pub(crate) async fn stopped(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let ended = timeout(STOP, process.wait()).await;
            let status = ended.with_context(|| format!("{} does not stop in {STOP:?}", self.who))??;
            ensure!(status.success(), "{} stopped with {status}: {}", self.who, self.last_words());
        }
        Ok(())
    }

    /// How it ended, if it has ended though nobody killed it: whether with exit code 0, and in words.
    pub(crate) fn has_ended(&mut self) -> Result<Option<(bool, String)>> {
        let Some(process) = &mut self.process else { return Ok(None) };
        let Some(status) = process.try_wait()? else { return Ok(None) };
        self.process = None;
        let how = format!("{} ended by itself with {status}: {}", self.who, self.last_words());
        Ok(Some((status.success(), how)))
    }

    /// Whether anything in it has panicked at any time.
    pub(crate) fn panicked(&self) -> bool {
        fs::read(&self.log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("panic: "))
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
    }
}
