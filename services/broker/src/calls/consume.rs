//! Consume: the easy read. Records of many partitions, as messages that every stock client takes.
//!
//! The stream is pulled: nothing is read from the log before the connection has room for it, so a slow reader
//! costs one message of memory.

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
use crate::calls::ending::Ending;
use crate::calls::{hello, message_limit, start};
use crate::plain_message::Plain;
use crate::plain_reader::{Budget, PlainReader};
use crate::reading::{self, Cursor};

/// A message is sent when it holds so much, even if more would fit: the client works while the next is read.
const MESSAGE_BYTES: usize = 512 << 10;
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
    /// Which partition is read first next: everybody gets a turn.
    turn: usize,
    until_end: bool,
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
    let sources = start::cursors(&broker, &request, limit)
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
        sources,
        turn: 0,
        until_end: request.until_end,
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
        if self.done {
            return None;
        }
        let heartbeat = Instant::now() + self.heartbeat;
        loop {
            if let Some(problem) = self.failed.take().or_else(|| self.ended()) {
                return Some(Err(problem));
            }
            match self.read().await {
                Err(problem) => return Some(Err(problem)),
                Ok(Some(message)) => return Some(Ok(message)),
                Ok(None) => {}
            }
            if self.records_left == 0 || (self.until_end && self.at_end()) {
                self.done = true;
                // Where to go on, also past markers and what was filtered at the end.
                return self.until_end.then(|| Ok(self.heartbeat_message()));
            }
            let waits = self.sources.iter().map(|source| {
                let cursor = source.reader.cursor();
                (cursor.log.clone(), cursor.limit, source.reader.next_offset())
            });
            tokio::select! {
                () = reading::any_arrival(waits) => {}
                () = tokio::time::sleep_until(heartbeat) => return Some(Ok(self.heartbeat_message())),
                // Said at the top of the loop.
                () = self.ending.comes() => {}
            }
        }
    }

    /// A message with what is there now; `None`: nothing.
    async fn read(&mut self) -> Result<Option<Message>, Problem> {
        let mut records = BytesMut::new();
        let (mut next, mut progress) = (Vec::new(), Vec::new());
        let mut budget = Budget {
            bytes: MESSAGE_BYTES.min(self.message_bytes_max),
            records: self.records_left,
            message_bytes_max: self.message_bytes_max,
            empty: true,
        };
        let count = self.sources.len();
        for step in 0..count {
            let Some(source) = self.sources.get_mut((self.turn + step) % count) else { break };
            let before = source.reader.next_offset();
            if before >= source.end || !source.reader.has_more() {
                continue;
            }
            if let Err(problem) = source.reader.fill(&mut records, &mut budget, source.end).await {
                if records.is_empty() {
                    return Err(problem);
                }
                self.failed = Some(problem);
            }
            if source.reader.next_offset() > before {
                next.push(source.reader.position());
                progress.push(source.reader.progress());
            }
            if budget.bytes == 0 || budget.records == 0 || self.failed.is_some() {
                self.turn = (self.turn + step + 1) % count;
                break;
            }
        }
        self.broker.metrics.delivered_plain(self.records_left - budget.records, records.len());
        self.records_left = budget.records;
        let rest = ConsumeResponse { records: Vec::new(), next, progress };
        Ok((!rest.next.is_empty()).then_some(Plain { records, rest }))
    }

    /// Why the stream cannot go on: a planned end, or a partition is not here any more.
    fn ended(&self) -> Option<Problem> {
        if let Some(cause) = self.ending.now() {
            return Some(cause);
        }
        let closed = self.sources.iter().find(|source| source.reader.cursor().log.is_closed())?;
        let Cursor { topic, partition, .. } = closed.reader.cursor();
        Some(self.broker.gone(topic, *partition))
    }

    fn at_end(&self) -> bool {
        self.sources.iter().all(|source| source.reader.next_offset() >= source.end)
    }

    fn heartbeat_message(&self) -> Message {
        let rest = ConsumeResponse {
            records: Vec::new(),
            next: self.sources.iter().map(|source| source.reader.position()).collect(),
            progress: self.sources.iter().map(|source| source.reader.progress()).collect(),
        };
        Plain::from(rest)
    }
}
