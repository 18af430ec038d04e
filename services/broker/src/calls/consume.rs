//! Consume: the easy read. Records of many partitions, as messages that every stock client takes.
//!
//! The stream is pulled: nothing is read from the log before the connection has room for it, so a slow reader
//! costs one message of memory, and what one read of a log gave: a partition's turn lasts until that is given out.
//! A message costs what has come, however many partitions the stream reads.
//!
//! Partitions that other brokers lead are read by them ([`Elsewhere`]). Where a leader changes, the stream goes on at the
//! next one, at the offset that it has reached.

mod looks;
mod start;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tonic::Status;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_proto::v1::{
    ConsumeRequest, ConsumeResponse, ErrorReason, FetchAssign, FetchHello, PartitionProgress,
    TopicPartitionOffset,
};
use weir_rpc::{LongCall, Problem};
use weir_storage::Limit;
use weir_types::{LeaderEpoch, Offset};

use crate::broker::Broker;
use crate::calls::shared::ending::Ending;
use crate::calls::shared::{hello, message_limit};
use crate::forward::Caller;
use crate::forward::elsewhere::Elsewhere;
use crate::forward::hop::Hop;
use crate::forward::look;
use crate::plain_message::Plain;
use crate::plain_reader::{Budget, Following, Origin, PlainReader};
use crate::reading::{self, Arrivals, Cursor};

use looks::Looks;
use start::Begin;

/// A message is sent when it holds so much, even if more would fit: the client works while the next is read.
const MESSAGE_BYTES: usize = 512 << 10;
/// How many partitions one message speaks of: where they stand fits what `message_limit` leaves beside the records.
const PARTITIONS_IN_MESSAGE: usize = 100;
const HEARTBEAT_MS_MIN: i32 = 100;

/// `ConsumeResponse.records`.
const RECORDS: u32 = 1;

type Message = Plain<ConsumeResponse>;

/// How long a partition is read by its leader after the replica nearby did not serve it.
const FAR: Duration = Duration::from_secs(10);
/// How often is looked for the leader of a partition that has none.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One partition of the stream.
struct Source {
    reader: PlainReader,
    /// Where it ends: the end when the call arrived, with until_end.
    end: Offset,
    /// The position behind what was given out, and the epoch of what is before it.
    at: (Offset, Option<LeaderEpoch>),
    /// How often it was asked for elsewhere.
    generation: i64,
    /// How often its leader was asked about what came from there otherwise than it was written, since anything else came.
    looks: Looks,
    /// Whether a replica in the client's rack is to read it, and not the leader.
    near: bool,
    /// Until when no such replica is asked.
    far_until: Instant,
}

impl Source {
    fn position(&self) -> TopicPartitionOffset {
        let (offset, leader_epoch) = self.at;
        TopicPartitionOffset { offset, leader_epoch, ..self.reader.position() }
    }

    /// Whether it is refused for what came from another broker, which has sent it as it lies there.
    fn has_damage_from_elsewhere(&self, problem: &Problem) -> bool {
        problem.reason == ErrorReason::PartitionDamaged && self.reader.cursor().is_none()
    }

    fn progress(&self) -> PartitionProgress {
        let (next_offset, leader_epoch) = self.at;
        PartitionProgress { next_offset, leader_epoch, ..self.reader.progress() }
    }
}

/// The state between two messages.
struct Consuming {
    broker: Arc<Broker>,
    sources: Vec<Source>,
    /// Those that may have something, in the order of their turns.
    ready: VecDeque<usize>,
    /// Those that wait for something to come; with until_end, what is read to its end is in neither.
    arrivals: Arrivals<usize>,
    /// What other brokers read; `None`: this one was asked by another, and reads what it leads.
    elsewhere: Option<Elsewhere>,
    /// Those that have no leader that is known to answer.
    moving: BTreeSet<usize>,
    /// When their leaders are looked for.
    look_at: Instant,
    /// Whether what comes from other brokers has its turn.
    turn_elsewhere: bool,
    limit: Limit,
    until_end: bool,
    /// How many have not been read to their end.
    unfinished: usize,
    /// Where the next message about where all stand begins: they are too many for one.
    untold: Option<usize>,
    records_left: usize,
    message_bytes_max: usize,
    heartbeat: Duration,
    /// Where the client stands.
    rack: String,
    /// What ends the stream after the records before it are delivered.
    failed: Option<Problem>,
    done: bool,
    ending: Ending,
    _long: Option<LongCall>,
}

