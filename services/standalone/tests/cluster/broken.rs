//! What cannot go on takes its process with it: a controller that cannot write any more (correctness rule 35), a
//! task that panics.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::timeout;
use tonic::transport::Channel;
use weir_broker::StartError;
use weir_config::{Loader, Standalone as Config};
use weir_io::{Disk, Effect, Fault, FaultDisk, MemDisk, Op, Rule};
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, Topic};
use weir_runtime::testing::TestOs;
use weir_runtime::{Connection, Executors, ExecutorsConfig, Listener, Os, Reason, Step, Stop, Waker};
use weir_standalone::Standalone;

use crate::support::*;

async fn standalone(os: Arc<dyn Os>) -> Standalone {
    let flags = ["--listen", "--http-listen", "--controller-listen"];
    let loader = flags.into_iter().fold(Loader::new(), |loader, flag| loader.flag(flag, "127.0.0.1:0"));
    let config = loader.flag("--data-dir", "/weir").load::<Config>().unwrap().config;
    let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
    Standalone::start(os, &executors, &config).await.unwrap()
}

/// Waits until the process is to end, and says why.
async fn wish(over: &Stop) -> Reason {
    timeout(PATIENCE, over.requested()).await.expect("the process goes on");
    over.reason().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_whose_disk_fails_ends_the_process() {
    let disk = FaultDisk::over_mem(&MemDisk::new(1));
    let standalone = standalone(Arc::new(TestOs::threads(Arc::new(disk.clone())).unwrap())).await;

    let fails = Rule::on([Op::SyncData, Op::SyncAll], Effect::Fail(Fault::Io));
    disk.add(fails.path(|path| path.starts_with("/weir/controller")));
    let channel = Channel::from_shared(format!("http://{}", standalone.addr())).unwrap().connect_lazy();
    let topic = Topic { name: "a".to_owned(), ..Topic::default() };
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    let created = tokio::spawn(async move { TopicServiceClient::new(channel).create_topic(request).await });
    let reason = wish(&standalone.over()).await;
    assert!(reason.to_string().starts_with("controller/serve ended: raft stopped"), "{reason}");
    assert_eq!(reason.exit_code(), 1);
    created.abort();
    standalone.stop().await.unwrap_err();
}

/// Panics where it is told to, in the task that asks it for something.
#[derive(Debug)]
struct PanicOs {
    inner: TestOs,
    on_block: AtomicBool,
    on_clock: AtomicBool,
}

impl PanicOs {
    fn new() -> Arc<Self> {
        let inner = TestOs::threads(Arc::new(MemDisk::new(1))).unwrap();
        Arc::new(Self { inner, on_block: AtomicBool::new(false), on_clock: AtomicBool::new(false) })
    }
}

/// Once: what stops in order needs it again.
fn panics_if(told: &AtomicBool) {
    assert!(!told.swap(false, Ordering::SeqCst), "on purpose");
}

#[tonic::async_trait]
impl Os for PanicOs {
    async fn listen(&self, addr: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.inner.listen(addr).await
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn Connection>> {
        self.inner.connect(host, port).await
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.inner.disk()
    }

    fn executors(&self, wanted: &ExecutorsConfig) -> io::Result<Executors> {
        self.inner.executors(wanted)
    }

    fn block(&self, job: Box<dyn FnOnce() + Send>) {
        panics_if(&self.on_block);
        self.inner.block(job);
    }

    fn spawn_loop(&self, name: &str, step: Box<dyn FnMut() -> Step + Send>) -> Waker {
        self.inner.spawn_loop(name, step)
    }

    fn wall_ms(&self) -> i64 {
        panics_if(&self.on_clock);
        self.inner.wall_ms()
    }

    fn boot_id(&self) -> String {
        self.inner.boot_id()
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_what_follows_the_metadata_ends_the_process_in_order() {
    let controller = Node::start(&MemDisk::new(2)).await;
    let os = PanicOs::new();
    let broker = Broker::start_unless(os.clone(), controller.addr, Stop::new()).await.unwrap();
    broker.create("a", 1).await.unwrap();
    broker.produce("a", 0).await.unwrap();
    os.on_block.store(true, Ordering::SeqCst);
    // The topic is made; whoever asked for it does not wait for ever for a log that nobody will open.
    timeout(PATIENCE, broker.create("b", 1)).await.expect("the call waits for ever").unwrap();
    let reason = wish(&broker.running.over()).await;
    assert_eq!(reason.to_string(), "broker/replicas ended: it panicked");
    assert_eq!(reason.exit_code(), 1);
    assert!(broker.http("/readyz").await.contains("stopping"));
    broker.running.stop().await.unwrap();
    // In order: what was acknowledged is there without a look at the log's tail.
    let again = Broker::start_unless(os, controller.addr, Stop::new()).await.unwrap();
    assert_eq!(again.produce("a", 0).await.unwrap(), 1);
    again.running.stop().await.unwrap();
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_task_of_the_controller_ends_the_process() {
    let os = PanicOs::new();
    let standalone = standalone(os.clone()).await;
    // An entry has the time; the same clock stamps batches, and there are none.
    os.on_clock.store(true, Ordering::SeqCst);
    let channel = Channel::from_shared(format!("http://{}", standalone.addr())).unwrap().connect_lazy();
    let topic = Topic { name: "a".to_owned(), ..Topic::default() };
    let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
    let created = tokio::spawn(async move { TopicServiceClient::new(channel).create_topic(request).await });
    let reason = wish(&standalone.over()).await.to_string();
    assert_eq!(reason, "controller/serve ended: controller/proposals ended: it panicked");
    let error = timeout(PATIENCE, standalone.stop()).await.expect("it does not stop").unwrap_err();
    assert!(error.to_string().contains("controller/proposals"), "{error}");
    timeout(PATIENCE, created).await.expect("the call waits for ever").unwrap().unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_for_a_controller_ends_when_it_is_asked_to() {
    let over = Stop::new();
    let nobody = TestOs::threads(Arc::new(MemDisk::new(1))).unwrap();
    // Its port is free again: nobody answers there.
    let addr = nobody.listen("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr();
    let starting = tokio::spawn(Broker::start_unless(Arc::new(nobody), addr, over.clone()));
    over.request(Reason::Asked("the test".to_owned()));
    let ended = timeout(PATIENCE, starting).await.expect("it waits for ever").unwrap();
    assert!(matches!(ended, Err(StartError::Over(_))));
}
