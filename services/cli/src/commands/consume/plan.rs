//! What is still to be read: for each partition the next offset and where to stop. Pure: the stream feeds it.

use std::collections::HashMap;

use weir_proto::v1::{ConsumeRequest, ConsumeResponse, StoredRecord, TopicPartitionOffset};

use crate::connect;
use crate::error::{Error, Result};
use crate::offsets::{Extent, OPEN};

/// How often the server shows a sign of life, in milliseconds.
const HEARTBEAT_MS: i32 = 5_000;
/// The same where a range is read: past records that are not delivered, only a heartbeat says how far it got.
const HEARTBEAT_UNTIL_MS: i32 = 500;

/// One partition to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The topic.
    topic: String,
    /// The partition.
    partition: i32,
    /// The next offset to read.
    next: i64,
    /// The leader epoch of the record before, once known.
    leader_epoch: Option<i32>,
    /// Stop before this offset; [`OPEN`]: where the server says that the end is.
    until: Option<i64>,
    /// Where the partition ended when the command began.
    end: i64,
    /// Read once the others are: it keeps whoever asks for all of them from all.
    put_off: bool,
}

impl Target {
    /// Read a partition from one offset until another.
    pub(super) fn new(extent: &Extent, next: i64, until: Option<i64>) -> Self {
        Self {
            topic: extent.topic.clone(),
            partition: extent.partition,
            next,
            leader_epoch: None,
            until,
            end: extent.end,
            put_off: false,
        }
    }

    fn done(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }
}

/// All partitions to read.
#[derive(Debug)]
pub(super) struct Plan {
    targets: Vec<Target>,
    places: HashMap<(String, i32), usize>,
    /// Where the reader stands; empty: nowhere.
    rack: String,
    /// Whether what is left was put off, and all else is read.
    others_read: bool,
}

impl Plan {
    /// A partition may be named once.
    pub(super) fn new(targets: Vec<Target>) -> Result<Self> {
        let mut places = HashMap::new();
        for (i, target) in targets.iter().enumerate() {
            if places.insert((target.topic.clone(), target.partition), i).is_some() {
                let name = format!("{}/{}", target.topic, target.partition);
                return Err(Error::Usage(format!("{name} is named twice")));
            }
        }
        Ok(Self { targets, places, rack: String::new(), others_read: false })
    }

    /// By a reader who stands in this rack.
    pub(super) fn standing_in(self, rack: String) -> Self {
        Self { rack, ..self }
    }

    /// Those first whose ends are known: the others may have to be waited for.
    pub(super) fn known_first(mut self) -> Self {
        let is_known = |target: &Target| target.until.is_some_and(|until| until != OPEN);
        if self.targets.iter().any(|target| is_known(target) && !target.done()) {
            self.targets.iter_mut().for_each(|target| target.put_off = target.until == Some(OPEN));
        }
        self
    }

    /// Puts a partition off of which a range is read, for which the server has refused all. False: there are no others, so that
    /// it has to be waited for.
    pub(super) fn put_off(&mut self, topic: &str, partition: i32) -> bool {
        let Some(target) = self.target(topic, partition).filter(|target| target.until.is_some()) else {
            return false;
        };
        target.put_off = true;
        let others = !self.round_is_over();
        if !others {
            self.begin_round();
        }
        others
    }

    /// Whether all is read that is asked for at the moment.
    pub(super) fn round_is_over(&self) -> bool {
        self.targets.iter().all(|target| target.done() || target.put_off)
    }

    /// Those that were put off are asked for.
    fn begin_round(&mut self) {
        let others = self.targets.iter().any(|target| !target.put_off);
        self.others_read |= others && self.targets.iter().any(|target| target.put_off);
        self.targets.iter_mut().for_each(|target| target.put_off = false);
    }

    /// What a failure leaves behind: where only what was put off is left, that is all.
    pub(super) fn unread(&self, error: Error) -> Error {
        if !self.others_read {
            return error;
        }
        let left = self.targets.iter().filter(|target| !target.done());
        let names: Vec<_> =
            left.map(|target| format!("{}/{}@{}", target.topic, target.partition, target.next)).collect();
        let left = format!("all is read but from {} on", names.join(", "));
        Error::Unfinished { cause: Box::new(error), left }
    }

    /// Whether everything that was asked for has been read.
    pub(super) fn done(&self) -> bool {
        self.targets.iter().all(Target::done)
    }

    /// Whether everything that was there when the command began has been read.
    pub(super) fn caught_up(&self) -> bool {
        self.targets.iter().all(|target| target.next >= target.end)
    }

    /// Whether the server decides where it ends for some of them, because their leaders do not tell it beforehand.
    pub(super) fn ends_by_itself(&self) -> bool {
        self.targets.iter().any(|target| target.until == Some(OPEN) && !target.put_off)
    }

