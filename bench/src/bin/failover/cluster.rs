//! Three controllers and three brokers as real processes, made by `weir dev`: what a person gets who types it. Here is
//! what happens to them, which goes straight to the process: a command in between would be measured with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::{Instant, sleep};

use crate::network::{HERE, Network, address, namespace};

/// How many of each there are.
const EACH: usize = 3;
/// How often is looked whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A process that does not end by then never will.
const END_MAX: Duration = Duration::from_secs(30);
/// Election timeouts that cannot differ, so that every election is a tie as far as they go.
const EQUAL_DRAWS: &str = "raft_election_ms_min = \"300ms\"\nraft_election_ms_max = \"301ms\"\n";

/// The cluster.
pub(crate) struct Cluster {
    weir: PathBuf,
    dir: PathBuf,
    pub(crate) brokers: Vec<Node>,
    pub(crate) controllers: Vec<Node>,
    /// If each broker has a wire of its own.
    pub(crate) network: Option<Network>,
}

/// How it is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The first port.
    pub(crate) port: u16,
    /// Whether all controllers wait equally long before they stand for election.
    pub(crate) equal_draws: bool,
    /// Whether each broker has a wire of its own.
    pub(crate) wires: bool,
}

/// One of its processes.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Where clients, or brokers and controllers, reach it.
    pub(crate) address: String,
    dir: PathBuf,
}

impl Cluster {
    /// Makes it anew in a folder, of which nothing is kept, and waits until it is ready.
    pub(crate) async fn start(weir: &Path, dir: &Path, layout: Layout) -> anyhow::Result<Self> {
        let (weir, dir) = (weir.to_owned(), dir.to_owned());
        let mut cluster = Self { weir, dir, brokers: Vec::new(), controllers: Vec::new(), network: None };
        if cluster.dir.exists() {
            // One that an earlier run left behind.
            let _ = cluster.dev(&["down"]).await;
            fs::remove_dir_all(&cluster.dir)
                .with_context(|| format!("removing {}", cluster.dir.display()))?;
        }
        if layout.wires {
            cluster.network = Some(Network::lay(EACH)?);
            cluster.place_controllers(layout.port)?;
        }
        let up = ["up", "--brokers", "3", "--controllers", "3", "--port", &layout.port.to_string()];
        cluster.dev(&up).await?;
        if layout.equal_draws {
            cluster.dev(&["down"]).await?;
            for number in 1..=EACH {
                let path = cluster.dir.join(format!("controller-{number}/weir.toml"));
                fs::write(&path, fs::read_to_string(&path)? + EQUAL_DRAWS)?;
            }
            cluster.dev(&up).await?;
        }
        cluster.brokers = nodes(&cluster.dir, "broker", "listen")?;
        cluster.controllers = nodes(&cluster.dir, "controller", "controller_listen")?;
        if layout.wires {
            cluster.move_brokers().await?;
        }
        Ok(cluster)
    }

    /// Lays out the controllers where brokers reach them from where they will be; `weir dev` finds them so.
    fn place_controllers(&self, port: u16) -> anyhow::Result<()> {
        for (number, port) in (1..=EACH).zip((port..).step_by(10)) {
            let dir = self.dir.join(format!("controller-{number}"));
            fs::create_dir_all(&dir)?;
            let (raft, http) = (port + 2, port + 4);
            let text = format!(
                "data_dir = \"data\"\nhttp_listen = \"{HERE}:{http}\"\ncontroller_listen = \"{HERE}:{raft}\"\n"
            );
            fs::write(dir.join("weir.toml"), text)?;
        }
        Ok(())
    }

    /// Starts each broker again at the end of its wire, one after the other.
    async fn move_brokers(&mut self) -> anyhow::Result<()> {
        for (end, broker) in (1..).zip(self.brokers.clone()) {
            broker.signal(Signal::TERM)?;
            broker.gone().await?;
            let path = broker.dir.join("weir.toml");
            fs::write(&path, fs::read_to_string(&path)?.replace("127.0.0.1", &address(end)))?;
            self.start_again(&[&broker]).await?;
        }
        self.brokers = nodes(&self.dir, "broker", "listen")?;
        Ok(())
    }

    /// All brokers' addresses, as a client is told them.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.brokers.iter().map(|broker| broker.address.as_str()).collect();
        addresses.join(",")
    }

    /// A broker by its id: `weir dev` gives broker-1 the id 1.
    pub(crate) fn broker(&self, id: i32) -> anyhow::Result<&Node> {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        at.and_then(|at| self.brokers.get(at)).with_context(|| format!("there is no broker {id}"))
    }

    /// Starts nodes that have ended, and waits until they are ready.
    pub(crate) async fn start_again(&self, nodes: &[&Node]) -> anyhow::Result<()> {
        let mut here = vec!["start"];
        for node in nodes {
            match self.network.as_ref().and_then(|_| node.name.strip_prefix("broker-")?.parse().ok()) {
                Some(end) => self.run(Some(end), &["start", &node.name]).await?,
                None => here.push(&node.name),
            }
        }
        // Together: a controller is not ready before a quorum is.
        if here.len() > 1 { self.dev(&here).await } else { Ok(()) }
    }

    /// Ends all of it.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.dev(&["down"]).await
    }

    async fn dev(&self, args: &[&str]) -> anyhow::Result<()> {
        self.run(None, args).await
    }

    /// A `weir dev` command, at the end of a wire if need be, and on a thread of its own: the writer must not wait.
    async fn run(&self, end: Option<usize>, args: &[&str]) -> anyhow::Result<()> {
        let mut command = match end {
            None => Command::new(&self.weir),
            Some(end) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespace(end)]).arg(&self.weir);
                command
            }
        };
        command.arg("--timeout").arg("60s").arg("dev").args(args).arg("--dir").arg(&self.dir);
        let output = tokio::task::spawn_blocking(move || {
            let shown = format!("{command:?}");
            command.output().with_context(|| format!("running {shown}"))
        });
        let output = output.await??;
        ensure!(
            output.status.success(),
            "weir dev {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

impl Node {
    /// Sends a signal to its process.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.pid()?, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits until its process has ended.
    pub(crate) async fn gone(&self) -> anyhow::Result<()> {
        let (pid, until) = (self.pid()?, Instant::now() + END_MAX);
        while test_kill_process(pid).is_ok() {
            if Instant::now() > until {
                bail!("{} does not end", self.name);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let path = self.dir.join("pid");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        pid.with_context(|| format!("{} is no pid file", path.display()))
    }
}

/// The nodes of a kind, by number, with the address that their configuration has under `key`.
fn nodes(dir: &Path, kind: &str, key: &str) -> anyhow::Result<Vec<Node>> {
    let node = |number| {
        let name = format!("{kind}-{number}");
        let dir = dir.join(&name);
        let text = fs::read_to_string(dir.join("weir.toml"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='));
        let address = line.with_context(|| format!("{name} has no {key}"))?.trim().trim_matches('"');
        Ok(Node { name, address: address.to_owned(), dir })
    };
    (1..=EACH).map(node).collect()
}
