//! What readers are refused because the disk does not give what was written: said in the log once for each place and
//! then not for a while, counted, and shown to whoever asks how partitions are.
//!
//! It knows what somebody tried to read, no more; nothing is looked for. Where another replica is in sync, it has what is
//! damaged here: this one is given up for it, and fetched anew (correctness rule 36). Where none is, what is whole is
//! served as before. What a start finds is another matter, and takes the partition offline. Payloads that leave as they are stored (FetchStream, Fetch of batches) are checked by whoever opens them,
//! the reader: of one that has rotted this broker learns when somebody has it opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::time::Instant;
use weir_metadata::{GivesUp, Image, StuckReplica};
use weir_proto::v1::ErrorReason;
use weir_rpc::Problem;
use weir_storage::{FrameError, FrameHeader, LogDir, Partition, ReadError, Spot};
use weir_types::{BrokerId, LeaderEpoch, Offset, PartitionId};

use crate::problems;
use crate::replication::{Led, Replication};
use crate::topic_map::Topic;

/// How long a place is not spoken of again, however often it is read.
const QUIET: Duration = Duration::from_secs(10 * 60);
/// For so long, at first, a replica leads on that has given up the lead a moment ago and has got it again.
const LEADS_ON: Duration = Duration::from_secs(5);
/// How many places of one partition are told apart; what else is found in it counts for the last of them.
const PLACES_MAX: usize = 8;
/// What is told of a place to those who ask.
const WHAT_CHARS_MAX: usize = 500;

/// How many damaged logs one heartbeat names, at most.
const TOLD_MAX: usize = 1_000;

/// What was found, by partition.
#[derive(Debug)]
pub(crate) struct Damage {
    replication: Arc<Replication>,
    damaged: IntCounter,
    unreadable: IntCounter,
    found: Mutex<BTreeMap<PartitionId, Found>>,
    told: Mutex<Told>,
}

/// What was found in one log.
#[derive(Debug, Default)]
pub(crate) struct Found {
    places: Vec<Place>,
    /// The leadership that the log cannot be cut for, and so not follow.
    stuck: Option<LeaderEpoch>,
    /// The last leadership that was given up although the replica is needed.
    gave_lead: Option<GaveLead>,
}

/// A leadership that was given up.
#[derive(Clone, Copy, Debug)]
struct GaveLead {
    epoch: LeaderEpoch,
    at: Instant,
    /// So long the next one is not.
    pause: Duration,
}

/// What the controllers were told.
#[derive(Debug, Default)]
struct Told {
    /// With the last heartbeat.
    last: BTreeSet<PartitionId>,
    /// Leaderships that may be given to others because of it.
    led: BTreeMap<PartitionId, Arc<Led>>,
}

/// A place that cannot be read.
#[derive(Debug)]
struct Place {
    /// What the first reader who met it wanted.
    offset: Offset,
    /// Which file, where, and what is wrong: no two places of one log have the same.
    what: String,
    /// The place in the log, if that was open here: it is gone with what is cut off.
    spot: Option<Spot>,
    said: Instant,
    /// Reads that were refused since it was spoken of.
    unsaid: u64,
    /// Until when it counts if nobody meets it again: a disk may come to itself, wrong bytes do not. `None`: for good.
    until: Option<Instant>,
}

impl Damage {
    /// Counts reads that met wrong bytes, and reads that the disk failed.
    pub(crate) fn new(replication: Arc<Replication>, damaged: IntCounter, unreadable: IntCounter) -> Self {
        Self { replication, damaged, unreadable, found: Mutex::default(), told: Mutex::default() }
    }

