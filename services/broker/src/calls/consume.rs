//! Consume: the easy read. Records of many partitions, as messages that every stock client takes.
//!
//! The stream is pulled: nothing is read from the log before the connection has room for it, so a slow reader
//! costs one message of memory, and what one read of a log gave: a partition's turn lasts until that is given out.
//! A message costs what has come, however many partitions the stream reads.

mod start;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::Stream;
use futures::stream;
use tokio::time::Instant;
use tonic::Status;
use weir_proto::v1::{ConsumeRequest, ConsumeResponse, ErrorReason};
use weir_rpc::{LongCall, Problem};
use weir_types::Offset;

use crate::broker::Broker;
use crate::calls::shared::ending::Ending;
use crate::calls::shared::{hello, message_limit};
use crate::plain_message::Plain;
use crate::plain_reader::{Budget, PlainReader};
use crate::reading::{self, Arrivals, Cursor};

/// A message is sent when it holds so much, even if more would fit: the client works while the next is read.
const MESSAGE_BYTES: usize = 512 << 10;
/// How many partitions one message speaks of: where they stand fits what `message_limit` leaves beside the records.
const PARTITIONS_IN_MESSAGE: usize = 100;
const HEARTBEAT_MS_MIN: i32 = 100;

/// `ConsumeResponse.records`.
const RECORDS: u32 = 1;

type Message = Plain<ConsumeResponse>;

/// One partition of the stream.
struct Source {
    reader: PlainReader,
    /// Where it ends: the end when the call arrived, with until_end.
    end: Offset,
}

/// The state between two messages.
struct Consuming {
    broker: Arc<Broker>,
    sources: Vec<Source>,
    /// Those that may have something, in the order of their turns.
    ready: VecDeque<usize>,
    /// Those that wait for something to come; with until_end, what is read to its end is in neither.
    arrivals: Arrivals<usize>,
    until_end: bool,
    /// How many have not been read to their end.
    unfinished: usize,
    /// Where the next message about where all stand begins: they are too many for one.
    untold: Option<usize>,
    records_left: usize,
    message_bytes_max: usize,
    heartbeat: Duration,
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
) -> Result<impl Stream<Item = Result<Message, Status>> + Send + use<>, Status> {
    let consuming = open(broker, request, long).await?;
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
    let os = broker.os.clone();
    let sources: Vec<_> = start::cursors(&broker, &request, limit)
        .await?
        .into_iter()
        .map(|cursor| Source {
            end: if request.until_end { cursor.end() } else { Offset::MAX },
            reader: PlainReader::new(os.clone(), cursor, request.text, RECORDS),
        })
        .collect();
    let ending = Ending::new(&broker, long.as_ref());
    Ok(Consuming {
        broker,
        ready: (0..sources.len()).collect(),
        arrivals: Arrivals::new(),
        unfinished: sources.len(),
        sources,
        until_end: request.until_end,
        untold: None,
        records_left,
        message_bytes_max,
        heartbeat,
        failed: None,
        done: false,
        ending,
        _long: long,
    })
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
            tokio::select! {
                at = self.arrivals.comes() => self.ready.push_back(at),
                () = tokio::time::sleep_until(heartbeat) => return Some(Ok(self.standing(0))),
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
            let Some(at) = self.ready.pop_front() else { break };
            let Some(source) = self.sources.get_mut(at) else { continue };
            let before = source.reader.next_offset();
            let filled = if source.reader.cursor().log.is_closed() {
                let Cursor { topic, partition, .. } = source.reader.cursor();
                Err(self.broker.gone(topic, *partition))
            } else {
                source.reader.fill(&mut records, &mut budget, source.end).await
            };
            if source.reader.next_offset() > before {
                next.push(source.reader.position());
                progress.push(source.reader.progress());
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
            } else if source.reader.holds_some() {
                self.ready.push_front(at);
            } else {
                // There may be more already: then it comes at once, behind the others.
                self.arrivals.wait(at, source.reader.cursor(), source.reader.next_offset());
            }
        }
        self.broker.metrics.delivered_plain(self.records_left - budget.records, records.len());
        self.records_left = budget.records;
        let rest = ConsumeResponse { records: Vec::new(), next, progress };
        Ok((!rest.next.is_empty()).then_some(Plain { records, rest }))
    }

    /// Where the partitions from this one on stand, as many as one message speaks of.
    fn standing(&mut self, from: usize) -> Message {
        let until = from + PARTITIONS_IN_MESSAGE;
        self.untold = (until < self.sources.len()).then_some(until);
        let some = || self.sources.iter().skip(from).take(PARTITIONS_IN_MESSAGE);
        let rest = ConsumeResponse {
            records: Vec::new(),
            next: some().map(|source| source.reader.position()).collect(),
            progress: some().map(|source| source.reader.progress()).collect(),
        };
        Plain::from(rest)
    }
}
