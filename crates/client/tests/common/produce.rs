//! Writing: every append meets the fate that the test has for it.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_client::ErrorReason;
use weir_proto::v1;
use weir_proto::v1::produce_stream_request::Frame as In;
use weir_proto::v1::produce_stream_response::Frame as Out;
use weir_proto::v1::producer_service_server::ProducerService;
use weir_rpc::Problem;

use super::calls::no_topic;
use super::log::Verdict;
use super::state::{Broker, Fate, Sent};

type Replies = mpsc::UnboundedSender<Result<v1::ProduceStreamResponse, Status>>;

fn say(replies: &Replies, frame: Out) {
    let _gone = replies.send(Ok(v1::ProduceStreamResponse { frame: Some(frame) }));
}

fn result(correlation_id: i64, outcome: Result<v1::AppendReceipt, v1::Failure>) -> Out {
    let (receipt, failure) = match outcome {
        Ok(receipt) => (Some(receipt), None),
        Err(failure) => (None, Some(failure)),
    };
    Out::Result(v1::AppendResult { correlation_id, receipt, failure })
}

impl Broker {
    /// Appends, whatever became of it on the way.
    fn append(&self, append: &v1::BatchAppend) -> Result<v1::AppendReceipt, v1::Failure> {
        let mut state = self.cluster.lock();
        let place = |problem: Problem| problem.at(&append.topic, append.partition).failure();
        let topic = state.topics.get_mut(&append.topic).ok_or_else(|| place(no_topic(&append.topic)))?;
        if !append.topic_id.is_empty() && append.topic_id != topic.proto.topic_id {
            return Err(place(Problem::new(ErrorReason::TopicIdMismatch, "another topic of that name")));
        }
        let max: usize = topic.proto.config.get("batch_bytes_max").map_or(1 << 20, |v| v.parse().unwrap());
        let log = &mut topic.logs[append.partition as usize];
        if log.leader != self.id {
            let text = format!("broker {} does not lead", self.id);
            return Err(place(Problem::new(ErrorReason::NotLeader, text).fact("leader", log.leader)));
        }
        let batch = append.batch.as_ref().expect("an append has a batch");
        if batch.records.len() > max {
            return Err(place(Problem::new(ErrorReason::BatchTooLarge, "the batch is too large")));
        }
        assert_eq!(weir_record::crc(&batch.records), batch.crc, "the client sums up what it sends");
        let (base_offset, duplicate) = match log.append(batch, append.expected_next_offset) {
            Verdict::Appended(base) => (base, false),
            Verdict::Duplicate(base) => (base, true),
            Verdict::Refused(reason, text) => return Err(place(Problem::new(reason, text))),
        };
        Ok(v1::AppendReceipt {
            topic: append.topic.clone(),
            partition: append.partition,
            base_offset,
            last_offset: base_offset + i64::from(batch.last_offset_delta),
            leader_epoch: log.epoch,
            append_timestamp_ms: 5,
            durability: v1::Durability::Disk.into(),
            replicas_written: 1,
            replicas_flushed: 1,
            zones: 1,
            committed: true,
            duplicate,
            record_indexes: Vec::new(),
        })
    }