    /// What a reader is told whose read failed at this offset; if the disk is to blame, others are told too. Where another
    /// replica takes this one's place, he is to try again: it is a matter of a heartbeat.
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
        let log = topic.partition(partition).ok().and_then(|placed| placed.local.as_ref());
        let said = self.note(id, log, offset, what, passes);
        let is_given_up = !passes && self.is_given_up(id);
        if let Some(reads) = said {
            let reason = weir_rpc::reasons::name(problem.reason);
            let then = if is_given_up {
                "others that are in sync take its place".to_owned()
            } else {
                format!("readers are refused: weir errors {reason} says what to do")
            };
            let topic = &*topic.name;
            tracing::error!(
                topic,
                partition,
                offset,
                what,
                reads,
                "a log cannot be read at this offset; {then}"
            );
        }
        if !is_given_up {
            return problem;
        }
        let said = format!(
            "{}/{partition}: the log here cannot be read at offset {offset}: another replica that is in sync takes its \
             place, try again",
            topic.name
        );
        Problem::new(ErrorReason::NoLeader, said).at(&topic.name, partition)
    }

    /// A log cannot be cut there, to that of the leader of this epoch, for what is damaged in it.
    pub(crate) fn stuck(&self, log: &Partition, to: Offset, epoch: LeaderEpoch, what: &str) {
        let id = log.id();
        self.note(id, Some(log), to.saturating_sub(1).max(0), what, false);
        if let Some(found) = self.found.lock().get_mut(&id) {
            found.stuck = Some(epoch);
        }
        // Also where that was known before, of another leadership.
        self.replication.cluster().beat_now();
    }

    /// Whether another replica takes the place of this one, or has: whoever reads here is to try again.
    fn is_given_up(&self, id: PartitionId) -> bool {
        let cluster = self.replication.cluster();
        let (image, me) = (cluster.image(), cluster.broker_id());
        let is_led_elsewhere =
            image.partition(id).is_some_and(|record| record.leader.is_some_and(|leader| leader != me));
        let mut found = self.found.lock();
        let mut gives_up = || found.get_mut(&id).is_some_and(|found| found.gives_up(&image, me, id));
        is_led_elsewhere || cluster.is_heard() && gives_up()
    }

    /// The partitions whose logs here are damaged and that others can take, to be told to the controllers: these do not
    /// wait for a session then, so that nothing that goes by one is promised of them any more (correctness rule 10). And
    /// those that cannot follow because of that.
    pub(crate) fn to_be_told(&self, log_dir: &LogDir) -> (Vec<PartitionId>, Vec<StuckReplica>) {
        let cluster = self.replication.cluster();
        let (image, me) = (cluster.image(), cluster.broker_id());
        let (mut damaged, mut stuck) = (Vec::new(), Vec::new());
        for (id, found) in self.found.lock().iter_mut() {
            if let Some(log) = log_dir.partition(*id) {
                found.forget_past(&log);
            }
            if found.is_damage() && found.gives_up(&image, me, *id) && damaged.len() < TOLD_MAX {
                damaged.push(*id);
            }
            let lagging = found.stuck.filter(|epoch| image.begins_anew(me, *id, *epoch));
            if let Some(leader_epoch) = lagging.filter(|_| stuck.len() < TOLD_MAX) {
                stuck.push(StuckReplica { partition: *id, leader_epoch });
            }
        }
        let mut told = self.told.lock();
        damaged.iter().filter_map(|id| self.replication.led(*id)).for_each(|led| told.gives_up(led));
        told.last = damaged.iter().copied().collect();
        (damaged, stuck)
    }

    /// The partitions that this broker is to lead with a log that cannot be used, and that others can lead.
    pub(crate) fn led_in_vain(&self, log_dir: &LogDir) -> Vec<PartitionId> {
        let cluster = self.replication.cluster();
        let (image, me) = (cluster.image(), cluster.broker_id());
        let mut found = self.found.lock();
        let mut hands_over = |id: PartitionId| {
            let epoch = image.partition(id).map_or(0, |record| record.leader_epoch);
            image.hands_over(me, id) && found.entry(id).or_default().gives_lead(epoch)
        };
        let unusable = log_dir.unusable().into_iter().map(|unusable| unusable.id);
        unusable.filter(|id| hands_over(*id)).take(TOLD_MAX).collect()
    }

    /// The heartbeat that told the last ones was answered: what was told before and was not this time is settled as of this
    /// version of the metadata.
    pub(crate) fn answered(&self, version: i64) {
        let mut told = self.told.lock();
        let Told { led, last } = &mut *told;
        led.retain(|id, led| {
            let is_open = last.contains(id) && !led.has_ended();
            if !is_open {
                led.is_kept_from(version);
            }
            is_open
        });
    }

    /// A leadership begins. If its log is damaged, what was told of that while another one led may still be carried out.
    pub(crate) fn begins(&self, led: &Arc<Led>) {
        if self.is_in(led.partition.id(), Some(&led.partition)) {
            self.told.lock().gives_up(led.clone());
        }
    }

    /// Whether bytes were found in the log of a partition that are not those which were written, and are still there. `log`:
    /// the log, if it is open.
    pub(crate) fn is_in(&self, id: PartitionId, log: Option<&Partition>) -> bool {
        let mut found = self.found.lock();
        let Some(found) = found.get_mut(&id) else { return false };
        if let Some(log) = log {
            found.forget_past(log);
        }
        found.is_damage()
    }

    /// The log that it was found in is not used any more.
    pub(crate) fn forget(&self, id: PartitionId) {
        self.found.lock().remove(&id);
    }

    /// Notes a refused read. How many there were since it was last spoken of, if it is time to.
    fn note(
        &self,
        id: PartitionId,
        log: Option<&Partition>,
        offset: Offset,
        what: &str,
        passes: bool,
    ) -> Option<u64> {
        let now = Instant::now();
        let until = passes.then_some(now + QUIET);
        let mut found = self.found.lock();
        let places = &mut found.entry(id).or_default().places;
        // What lies there by now is something else.
        places.retain(|place| !place.is_cut_off());
        let known = places.iter().position(|place| place.what == what);
        let full = places.len() >= PLACES_MAX;
        match known.or_else(|| full.then_some(PLACES_MAX - 1)).and_then(|at| places.get_mut(at)) {
            None => {
                let spot = log.map(|log| log.remember(offset));
                places.push(Place { offset, what: what.to_owned(), spot, said: now, unsaid: 0, until });
                if !passes {
                    // The controllers hear of it with the next heartbeat, which is due now.
                    self.replication.cluster().beat_now();
                }
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
        let found = found.get_mut(&log.id())?;
        found.forget_past(log);
        found.said()
    }

    /// What was wrong with a log when it was closed for that.
    pub(crate) fn of_closed(&self, id: PartitionId) -> Option<String> {
        self.found.lock().get(&id)?.said()
    }

    /// The partitions of which something cannot be read: what was found at the start, and by readers since.
    pub(crate) fn partitions(&self, log_dir: &LogDir) -> usize {
        let mut found = self.found.lock();
        let mut damaged: BTreeSet<_> = log_dir.unusable().into_iter().map(|unusable| unusable.id).collect();
        found.retain(|id, found| {
            let Some(log) = log_dir.partition(*id) else {
                // When it gave up the lead counts as long as it may get it again.
                found.places.clear();
                return found.gave_lead.is_some_and(|last| last.at.elapsed() < QUIET);
            };
            found.forget_past(&log);
            if !found.places.is_empty() {
                damaged.insert(*id);
            }
            !found.places.is_empty()
        });
        damaged.len()
    }
}

/// A batch whose payload is not the one that was stored.
pub(crate) fn bad_payload(log: &Partition, batch: &FrameHeader, error: &FrameError) -> ReadError {
    let file = log.file_of(batch.base_offset);
    ReadError::Damaged(format!("{file}: {}: {error}", offsets(batch)))
}

/// Which batch it is: where it ends a reader goes on.
pub(crate) fn offsets(batch: &FrameHeader) -> String {
    match (batch.base_offset, batch.last_offset()) {
        (first, last) if last <= first => format!("the batch at offset {first}"),
        (first, last) => format!("the batch at offsets {first} to {last}"),
    }
}

impl Place {
    fn is_cut_off(&self) -> bool {
        self.spot.as_ref().is_some_and(Spot::is_cut_off)
    }
}

impl Told {
    fn gives_up(&mut self, led: Arc<Led>) {
        led.give_up();
        self.led.insert(led.partition.id(), led);
    }
}

impl Found {
    fn said(&self) -> Option<String> {
        let mut places = self.places.iter();
        let first = places.next()?;
        let more = match places.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        // A page of these stays within what every client takes.
        let what: String = first.what.chars().take(WHAT_CHARS_MAX).collect();
        Some(format!("cannot be read at offset {}: {what}{more}", first.offset))
    }

    /// Whether any of it will not pass.
    fn is_damage(&self) -> bool {
        self.places.iter().any(|place| place.until.is_none())
    }

    /// Leaves out what was deleted or cut off since, and what has passed. What lies before the log's start nobody is given any
    /// more, reader or replica.
    fn forget_past(&mut self, log: &Partition) {
        let (start, now) = (log.ends().log_start, Instant::now());
        let passed = |place: &Place| place.until.is_some_and(|until| until <= now);
        self.places.retain(|place| place.offset >= start && !place.is_cut_off() && !passed(place));
    }

    /// Whether this replica is to give up its place, or the lead. The lead more and more seldom: whoever gets it may have a
    /// damaged log as well, or be no preferred leader. But what one of the two cannot read the other one can.
    pub(crate) fn gives_up(&mut self, image: &Image, me: BrokerId, id: PartitionId) -> bool {
        match image.gives_up_damaged(me, id) {
            None => false,
            Some(GivesUp::Place) => true,
            Some(GivesUp::Lead(_)) => {
                self.gives_lead(image.partition(id).map_or(0, |record| record.leader_epoch))
            }
        }
    }

    fn gives_lead(&mut self, epoch: LeaderEpoch) -> bool {
        let pause = match self.gave_lead {
            // It was not heard yet.
            Some(last) if last.epoch == epoch => return true,
            Some(last) if last.at.elapsed() < last.pause => return false,
            Some(last) if last.at.elapsed() < QUIET => (2 * last.pause).min(QUIET),
            _ => LEADS_ON,
        };
        self.gave_lead = Some(GaveLead { epoch, at: Instant::now(), pause });
        true
    }
}

#[cfg(test)]
mod tests {
    use weir_storage::{Acks, Control, Limit, ReadRequest};
    use weir_types::TopicId;

    use super::*;
    use crate::testing::{ID, Parts, append, batch, recorded};

    fn damage() -> Arc<Damage> {
        Parts::new().damage
    }

    fn id(partition: i32) -> PartitionId {
        PartitionId { topic: TopicId(1), partition }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_spoken_of_once_and_again_after_a_while() {
        let damage = damage();
        assert_eq!(damage.note(id(0), None, 5, "file at 5", false), Some(1));
        for _ in 0..1_000 {
            assert_eq!(damage.note(id(0), None, 5, "file at 5", false), None);
        }
        assert_eq!(damage.note(id(1), None, 5, "file at 5", false), Some(1), "another partition");
        assert_eq!(damage.note(id(0), None, 7, "file at 7", false), Some(1), "another place");
        tokio::time::advance(QUIET).await;
        assert_eq!(damage.note(id(0), None, 6, "file at 5", false), Some(1_001));
        assert_eq!(damage.note(id(0), None, 6, "file at 5", false), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_rotten_all_over_is_spoken_of_a_bounded_number_of_times() {
        let damage = damage();
        let said =
            (0..1_000).filter_map(|at| damage.note(id(0), None, at, &format!("file at {at}"), false)).count();
        assert_eq!(said, PLACES_MAX);
        tokio::time::advance(QUIET).await;
        assert_eq!(damage.note(id(0), None, 5_000, "file at 5000", false), Some(993));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_batch_is_named_with_its_last_offset_behind_which_a_reader_goes_on() {
        let parts = Parts::new();
        parts.is_heard();
        let log = parts.lead(ID, recorded(1, &[1])).await;
        append(&log, batch(0), Acks::Leader, None).await.unwrap().unwrap();
        let request = ReadRequest { from: 0, bytes_max: 1, limit: Limit::LogEnd };
        let header = log.read(request).await.unwrap().frames().next().unwrap().header;
        let said = |last_offset_delta| {
            bad_payload(&log, &FrameHeader { last_offset_delta, ..header }, &FrameError::PayloadCrc)
                .to_string()
        };
        assert!(
            said(0).ends_with(".log: the batch at offset 0: the payload fails its checksum"),
            "{}",
            said(0)
        );
        assert!(said(9).contains(".log: the batch at offsets 0 to 9: the payload"), "{}", said(9));
    }

    /// It has led without others, and what it alone had is cut to the next leader's log.
    #[tokio::test(start_paused = true)]
    async fn what_is_cut_off_is_no_damage_whatever_comes_in_its_place() {
        let parts = Parts::new();
        parts.is_heard();
        let log = parts.lead(ID, recorded(1, &[1, 2])).await;
        let write_four = async || {
            for _ in 0..4 {
                append(&log, batch(0), Acks::Leader, None).await.unwrap().unwrap();
            }
        };
        write_four().await;
        parts.damage.note(ID, Some(&log), 1, "file at 1", false);
        parts.damage.note(ID, Some(&log), 3, "file at 3", false);
        let cut = async |to| {
            let cut = Control::Truncate { to, below_high_watermark: false, following: None };
            log.control(cut).await.unwrap();
        };
        cut(3).await;
        assert_eq!(parts.damage.of(&log).unwrap(), "cannot be read at offset 1: file at 1");
        cut(1).await;
        assert!(!parts.damage.is_in(ID, Some(&log)));
        write_four().await;
        assert_eq!(log.ends().log_end, 5);
        assert!(!parts.damage.is_in(ID, Some(&log)), "other records are there now");
        // Which may rot as well.
        assert_eq!(parts.damage.note(ID, Some(&log), 1, "file at 1", false), Some(1));
        assert!(parts.damage.is_in(ID, Some(&log)));
    }
}
