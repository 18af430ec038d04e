//! Three controllers and three brokers as `weir dev` makes them, each broker with a wire of its own if it is to be cut.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use weir_bench::dev::{Dev, Node};

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
    dev: Dev,
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

impl Cluster {
    /// Makes it anew in a folder, of which nothing is kept, and waits until it is ready.
    pub(crate) async fn start(weir: &Path, dir: &Path, layout: Layout) -> anyhow::Result<Self> {
        let dev = Dev::new(weir, dir);
        let mut cluster = Self { dev, brokers: Vec::new(), controllers: Vec::new(), network: None };
        if dir.exists() {
            // One that an earlier run left behind.
            let _ = cluster.run(&["down"]).await;
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        if layout.wires {
            cluster.network = Some(Network::lay(EACH)?);
            cluster.place_controllers(layout.port)?;
        }
        let up = ["up", "--brokers", "3", "--controllers", "3", "--port", &layout.port.to_string()];
        cluster.run(&up).await?;
        if layout.equal_draws {
            cluster.run(&["down"]).await?;
            for number in 1..=EACH {
                let path = dir.join(format!("controller-{number}/weir.toml"));
                fs::write(&path, fs::read_to_string(&path)? + EQUAL_DRAWS)?;
            }
            cluster.run(&up).await?;
        }
        cluster.brokers = cluster.dev.brokers()?;
        cluster.controllers = cluster.dev.controllers()?;
        if layout.wires {
            cluster.move_brokers().await?;
        }
        Ok(cluster)
    }

    /// Lays out the controllers where brokers reach them from where they will be; `weir dev` finds them so.
    fn place_controllers(&self, port: u16) -> anyhow::Result<()> {
        for (number, port) in (1..=EACH).zip((port..).step_by(10)) {
            let dir = self.dev.dir().join(format!("controller-{number}"));
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
            gone(&broker).await?;
            let path = broker.dir.join("weir.toml");
            fs::write(&path, fs::read_to_string(&path)?.replace("127.0.0.1", &address(end)))?;
            self.start_again(&[&broker]).await?;
        }
        self.brokers = self.dev.brokers()?;
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
                Some(end) => self.run_at(Some(end), &["start", &node.name]).await?,
                None => here.push(&node.name),
            }
        }
        // Together: a controller is not ready before a quorum is.
        if here.len() > 1 { self.run(&here).await } else { Ok(()) }
    }

    /// Ends all of it.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        self.run(&["down"]).await
    }

    async fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        self.run_at(None, words).await
    }

    /// A `weir dev` command, at the end of a wire if need be, and on a thread of its own: the writer must not wait.
    async fn run_at(&self, end: Option<usize>, words: &[&str]) -> anyhow::Result<()> {
        let dev = self.dev.clone();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let run = move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match end {
                None => dev.run(&words),
                Some(end) => dev.run_in(&namespace(end), &words),
            }
        };
        tokio::task::spawn_blocking(run).await??;
        Ok(())
    }
}

/// Waits until a node's process has ended.
pub(crate) async fn gone(node: &Node) -> anyhow::Result<()> {
    let until = Instant::now() + END_MAX;
    while !node.is_gone()? {
        if Instant::now() > until {
            bail!("{} does not end", node.name);
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}
