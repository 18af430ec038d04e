//! Metadata and topics.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};
use weir_client::ErrorReason;
use weir_proto::v1;
use weir_proto::v1::metadata_service_server::MetadataService;
use weir_proto::v1::topic_service_server::TopicService;
use weir_rpc::Problem;

use super::state::{Broker, limits};

pub fn no_topic(name: &str) -> Problem {
    Problem::new(ErrorReason::TopicNotFound, format!("topic \"{name}\" does not exist"))
}

#[tonic::async_trait]
impl MetadataService for Broker {
    type WatchMetadataStream = Pin<Box<dyn Stream<Item = Result<v1::WatchMetadataResponse, Status>> + Send>>;

    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        self.cluster.lock().count("GetServerInfo")?;
        Ok(Response::new(v1::GetServerInfoResponse {
            cluster_id: "fake".into(),
            broker_id: self.id,
            version: "0".into(),
            limits: Some(limits()),
            ..Default::default()
        }))
    }

    async fn get_metadata(
        &self,
        request: Request<v1::GetMetadataRequest>,
    ) -> Result<Response<v1::GetMetadataResponse>, Status> {
        let request = request.into_inner();
        let slow = self.cluster.lock().slow;
        tokio::time::sleep(slow).await;
        let mut state = self.cluster.lock();
        state.count("GetMetadata")?;
        if let Some(map) = state.maps.pop_front() {
            return Ok(Response::new(map));
        }
        if request.if_newer_than >= state.version {
            return Ok(Response::new(v1::GetMetadataResponse {
                version: state.version,
                ..Default::default()
            }));
        }
        Ok(Response::new(state.map(&request.topics)))
    }

    async fn watch_metadata(
        &self,
        request: Request<v1::WatchMetadataRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        let script = {
            let mut state = self.cluster.lock();
            state.count("WatchMetadata")?;
            state.watched.push(self.id);
            state.watches.pop_front()
        };
        let (replies, out) = mpsc::unbounded_channel();
        match script {
            Some(script) => tokio::spawn(scripted_watch(script, replies)),
            None => tokio::spawn(self.clone().watch_loop(request.into_inner().topics, replies)),
        };
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(out))))
    }
}

/// Tells what a test wants told, and then that it lives.
async fn scripted_watch(
    script: Vec<v1::WatchMetadataResponse>,
    replies: mpsc::UnboundedSender<Result<v1::WatchMetadataResponse, Status>>,
) {
    let version = script.last().map_or(0, |message| message.version);
    for message in script {
        let _gone = replies.send(Ok(message));
    }
    while !replies.is_closed() {
        tokio::select! {
            () = replies.closed() => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => {
                let _gone = replies.send(Ok(v1::WatchMetadataResponse { version, ..Default::default() }));
            }
        }
    }
}

impl Broker {
    /// Each topic of the snapshot in a message of its own, so that this is tried; then what differs.
    async fn watch_loop(
        self,
        names: Vec<String>,
        replies: mpsc::UnboundedSender<Result<v1::WatchMetadataResponse, Status>>,
    ) {
        let mut draining = self.cluster.draining.subscribe();
        let mut told = self.cluster.lock().map(&names);
        let first = v1::WatchMetadataResponse {
            version: told.version,
            snapshot: true,
            brokers: told.brokers.clone(),
            ..Default::default()
        };
        let _gone = replies.send(Ok(first.clone()));
        for topic in &told.topics {
            let _gone = replies.send(Ok(v1::WatchMetadataResponse {
                brokers: Vec::new(),
                topics: vec![topic.clone()],
                ..first.clone()
            }));
        }
        while !replies.is_closed() {
            let changed = self.cluster.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if draining.borrow().contains(&self.id) {
                let _gone = replies.send(Err(Problem::new(ErrorReason::Draining, "it is stopping").status()));
                return;
            }
            let now = self.cluster.lock().map(&names);
            let there = |id: &String| now.topics.iter().any(|topic| topic.topic_id == *id);
            let ids = told.topics.iter().map(|topic| topic.topic_id.clone());
            let message = v1::WatchMetadataResponse {
                version: now.version,
                snapshot: false,
                brokers: if now.brokers == told.brokers { Vec::new() } else { now.brokers.clone() },
                topics: now.topics.iter().filter(|topic| !told.topics.contains(topic)).cloned().collect(),
                deleted_topic_ids: ids.filter(|id| !there(id)).collect(),
                changed_topics: Vec::new(),
            };
            if now.version > told.version {
                let _gone = replies.send(Ok(message));
            }
            told = now;
            tokio::select! {
                () = changed => {}
                _ = draining.changed() => {}
                () = replies.closed() => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {
                    let version = told.version;
                    let _gone = replies.send(Ok(v1::WatchMetadataResponse { version, ..Default::default() }));
                }
            }
        }
    }
}

