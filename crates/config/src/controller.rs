//! What a controller needs.

use std::net::SocketAddr;
use std::time::Duration;

use crate::section::section;
use crate::{Error, Kind};

section! {
    /// A controller: the quorum that keeps the cluster's metadata.
    "controller": pub struct Controller {
        /// Where brokers and other controllers connect to. Port 0 takes a free one.
        controller_listen: SocketAddr = Kind::Listen, "127.0.0.1:9349";
        /// The address that brokers and other controllers are told. Empty: the one that `controller_listen` is bound to.
        controller_advertised_address: Option<String> = Kind::Address, "";
        /// Starts a new cluster if the data directory is empty. For exactly one controller, once in a cluster's life: take
        /// it away then, or a disk that is lost one day becomes a new cluster.
        bootstrap: bool = Kind::Switch, "false";
        /// Controllers that run: with an empty data directory this one joins their quorum. Later starts do not look at
        /// it: who a controller is, and who the others are, stands in its data directory.
        join: Vec<String> = Kind::Addresses, "";
        /// How often the leading controller shows that it lives.
        raft_heartbeat_ms: Duration = Kind::Time(10, 60_000), "100ms";
        /// A controller that heard nothing for so long asks to lead: the least time.
        raft_election_ms_min: Duration = Kind::Time(20, 600_000), "300ms";
        /// The same: the most. Each process draws its own in between.
        raft_election_ms_max: Duration = Kind::Time(20, 600_000), "600ms";
        /// Commands after which the controller writes its whole state, so that the log before can go.
        raft_snapshot_commands: u64 = Kind::Count(100, 1_000_000_000), "10000";
        /// A broker that sent no heartbeat for so long is taken for dead.
        broker_session_ms: Duration = Kind::Time(500, 600_000), "3s";
        /// How often brokers send heartbeats. Several must fit into a session.
        broker_heartbeat_ms: Duration = Kind::Time(50, 60_000), "500ms";
        /// How often partitions are given back to the replica that is preferred as their leader, once it is in sync. 0: never
        /// by itself.
        leader_rebalance_ms: Duration = Kind::Time(0, 86_400_000), "5m";
    }
}

impl Controller {
    pub(crate) fn check(&self) -> Result<(), Error> {
        let conflict = |what: String| Err(Error::Conflict { what });
        if self.bootstrap && !self.join.is_empty() {
            return conflict(format!(
                "bootstrap starts a new cluster, and join ({}) names one that runs: say one of them",
                self.join.join(", ")
            ));
        }
        let (min, max) = (self.raft_election_ms_min, self.raft_election_ms_max);
        if min >= max {
            return conflict(format!(
                "raft_election_ms_min ({min:?}) is not below raft_election_ms_max ({max:?}): all controllers would ask \
                 to lead at the same moment"
            ));
        }
        let heartbeat = self.raft_heartbeat_ms;
        if heartbeat * 2 > min {
            return conflict(format!(
                "raft_heartbeat_ms ({heartbeat:?}) is more than half of raft_election_ms_min ({min:?}): one late \
                 heartbeat would cost the leader its place"
            ));
        }
        let (heartbeat, session) = (self.broker_heartbeat_ms, self.broker_session_ms);
        if heartbeat * 3 > session {
            return conflict(format!(
                "broker_heartbeat_ms ({heartbeat:?}) is more than a third of broker_session_ms ({session:?}): two late \
                 heartbeats would take a broker for dead"
            ));
        }
        Ok(())
    }
}
