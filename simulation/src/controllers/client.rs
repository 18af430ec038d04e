//! Somebody who makes and removes topics, and remembers what it was told.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tonic::{Response, Status};
use weir_cluster::{Client, Controllers, Row, is_for};
use weir_metadata::{BrokerEpoch, DirectoryFacts, Endpoint, FEATURE_LEVEL, RegisterBroker};
use weir_proto::internal::v1 as pb;
use weir_proto::v1::{self, ErrorReason};
use weir_runtime::Os;
use weir_types::{BrokerId, DirectoryId};

use super::acknowledged_stays::{Fate, Ledger};

/// A change is tried for so long, and then may have happened or not.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two changes, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 150;

/// What all clients share with the simulation.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) ledger: Mutex<Ledger>,
    /// No more changes are to be begun.
    pub(crate) over: AtomicBool,
    /// Clients that have not come to their end.
    pub(crate) busy: AtomicUsize,
    /// A broker is registered, so that there is somebody to put topics on.
    pub(crate) ready: AtomicBool,
}

/// What a call came to.
enum Told<T> {
    Yes(T),
    /// It was not carried out, and why.
    No(Status),
    Unknown,
}

impl Work {
    /// The program of a client's machine.
    pub(crate) async fn run(
        self: Arc<Self>,
        os: Arc<dyn Os>,
        name: String,
        endpoints: Vec<String>,
    ) -> Result<()> {
        let controllers = Controllers::new(os.clone(), endpoints);
        self.busy.fetch_add(1, Ordering::SeqCst);
        for number in 0.. {
            if self.over.load(Ordering::SeqCst) {
                break;
            }
            if self.ready.load(Ordering::SeqCst) {
                self.change(&*os, &controllers, &format!("{name}-{number}")).await?;
            }
            sleep(Duration::from_millis(1 + os.random_u64() % PAUSE_MS_MAX)).await;
        }
        self.busy.fetch_sub(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Makes a topic, perhaps asks again, perhaps removes it.
    async fn change(&self, os: &dyn Os, controllers: &Controllers, topic: &str) -> Result<()> {
        self.ledger.lock().note(topic, Fate::Open);
        let id = match create(controllers, topic).await {
            Told::Yes(id) => id,
            Told::No(status) => {
                tracing::info!(topic, "not made: {}", status.message());
                self.ledger.lock().note(topic, Fate::Gone);
                return Ok(());
            }
            Told::Unknown => return Ok(()),
        };
        self.ledger.lock().note(topic, Fate::There(id));
        if os.random_u64().is_multiple_of(4)
            && let Told::Yes(again) = create(controllers, topic).await
        {
            self.ledger.lock().same_again(topic, &again)?;
        }
        if os.random_u64().is_multiple_of(3) {
            self.ledger.lock().note(topic, Fate::Open);
            if let Told::Yes(()) = delete(controllers, topic).await {
                self.ledger.lock().note(topic, Fate::Gone);
            }
        }
        Ok(())
    }
}

/// Makes the one broker that there is, as far as controllers see. It never says anything again.
pub(crate) async fn register_broker(work: Arc<Work>, os: Arc<dyn Os>, endpoints: Vec<String>) -> Result<()> {
    let controllers = Controllers::new(os, endpoints);
    let facts = DirectoryFacts {
        id: DirectoryId(77),
        clean_epoch: None,
        persisted_epoch: None,
        same_boot: false,
        failures: Vec::new(),
    };
    let registration = RegisterBroker {
        cluster_id: None,
        broker_id: None,
        incarnation: 1,
        directories: vec![facts],
        damaged: Vec::new(),
        rack: String::new(),
        endpoints: vec![Endpoint { listener: "public".into(), host: "localhost".into(), port: 1 }],
        version: "simulated".into(),
        feature_level: FEATURE_LEVEL,
        metadata_version: 0,
        metadata_author: 0,
    };
    while !work.ready.load(Ordering::SeqCst) {
        let registered = ask(&controllers, |mut client| {
            let registration = Some(registration.to_wire());
            async move { client.register_broker(pb::RegisterBrokerRequest { registration }).await }
        });
        let Told::Yes(answer) = registered.await else { continue };
        let broker = BrokerEpoch { broker: BrokerId(answer.broker_id), epoch: answer.epoch }.to_wire();
        let active = ask(&controllers, |mut client| {
            let broker = Some(broker);
            let lives = pb::BrokerHeartbeatRequest { broker, epoch_persisted: true, ..Default::default() };
            async move { client.broker_heartbeat(lives).await }
        });
        work.ready.store(matches!(active.await, Told::Yes(_)), Ordering::SeqCst);
    }
    std::future::pending().await
}

async fn ask<T, F, C>(controllers: &Controllers, call: C) -> Told<T>
where
    C: FnMut(Client) -> F,
    F: Future<Output = Result<Response<T>, Status>>,
{
    match controllers.call(Instant::now() + PATIENCE, call).await {
        Ok(answer) => Told::Yes(answer),
        Err(status) if is_for(&status, ErrorReason::OutcomeUnknown) => Told::Unknown,
        Err(status) => Told::No(status),
    }
}

/// Its id.
async fn create(controllers: &Controllers, topic: &str) -> Told<String> {
    let named = v1::Topic { name: topic.to_owned(), ..v1::Topic::default() };
    let request_id = format!("create {topic}");
    let request = v1::CreateTopicRequest { topic: Some(named), request_id, ..Default::default() };
    let request = pb::CreateTopicRequest { request: Some(request), internal: false };
    let told = ask(controllers, |mut client| {
        let request = request.clone();
        async move { client.create_topic(request).await }
    });
    match told.await {
        Told::Yes(answer) => {
            let topic = answer.response.and_then(|response| response.topic);
            Told::Yes(topic.map(|topic| topic.topic_id).unwrap_or_default())
        }
        // A clock has jumped, and the controllers do not remember the first answer.
        Told::No(status) if is_for(&status, ErrorReason::TopicAlreadyExists) => Told::Unknown,
        Told::No(status) => Told::No(status),
        Told::Unknown => Told::Unknown,
    }
}

async fn delete(controllers: &Controllers, topic: &str) -> Told<()> {
    let (name, request_id) = (topic.to_owned(), format!("delete {topic}"));
    let request = v1::DeleteTopicRequest { name, request_id, ..Default::default() };
    let request = pb::DeleteTopicRequest { request: Some(request) };
    let told = ask(controllers, |mut client| {
        let request = request.clone();
        async move { client.delete_topic(request).await }
    });
    match told.await {
        Told::Yes(_) => Told::Yes(()),
        Told::No(status) if is_for(&status, ErrorReason::TopicNotFound) => Told::Yes(()),
        Told::No(status) => Told::No(status),
        Told::Unknown => Told::Unknown,
    }
}
