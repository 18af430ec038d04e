//! What readers are refused because the disk does not give what was written: said in the log once for each place and
//! then not for a while, counted, and shown to whoever asks how partitions are.
//!
//! It knows what somebody tried to read, no more; nothing is looked for. It is no verdict on the log either: what is
//! whole in it is served as before. What a start finds is another matter, and takes the partition offline (correctness
//! rule 36). Payloads that leave as they are stored (FetchStream, Fetch of batches) are checked by whoever opens them,
//! the reader: of one that has rotted this broker learns when somebody has it opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::Instant;
use weir_rpc::Problem;
use weir_storage::{FrameError, LogDir, Partition, ReadError};
use weir_types::{Offset, PartitionId};

use crate::problems;
use crate::topic_map::Topic;

/// How long a place is not spoken of again, however often it is read.
const QUIET: Duration = Duration::from_secs(10 * 60);
/// How many places of one partition are told apart; what else is found in it counts for the last of them.
const PLACES_MAX: usize = 8;
/// What is told of a place to those who ask.
const WHAT_CHARS_MAX: usize = 500;

/// What was found, by partition.
#[derive(Debug)]
pub(crate) struct Damage {
    damaged: IntCounter,
    unreadable: IntCounter,
    found: Mutex<BTreeMap<PartitionId, Vec<Place>>>,
}

/// A place that cannot be read.
#[derive(Debug)]
struct Place {
    /// What the first reader who met it wanted.
    offset: Offset,
    /// Which file, where, and what is wrong: no two places have the same.
    what: String,
    said: Instant,
    /// Reads that were refused since it was spoken of.
    unsaid: u64,
    /// Until when it counts if nobody meets it again: a disk may come to itself, wrong bytes do not. `None`: for good.
    until: Option<Instant>,
}

impl Damage {
    /// Counts reads that met wrong bytes, and reads that the disk failed.
    pub(crate) fn new(damaged: IntCounter, unreadable: IntCounter) -> Self {
        Self { damaged, unreadable, found: Mutex::default() }
    }

    /// What a reader is told whose read failed at this offset; if the disk is to blame, others are told too.
    pub(crate) fn refused(
        &self,
        topic: &Topic,
        partition: i32,
        offset: Offset,
        error: &ReadError,
    ) -> Problem {
        let problem = problems::read(&topic.name, partition, offset, error);
        let (what, counter) = match error {
            ReadError::Damaged(what) => (what, &self.damaged),
            ReadError::Unreadable(what) => (what, &self.unreadable),
            ReadError::OutOfRange { .. } | ReadError::Offline(_) => return problem,
        };
        counter.inc();
        let passes = matches!(error, ReadError::Unreadable(_));
        let id = PartitionId { topic: topic.id, partition };
        if let Some(reads) = self.note(id, offset, what, passes) {
            let reason = weir_rpc::reasons::name(problem.reason);
            tracing::error!(
                topic = &*topic.name,
                partition,
                offset,
                what,
                reads,
                "a log cannot be read at this offset, and readers are refused: weir errors {reason} says what to do"
            );
        }
        problem
    }

    /// Notes a refused read. How many there were since it was last spoken of, if it is time to.
    fn note(&self, id: PartitionId, offset: Offset, what: &str, passes: bool) -> Option<u64> {
        let now = Instant::now();
        let until = passes.then_some(now + QUIET);
        let mut found = self.found.lock();
        let places = found.entry(id).or_default();
        let known = places.iter().position(|place| place.what == what);
        let full = places.len() >= PLACES_MAX;
        match known.or_else(|| full.then_some(PLACES_MAX - 1)).and_then(|at| places.get_mut(at)) {
            None => {
                places.push(Place { offset, what: what.to_owned(), said: now, unsaid: 0, until });
                Some(1)
            }
            Some(place) => {
                place.unsaid += 1;
                place.until = place.until.and(until);
                if now.saturating_duration_since(place.said) < QUIET {
                    return None;
                }
                place.said = now;
                Some(std::mem::take(&mut place.unsaid))
            }
        }
    }

    /// What is wrong with a log, as far as readers met it and it is still there.
    pub(crate) fn of(&self, log: &Partition) -> Option<String> {
        let mut found = self.found.lock();
        let places = found.get_mut(&log.id())?;
        forget_past(places, log);
        let (first, rest) = places.split_first()?;
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        // A page of these stays within what every client takes.
        let what: String = first.what.chars().take(WHAT_CHARS_MAX).collect();
        Some(format!("cannot be read at offset {}: {what}{more}", first.offset))
    }

    /// The partitions of which something cannot be read: what was found at the start, and by readers since.
    pub(crate) fn partitions(&self, log_dir: &LogDir) -> usize {
        let mut found = self.found.lock();
        found.retain(|id, places| {
            let Some(log) = log_dir.partition(*id) else { return false };
            forget_past(places, &log);
            !places.is_empty()
        });
        let at_start = log_dir.unusable().into_iter().map(|unusable| unusable.id);
        found.keys().copied().chain(at_start).collect::<BTreeSet<_>>().len()
    }
}

/// A batch whose payload is not the one that was stored.
pub(crate) fn bad_payload(log: &Partition, batch: Offset, error: &FrameError) -> ReadError {
    let file = log.file_of(batch);
    ReadError::Damaged(format!("{file}: the batch at offset {batch}: {error}"))
}

/// Leaves out what was deleted since, and what has passed.
fn forget_past(places: &mut Vec<Place>, log: &Partition) {
    let (start, now) = (log.ends().log_start, Instant::now());
    places.retain(|place| place.offset >= start && place.until.is_none_or(|until| now < until));
}

#[cfg(test)]
mod tests {
    use weir_types::TopicId;

    use super::*;

    fn damage() -> Damage {
        let counter = |name: &str| IntCounter::new(name, name).unwrap();
        Damage::new(counter("damaged"), counter("unreadable"))
    }

    fn id(partition: i32) -> PartitionId {
        PartitionId { topic: TopicId(1), partition }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_spoken_of_once_and_again_after_a_while() {
        let damage = damage();
        assert_eq!(damage.note(id(0), 5, "file at 5", false), Some(1));
        for _ in 0..1_000 {
            assert_eq!(damage.note(id(0), 5, "file at 5", false), None);
        }
        assert_eq!(damage.note(id(1), 5, "file at 5", false), Some(1), "another partition");
        assert_eq!(damage.note(id(0), 7, "file at 7", false), Some(1), "another place");
        tokio::time::advance(QUIET).await;
        assert_eq!(damage.note(id(0), 6, "file at 5", false), Some(1_001));
        assert_eq!(damage.note(id(0), 6, "file at 5", false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_rotten_all_over_is_spoken_of_a_bounded_number_of_times() {
        let damage = damage();
        let said =
            (0..1_000).filter_map(|at| damage.note(id(0), at, &format!("file at {at}"), false)).count();
        assert_eq!(said, PLACES_MAX);
        tokio::time::advance(QUIET).await;
        assert_eq!(damage.note(id(0), 5_000, "file at 5000", false), Some(993));
    }
}
