//! Reading: credits, generations, heartbeats.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_client::ErrorReason;
use weir_proto::v1;
use weir_proto::v1::consumer_service_server::ConsumerService;
use weir_proto::v1::fetch_stream_request::Frame as In;
use weir_proto::v1::fetch_stream_response::Frame as Out;
use weir_rpc::Problem;

use super::calls::no_topic;
use super::log::next_offset;
use super::state::Broker;

type Replies = mpsc::UnboundedSender<Result<v1::FetchStreamResponse, Status>>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn say(replies: &Replies, frame: Out) {
    let _gone = replies.send(Ok(v1::FetchStreamResponse { frame: Some(frame) }));
}

#[derive(Default)]
struct Reader {
    assigned: BTreeMap<i64, v1::FetchAssign>,
    credit: i64,
}

impl Broker {
    /// Sends what is there and paid for; true if anything was.
    fn deliver(&self, reader: &mut Reader, replies: &Replies) -> bool {
        let mut state = self.cluster.lock();
        let mut ended = Vec::new();
        let mut sent = false;
        for (id, assign) in &mut reader.assigned {
            let fail = |problem: Problem| {
                let failure = Some(problem.at(&assign.topic, assign.partition).failure());
                Out::End(v1::FetchEnd { subscription_id: *id, generation: assign.generation, failure })
            };
            if let Some(failure) = state.end_fetch.pop() {
                let failure = Some(failure);
                let generation = assign.generation;
                say(replies, Out::End(v1::FetchEnd { subscription_id: *id, generation, failure }));
                ended.push(*id);
                continue;
            }
            let Some(topic) = state.topics.get(&assign.topic) else {
                say(replies, fail(no_topic(&assign.topic)));
                ended.push(*id);
                continue;
            };
            if !assign.topic_id.is_empty() && assign.topic_id != topic.proto.topic_id {
                say(replies, fail(Problem::new(ErrorReason::TopicIdMismatch, "another topic")));
                ended.push(*id);
                continue;
            }
            let log = &topic.logs[assign.partition as usize];
            if log.leader != self.id {
                say(replies, fail(Problem::new(ErrorReason::NotLeader, "not the leader")));
                ended.push(*id);
                continue;
            }
            if assign.offset < log.start || assign.offset > log.end() {
                let text = format!("offset {} is not in {}..{}", assign.offset, log.start, log.end());
                say(replies, fail(Problem::new(ErrorReason::OffsetOutOfRange, text)));
                ended.push(*id);
                continue;
            }
            if let Some(epoch) = assign.leader_epoch
                && assign.offset > log.epoch_end(epoch)
            {
                let text = format!("epoch {epoch} ends at {}", log.epoch_end(epoch));
                say(replies, fail(Problem::new(ErrorReason::LogTruncated, text)));
                ended.push(*id);
                continue;
            }
            if assign.paused {
                continue;
            }
            // What is the system's own is filtered: the reader only sees its position move.
            let (end, log_start_offset) = (log.end(), log.start);
            let found =
                log.batches.iter().position(|batch| !batch.control && next_offset(batch) > assign.offset);
            let Some(at) = found else {
                (assign.offset, assign.leader_epoch) = (end, log.epoch_before(end));
                continue;
            };
            let mut batch = log.batches[at].clone();
            let following = log.batches[at + 1..].iter().find(|batch| !batch.control);
            if reader.credit <= 0 {
                continue;
            }
            reader.credit -= batch.records.len() as i64;
            assign.offset = following.map_or(end, |following| following.base_offset);
            assign.leader_epoch = log.epoch_before(assign.offset);
            let next_leader_epoch = assign.leader_epoch;
            if state.corrupt > 0 {
                state.corrupt -= 1;
                batch.crc ^= 1;
            }
            state.delivered += 1;
            sent = true;
            say(
                replies,
                Out::Delivery(v1::BatchDelivery {
                    subscription_id: *id,
                    generation: assign.generation,
                    next_offset: assign.offset,
                    high_watermark: end,
                    last_stable_offset: end,
                    log_start_offset,
                    next_leader_epoch,
                    batch: Some(batch),
                }),
            );
        }
        for id in ended {
            reader.assigned.remove(&id);
        }
        sent
    }

