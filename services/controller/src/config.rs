//! What a controller is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_metadata::settings::Settings;
use weir_types::Endpoint;

use crate::Error;

/// What a controller is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its folder; made if it is not there. Its parent must exist.
    pub dir: PathBuf,
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` under which other controllers and brokers reach it. `None`: the address it listens on.
    pub advertise: Option<String>,
    /// Whether an empty folder begins a new cluster. Exactly one controller of a cluster is ever started so.
    pub bootstrap: bool,
    /// Settings of a new cluster, as people write them. Only read when it begins.
    pub initial_settings: Settings,
    /// Controllers that run, `host:port`: an empty folder joins their quorum.
    pub join: Vec<String>,
    /// How often a leader says that it lives.
    pub raft_heartbeat: Duration,
    /// A follower that has heard nothing for a time between these two stands for election.
    pub election_timeout_min: Duration,
    /// See `election_timeout_min`.
    pub election_timeout_max: Duration,
    /// Commands after which a snapshot is made, so that the log before it can go.
    pub snapshot_commands: u64,
    /// How long a change may take to be committed before its caller is told that nobody knows.
    pub write_timeout: Duration,
    /// A broker that was not heard of for so long is fenced.
    pub session_timeout: Duration,
    /// How often brokers are asked to say that they live.
    pub broker_heartbeat: Duration,
    /// How often leaderships are given back to the replicas that are preferred for them. Zero: never.
    pub leader_rebalance: Duration,
    /// How long open calls have to end when the controller stops.
    pub drain_timeout: Duration,
}

impl Config {
    /// The defaults, for a folder and an address.
    pub fn new(dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            dir,
            listen,
            advertise: None,
            bootstrap: false,
            initial_settings: Settings::new(),
            join: Vec::new(),
            raft_heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(600),
            snapshot_commands: 10_000,
            write_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(3),
            broker_heartbeat: Duration::from_millis(500),
            leader_rebalance: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(5),
        }
    }

    /// What the configuration of a process says, for a folder.
    pub fn of(settings: &weir_config::Controller, dir: PathBuf) -> Self {
        Self {
            advertise: settings.controller_advertised_address.clone(),
            bootstrap: settings.bootstrap,
            join: settings.join.clone(),
            raft_heartbeat: settings.raft_heartbeat_ms,
            election_timeout_min: settings.raft_election_ms_min,
            election_timeout_max: settings.raft_election_ms_max,
            snapshot_commands: settings.raft_snapshot_commands,
            session_timeout: settings.broker_session_ms,
            broker_heartbeat: settings.broker_heartbeat_ms,
            leader_rebalance: settings.leader_rebalance_ms,
            ..Self::new(dir, settings.controller_listen)
        }
    }

    /// For a standalone process: it begins its own cluster, in which one replica is all there can be.
    #[must_use]
    pub fn standalone(self) -> Self {
        let one = |name: &str| (name.to_owned(), "1".to_owned());
        let initial_settings = [one("default_replication_factor"), one("min_insync_replicas")].into();
        Self { bootstrap: true, initial_settings, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let invalid = |field, given: String, wanted| Err(Error::Config { field, given, wanted });
        if self.snapshot_commands < 10 {
            return invalid("snapshot_commands", self.snapshot_commands.to_string(), "at least 10");
        }
        if self.session_timeout < 2 * self.broker_heartbeat {
            let given = format!("{:?}", self.session_timeout);
            return invalid("session_timeout", given, "at least twice broker_heartbeat");
        }
        if let Some(endpoint) =
            self.advertise.iter().chain(&self.join).find(|text| text.parse::<Endpoint>().is_err())
        {
            return invalid("advertise or join", endpoint.clone(), "host:port");
        }
        Ok(())
    }
}