#[tonic::async_trait]
impl TopicService for Broker {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        assert!(!request.request_id.is_empty(), "mutations carry a request id");
        let asked = request.topic.unwrap_or_default();
        let mut state = self.cluster.lock();
        state.count("CreateTopic")?;
        if let Some(there) = state.topics.get(&asked.name) {
            if request.if_absent {
                let topic = Some(there.proto.clone());
                return Ok(Response::new(v1::CreateTopicResponse { topic, created: false }));
            }
            let text = format!("topic \"{}\" exists", asked.name);
            return Err(Problem::new(ErrorReason::TopicAlreadyExists, text).status());
        }
        let mut topic = state.create(&asked.name, asked.partitions.max(1) as usize);
        topic.config = asked.config;
        state.topics.get_mut(&asked.name).expect("just made").proto.config = topic.config.clone();
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic), created: true }))
    }

    async fn get_topic(
        &self,
        request: Request<v1::GetTopicRequest>,
    ) -> Result<Response<v1::GetTopicResponse>, Status> {
        let name = request.into_inner().name;
        let mut state = self.cluster.lock();
        state.count("GetTopic")?;
        let topic = state.topics.get(&name).ok_or_else(|| no_topic(&name).status())?;
        let mut proto = topic.proto.clone();
        proto.effective = vec![v1::ConfigValue {
            name: "batch_bytes_max".into(),
            value: topic.proto.config.get("batch_bytes_max").cloned().unwrap_or("1048576".into()),
            ..Default::default()
        }];
        Ok(Response::new(v1::GetTopicResponse { topic: Some(proto) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        // One a page, so that paging is tried.
        let after = request.into_inner().page_token;
        let mut state = self.cluster.lock();
        state.count("ListTopics")?;
        let mut left = state.topics.values().filter(|topic| topic.proto.name > after);
        let topics: Vec<_> = left.next().map(|topic| topic.proto.clone()).into_iter().collect();
        let more = left.next().is_some();
        let next_page_token =
            topics.first().filter(|_| more).map(|topic| topic.name.clone()).unwrap_or_default();
        Ok(Response::new(v1::ListTopicsResponse { topics, next_page_token }))
    }

    async fn update_topic(
        &self,
        request: Request<v1::UpdateTopicRequest>,
    ) -> Result<Response<v1::UpdateTopicResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.cluster.lock();
        state.version += 1;
        let topic = state.topics.get_mut(&request.name).ok_or_else(|| no_topic(&request.name).status())?;
        let before = Some(topic.proto.clone());
        topic.proto.config.extend(request.set_config);
        if let Some(partitions) = request.partitions {
            topic.proto.partitions = partitions;
            topic.logs.resize_with(partitions as usize, super::log::Log::new);
        }
        topic.proto.revision += 1;
        Ok(Response::new(v1::UpdateTopicResponse { before, after: Some(topic.proto.clone()) }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let name = request.into_inner().name;
        let mut state = self.cluster.lock();
        state.version += 1;
        let topic = state.topics.remove(&name).ok_or_else(|| no_topic(&name).status())?;
        Ok(Response::new(v1::DeleteTopicResponse { topic: Some(topic.proto) }))
    }

    async fn delete_records(
        &self,
        request: Request<v1::DeleteRecordsRequest>,
    ) -> Result<Response<v1::DeleteRecordsResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.cluster.lock();
        let topic = state.topics.get_mut(&request.topic).ok_or_else(|| no_topic(&request.topic).status())?;
        let mut log_start = Vec::new();
        for before in request.before {
            let log = &mut topic.logs[before.partition as usize];
            let keep = if before.offset < 0 { log.end() } else { before.offset };
            log.batches.retain(|batch| super::log::next_offset(batch) > keep);
            log.start = keep;
            log_start.push(v1::RecordsBefore { partition: before.partition, offset: keep });
        }
        drop(state);
        self.cluster.changed.notify_waiters();
        Ok(Response::new(v1::DeleteRecordsResponse { log_start }))
    }
}
