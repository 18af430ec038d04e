//! A partition as others see it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use weir_types::{Incarnation, LeaderEpoch, Offset, PartitionId};

use crate::append::{Append, AppendError, Refusal};
use crate::claim::{self, Entry};
use crate::control::{Command, Control, Outcome, OutcomeQuery};
use crate::core::Core;
use crate::ends::{Ends, Limit};
use crate::error::{Error, ReadError, shown};
use crate::read::{self, Chunk, ReadRequest, TimestampOffset};
use crate::replicate::Replicated;
use crate::segment::Segment;
use crate::spots::Spot;
use crate::start_state::{self, StartState};

/// One partition's log. Cheap to clone; every clone is the same log. All of it may be used from any task.
#[derive(Clone)]
pub struct Partition(pub(crate) Arc<Core>);

impl Partition {
    /// Which partition.
    pub fn id(&self) -> PartitionId {
        self.0.id
    }

    /// Which life of it in this directory. With [`Partition::id`] it is what frames read here are verified by
    /// ([`crate::decode_frames`]): for other brokers alone ([`crate::Seed`]).
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// Appends, in this order, as one group: never waits, for another writer least of all. Each is answered by its
    /// own `done`, perhaps before this returns. Whoever submits may find itself writing what others have submitted.
    pub fn submit(&self, appends: Vec<Append>) {
        claim::submit(&self.0, appends.into_iter().map(Entry::Append));
    }

    /// Tells a row, in order with its appends, that one of them was refused before it got here.
    pub fn refuse(&self, refusal: Refusal) {
        claim::submit(&self.0, [Entry::Refusal(refusal)]);
    }

    /// Writes frames of the leader that this replica follows, in order with everything else: never waits. Answered by
    /// `done`, perhaps before this returns, as [`Partition::submit`] is.
    pub fn replicate(&self, replicated: Replicated) {
        claim::submit(&self.0, [Entry::Replicated(replicated)]);
    }

    /// Has the admission asked again how far the log is committed, because it may know more by now. Cheap, from any
    /// task; of many who ask at once the owner asks once, after the last of them.
    pub fn advance(&self) {
        claim::advance(&self.0);
    }

    /// Changes the partition, in order with its appends. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::OutOfRange`], [`Error::StaleEpoch`], [`Error::Io`] for want of space or of a descriptor: then
    /// nothing has changed; [`Error::Failed`].
    pub async fn control(&self, control: Control) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        claim::submit(&self.0, [Entry::Command(Command::Control(control, answer))]);
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// What became of an append. With `seal` the answer waits until it is committed: bring a deadline.
    ///
    /// # Errors
    /// [`Error::Closed`]. The inner one: why the fence could not be appended.
    pub async fn append_outcome(&self, query: OutcomeQuery) -> Result<Result<Outcome, AppendError>, Error> {
        let (answer, answered) = oneshot::channel();
        claim::submit(&self.0, [Entry::Command(Command::Outcome(query, answer))]);
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Reads whole frames. An empty chunk: there is nothing within the limit now ([`Partition::watch`] tells when).
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ReadError`]: out of range, closed, or what is there cannot be read.
    pub async fn read(&self, request: ReadRequest) -> Result<Chunk, ReadError> {
        read::read(&self.0, request).await
    }

    /// The first frame within the limit that has a record of this time (milliseconds since 1970 UTC) or later.
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Partition::read`].
    pub async fn offset_for_timestamp(
        &self,
        timestamp_ms: i64,
        limit: Limit,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        read::offset_for_timestamp(&self.0, timestamp_ms, limit).await
    }

    /// The log's ends at one moment.
    pub fn ends(&self) -> Ends {
        self.0.ends()
    }

    /// Tells of changes that readers can see: log start, last stable offset, high watermark. `changed` fails once the
    /// partition is closed.
    pub fn watch(&self) -> watch::Receiver<Ends> {
        let mut ends = self.0.ends.clone();
        // What is published by now is nothing new.
        ends.mark_unchanged();
        ends
    }

    /// Whether it was closed or deleted.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// The largest leader epoch not above this one that the log has, and its end: where the next one begins, or the
    /// log's end (correctness rule 1).
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let log_end = self.0.ends().log_end;
        self.0.epochs.read().end_of(epoch, log_end)
    }

    /// Whether a reader may go on at a position of another log of this partition: `None`, if all that it has read is in this
    /// one. `position` is an offset and the epoch of the record that was read last before it, `in_force` the leadership in
    /// which it is judged. Else where it goes back to, with the epoch of what is before that here, if it is known: it is not
    /// beyond where the two part if the reader goes on so with what it has read itself, until that is taken (correctness
    /// rule 13; KIP-320).
    pub fn parts(
        &self,
        position: (Offset, LeaderEpoch),
        in_force: LeaderEpoch,
    ) -> Option<(Offset, Option<LeaderEpoch>)> {
        let ends = self.0.ends();
        self.0.epochs.read().parts(position, in_force, (ends.log_start, ends.log_end))
    }

    /// The leader epoch of what is just before this offset, of which a reader of this log has got everything; `None`:
    /// the log begins there.
    pub fn epoch_before(&self, offset: Offset) -> Option<LeaderEpoch> {
        let log_start = self.0.ends().log_start;
        self.0.epochs.read().before(offset, log_start)
    }

    /// The epoch of the last frame; `None` if there never was one.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.0.epochs.read().last()
    }

    /// What this log knows where it begins: another replica that begins there needs it ([`crate::LogDir::start_over`]).
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Io`], [`Error::Damaged`] if it cannot be read.
    pub async fn start_state(&self) -> Result<StartState, Error> {
        start_state::of(&self.0).await
    }

    /// The file that holds an offset, for people: as in every error, the incarnation is a `*` in it.
    pub fn file_of(&self, offset: Offset) -> String {
        let segments = self.0.segments.load();
        shown(Core::segments_from(&segments, offset).first().map_or(&self.0.path, |segment| &segment.path))
    }

    /// Remembers a place, to know later whether it was cut off since.
    pub fn remember(&self, offset: Offset) -> Spot {
        self.0.spots.remember(offset)
    }

    /// Sizes, for people and metrics.
    pub fn describe(&self) -> Description {
        let segments = self.0.segments.load();
        Description {
            segments: segments.len(),
            bytes: segments.iter().map(|segment| segment.written()).sum(),
            unsynced_bytes: self.0.unsynced_bytes(),
            last_append_ms: last_append_ms(&segments),
            path: self.0.path.clone(),
        }
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({}, {:?})", self.0.id, self.0.ends())
    }
}

/// The last segment may have nothing in it yet.
fn last_append_ms(segments: &[Arc<Segment>]) -> Option<i64> {
    let newest = segments.iter().rev().take(2);
    let times = newest.filter_map(|segment| segment.times());
    times.map(|(_, append_time_ms, _)| append_time_ms).find(|append_time_ms| *append_time_ms != i64::MIN)
}

/// What a partition takes up, and when it last grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// How many segments it has, the one that is written to included.
    pub segments: usize,
    /// Their length in bytes.
    pub bytes: u64,
    /// What of it is not known to be on the disk.
    pub unsynced_bytes: u64,
    /// When the last batch was appended, by its leader's clock (milliseconds since 1970 UTC); `None` if the segment that
    /// holds it has not been looked at since the start.
    pub last_append_ms: Option<i64>,
    /// The folder.
    pub path: PathBuf,
}
