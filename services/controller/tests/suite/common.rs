//! Controllers and brokers as tests use them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::{Response, Status};
use weir_cluster::{Client, Controllers, Row};
use weir_controller::{Config, Controller, Error, Handle};
use weir_io::MemDisk;
use weir_metadata::{
    BrokerEpoch, BrokerState, DirectoryFacts, Endpoint, FEATURE_LEVEL, Image, RegisterBroker,
};
use weir_proto::internal::v1 as pb;
use weir_proto::v1;
use weir_runtime::testing::TestOs;
pub(crate) use weir_runtime::testing::{PATIENCE, until};
use weir_runtime::{Os, Reason, Stop};
use weir_types::{BrokerId, DirectoryId, TopicId};

/// A controller on runtimes of its own, so that it can die like a process: with everything it was doing.
pub(crate) struct Node {
    pub(crate) disk: MemDisk,
    pub(crate) os: Arc<dyn Os>,
    pub(crate) handle: Handle,
    pub(crate) endpoint: String,
    stop: Stop,
    task: JoinHandle<Result<(), Error>>,
    runtime: Runtime,
}

pub(crate) fn config() -> Config {
    let config = Config::new(PathBuf::from("/controller"), "127.0.0.1:0".parse().unwrap()).standalone();
    // Brokers here say that they live when the test says so.
    Config { session_timeout: 10 * PATIENCE, ..config }
}

pub(crate) fn test_os(disk: &MemDisk) -> Arc<dyn Os> {
    Arc::new(TestOs::threads(Arc::new(disk.clone())).unwrap())
}

impl Node {
    pub(crate) async fn start(disk: MemDisk, config: Config) -> Self {
        Self::try_start(disk, config).await.unwrap()
    }

    pub(crate) async fn try_start(disk: MemDisk, config: Config) -> Result<Self, Error> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let os = test_os(&disk);
        let built = runtime.spawn(Controller::build(os.clone(), config)).await.unwrap();
        let controller = match built {
            Ok(controller) => controller,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let (handle, endpoint) = (controller.handle(), controller.local_addr().to_string());
        let stop = Stop::new();
        let task = runtime.spawn(controller.serve(stop.clone()));
        handle.ready().await;
        Ok(Self { disk, os, handle, endpoint, stop, task, runtime })
    }

    /// Stops in order; what is left is on the disk.
    pub(crate) async fn stop(self) -> MemDisk {
        self.stop.request(Reason::Asked("the test".to_owned()));
        self.task.await.unwrap().unwrap();
        self.runtime.shutdown_background();
        self.disk.kill()
    }

    /// Ends at once: what it wrote stays.
    pub(crate) fn kill(self) -> MemDisk {
        let disk = self.disk.kill();
        self.runtime.shutdown_background();
        disk
    }

    /// The power is cut.
    pub(crate) fn lose_power(self, seed: u64) -> MemDisk {
        let disk = self.disk.crash(seed);
        self.runtime.shutdown_background();
        disk
    }

    pub(crate) fn controllers(&self) -> Controllers {
        Controllers::new(self.os.clone(), vec![self.endpoint.clone()])
    }

    pub(crate) async fn create(&self, name: &str) -> Result<v1::Topic, Status> {
        create(&self.controllers(), name).await
    }

    /// Waits until its metrics have all of these lines. Changes are counted beside the state machine, a moment later.
    pub(crate) async fn until_shown(&self, lines: &[&str]) {
        let shown = || String::from_utf8(self.handle.metrics()).unwrap();
        let lacks = |shown: &str| lines.iter().any(|line| !shown.lines().any(|shown| shown == *line));
        let waiting = until("it is counted", async || !lacks(&shown()));
        if tokio::time::timeout(PATIENCE / 2, waiting).await.is_err() {
            panic!("{lines:#?} is not in {}", shown());
        }
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        self.handle.image().topics_after("").map(|topic| topic.name.to_string()).collect()
    }
}

pub(crate) async fn ask<T, F, C>(controllers: &Controllers, call: C) -> Result<T, Status>
where
    C: FnMut(Client) -> F,
    F: Future<Output = Result<Response<T>, Status>>,
{
    controllers.call(Instant::now() + PATIENCE, call).await
}

