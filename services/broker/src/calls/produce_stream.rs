//! ProduceStream: one batch a message, many in flight. Hot path.
//!
//! A task of its own drains the requests whatever the client does with the answers, gathers what is ready, and
//! submits each partition's part as one group: one claim, one vectored write. Answers of one partition keep the
//! order of its appends ([`Answers`]). The task ends with the stream; appends that are under way then run on, they
//! belong to the partition and not to this call.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use tonic::{Status, Streaming};
use weir_proto::v1::produce_stream_request::Frame as In;
use weir_proto::v1::produce_stream_response::Frame as Out;
use weir_proto::v1::{
    BatchAppend, DurabilityFloor, ErrorReason, ProduceHello, ProduceStreamRequest, ProduceStreamResponse,
};
use weir_rpc::Problem;
use weir_storage::{Acks, Append, Gate, Partition};

use crate::broker::Broker;
use crate::calls::answers::{self, Answers, Ticket};
use crate::calls::hello;
use crate::compression;
use crate::ingest;
use crate::problems;
use crate::receipts;
use crate::topic_map::Topic;

/// How much is gathered before it is submitted.
const GATHER_APPENDS_MAX: usize = 64;
const GATHER_BYTES_MAX: usize = 1 << 20;
/// After so many bytes without a pause the task steps back: a stream that always has input would otherwise keep
/// its answers, and everybody else on this runtime, waiting.
const YIELD_BYTES: usize = 4 << 20;

/// Runs one stream to its end.
pub(crate) async fn run(
    broker: Arc<Broker>,
    mut requests: Streaming<ProduceStreamRequest>,
    out: answers::Out,
) {
    let end = async {
        let first = requests.message().await?.and_then(|request| request.frame);
        let Some(In::Hello(hello)) = first else {
            return Err(hello::missing().status());
        };
        let mut stream = Stream::open(&broker, hello, out.clone())?;
        stream.serve(&mut requests).await
    }
    .await;
    if let Err(status) = end {
        // Nobody listens any more if this fails, and then nobody minds.
        let _ = out.send(Err(status));
    }
}

struct Stream<'a> {
    broker: &'a Arc<Broker>,
    acks: Acks,
    floor: Option<DurabilityFloor>,
    answers: Arc<Answers>,
    out: answers::Out,
    /// By topic, then partition: a name is looked up for each batch and copied for each partition only.
    targets: HashMap<String, HashMap<i32, Target>>,
    lanes: usize,
}

/// A partition this stream writes to.
struct Target {
    /// Its row in the answers.
    lane: usize,
    /// Shut by the first append that fails; looked at in the partition's claim.
    gate: Arc<Gate>,
}

/// The appends gathered for one partition.
struct Group {
    log: Partition,
    appends: Vec<Append>,
}

type Groups = HashMap<usize, Group>;

impl<'a> Stream<'a> {
    fn open(broker: &'a Arc<Broker>, hello: ProduceHello, out: answers::Out) -> Result<Self, Problem> {
        hello::check(&hello.client, hello.version_min, hello.version_max, &hello.required_features)?;
        hello::check_route(hello.route)?;
        let acks = receipts::acks(hello.acks, Acks::All)?;
        let _ = out.send(Ok(message(Out::Welcome(hello::welcome(broker)))));
        let answers = Answers::new(out.clone());
        Ok(Self { broker, acks, floor: hello.floor, answers, out, targets: HashMap::new(), lanes: 0 })
    }