/// The stream of answers.
pub(crate) async fn call(
    broker: Arc<Broker>,
    request: ConsumeRequest,
    long: Option<LongCall>,
    hop: Option<Hop>,
) -> Result<impl Stream<Item = Result<Message, Status>> + Send + use<>, Status> {
    let consuming = open(broker, request, long, hop).await?;
    Ok(stream::unfold(consuming, |mut consuming| async move {
        let message = consuming.next().await?;
        if message.is_err() {
            consuming.done = true;
        }
        Some((message.map_err(|problem| problem.status()), consuming))
    }))
}

async fn open(
    broker: Arc<Broker>,
    request: ConsumeRequest,
    long: Option<LongCall>,
    hop: Option<Hop>,
) -> Result<Consuming, Problem> {
    hello::check_features(&request.required_features)?;
    refuse_groups(&request)?;
    let limit = reading::limit(request.isolation)?;
    let message_bytes_max = message_limit::check(request.message_bytes_max)?;
    let heartbeat = match request.heartbeat_ms {
        0 => broker.config.stream_heartbeat_ms,
        ms if ms >= HEARTBEAT_MS_MIN => Duration::from_millis(ms.unsigned_abs().into()),
        ms => return Err(Problem::out_of_range("heartbeat_ms", ms, "0 (5,000), or 100 and more")),
    };
    let records_left = match usize::try_from(request.records_max) {
        Ok(0) => usize::MAX,
        Ok(given) => given,
        Err(_) => {
            return Err(Problem::out_of_range("records_max", request.records_max, "must not be negative"));
        }
    };
    let caller = Caller { broker: broker.clone(), hop: hop.clone().unwrap_or_default() };
    let os = broker.os.clone();
    let sources: Vec<_> = begins(&caller, hop.is_some(), &request, limit)
        .await?
        .into_iter()
        .map(|Begin { origin, end }| {
            let reader = PlainReader::new(os.clone(), origin, request.text, RECORDS);
            Source {
                end: if request.until_end { end } else { Offset::MAX },
                at: (reader.next_offset(), reader.epoch()),
                reader,
                generation: 0,
                looks: Looks::default(),
                near: false,
                far_until: Instant::now(),
            }
        })
        .collect();
    let ending = Ending::new(&broker, long.as_ref());
    let hello = FetchHello {
        isolation: request.isolation,
        // What is too large for a message is taken apart here.
        message_bytes_max: i32::MAX,
        rack: request.rack.clone(),
        ..FetchHello::default()
    };
    // What is read elsewhere is asked for with the first message.
    let (moving, ready): (Vec<_>, Vec<_>) = (0..sources.len())
        .partition(|at: &usize| sources.get(*at).is_some_and(|source| source.reader.cursor().is_none()));
    Ok(Consuming {
        elsewhere: hop.map(|hop| Elsewhere::new(broker.clone(), hop, hello)),
        broker,
        ready: ready.into(),
        moving: moving.into_iter().collect(),
        look_at: Instant::now(),
        turn_elsewhere: false,
        limit,
        arrivals: Arrivals::new(),
        unfinished: sources.len(),
        sources,
        until_end: request.until_end,
        untold: None,
        records_left,
        message_bytes_max,
        heartbeat,
        rack: request.rack,
        failed: None,
        done: false,
        ending,
        _long: long,
    })
}

/// Where it begins, once that is known: a leader that has just been elected may not have heard of it, or not know how far
/// it is committed (correctness rule 4).
async fn begins(
    caller: &Caller,
    others: bool,
    request: &ConsumeRequest,
    limit: Limit,
) -> Result<Vec<Begin>, Problem> {
    let until = Instant::now() + caller.broker.config.wait_ms_default;
    loop {
        // Whoever was told of a leader by this broker is not told that there is none because it is about to take that up.
        caller.broker.catches_up().await;
        let problem = match start::places(caller, others, request, limit).await {
            Err(problem) if settles(&problem) && Instant::now() < until => problem,
            places => return places,
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = caller.broker.stopping.requested() => return Err(problem),
        }
    }
}

