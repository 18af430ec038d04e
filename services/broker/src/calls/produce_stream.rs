//! ProduceStream: one batch a message, many in flight. Hot path.
//!
//! A task of its own reads the requests, gathers what is ready, and submits each partition's part as one group: one
//! claim, one vectored write. Answers of one partition keep the order of its appends ([`Answers`]). The task ends
//! with the stream; appends that are under way then run on, they belong to the partition and not to this call.
//!
//! It stops reading while too much is under way or unread, in this stream or in the whole broker: the client then
//! waits by flow control. What is refused here takes its turn in the partition's queue all the same, so that a
//! failure stops exactly what comes behind it (correctness rules D1 and 42). Appends to partitions that other brokers
//! lead go on to them ([`onward`]).

pub(crate) mod answers;
mod onward;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;
use tonic::Status;
use weir_metadata::TOPIC_NAME_BYTES_MAX;
use weir_proto::v1::produce_stream_request::Frame as In;
use weir_proto::v1::produce_stream_response::Frame as Out;
use weir_proto::v1::{
    Applied, BatchAppend, DurabilityFloor, ErrorReason, ProduceHello, ProduceStreamRequest, RecordBatch,
};
use weir_rpc::Problem;
use weir_storage::{Acks, Append, Gate, Partition, Refusal};
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::calls::shared::ending::{self, Ending};
use crate::calls::shared::hello;
use crate::compression;
use crate::forward::hop::Hop;
use crate::ingest;
use crate::mutant::Mutant;
use crate::problems;
use crate::receipts;
use crate::replication::Floor;
use crate::topic_map::{Hints, Topic};

use answers::{Answers, Ticket};
use onward::{Onward, Passed};

/// How much is gathered before it is submitted.
const GATHER_APPENDS_MAX: usize = 64;
const GATHER_BYTES_MAX: usize = 1 << 20;
/// After so many bytes without a pause the task steps back: a stream that always has input would otherwise keep
/// its answers, and everybody else on this runtime, waiting.
const YIELD_BYTES: usize = 4 << 20;
/// How many partitions one stream writes to.
const ROWS_MAX: usize = 10_000;
/// A client that reads nothing for so many heartbeats, with answers waiting for it, is given up.
const UNREAD_BEATS_MAX: u32 = 12;

/// What a client says on a stream.
pub(crate) type Requests = BoxStream<'static, Result<ProduceStreamRequest, Status>>;

/// Runs one stream to its end.
///
/// What others lead is passed on with what `hop` carries, if there is one.
pub(crate) async fn run(
    broker: Arc<Broker>,
    mut requests: Requests,
    answers: Arc<Answers>,
    ending: Ending,
    hop: Option<Hop>,
) {
    // Should this panic, the client hears of it.
    let _ending = EndsAnyway(answers.clone());
    let end = async {
        let first = requests.next().await.transpose()?.and_then(|request| request.frame);
        let Some(In::Hello(hello)) = first else {
            return Err(hello::missing().status());
        };
        let mut stream = Stream::open(&broker, hello, answers.clone(), ending, hop)?;
        let served = stream.serve(&mut requests).await;
        if served.is_err() {
            // What was taken before is answered first: its outcome is known here and nowhere else.
            answers.drained().await;
        }
        served
    }
    .await;
    answers.end(end.err().map(weir_rpc::with_reason), false);
}

struct EndsAnyway(Arc<Answers>);

impl Drop for EndsAnyway {
    fn drop(&mut self) {
        let problem = Problem::new(ErrorReason::Internal, "the stream broke off: please report it");
        self.0.end(Some(problem.status()), false);
    }
}

struct Stream<'a> {
    broker: &'a Arc<Broker>,
    terms: Terms<'a>,
    answers: Arc<Answers>,
    ending: Ending,
    /// By topic, then partition: where in `rows`. A name is looked up for each batch and copied for each topic only.
    places: HashMap<String, HashMap<i32, usize>>,
    rows: Vec<Row>,
    /// Gathered and not submitted yet, by row.
    groups: BTreeMap<usize, Group>,
    hints: Hints,
    /// `None`: the client is told who leads.
    onward: Option<Onward>,
    /// How many messages the client had read at the last heartbeat, if more lay unread.
    unread_at: Option<u64>,
    unread_beats: u32,
}

/// What holds for every append.
struct Terms<'a> {
    broker: &'a Broker,
    acks: Acks,
    floor: Option<DurabilityFloor>,
}

/// The appends of this stream to one partition. Its number is its lane in the answers.
#[derive(Default)]
struct Row {
    /// Shut by the first append that fails; looked at in the partition's claim.
    gate: Arc<Gate>,
    /// Where the appends before went.
    went: Went,
}

