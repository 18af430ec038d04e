//! The topics that are written and read, and what is promised of each.

use std::sync::atomic::{AtomicI32, Ordering};

use weir_client::NewTopic;
use weir_io::Dice;
use weir_runtime::Os;
use weir_tests::history::{Place, Promise};
use weir_types::Durability;

/// Partitions of a topic at most, when it is made.
const PARTITIONS_MAX: u64 = 4;
/// Records that are deleted by their age become a second older than that, at most, in milliseconds.
const RETENTION_MS_MAX: u64 = 4_000;

/// A topic.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) durability: Durability,
    pub(super) replicas: i32,
    /// min_insync_replicas, as it is made.
    pub(super) min_insync: i32,
    /// Whether that is changed while it is used.
    pub(super) min_changes: bool,
    /// unclean_recovery.
    pub(super) recovery: &'static str,
    /// Whether it is written with conditions alone, by those who do nothing else.
    pub(super) conditional: bool,
    /// retention_ms, if its records are deleted by their age.
    pub(super) retention_ms: Option<i64>,
    /// Partitions that are known to be there.
    partitions: AtomicI32,
}

impl Subject {
    /// One topic or two, each with as many replicas as there are brokers.
    pub(super) fn draw(dice: &mut Dice, brokers: usize) -> Vec<Self> {
        let replicas = brokers as i32;
        // Never fewer in sync than the promise is made for, where there is a choice.
        let mut subject = |name, durability| Self {
            name,
            durability,
            replicas,
            min_insync: if replicas == 2 { 1 + dice.below(2) as i32 } else { 1 + replicas / 2 },
            min_changes: false,
            recovery: "manual",
            conditional: false,
            retention_ms: None,
            partitions: AtomicI32::new(1 + dice.below(PARTITIONS_MAX) as i32),
        };
        let (fsync, replicated) =
            (subject("flushed", Durability::Fsync), subject("cached", Durability::Replicated));
        match dice.below(4) {
            // What is promised of class replicated leaves the nemesis less to do: the other has seeds of its own.
            0..2 => vec![fsync],
            _ if brokers == 1 => vec![fsync, replicated],
            2 => vec![replicated],
            _ => vec![fsync, replicated],
        }
    }

    /// Beside it one with a partition that is written with conditions alone, of the same class: so nothing more may happen to
    /// brokers, and nothing less.
    pub(super) fn conditional(&self) -> Self {
        Self {
            name: "register",
            min_changes: false,
            conditional: true,
            retention_ms: None,
            partitions: AtomicI32::new(1),
            ..*self
        }
    }

    /// Its records are deleted by their age; so that segments end soon, it has few partitions.
    pub(super) fn expire(&mut self, dice: &mut Dice) {
        self.retention_ms = Some((1_000 + dice.below(RETENTION_MS_MAX)).cast_signed());
        self.partitions = AtomicI32::new(1 + dice.below(2) as i32);
    }

    pub(super) fn partitions(&self) -> i32 {
        self.partitions.load(Ordering::SeqCst)
    }

    pub(super) fn any_partition(&self, os: &dyn Os) -> i32 {
        (os.random_u64() % self.partitions().unsigned_abs() as u64) as i32
    }

    /// It is known to have so many.
    pub(super) fn has_partitions(&self, count: i32) {
        self.partitions.fetch_max(count, Ordering::SeqCst);
    }

    pub(super) fn place(&self, partition: i32) -> Place {
        Place { topic: self.name.to_owned(), partition }
    }

    /// What it promises of acknowledgements, whatever min.insync is by then.
    pub(super) fn promise(&self) -> Promise {
        Promise {
            replicas: self.replicas,
            min_insync: if self.min_changes { 1 } else { self.min_insync },
            on_disk: self.durability == Durability::Fsync,
        }
    }

    /// What it is made with.
    pub(super) fn to_make(&self) -> NewTopic {
        let durability = match self.durability {
            Durability::Fsync => "fsync",
            Durability::Replicated => "replicated",
        };
        let topic = NewTopic::new(self.name);
        let topic = match self.retention_ms {
            None => topic,
            Some(retention_ms) => topic
                .config("retention_ms", retention_ms.to_string())
                .config("batch_bytes_max", "512KiB")
                .config("segment_bytes", "1MiB"),
        };
        topic
            .partitions(self.partitions())
            .replication_factor(self.replicas)
            .config("min_insync_replicas", self.min_insync.to_string())
            .config("durability", durability)
            .config("unclean_recovery", self.recovery)
            .if_absent()
    }
}