pub(crate) fn create_request(name: &str) -> pb::CreateTopicRequest {
    let topic = v1::Topic { name: name.to_owned(), ..v1::Topic::default() };
    // Every call is safe to repeat.
    let request_id = format!("create {name}").chars().take(64).collect();
    let request =
        v1::CreateTopicRequest { topic: Some(topic), request_id, ..v1::CreateTopicRequest::default() };
    pb::CreateTopicRequest { request: Some(request), internal: false }
}

pub(crate) async fn create(controllers: &Controllers, name: &str) -> Result<v1::Topic, Status> {
    let answer = ask(controllers, |mut client| {
        let request = create_request(name);
        async move { client.create_topic(request).await }
    });
    Ok(answer.await?.response.unwrap().topic.unwrap())
}

/// A broker, as far as a controller sees one.
pub(crate) struct Broker {
    pub(crate) controllers: Controllers,
    pub(crate) by: BrokerEpoch,
    pub(crate) directory: DirectoryId,
}

pub(crate) fn registration(directory: u128) -> RegisterBroker {
    let facts = DirectoryFacts {
        id: DirectoryId(directory),
        clean_epoch: None,
        persisted_epoch: None,
        same_boot: false,
        failures: Vec::new(),
    };
    RegisterBroker {
        cluster_id: None,
        broker_id: None,
        directories: vec![facts],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: vec![Endpoint { listener: "public".into(), host: "localhost".into(), port: 1 }],
        version: "test".into(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
        incarnation: 0,
    }
}

impl Broker {
    pub(crate) async fn register(
        controllers: &Controllers,
        registration: RegisterBroker,
    ) -> Result<Self, Status> {
        let directory = registration.directories[0].id;
        let answer = ask(controllers, |mut client| {
            let registration = Some(registration.to_wire());
            async move { client.register_broker(pb::RegisterBrokerRequest { registration }).await }
        });
        let answer = answer.await?;
        let by = BrokerEpoch { broker: BrokerId(answer.broker_id), epoch: answer.epoch };
        Ok(Self { controllers: controllers.clone(), by, directory })
    }

    /// Registers and serves.
    pub(crate) async fn start(controllers: &Controllers) -> Self {
        let broker = Self::register(controllers, registration(77)).await.unwrap();
        assert_eq!(broker.heartbeat(true).await, Ok(BrokerState::Active));
        broker
    }

    pub(crate) async fn heartbeat(&self, epoch_persisted: bool) -> Result<BrokerState, String> {
        let request = pb::BrokerHeartbeatRequest { epoch_persisted, ..pb::BrokerHeartbeatRequest::default() };
        self.say(request).await.map(|answer| BrokerState::from_wire(answer.state).unwrap())
    }

    pub(crate) async fn say(
        &self,
        request: pb::BrokerHeartbeatRequest,
    ) -> Result<pb::BrokerHeartbeatResponse, String> {
        let request = pb::BrokerHeartbeatRequest { broker: Some(self.by.to_wire()), ..request };
        let answer = ask(&self.controllers, |mut client| {
            let request = request.clone();
            async move { client.broker_heartbeat(request).await }
        });
        answer.await.map_err(|status| status.message().to_owned())
    }

    /// Says that it made every replica that was put on it.
    pub(crate) async fn assign_all(&self, image: &Image) -> i64 {
        let mut assignments = Vec::new();
        for topic in image.topics() {
            for (partition, record) in topic.partitions.iter() {
                if record.replica(self.by.broker).is_some_and(|replica| replica.directory().is_none()) {
                    let partition = weir_types::PartitionId { topic: topic.id, partition: *partition };
                    assignments.push((partition, self.directory));
                }
            }
        }
        let assignments = weir_metadata::AssignDirectories { by: self.by, assignments }.to_wire();
        let answer = ask(&self.controllers, |mut client| {
            let assignments = Some(assignments.clone());
            async move { client.assign_directories(pb::AssignDirectoriesRequest { assignments }).await }
        });
        let answer = answer.await.unwrap();
        assert_eq!(answer.refused, []);
        answer.metadata_version
    }
}

pub(crate) fn topic_id(topic: &v1::Topic) -> TopicId {
    topic.topic_id.parse().unwrap()
}