    async fn produce_loop(self, mut frames: Streaming<v1::ProduceStreamRequest>, replies: Replies) {
        say(&replies, Out::Welcome(Self::welcome()));
        let mut draining = self.cluster.draining.subscribe();
        let mut poisoned: HashSet<(String, i32)> = HashSet::new();
        let silences = &self.cluster.silences;
        let mut silent: HashMap<(String, i32), u64> = HashMap::new();
        let mut held = Vec::new();
        let mut released = self.cluster.released.subscribe();
        loop {
            if draining.borrow().contains(&self.id) {
                let cause = Problem::new(ErrorReason::Draining, "the broker is stopping").failure();
                let bye = v1::StreamGoodbye { drain_deadline_ms: 1_000, cause: Some(cause) };
                say(&replies, Out::Goodbye(bye));
                let _gone =
                    replies.send(Err(Problem::new(ErrorReason::Draining, "the broker is stopping").status()));
                return;
            }
            let append = tokio::select! {
                frame = frames.message() => match frame {
                    Ok(Some(v1::ProduceStreamRequest { frame: Some(In::Append(append)) })) => append,
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return,
                },
                _ = released.changed() => {
                    for frame in held.drain(..) {
                        say(&replies, frame);
                    }
                    continue;
                }
                _ = draining.changed() => continue,
                () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {
                    say(&replies, Out::Limits(super::state::limits()));
                    continue;
                }
            };
            let sent = Sent { broker: self.id, append: append.clone() };
            let (fate, late) = {
                let mut state = self.cluster.lock();
                state.sent.push(sent.clone());
                let late = state.late > 0;
                state.late = state.late.saturating_sub(1);
                ((state.script)(&sent), late)
            };
            if late {
                let _gone = released.changed().await;
            }
            let id = append.correlation_id;
            let place = (append.topic.clone(), append.partition);
            let life = (append.topic_id.clone(), append.partition);
            if append.resume {
                poisoned.remove(&place);
            }
            let refuse = |reason| Problem::new(reason, "scripted").at(&append.topic, append.partition);
            let outcome = if let Fate::FailAtOnce(reason) = fate {
                Err(refuse(reason).applied(v1::Applied::No).failure())
            } else if poisoned.contains(&place) {
                Err(refuse(ErrorReason::StreamPoisoned).failure())
            } else {
                match fate {
                    Fate::CutBefore => return self.cluster.net().cut(&self.host()),
                    Fate::LoseAck => {
                        let _lost = self.append(&append);
                        self.cluster.changed.notify_waiters();
                        return self.cluster.net().cut(&self.host());
                    }
                    Fate::AppendAndForget => {
                        let _lost = self.append(&append);
                        silent.insert(life.clone(), silences.now(&life));
                        continue;
                    }
                    Fate::Forget => {
                        silent.insert(life.clone(), silences.now(&life));
                        continue;
                    }
                    Fate::Fail(reason) | Fate::FailAtOnce(reason) => {
                        Err(refuse(reason).applied(v1::Applied::No).failure())
                    }
                    Fate::FailMaybe(reason) => Err(refuse(reason).applied(v1::Applied::Maybe).failure()),
                    Fate::Hold => {
                        held.push(result(id, self.append(&append)));
                        self.cluster.changed.notify_waiters();
                        continue;
                    }
                    Fate::Normal => self.append(&append),
                }
            };
            // Answers of a partition come in order: behind one that is not given there is no other, before somebody has
            // asked what became of it.
            let is_silent = silent.get(&life).is_some_and(|since| *since == silences.now(&life));
            if outcome.is_err() {
                poisoned.insert(place);
            }
            if is_silent {
                continue;
            }
            if append.acks == i32::from(v1::Acks::None) && outcome.is_ok() {
                continue;
            }
            self.cluster.changed.notify_waiters();
            if held.is_empty() {
                say(&replies, result(id, outcome));
            } else {
                held.push(result(id, outcome));
            }
        }
    }
}

#[tonic::async_trait]
impl ProducerService for Broker {
    type ProduceStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ProduceStreamResponse, Status>> + Send>>;

    async fn produce(&self, _: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("the SDK streams"))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        self.cluster.lock().count("ProduceStream")?;
        if self.cluster.draining.borrow().contains(&self.id) {
            return Err(Problem::new(ErrorReason::Draining, "the broker is stopping").status());
        }
        let (replies, out) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().produce_loop(request.into_inner(), replies));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(out))))
    }

    async fn open_producer(
        &self,
        request: Request<v1::OpenProducerRequest>,
    ) -> Result<Response<v1::OpenProducerResponse>, Status> {
        let mut state = self.cluster.lock();
        state.count("OpenProducer")?;
        let producer = match request.into_inner().current {
            Some(current) => v1::ProducerIdentity { id: current.id, epoch: current.epoch + 1 },
            None => {
                state.next_producer_id += 1;
                v1::ProducerIdentity { id: state.next_producer_id, epoch: 0 }
            }
        };
        Ok(Response::new(v1::OpenProducerResponse { producer: Some(producer) }))
    }

    async fn get_append_outcome(
        &self,
        request: Request<v1::GetAppendOutcomeRequest>,
    ) -> Result<Response<v1::GetAppendOutcomeResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.cluster.lock();
        state.count("GetAppendOutcome")?;
        let topic = state.topics.get_mut(&request.topic).ok_or_else(|| no_topic(&request.topic).status())?;
        if !request.topic_id.is_empty() && request.topic_id != topic.proto.topic_id {
            return Err(Problem::new(ErrorReason::TopicIdMismatch, "another topic of that name").status());
        }
        self.cluster.silences.over((request.topic_id.clone(), request.partition));
        let log = &mut topic.logs[request.partition as usize];
        let producer = request.producer.expect("a producer asks");
        let (outcome, base_offset) = log.outcome(&producer, request.sequence, request.seal);
        let receipt = v1::AppendReceipt {
            topic: request.topic,
            partition: request.partition,
            base_offset,
            committed: true,
            ..Default::default()
        };
        Ok(Response::new(v1::GetAppendOutcomeResponse {
            outcome: outcome.into(),
            receipt: (outcome == v1::AppendOutcome::Appended).then_some(receipt),
            unknown_cause: String::new(),
        }))
    }
}