/// Where appends go.
#[derive(Default)]
enum Went {
    #[default]
    Nowhere,
    Here(Partition),
    There(BrokerId),
}

/// The appends gathered for one partition.
struct Group {
    log: Partition,
    appends: Vec<Append>,
}

impl<'a> Stream<'a> {
    fn open(
        broker: &'a Arc<Broker>,
        hello: ProduceHello,
        answers: Arc<Answers>,
        ending: Ending,
        hop: Option<Hop>,
    ) -> Result<Self, Problem> {
        hello::check(&hello.client, hello.version_min, hello.version_max, &hello.required_features)?;
        hello::check_route(hello.route)?;
        let acks = receipts::acks(hello.acks, Acks::All)?;
        let onward = hop.filter(|_| !hello::is_direct(hello.route));
        let onward = onward.map(|hop| Onward::new(broker.clone(), hop, hello.clone()));
        answers.say(Out::Welcome(hello::welcome(broker)));
        Ok(Self {
            broker,
            terms: Terms { broker, acks, floor: hello.floor },
            answers,
            ending,
            places: HashMap::new(),
            rows: Vec::new(),
            groups: BTreeMap::new(),
            hints: Hints::default(),
            onward,
            unread_at: None,
            unread_beats: 0,
        })
    }

    async fn serve(&mut self, requests: &mut Requests) -> Result<(), Status> {
        let mut heartbeat = tokio::time::interval(self.broker.config.stream_heartbeat_ms);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut since_pause = 0;
        loop {
            let room_for_next = async {
                self.broker.memory.room().await;
                self.answers.room().await;
                requests.next().await
            };
            // Every branch is cancel safe: room is not taken, and a request that was not returned was not taken off
            // the stream.
            let next = tokio::select! {
                biased;
                () = self.ending.comes() => return self.say_goodbye().await,
                _ = heartbeat.tick() => {
                    self.beat()?;
                    continue;
                }
                next = room_for_next => next,
                () = self.answers.gone() => return Ok(()),
            };
            let Some(first) = next else {
                // The client has said all it wanted; it still gets every answer.
                self.answers.drained().await;
                return Ok(());
            };
            since_pause += self.gather(first?, requests).await?;
            if since_pause >= YIELD_BYTES {
                since_pause = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Shows that the stream lives, or gives up a client that does not read.
    fn beat(&mut self) -> Result<(), Status> {
        let lies_unread_at = self.answers.lies_unread_at();
        let stuck = lies_unread_at.is_some() && lies_unread_at == self.unread_at;
        self.unread_beats = if stuck { self.unread_beats + 1 } else { 0 };
        self.unread_at = lies_unread_at;
        if self.unread_beats >= UNREAD_BEATS_MAX {
            self.broker.metrics.slow_readers.inc();
            let unread_for = self.broker.config.stream_heartbeat_ms * UNREAD_BEATS_MAX;
            let problem = Problem::new(
                ErrorReason::SlowReader,
                format!("the answers of this stream were not read for {unread_for:?}: what has no answer may be appended"),
            )
            .applied(Applied::Maybe);
            let status = problem.status();
            self.answers.end(Some(status.clone()), true);
            return Err(status);
        }
        if lies_unread_at.is_none() {
            self.answers.say(Out::Limits(self.broker.limits()));
        }
        Ok(())
    }

    /// Takes what is ready, submits it by partition, and says how many bytes it was.
    async fn gather(
        &mut self,
        first: ProduceStreamRequest,
        requests: &mut Requests,
    ) -> Result<usize, Status> {
        let (mut count, mut bytes) = (0, 0);
        // The first of what is gathered stands for the rest: a clock is not looked at for each.
        let mut came = Some(Instant::now());
        let mut next = Some(first);
        let mut end = Ok(());
        while let Some(request) = next.take() {
            let taken = match request.frame {
                Some(In::Append(append)) => {
                    count += 1;
                    bytes += append.batch.as_ref().map_or(0, |batch| batch.records.len());
                    self.take(append, came.take()).await
                }
                Some(In::Hello(_)) => {
                    Err(Problem::conflict("hello", "hello", "it comes once, first").status())
                }
                None => Err(Problem::required("frame", "a message holds a hello or an append").status()),
            };
            if taken.is_err() {
                end = taken;
                break;
            }
            let room = || self.answers.has_room() && self.broker.memory.has_room();
            if count < GATHER_APPENDS_MAX && bytes < GATHER_BYTES_MAX && room() {
                match requests.next().now_or_never() {
                    Some(Some(Ok(request))) => next = Some(request),
                    Some(Some(Err(status))) => end = Err(status),
                    // At its end the stream says so again when asked next.
                    Some(None) | None => {}
                }
            }
        }
        // Whatever ends the stream, what was taken before it is submitted.
        self.submit();
        end.map(|()| bytes)
    }

    fn submit(&mut self) {
        for group in std::mem::take(&mut self.groups).into_values() {
            group.log.submit(group.appends);
        }
    }

    /// Submits what was taken, and waits until all of it is answered.
    async fn settle(&mut self) {
        self.submit();
        self.answers.drained().await;
    }

    /// Puts one append into its group, or answers why not.
    async fn take(&mut self, mut append: BatchAppend, came: Option<Instant>) -> Result<(), Status> {
        // What is longer is no topic's name: enough of it is kept to be refused for that.
        if append.topic.len() > TOPIC_NAME_BYTES_MAX {
            append.topic = cut_name(&append.topic);
        }
        let bytes = append.batch.as_ref().map_or(0, |batch| batch.records.len());
        let row = self.row(&append.topic, append.partition).await?;
        if let Some(leader) = self.leader_elsewhere(&append) {
            self.pass_on(row, leader, append, bytes).await;
            return Ok(());
        }
        let batch = append.batch.take();
        let gate = self.rows.get(row).map(|row| row.gate.clone());
        let checked = self.terms.check(&append, batch, gate, &mut self.hints).await;
        if let Ok((log, ..)) = &checked {
            self.goes_to(row, log).await;
        }
        let ticket = self.answers.ticket(row, append.correlation_id, bytes);
        match checked {
            Ok((log, topic, mut checked, floor)) => {
                let acks = checked.acks;
                checked.done = done(
                    self.broker.clone(),
                    ticket,
                    topic,
                    append.partition,
                    (acks, floor),
                    append.expected_next_offset,
                    came,
                );
                let group = || Group { log, appends: Vec::new() };
                self.groups.entry(row).or_insert_with(group).appends.push(checked);
            }
            Err(problem) => {
                self.broker.metrics.append_failed(problem.reason);
                self.refuse(row, ticket, problem.at(&append.topic, append.partition));
            }
        }
        Ok(())
    }

    /// The broker that an append is passed on to, if it is.
    fn leader_elsewhere(&self, append: &BatchAppend) -> Option<BrokerId> {
        self.onward.as_ref()?;
        self.broker.owner(&append.topic, append.partition)
    }

    /// Has another broker make the append. What is wrong with it is found there.
    async fn pass_on(&mut self, row: usize, leader: BrokerId, append: BatchAppend, bytes: usize) {
        self.goes_there(row, leader, &append).await;
        let ticket = self.answers.ticket(row, append.correlation_id, bytes);
        let acks = match receipts::acks(append.acks, self.terms.acks) {
            Ok(acks) => acks,
            Err(problem) => return self.refuse(row, ticket, problem.at(&append.topic, append.partition)),
        };
        let (Some(row), Some(onward)) = (self.rows.get_mut(row), &mut self.onward) else { return };
        if append.resume {
            // What is still to be heard of those before shuts the gate of then.
            row.gate = Arc::default();
        }
        let gate = row.gate.clone();
        onward.pass(leader, Passed { append, silent: acks == Acks::None, gate, ticket });
    }

    /// Notes that the row's appends go to another broker from now on. Where they went before is done with first.
    async fn goes_there(&mut self, row: usize, leader: BrokerId, append: &BatchAppend) {
        match self.rows.get(row).map(|row| &row.went) {
            Some(Went::There(known)) if *known == leader => return,
            Some(Went::Nowhere) | None => {}
            Some(_) => self.settle().await,
        }
        if let Some(onward) = &mut self.onward {
            onward.prepare(leader, &append.topic, append.partition).await;
        }
        if let Some(row) = self.rows.get_mut(row) {
            row.went = Went::There(leader);
        }
    }

    /// What came before goes on; what comes behind must not overtake this one.
    fn refuse(&mut self, row: usize, ticket: Ticket, problem: Problem) {
        if let Some(before) = self.groups.remove(&row) {
            before.log.submit(before.appends);
        }
        let Some(Row { gate, went }) = self.rows.get(row) else { return ticket.answer(Err(problem)) };
        match went {
            Went::Here(log) => {
                let done = Box::new(move || ticket.answer(Err(problem)));
                log.refuse(Refusal { gate: gate.clone(), done });
            }
            // Nothing of this row was ever submitted: there is no queue in which it could be out of turn. And what is on
            // its way to another broker, this one is behind.
            Went::Nowhere | Went::There(_) => {
                gate.shut();
                ticket.answer(Err(problem));
            }
        }
    }

    /// The row of a partition, whether there is such a partition or not.
    async fn row(&mut self, topic: &str, partition: i32) -> Result<usize, Status> {
        if let Some(row) = self.places.get(topic).and_then(|partitions| partitions.get(&partition)) {
            return Ok(*row);
        }
        if self.rows.len() >= ROWS_MAX {
            self.forget_rows().await?;
        }
        let row = self.rows.len();
        self.rows.push(Row::default());
        self.places.entry(topic.to_owned()).or_default().insert(partition, row);
        Ok(row)
    }

    /// Makes room for other rows. What has failed in a row and was not resumed is not forgotten.
    async fn forget_rows(&mut self) -> Result<(), Status> {
        self.settle().await;
        self.answers.forget_lanes();
        let mut old = std::mem::take(&mut self.rows);
        self.places.retain(|_, partitions| {
            partitions.retain(|_, row| {
                let Some(kept) = old.get_mut(*row).filter(|row| row.gate.is_shut()) else { return false };
                *row = self.rows.len();
                self.rows.push(std::mem::take(kept));
                true
            });
            !partitions.is_empty()
        });
        if self.rows.len() >= ROWS_MAX {
            return Err(Problem::out_of_range(
                "append",
                self.rows.len() + 1,
                "a stream writes to at most 10000 partitions, and as many wait for resume; use several streams",
            )
            .status());
        }
        Ok(())
    }

    /// Notes where the row's appends go from now on. If that is another life of the partition, what went to the old
    /// one is answered first: two queues have no order.
    async fn goes_to(&mut self, row: usize, log: &Partition) {
        match self.rows.get(row).map(|row| &row.went) {
            Some(Went::Here(known)) if known.incarnation() == log.incarnation() => return,
            Some(Went::Nowhere) | None => {}
            Some(_) => self.settle().await,
        }
        if let Some(row) = self.rows.get_mut(row) {
            row.went = Went::Here(log.clone());
        }
    }

    /// A planned end: everything taken is answered first.
    async fn say_goodbye(&mut self) -> Result<(), Status> {
        let Some(cause) = self.ending.now() else { return Ok(()) };
        self.answers.say(Out::Goodbye(ending::goodbye(self.broker, &cause)));
        self.answers.drained().await;
        Err(cause.status())
    }
}

impl Terms<'_> {
    /// Everything that can be judged here.
    async fn check(
        &self,
        append: &BatchAppend,
        batch: Option<RecordBatch>,
        gate: Option<Arc<Gate>>,
        hints: &mut Hints,
    ) -> Result<(Partition, Arc<Topic>, Append, Floor), Problem> {
        let batch = batch.ok_or_else(|| Problem::required("append.batch", "an append carries a batch"))?;
        let acks = receipts::acks(append.acks, self.acks)?;
        let topic = self.broker.topics.get_hinting(&append.topic, hints)?;
        topic.check_id(&append.topic_id)?;
        let log = self.broker.led_here(&topic, append.partition)?.clone();
        let floor = receipts::floor(append.floor.as_ref().or(self.floor.as_ref()), &topic, acks)?;
        receipts::check_in_sync(&topic, append.partition, floor)?;
        if let Some(offset) = append.expected_next_offset.filter(|offset| *offset < 0) {
            return Err(Problem::out_of_range("expected_next_offset", offset, "offsets start at 0"));
        }
        let batch = ingest::check(batch, &topic.rules, self.broker.os.wall_ms())?;
        if batch.producer.is_some() && acks != Acks::All {
            return Err(receipts::producer_needs_all(&topic.name, append.partition));
        }
        let batch = compression::of_topic(&self.broker.os, topic.rules.compression, batch).await?;
        let append = Append {
            batch,
            acks: if Mutant::LeaderIsAll.is_planted() { Acks::Leader } else { acks },
            expected_next_offset: append.expected_next_offset,
            gate,
            resume: append.resume,
            done: Box::new(|_| {}),
        };
        Ok((log, topic, append, floor))
    }
}

/// The beginning of a name, longer than that of any topic.
fn cut_name(name: &str) -> String {
    name.get(..name.ceil_char_boundary(TOPIC_NAME_BYTES_MAX + 1)).unwrap_or_default().to_owned()
}

/// What is done with the log's answer.
fn done(
    broker: Arc<Broker>,
    ticket: Ticket,
    topic: Arc<Topic>,
    partition: i32,
    (acks, floor): (Acks, Floor),
    expected: Option<i64>,
    came: Option<Instant>,
) -> weir_storage::Done {
    Box::new(move |result| match result {
        Ok(_) if acks == Acks::None => ticket.answer(Ok(None)),
        Ok(appended) => {
            broker.metrics.acknowledged(&appended, came);
            let answer = move |receipt: Result<_, Problem>| ticket.answer(receipt.map(Some));
            receipts::acknowledge(&broker, &topic, partition, appended, (floor, None), answer);
        }
        Err(error) => {
            let problem = problems::append(&topic.name, partition, expected, &error);
            broker.metrics.append_failed(problem.reason);
            ticket.answer(Err(problem));
        }
    })
}
