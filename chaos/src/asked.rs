//! What the command line says.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::clients::TOPICS;

/// Histories of a cluster of real processes while everything breaks
#[derive(Clone, Debug, Parser)]
pub(crate) struct Asked {
    /// How many, one after the other; each with the next seed
    #[arg(long, default_value_t = Scenario::ALL.len() as u64)]
    pub(crate) histories: u64,
    /// For how long things break in each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first one's seed; otherwise one that nobody had
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// What happens; otherwise each in turn
    #[arg(long)]
    pub(crate) scenario: Option<Scenario>,
    /// Where weir-controller and weir-broker are
    #[arg(long)]
    pub(crate) programs: PathBuf,
    /// Where histories keep their files
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The network that this process is in: for itself
    #[arg(long, hide = true)]
    pub(crate) inside: Option<String>,
}

impl Asked {
    /// For how long things break.
    pub(crate) fn breaking(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What happens in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Everything
    Mixed,
    /// The broker that leads a partition is killed every five seconds
    KillLeaders,
    /// No controller answers: writing and reading goes on as if nothing were
    ControllersDown,
    /// Networks lose, delay and break what they carry, and nobody dies
    BadWays,
    /// A broker's disk has no room left, again and again
    FullDisk,
    /// A broker's disk is slow: it gives up what it leads, and others go on
    SlowDisk,
    /// The broker that leads a partition hangs for a minute, and comes back
    PauseLeaders,
    /// One controller after the other loses its disk, first the one that the cluster began with
    WipeControllers,
    /// Power is lost everywhere, and with it what was not synced; once, a disk with it
    PowerLoss,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Mixed,
        Self::KillLeaders,
        Self::ControllersDown,
        Self::BadWays,
        Self::FullDisk,
        Self::SlowDisk,
        Self::PauseLeaders,
        Self::WipeControllers,
        Self::PowerLoss,
    ];

    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::KillLeaders => "kill-leaders",
            Self::ControllersDown => "controllers-down",
            Self::BadWays => "bad-ways",
            Self::FullDisk => "full-disk",
            Self::SlowDisk => "slow-disk",
            Self::PauseLeaders => "pause-leaders",
            Self::WipeControllers => "wipe-controllers",
            Self::PowerLoss => "power-loss",
        }
    }

    /// What clients are at work on. Of class `replicated` nothing is promised where power is lost everywhere.
    pub(crate) fn topics(self) -> &'static [&'static str] {
        match self {
            Self::PowerLoss => &["fsync"],
            _ => &TOPICS,
        }
    }

    /// Whether every record that is sent must be acknowledged: a majority of brokers and replicas is there all the time, or soon
    /// again.
    pub(crate) fn all_is_written(self) -> bool {
        self != Self::Mixed
    }

    /// Whether readers must get all of them before anything is mended.
    pub(crate) fn all_is_read(self) -> bool {
        !matches!(self, Self::Mixed | Self::BadWays)
    }
}