    fn heartbeat(&self, reader: &Reader, replies: &Replies) {
        let state = self.cluster.lock();
        let progress = reader.assigned.values().filter_map(|assign| {
            let log = &state.topics.get(&assign.topic)?.logs[assign.partition as usize];
            let progress = v1::PartitionProgress {
                topic: assign.topic.clone(),
                partition: assign.partition,
                log_start_offset: log.start,
                next_offset: assign.offset,
                high_watermark: log.end(),
                last_stable_offset: log.end(),
                last_timestamp_ms: 0,
                leader_epoch: log.epoch_before(assign.offset),
            };
            Some(v1::SubscriptionProgress {
                subscription_id: assign.subscription_id,
                generation: assign.generation,
                progress: Some(progress),
            })
        });
        let progress = progress.collect();
        say(
            replies,
            Out::Heartbeat(v1::FetchHeartbeat {
                progress,
                credit_bytes: reader.credit,
                credit_records: 0,
                now_ms: 0,
            }),
        );
    }

    async fn fetch_loop(self, mut frames: Streaming<v1::FetchStreamRequest>, replies: Replies) {
        say(&replies, Out::Welcome(Self::welcome()));
        let mut draining = self.cluster.draining.subscribe();
        let mut reader = Reader::default();
        let mut caught_up = true;
        loop {
            if draining.borrow().contains(&self.id) {
                let problem = Problem::new(ErrorReason::Draining, "the broker is stopping");
                let cause = Some(problem.failure());
                say(&replies, Out::Goodbye(v1::StreamGoodbye { drain_deadline_ms: 1_000, cause }));
                let _gone = replies.send(Err(problem.status()));
                return;
            }
            let changed = self.cluster.changed.notified();
            let mut any = false;
            while self.deliver(&mut reader, &replies) {
                any = true;
            }
            if any || !caught_up {
                caught_up = true;
                self.heartbeat(&reader, &replies);
            }
            let frame = tokio::select! {
                frame = frames.message() => match frame {
                    Ok(Some(v1::FetchStreamRequest { frame: Some(frame) })) => frame,
                    _ => return,
                },
                () = changed => continue,
                _ = draining.changed() => continue,
                () = tokio::time::sleep(Duration::from_secs(5)) => {
                    self.heartbeat(&reader, &replies);
                    continue;
                }
            };
            match frame {
                In::Hello(hello) => {
                    reader.credit += hello.credit.unwrap_or_default().bytes;
                    self.cluster.lock().seen_hellos.push(hello);
                }
                In::Credit(credit) => reader.credit += credit.bytes,
                In::Release(release) => drop(reader.assigned.remove(&release.subscription_id)),
                In::Assign(assign) => {
                    self.cluster.lock().seen_assigns.push(assign.clone());
                    reader.assigned.insert(assign.subscription_id, assign);
                    caught_up = false;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl ConsumerService for Broker {
    type ConsumeStream = BoxStream<v1::ConsumeResponse>;
    type FetchStreamStream = BoxStream<v1::FetchStreamResponse>;

    async fn consume(&self, _: Request<v1::ConsumeRequest>) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("the SDK fetches"))
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("the SDK streams"))
    }

    async fn fetch_stream(
        &self,
        request: Request<Streaming<v1::FetchStreamRequest>>,
    ) -> Result<Response<Self::FetchStreamStream>, Status> {
        self.cluster.lock().count("FetchStream")?;
        if self.cluster.draining.borrow().contains(&self.id) {
            return Err(Problem::new(ErrorReason::Draining, "the broker is stopping").status());
        }
        let (replies, out) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().fetch_loop(request.into_inner(), replies));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(out))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let mut state = self.cluster.lock();
        state.count("ListOffsets")?;
        let mut offsets = Vec::new();
        for query in request.into_inner().queries {
            let topic = state.topics.get(&query.topic).ok_or_else(|| no_topic(&query.topic).status())?;
            let log = topic
                .logs
                .get(query.partition as usize)
                .ok_or_else(|| Problem::new(ErrorReason::PartitionNotFound, "no such partition").status())?;
            if log.leader < 0 {
                let text = format!("{}/{} gets no leader by itself", query.topic, query.partition);
                let problem = Problem::new(ErrorReason::NoLeader, text).at(&query.topic, query.partition);
                return Err(problem.status());
            }
            let offset = match query.timestamp_ms {
                Some(at) => log
                    .batches
                    .iter()
                    .find(|batch| batch.max_timestamp_ms >= at)
                    .map_or(log.end(), |batch| batch.base_offset),
                None if query.start_at() == v1::StartAt::Earliest => log.start,
                None => log.end(),
            };
            offsets.push(v1::OffsetAnswer {
                topic: query.topic,
                partition: query.partition,
                offset,
                ..Default::default()
            });
        }
        Ok(Response::new(v1::ListOffsetsResponse { offsets }))
    }
}