/// Whether a failure to begin is over in a moment, by itself.
fn settles(problem: &Problem) -> bool {
    matches!(problem.reason, ErrorReason::NotLeader | ErrorReason::OffsetNotAvailable)
}

fn refuse_groups(request: &ConsumeRequest) -> Result<(), Problem> {
    let named = [
        ("group", !request.group.is_empty()),
        ("instance_id", !request.instance_id.is_empty()),
        ("processing_timeout_ms", request.processing_timeout_ms != 0),
    ];
    match named.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Problem::new(
            ErrorReason::NotSupported,
            format!("{field} is set: this version has no consumer groups yet; read without, and keep `next` yourself"),
        )
        .fact("field", field)),
        None => Ok(()),
    }
}

/// Whether a failure is over once somebody leads the partition who is known to.
fn passes(problem: &Problem) -> bool {
    matches!(problem.reason, ErrorReason::NoLeader | ErrorReason::NotLeader)
}

/// By what number other brokers know a source.
fn subscription_id(at: usize) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

/// Waits for what other brokers say; for ever, if none does.
async fn hear(elsewhere: &mut Option<Elsewhere>) {
    match elsewhere {
        Some(elsewhere) => elsewhere.hear().await,
        None => std::future::pending().await,
    }
}

impl Consuming {
    /// The next message; `None`: the stream ends well.
    async fn next(&mut self) -> Option<Result<Message, Problem>> {
        if let Some(from) = self.untold {
            return Some(Ok(self.standing(from)));
        }
        if self.done {
            return None;
        }
        let heartbeat = Instant::now() + self.heartbeat;
        loop {
            if let Some(problem) = self.failed.take().or_else(|| self.ending.now()) {
                return Some(Err(problem));
            }
            while let Some(at) = self.arrivals.came() {
                self.ready.push_back(at);
            }
            if let Err(problem) = self.find_leaders().await {
                return Some(Err(problem));
            }
            match self.read().await {
                Err(problem) => return Some(Err(problem)),
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
            }
            if self.records_left == 0 || (self.until_end && self.unfinished == 0) {
                self.done = true;
                // Where to go on, also past markers and what was filtered at the end.
                return self.until_end.then(|| Ok(self.standing(0)));
            }
            let looks = !self.moving.is_empty();
            tokio::select! {
                at = self.arrivals.comes() => self.ready.push_back(at),
                () = hear(&mut self.elsewhere) => {}
                () = tokio::time::sleep_until(self.look_at), if looks => {}
                () = tokio::time::sleep_until(heartbeat) => {
                    self.look_around();
                    return Some(Ok(self.standing(0)));
                }
                // Said at the top of the loop.
                () = self.ending.comes() => {}
            }
        }
    }