    /// The server has ended its answer in order. Whether that was asked for: then those are read whose end it decides; where
    /// the end was told, what is left up to it is asked for again.
    pub(super) fn ended(&mut self) -> bool {
        let is_asked_for = self.ends_by_itself();
        for target in self.targets.iter_mut().filter(|it| it.until == Some(OPEN) && !it.put_off) {
            target.until = Some(target.next);
        }
        is_asked_for
    }

    /// The topics, for people.
    pub(super) fn topics(&self) -> String {
        let mut names: Vec<&str> = self.targets.iter().map(|target| target.topic.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    }

    /// Asks for what is left.
    pub(super) fn request(&mut self) -> ConsumeRequest {
        if self.round_is_over() {
            self.begin_round();
        }
        let left = self.targets.iter().filter(|target| !target.done() && !target.put_off);
        let position = |target: &Target| TopicPartitionOffset {
            topic: target.topic.clone(),
            partition: target.partition,
            offset: target.next,
            leader_epoch: target.leader_epoch,
            metadata: String::new(),
        };
        let until = self.targets.iter().any(|target| target.until.is_some());
        ConsumeRequest {
            positions: left.map(position).collect(),
            message_bytes_max: connect::MESSAGE_BYTES_MAX,
            heartbeat_ms: if until { HEARTBEAT_UNTIL_MS } else { HEARTBEAT_MS },
            rack: self.rack.clone(),
            until_end: self.ends_by_itself(),
            ..ConsumeRequest::default()
        }
    }

    /// Takes a message: gives the records that are wanted to `write`, at most `limit`, and remembers how far they
    /// reach. How many were written.
    pub(super) fn take(
        &mut self,
        message: &ConsumeResponse,
        limit: u64,
        mut write: impl FnMut(&StoredRecord) -> Result<()>,
    ) -> Result<u64> {
        let mut written = 0;
        for record in &message.records {
            if written == limit {
                return Ok(written);
            }
            let Some(target) = self.target(&record.topic, record.partition) else { continue };
            // A repetition after a reconnect is below `next`.
            if record.offset < target.next || target.until.is_some_and(|until| record.offset >= until) {
                continue;
            }
            target.next = record.offset + 1;
            target.leader_epoch = Some(record.leader_epoch);
            write(record)?;
            written += 1;
        }
        let next =
            message.next.iter().map(|next| (&next.topic, next.partition, next.offset, next.leader_epoch));
        let progress = message
            .progress
            .iter()
            .map(|progress| (&progress.topic, progress.partition, progress.next_offset, None));
        for (topic, partition, offset, leader_epoch) in next.chain(progress) {
            if let Some(target) = self.target(topic, partition) {
                target.next = target.next.max(offset);
                target.leader_epoch = leader_epoch.or(target.leader_epoch);
            }
        }
        Ok(written)
    }

    fn target(&mut self, topic: &str, partition: i32) -> Option<&mut Target> {
        // Records come in runs of one partition; with few partitions a look along them is cheapest.
        let place = if self.targets.len() <= 8 {
            self.targets.iter().position(|target| target.partition == partition && target.topic == topic)
        } else {
            self.places.get(&(topic.to_owned(), partition)).copied()
        };
        place.and_then(|place| self.targets.get_mut(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(partition: i32, end: i64) -> Extent {
        Extent { topic: "t".into(), partition, start: 0, end }
    }

    fn message(partition: i32, offsets: &[i64], next: i64) -> ConsumeResponse {
        let record = |offset: &i64| StoredRecord {
            topic: "t".into(),
            partition,
            offset: *offset,
            leader_epoch: 4,
            ..StoredRecord::default()
        };
        ConsumeResponse {
            records: offsets.iter().map(record).collect(),
            next: vec![TopicPartitionOffset {
                topic: "t".into(),
                partition,
                offset: next,
                ..Default::default()
            }],
            progress: Vec::new(),
        }
    }

    fn taken(plan: &mut Plan, message: &ConsumeResponse, limit: u64) -> Vec<i64> {
        let mut offsets = Vec::new();
        let count = plan.take(message, limit, |record| {
            offsets.push(record.offset);
            Ok(())
        });
        assert_eq!(count.unwrap(), offsets.len() as u64);
        offsets
    }

    #[test]
    fn a_range_ends_before_its_end_and_never_repeats() {
        let targets = vec![Target::new(&extent(0, 10), 2, Some(5)), Target::new(&extent(1, 3), 3, Some(3))];
        let mut plan = Plan::new(targets).unwrap();
        assert_eq!(plan.request().positions.len(), 1, "what is done is not asked for");
        assert_eq!(taken(&mut plan, &message(0, &[2, 3], 4), 9), [2, 3]);
        assert!(!plan.done());
        // After a reconnect: a repetition, then past the end.
        assert_eq!(taken(&mut plan, &message(0, &[3, 4, 5, 6], 7), 9), [4]);
        assert!(plan.done());
    }

    #[test]
    fn gaps_at_the_end_of_a_range_end_it_too() {
        let mut plan = Plan::new(vec![Target::new(&extent(0, 5), 0, Some(5))]).unwrap();
        assert_eq!(taken(&mut plan, &message(0, &[0], 1), 9), [0]);
        assert!(!plan.done());
        assert_eq!(taken(&mut plan, &message(0, &[], 5), 9), Vec::<i64>::new());
        assert!(plan.done() && plan.caught_up());
    }

    #[test]
    fn where_an_end_is_not_told_the_server_stops_at_it() {
        let open = Target::new(&extent(1, OPEN), 0, Some(OPEN));
        let mut plan = Plan::new(vec![Target::new(&extent(0, 2), 0, Some(2)), open]).unwrap();
        assert!(plan.request().until_end);
        assert_eq!(taken(&mut plan, &message(0, &[0], 1), 9), [0]);
        assert_eq!(taken(&mut plan, &message(1, &[0, 1, 2], 3), 9), [0, 1, 2]);
        assert!(!plan.done(), "more may come");
        assert!(plan.ended() && !plan.done(), "the other one was told to have more");
        let left = plan.request();
        assert_eq!((left.positions.len(), left.positions[0].offset, left.until_end), (1, 1, false));
        assert_eq!(taken(&mut plan, &message(0, &[1], 2), 9), [1]);
        assert!(plan.done());

        let mut plan = Plan::new(vec![Target::new(&extent(0, 2), 0, Some(2))]).unwrap();
        assert!(!plan.request().until_end);
        assert!(!plan.ended() && !plan.done(), "a stream that breaks off is no end");
    }

    #[test]
    fn one_that_is_refused_is_put_off_until_the_others_are_read() {
        let range = |partition| Target::new(&extent(partition, 1), 0, Some(1));
        let mut plan = Plan::new((0..3).map(range).collect()).unwrap();
        let asked = |plan: &mut Plan| -> Vec<i32> {
            plan.request().positions.iter().map(|position| position.partition).collect()
        };
        let failed = || Error::Unreachable("nobody leads".to_owned());
        assert!(plan.put_off("t", 1) && !plan.put_off("other", 1));
        assert_eq!(asked(&mut plan), [0, 2]);
        assert_eq!(plan.unread(failed()).exit_code(), 5, "the others are not read yet");
        taken(&mut plan, &message(0, &[0], 1), 9);
        assert!(!plan.put_off("t", 2), "there is no other one: it is waited for, with the first");
        assert_eq!(asked(&mut plan), [1, 2]);
        taken(&mut plan, &message(2, &[0], 1), 9);
        let left = plan.unread(failed());
        assert!(
            matches!(&left, Error::Unfinished { left, .. } if left == "all is read but from t/1@0 on"),
            "{left:?}"
        );
        taken(&mut plan, &message(1, &[0], 1), 9);
        assert!(plan.done());
    }

    #[test]
    fn whose_end_is_known_is_read_first() {
        let open = |partition| Target::new(&extent(partition, OPEN), 0, Some(OPEN));
        let known = Target::new(&extent(0, 1), 0, Some(1));
        let mut plan = Plan::new(vec![known, open(1)]).unwrap().known_first();
        assert_eq!((plan.request().positions.len(), plan.request().until_end), (1, false));
        assert!(!plan.round_is_over());
        taken(&mut plan, &message(0, &[0], 1), 9);
        assert!(plan.round_is_over() && !plan.done());
        assert_eq!((plan.request().positions[0].partition, plan.request().until_end), (1, true));
        assert!(plan.ended() && plan.done());
        let mut open = Plan::new(vec![open(0), open(1)]).unwrap().known_first();
        assert_eq!(open.request().positions.len(), 2);
    }

    #[test]
    fn a_limit_stops_in_the_middle_and_the_position_stays_there() {
        let mut plan = Plan::new(vec![Target::new(&extent(0, 5), 0, None)]).unwrap();
        assert_eq!(taken(&mut plan, &message(0, &[0, 1, 2], 3), 2), [0, 1]);
        let position = plan.request().positions.remove(0);
        assert_eq!((position.offset, position.leader_epoch), (2, Some(4)));
        assert!(!plan.done() && !plan.caught_up());
    }

    #[test]
    fn many_partitions_are_told_apart() {
        let targets = (0..20).map(|partition| Target::new(&extent(partition, 1), 0, Some(1))).collect();
        let mut plan = Plan::new(targets).unwrap();
        for partition in 0..20 {
            assert!(!plan.done());
            assert_eq!(taken(&mut plan, &message(partition, &[0], 1), 9), [0]);
        }
        assert!(plan.done());
    }

    #[test]
    fn a_partition_named_twice_is_refused() {
        let targets = vec![Target::new(&extent(0, 1), 0, None), Target::new(&extent(0, 1), 0, None)];
        assert_eq!(Plan::new(targets).unwrap_err().exit_code(), 2);
    }
}
