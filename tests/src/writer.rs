//! A writer that keeps several batches on their way, survives the death of its server, and writes down what it was
//! told.

use std::collections::VecDeque;

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use weir_proto::v1::produce_stream_request::Frame as Request;
use weir_proto::v1::produce_stream_response::Frame as Response;
use weir_proto::v1::{
    AppendResult, Applied, BatchAppend, OpenProducerRequest, ProduceHello, ProduceStreamRequest,
    ProducerIdentity, RecordBatch,
};
use weir_record::Codec;

use crate::api::Api;
use crate::batch;
use crate::dice::Dice;
use crate::history::{History, Mark, Place};

/// An idempotent producer may have so many batches on their way in one partition.
const IN_FLIGHT_MAX: usize = 5;

/// Writes numbered records to one partition.
#[derive(Debug)]
pub struct Writer {
    id: u32,
    place: Place,
    dice: Dice,
    /// The number of the next record.
    next: u64,
    /// For exactly once: what has no answer yet is sent again by the next run.
    producer: Option<ProducerIdentity>,
    idempotent: bool,
    open: VecDeque<Sent>,
    correlation_id: i64,
}

#[derive(Clone, Debug)]
struct Sent {
    correlation_id: i64,
    marks: Vec<Mark>,
    batch: RecordBatch,
}

impl Writer {
    /// A writer with an id of its own.
    #[must_use]
    pub fn new(id: u32, place: Place, idempotent: bool, seed: u64) -> Self {
        let (producer, open) = (None, VecDeque::new());
        Self { id, place, dice: Dice::new(seed), next: 0, producer, idempotent, open, correlation_id: 0 }
    }

    /// Writes until the server is gone, or until `enough` says so and everything is answered. Counts what is
    /// acknowledged.
    ///
    /// # Errors
    /// The server, while it was there, answered something else than a receipt.
    pub async fn run(
        &mut self,
        api: &Api,
        history: &Mutex<History>,
        acknowledged: &watch::Sender<u64>,
        enough: &watch::Receiver<bool>,
    ) -> Result<()> {
        if !self.idempotent {
            // Whether they are there is not known and never will be: sent again they might be there twice.
            self.open.clear();
        } else if self.producer.is_none() {
            let Ok(opened) = api.producer().open_producer(OpenProducerRequest::default()).await else {
                return Ok(());
            };
            self.producer = opened.into_inner().producer;
        }
        let (requests, queue) = mpsc::channel(IN_FLIGHT_MAX + 1);
        requests.try_send(request(Request::Hello(ProduceHello {
            client: format!("writer {}", self.id),
            ..Default::default()
        })))?;
        for sent in &self.open {
            requests.try_send(self.append(sent))?;
        }
        let Ok(answers) = api.producer().produce_stream(ReceiverStream::new(queue)).await else {
            return Ok(());
        };
        let mut answers = answers.into_inner();
        loop {
            while self.open.len() < IN_FLIGHT_MAX && !*enough.borrow() {
                let sent = self.pack(history)?;
                let request = self.append(&sent);
                self.open.push_back(sent);
                if requests.try_send(request).is_err() {
                    // The stream is broken; its answers say how.
                    break;
                }
            }
            if self.open.is_empty() {
                return Ok(());
            }
            // The server was killed: what is open stays so.
            let Ok(answer) = answers.message().await else { return Ok(()) };
            match answer.and_then(|answer| answer.frame) {
                Some(Response::Result(result)) => {
                    self.take(&result, history)?;
                    acknowledged.send_modify(|count| *count += 1);
                }
                Some(Response::Welcome(_) | Response::Limits(_)) => {}
                other => anyhow::bail!("writer {} did not expect {other:?}", self.id),
            }
        }
    }

    /// The next batch: one to five records, each codec in turn.
    fn pack(&mut self, history: &Mutex<History>) -> Result<Sent> {
        let count = 1 + self.dice.below(5);
        let marks: Vec<Mark> =
            (self.next..self.next + count).map(|number| Mark { writer: self.id, number }).collect();
        let values: Vec<Vec<u8>> = marks.iter().map(|mark| mark.value()).collect();
        let codecs = Codec::ALL;
        let codec = codecs.get(usize::try_from(self.dice.below(4))?).copied().unwrap_or_default();
        let mut batch = batch::pack_values(codec, values.iter().map(Vec::as_slice))?;
        if let Some(producer) = self.producer {
            batch.producer = Some(producer);
            batch.base_sequence = i32::try_from(self.next)?;
        }
        let mut history = history.lock();
        for mark in &marks {
            history.sent(*mark, &self.place);
        }
        self.next += count;
        self.correlation_id += 1;
        Ok(Sent { correlation_id: self.correlation_id, marks, batch })
    }

    fn append(&self, sent: &Sent) -> ProduceStreamRequest {
        request(Request::Append(BatchAppend {
            correlation_id: sent.correlation_id,
            topic: self.place.topic.clone(),
            partition: self.place.partition,
            batch: Some(sent.batch.clone()),
            ..BatchAppend::default()
        }))
    }

    /// Answers come in the order of the appends.
    fn take(&mut self, result: &AppendResult, history: &Mutex<History>) -> Result<()> {
        let sent = self.open.pop_front().context("an answer to nothing")?;
        ensure!(
            sent.correlation_id == result.correlation_id,
            "{} before {}",
            result.correlation_id,
            sent.correlation_id
        );
        let mut history = history.lock();
        if let Some(failure) = &result.failure {
            if failure.applied() == Applied::No {
                sent.marks.iter().try_for_each(|mark| history.refused(*mark))?;
            }
            anyhow::bail!("writer {} at {}: {failure:?}", self.id, self.place);
        }
        let receipt = result.receipt.as_ref().context("neither receipt nor failure")?;
        ensure!(receipt.committed, "acks ALL, and not committed: {receipt:?}");
        ensure!(
            (&receipt.topic, receipt.partition) == (&self.place.topic, self.place.partition),
            "{receipt:?}"
        );
        let last = receipt.base_offset + i64::from(sent.batch.last_offset_delta);
        ensure!(receipt.last_offset == last, "{} records: {receipt:?}", sent.marks.len());
        for (offset, mark) in (receipt.base_offset..).zip(&sent.marks) {
            history.acknowledged(*mark, offset)?;
        }
        Ok(())
    }
}

fn request(frame: Request) -> ProduceStreamRequest {
    ProduceStreamRequest { frame: Some(frame) }
}