    /// A message with what is there now; `None`: nothing, and nobody is ready.
    async fn read(&mut self) -> Result<Option<Message>, Problem> {
        let mut records = BytesMut::new();
        let (mut next, mut progress) = (Vec::new(), Vec::new());
        let mut budget = Budget {
            bytes: MESSAGE_BYTES.min(self.message_bytes_max),
            records: self.records_left,
            message_bytes_max: self.message_bytes_max,
            empty: true,
        };
        // Cancelled in here, the whole stream is: what was taken off the queue is not missed.
        while budget.bytes > 0 && budget.records > 0 && next.len() < PARTITIONS_IN_MESSAGE {
            let at = match self.whose_turn() {
                Ok(None) => break,
                Ok(Some(at)) => at,
                Err(problem) if next.is_empty() => return Err(problem),
                Err(problem) => {
                    self.failed = Some(problem);
                    break;
                }
            };
            let Some(source) = self.sources.get_mut(at) else { continue };
            let before = source.reader.next_offset();
            let (length, had) = (records.len(), (budget.bytes, budget.records, budget.empty));
            let filled = match source.reader.cursor().filter(|cursor| cursor.is_over()) {
                Some(Cursor { topic, partition, .. }) => Err(self.broker.gone(topic, *partition)),
                None => source.reader.fill(&mut records, &mut budget, source.end).await,
            };
            let now = (source.reader.position(), source.reader.progress());
            // Asked last: the epoch of the position was of another history, if the log was cut meanwhile.
            let over = source.reader.cursor().filter(|cursor| cursor.is_over());
            let filled = match over {
                Some(Cursor { topic, partition, .. }) => {
                    records.truncate(length);
                    (budget.bytes, budget.records, budget.empty) = had;
                    Err(self.broker.gone(topic, *partition))
                }
                None => {
                    source.at = (now.0.offset, now.0.leader_epoch);
                    if now.0.offset > before {
                        source.looks.went_on();
                        next.push(now.0);
                        progress.push(now.1);
                    }
                    filled
                }
            };
            let filled = match filled {
                Err(problem) if source.has_damage_from_elsewhere(&problem) => {
                    let (topic, partition) = source.reader.place();
                    let said = look::ask(&self.broker, &topic.name, partition, source.at.0).await;
                    // What came is of no use, nor what comes behind it: it is read again.
                    source.reader.forget();
                    if let Some(elsewhere) = &mut self.elsewhere {
                        elsewhere.release(subscription_id(at));
                    }
                    match said {
                        Some(said) => Err(said),
                        // It can be read there, or from whoever leads by now; or nobody answers.
                        None if source.looks.may_again() => {
                            self.moves(at);
                            continue;
                        }
                        None => Err(problem),
                    }
                }
                filled => filled,
            };
            if let Err(problem) = &filled
                && self.elsewhere.is_some()
                && passes(problem)
            {
                self.moves(at);
                continue;
            }
            if let Err(problem) = filled {
                if next.is_empty() {
                    return Err(problem);
                }
                self.failed = Some(problem);
                break;
            }
            if source.reader.next_offset() >= source.end {
                self.unfinished -= 1;
                if let Some(elsewhere) = &mut self.elsewhere {
                    elsewhere.release(subscription_id(at));
                }
            } else if source.reader.holds_some() {
                self.ready.push_front(at);
            } else {
                // There may be more already: then it comes at once, behind the others.
                let next_offset = source.reader.next_offset();
                source
                    .reader
                    .cursor()
                    .into_iter()
                    .for_each(|cursor| self.arrivals.wait(at, cursor, next_offset));
            }
        }
        self.broker.metrics.delivered_plain(self.records_left - budget.records, records.len());
        self.records_left = budget.records;
        let rest = ConsumeResponse { records: Vec::new(), next, progress };
        Ok((!rest.next.is_empty()).then_some(Plain { records, rest }))
    }

    /// One that has something to give out, if any has.
    fn whose_turn(&mut self) -> Result<Option<usize>, Problem> {
        let first = self.ready.front().and_then(|at| self.sources.get(*at));
        // What was taken off a stream is given out before more is: it is all that is kept.
        let goes_on = first.is_some_and(|source| source.reader.holds_some());
        self.turn_elsewhere = !self.turn_elsewhere && !goes_on;
        if self.turn_elsewhere
            && let Some(at) = self.next_elsewhere()?
        {
            return Ok(Some(at));
        }
        match self.ready.pop_front() {
            None if !self.turn_elsewhere => self.next_elsewhere(),
            at => Ok(at),
        }
    }

    /// A partition has no leader that is known to answer: it is looked for in a moment.
    fn moves(&mut self, at: usize) {
        if self.moving.insert(at) {
            self.look_at = Instant::now() + LOOK_EVERY;
        }
        if let Some(source) = self.sources.get_mut(at)
            && std::mem::take(&mut source.near)
        {
            source.far_until = Instant::now() + FAR;
        }
    }

    /// Those for which nothing comes are not waited for where they are read no more, or can be read nearer.
    fn look_around(&mut self) {
        let now = Instant::now();
        let is_due = |(at, source): (usize, &Source)| {
            let (topic, partition) = source.reader.place();
            let over = source.reader.cursor().is_some_and(Cursor::is_over);
            let nearer = || {
                let topic = self.broker.topics.get(&topic.name).ok();
                let rack = if source.near || now < source.far_until { "" } else { &*self.rack };
                topic.is_some_and(|topic| self.broker.stands_near(&topic, partition, rack))
            };
            let unfinished = source.reader.next_offset() < source.end;
            (unfinished && (over || nearer())).then_some(at)
        };
        let due: Vec<_> = self.sources.iter().enumerate().filter_map(is_due).collect();
        due.into_iter().for_each(|at| self.moves(at));
    }