    async fn serve(&mut self, requests: &mut Streaming<ProduceStreamRequest>) -> Result<(), Status> {
        let mut heartbeat = tokio::time::interval(self.broker.config.stream_heartbeat_ms);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        heartbeat.reset();
        let mut since_pause = 0;
        loop {
            // Every branch is cancel safe: a request that was not returned was not taken off the stream.
            let next = tokio::select! {
                biased;
                () = self.broker.stopping.cancelled() => return self.say_goodbye().await,
                next = requests.next() => next,
                () = self.out.closed() => return Ok(()),
                _ = heartbeat.tick() => {
                    let _ = self.out.send(Ok(message(Out::Limits(self.broker.limits()))));
                    continue;
                }
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

    /// Takes what is ready, submits it by partition, and says how many bytes it was.
    async fn gather(
        &mut self,
        first: ProduceStreamRequest,
        requests: &mut Streaming<ProduceStreamRequest>,
    ) -> Result<usize, Status> {
        let mut groups = Groups::new();
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        let mut end = Ok(());
        while let Some(request) = next.take() {
            match request.frame {
                Some(In::Append(append)) => {
                    count += 1;
                    bytes += append.batch.as_ref().map_or(0, |batch| batch.records.len());
                    self.take(append, &mut groups).await;
                }
                Some(In::Hello(_)) => {
                    end = Err(Problem::conflict("hello", "hello", "it comes once, first").status());
                    break;
                }
                None => {
                    end = Err(Problem::required("frame", "a message holds a hello or an append").status());
                    break;
                }
            }
            if count < GATHER_APPENDS_MAX && bytes < GATHER_BYTES_MAX {
                match requests.next().now_or_never() {
                    Some(Some(Ok(request))) => next = Some(request),
                    Some(Some(Err(status))) => end = Err(status),
                    // At its end the stream says so again when asked next.
                    Some(None) | None => {}
                }
            }
        }
        // Whatever ends the stream, what was taken before it is submitted.
        for group in groups.into_values() {
            group.log.submit(group.appends);
        }
        end.map(|()| bytes)
    }

    /// Puts one append into its group, or answers why not.
    async fn take(&mut self, append: BatchAppend, groups: &mut Groups) {
        let bytes = append.batch.as_ref().map_or(0, |batch| batch.records.len());
        let in_flight = self.answers.bytes_in_flight();
        let (lane, gate) = self.target(&append.topic, append.partition);
        let ticket = self.answers.ticket(lane, append.correlation_id, bytes);
        let (name, partition) = (append.topic.clone(), append.partition);
        match self.check(append, in_flight, gate.clone()).await {
            Ok((log, topic, mut checked)) => {
                checked.done = done(self.broker.clone(), ticket, topic, partition, checked.acks);
                groups
                    .entry(lane)
                    .or_insert_with(|| Group { log, appends: Vec::new() })
                    .appends
                    .push(checked);
            }
            Err(problem) => {
                // What came before goes on; what comes behind must not overtake this one.
                if let Some(before) = groups.remove(&lane) {
                    before.log.submit(before.appends);
                }
                gate.shut();
                self.broker.metrics.append_failed(problem.reason);
                ticket.answer(Err(problem.at(&name, partition)));
            }
        }
    }

    fn target(&mut self, topic: &str, partition: i32) -> (usize, Arc<Gate>) {
        if !self.targets.contains_key(topic) {
            self.targets.insert(topic.to_owned(), HashMap::new());
        }
        let next = self.lanes;
        // The topic's map was made above.
        let partitions = self.targets.entry(topic.to_owned()).or_default();
        match partitions.entry(partition) {
            Entry::Occupied(target) => (target.get().lane, target.get().gate.clone()),
            Entry::Vacant(vacant) => {
                self.lanes += 1;
                let target = vacant.insert(Target { lane: next, gate: Arc::default() });
                (target.lane, target.gate.clone())
            }
        }
    }

    /// Everything that can be judged here.
    async fn check(
        &self,
        append: BatchAppend,
        in_flight: usize,
        gate: Arc<Gate>,
    ) -> Result<(Partition, Arc<Topic>, Append), Problem> {
        let limit = self.broker.config.inflight_bytes_max;
        if in_flight >= limit {
            return Err(Problem::new(
                ErrorReason::Overloaded,
                format!("{in_flight} bytes of this stream wait for their answers, {limit} may (inflight_bytes_max)"),
            )
            .fact("limit", limit));
        }
        let batch =
            append.batch.ok_or_else(|| Problem::required("append.batch", "an append carries a batch"))?;
        let acks = receipts::acks(append.acks, self.acks)?;
        let topic = self.broker.topics.get(&append.topic)?;
        topic.check_id(&append.topic_id)?;
        let log = topic.led_here(append.partition)?.clone();
        receipts::check_floor(append.floor.as_ref().or(self.floor.as_ref()), &topic, acks)?;
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
            acks,
            expected_next_offset: append.expected_next_offset,
            gate: Some(gate),
            resume: append.resume,
            done: Box::new(|_| {}),
        };
        Ok((log, topic, append))
    }

    /// A planned end: everything taken is answered first.
    async fn say_goodbye(&mut self) -> Result<(), Status> {
        let _ = self.out.send(Ok(message(Out::Goodbye(hello::goodbye(self.broker)))));
        self.answers.drained().await;
        Err(hello::draining().status())
    }
}

fn message(frame: Out) -> ProduceStreamResponse {
    ProduceStreamResponse { frame: Some(frame) }
}

/// What is done with the log's answer.
fn done(
    broker: Arc<Broker>,
    ticket: Ticket,
    topic: Arc<Topic>,
    partition: i32,
    acks: Acks,
) -> weir_storage::Done {
    Box::new(move |result| {
        ticket.answer(match result {
            Ok(_) if acks == Acks::None => Ok(None),
            Ok(appended) => {
                broker.metrics.acknowledged(&appended);
                Ok(Some(receipts::receipt(&topic.name, partition, &appended)))
            }
            Err(error) => {
                let problem = problems::append(&topic.name, partition, &error);
                broker.metrics.append_failed(problem.reason);
                Err(problem)
            }
        });
    })
}
