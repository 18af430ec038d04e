//! What the cluster knows of a broker.

use std::fmt;

use weir_types::{BrokerId, DirectoryId};

/// How a broker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Registered, and has not yet said that its epoch is on its disks: leads nothing, is in no ISR.
    Registered,
    /// Serving.
    Active,
    /// Serving, with a disk that is slow (correctness rule 41): leads what nobody else can, and is in sync only where
    /// it is needed.
    Slow,
    /// On its way out: keeps what nobody else can lead, gets nothing new.
    Draining,
    /// Not heard of for a session: leads nothing, is in no ISR.
    Fenced,
    /// Taken out of the cluster by a person, for good: whoever comes with its disk is refused.
    Removed,
}

impl BrokerState {
    /// Whether it may be in an ISR, and lead what nobody else can.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Active | Self::Slow | Self::Draining)
    }

    /// Whether it came with its disks and was not silent since: it serves, or is about to.
    pub fn is_there(self) -> bool {
        self.is_alive() || self == Self::Registered
    }

    /// Whether it serves, and not only until it stops.
    pub fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Slow)
    }

    /// How gladly it is asked to lead; `None`: it is not asked at all.
    pub(crate) fn turn(self) -> Option<Turn> {
        match self {
            Self::Active => Some(Turn::First),
            Self::Slow => Some(Turn::Slow),
            Self::Draining => Some(Turn::Last),
            Self::Registered | Self::Fenced | Self::Removed => None,
        }
    }
}

impl fmt::Display for BrokerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registered => "registered",
            Self::Active => "active",
            Self::Slow => "slow",
            Self::Draining => "draining",
            Self::Fenced => "fenced",
            Self::Removed => "removed",
        })
    }
}

/// When a broker's turn to lead comes: slow is better than nobody, and so is one that is about to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// It serves.
    First,
    /// Its disk is slow.
    Slow,
    /// It is on its way out.
    Last,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The listener's name: "public" for clients, "internal" for brokers and controllers.
    pub listener: String,
    /// The host as others reach it.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its id, given by the controller, never used again.
    pub id: BrokerId,
    /// The raft index of its registration. Whatever names an older one is a zombie's.
    pub epoch: i64,
    /// How it is.
    pub state: BrokerState,
    /// The newest epoch it has said to be fsynced in every directory; 0: none. A directory whose epoch file is
    /// older than this was restored from a copy (correctness rule 8).
    pub persisted_epoch: i64,
    /// Its log directories, sorted.
    pub directories: Vec<DirectoryId>,
    /// Where it stands, for placement. Empty: unknown.
    pub rack: String,
    /// Where it listens, by listener.
    pub endpoints: Vec<Endpoint>,
    /// Its software version, for people.
    pub version: String,
    /// When it registered, milliseconds since 1970 UTC.
    pub registered_ms: i64,
    /// The process that registered, as it called itself: the same one is not registered twice. 0: it did not say.
    pub incarnation: u128,
    /// The writes and syncs that have failed in its directories, sorted by directory; also in those that it has come
    /// without since.
    pub failed: Vec<FailedDirectory>,
    /// Whether it has said, as its last word, that it has stopped in order. For people: what was safe
    /// on its disks its directories prove.
    pub stopped: bool,
}

/// A write or sync that has failed in a directory (correctness rule 35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedDirectory {
    /// The directory.
    pub id: DirectoryId,
    /// The number of the failure, which tells it from the next one; 0: it is not known.
    pub failure: u64,
    /// The registration of then: the process that it was given to is over, or is about to be.
    pub epoch: i64,
    /// Whether a person has said that it may be used again.
    pub trusted: bool,
}

impl Broker {
    /// Where it listens under that name.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.listener == listener)
    }

    /// The failures for which its directories are out of use until a person trusts them.
    pub fn distrusted(&self) -> impl Iterator<Item = &FailedDirectory> {
        self.failed.iter().filter(|failed| !failed.trusted)
    }

    /// Whether one of them is among those of this registration: it is not registered with it again.
    pub fn is_failed(&self) -> bool {
        self.state != BrokerState::Removed && self.distrusted().any(|failed| self.has_directory(failed.id))
    }

    /// Whether its process has ended by a failure: in this registration it serves no more, trusted or not.
    pub fn is_over(&self) -> bool {
        self.failed.iter().any(|failed| failed.epoch == self.epoch)
    }

    /// Whether it has that directory in this registration.
    pub fn has_directory(&self, id: DirectoryId) -> bool {
        self.directories.binary_search(&id).is_ok()
    }
}

/// What a broker found in one of its log directories when it started, as far as it proves what the directory
/// still holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFacts {
    /// The directory.
    pub id: DirectoryId,
    /// The broker epoch in its clean marker; absent: there was none.
    pub clean_epoch: Option<i64>,
    /// The broker epoch in its epoch file; absent: there was none.
    pub persisted_epoch: Option<i64>,
    /// Whether the kernel boot id in its epoch file is that of the running kernel: the page cache is still there.
    pub same_boot: bool,
    /// The numbers of the writes and syncs that failed in it, and that no registration has got over; 0: one whose number is
    /// not known.
    pub failures: Vec<u64>,
}