    /// Has those read that wait for a leader, where there is one.
    async fn find_leaders(&mut self) -> Result<(), Problem> {
        if self.look_at > Instant::now() {
            return Ok(());
        }
        for at in std::mem::take(&mut self.moving) {
            if let Err(problem) = self.find_leader(at).await {
                if !passes(&problem) {
                    return Err(problem);
                }
                self.moves(at);
            }
        }
        Ok(())
    }

    async fn find_leader(&mut self, at: usize) -> Result<(), Problem> {
        let Some(source) = self.sources.get_mut(at) else { return Ok(()) };
        let (known, partition) = source.reader.place();
        let topic = self.broker.topics.get(&known.name)?;
        topic.check_id(&known.id.to_string())?;
        let (offset, leader_epoch) = source.at;
        let rack = if Instant::now() < source.far_until { "" } else { &*self.rack };
        source.near = self.broker.stands_near(&topic, partition, rack);
        let owner = match self.broker.replica_here(&topic, partition, rack) {
            Some(_) => None,
            None => {
                let near = self.broker.near(&topic, partition, rack);
                near.or_else(|| self.broker.owner_in(&topic, partition))
            }
        };
        let (Some(owner), Some(elsewhere)) = (owner, &mut self.elsewhere) else {
            let cursor = Cursor::new(&self.broker, topic, partition, offset, leader_epoch, self.limit, rack)?;
            if let Some(elsewhere) = &mut self.elsewhere {
                elsewhere.release(subscription_id(at));
            }
            source.reader.goes_on(Origin::Here(cursor));
            self.ready.push_back(at);
            return Ok(());
        };
        source.generation += 1;
        let assign = FetchAssign {
            subscription_id: subscription_id(at),
            generation: source.generation,
            topic: topic.name.to_string(),
            partition,
            offset,
            topic_id: topic.id.to_string(),
            leader_epoch,
            ..FetchAssign::default()
        };
        let progress = PartitionProgress { next_offset: offset, leader_epoch, ..source.reader.progress() };
        source.reader.goes_on(Origin::There(Following::new(topic, partition, progress)));
        elsewhere.assign(owner, assign).await;
        Ok(())
    }

    /// One that another broker has sent something of, which is taken to be given out.
    fn next_elsewhere(&mut self) -> Result<Option<usize>, Problem> {
        self.elsewhere.iter_mut().for_each(Elsewhere::hear_now);
        while let Some(said) = self.elsewhere.as_mut().and_then(|elsewhere| elsewhere.next(true)) {
            let source_of = |id: i64| usize::try_from(id).unwrap_or(usize::MAX);
            match said {
                Out::Delivery(delivery) => {
                    let at = source_of(delivery.subscription_id);
                    let Some(source) = self.sources.get_mut(at) else { continue };
                    source.reader.hand_in(delivery);
                    return Ok(Some(at));
                }
                Out::Heartbeat(heartbeat) => {
                    let Some(told) = heartbeat.progress.into_iter().next() else { continue };
                    let at = source_of(told.subscription_id);
                    let source = self.sources.get_mut(at);
                    let (Some(source), Some(progress)) = (source, told.progress) else { continue };
                    source.reader.hear(progress);
                    return Ok(Some(at));
                }
                Out::End(end) => {
                    let problem = end.failure.as_ref().map(Problem::heard);
                    if let Some(problem) = problem.filter(|problem| !passes(problem)) {
                        return Err(problem);
                    }
                    self.moves(source_of(end.subscription_id));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Where the partitions from this one on stand, as many as one message speaks of.
    fn standing(&mut self, from: usize) -> Message {
        let until = from + PARTITIONS_IN_MESSAGE;
        self.untold = (until < self.sources.len()).then_some(until);
        let some = || self.sources.iter().skip(from).take(PARTITIONS_IN_MESSAGE);
        let rest = ConsumeResponse {
            records: Vec::new(),
            next: some().map(Source::position).collect(),
            progress: some().map(Source::progress).collect(),
        };
        Plain::from(rest)
    }
}
