//! A cluster in this process, for what only several brokers do: a controller and brokers on real sockets of loopback,
//! each broker on a runtime and a disk of its own, so that one can be killed in the middle of anything and started again
//! on what it had written. The ways between brokers, and to the controller, can be held and cut ([`Link`]).
//!
//! It is no simulation: time is real, and what happens at the same time happens in any order. Brokers are counted from 0
//! here; the ids that the cluster gives them count from 1, in the order of their first starts.

mod links;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use weir_broker::{Options, Running, StartError};
use weir_config::{BrokerProcess, Loaded, Loader};
use weir_controller::Controller;
use weir_io::{FaultDisk, MemDisk, Rule, Survival};
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_proto::v1::{CreateTopicRequest, GetMetadataRequest, Topic};
use weir_runtime::testing::{PATIENCE, random_seed, until};
use weir_runtime::{Executors, ExecutorsConfig, Os, RealOs, Reason, Stop, blocking};

pub use links::Link;
use links::Links;

/// Where a broker's logs are on its disk.
const LOGS: &str = "/logs";
/// Where the controller's files are on its.
const CONTROLLER: &str = "/controller";
/// The controller, where brokers are counted.
const THE_CONTROLLER: usize = usize::MAX;
/// Threads for blocking work, of each of them.
const IO_THREADS: usize = 4;
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many brokers.
    pub brokers: usize,
    /// After which silence a broker is fenced. Long, unless a test is about that: this machine may be busy.
    pub session: Duration,
    /// Flags of every broker, with their values.
    pub flags: Vec<(&'static str, String)>,
    /// Flags of one broker.
    pub own_flags: Vec<(usize, &'static str, String)>,
}

impl Plan {
    /// So many brokers.
    #[must_use]
    pub fn of(brokers: usize) -> Self {
        Self { brokers, session: 10 * PATIENCE, flags: Vec::new(), own_flags: Vec::new() }
    }

    /// With a flag of one broker.
    #[must_use]
    pub fn flag_of(mut self, at: usize, flag: &'static str, value: impl Into<String>) -> Self {
        self.own_flags.push((at, flag, value.into()));
        self
    }

    /// With a flag of every broker.
    #[must_use]
    pub fn flag(mut self, flag: &'static str, value: impl Into<String>) -> Self {
        self.flags.push((flag, value.into()));
        self
    }
}

/// A running cluster.
pub struct Cluster {
    plan: Plan,
    controller: Controlling,
    brokers: Vec<Member>,
    /// What keeps the ports of its brokers from everybody else.
    ports: Vec<UdpSocket>,
    links: Links,
}

/// The controller, served by a task.
struct Controlling {
    addr: SocketAddr,
    stop: Stop,
    served: JoinHandle<Result<(), weir_controller::Error>>,
}

/// A broker's place: what stays of it while it does not run.
struct Member {
    disk: MemDisk,
    /// What it listened on last, to be found there again; port 0 before its first start.
    listen: Listens,
    /// By how much longer its disk is said to take.
    slower_ms: Arc<AtomicU64>,
    /// What its process sees of its disk.
    faults: FaultDisk,
    /// Whether its process was to end at once.
    ended: Arc<AtomicBool>,
    process: Option<Process>,
}

#[derive(Clone, Copy)]
struct Listens {
    public: SocketAddr,
    internal: SocketAddr,
}

/// A broker that runs.
struct Process {
    running: Option<Running>,
    os: Arc<dyn Os>,
    runtime: Option<Runtime>,
}

impl Cluster {
    /// Starts a cluster of so many brokers.
    ///
    /// # Panics
    /// It does not start. So do all that follow: a test has nothing to do then.
    pub async fn start(brokers: usize) -> Self {
        Self::start_as(Plan::of(brokers)).await
    }

    /// Starts one to plan.
    pub async fn start_as(plan: Plan) -> Self {
        let controller = Controlling::start(plan.session).await;
        let links = Links::default();
        links.leads_to(THE_CONTROLLER, [controller.addr.port()]);
        let mut cluster = Self { plan, controller, brokers: Vec::new(), ports: Vec::new(), links };
        for at in 0..cluster.plan.brokers {
            let ((public, one), (internal, other)) = (free_port(), free_port());
            let listen = Listens { public, internal };
            cluster.ports.extend([one, other]);
            let (disk, slower_ms, ended) = (MemDisk::new(at as u64), Arc::default(), Arc::default());
            let faults = FaultDisk::over_mem(&disk);
            cluster.brokers.push(Member { disk, listen, slower_ms, faults, ended, process: None });
            // One after the other: their ids are known then.
            cluster.start_broker(at).await;
        }
        cluster
    }

    /// The id of a broker in the cluster.
    #[must_use]
    pub fn id(&self, at: usize) -> i32 {
        i32::try_from(at + 1).unwrap_or(i32::MAX)
    }

    /// Where a broker serves clients, whether it runs or not.
    #[must_use]
    pub fn addr(&self, at: usize) -> SocketAddr {
        self.member(at).listen.public
    }

    /// Where a broker serves HTTP.
    #[must_use]
    pub fn http_addr(&self, at: usize) -> SocketAddr {
        self.running(at).http_addr()
    }

    /// Where a broker listens for others.
    #[must_use]
    pub fn internal_addr(&self, at: usize) -> SocketAddr {
        self.member(at).listen.internal
    }

    /// Where the controller listens.
    #[must_use]
    pub fn controller_addr(&self) -> SocketAddr {
        self.controller.addr
    }

    /// All brokers, as a client is told of them.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.brokers.iter().map(|member| member.listen.public.to_string()).collect();
        all.join(",")
    }

    /// What a broker has on its disk.
    #[must_use]
    pub fn disk(&self, at: usize) -> &MemDisk {
        &self.member(at).disk
    }

    /// From now on a broker's disk is said to take so much longer; nobody waits for it.
    pub fn slow_disk(&self, at: usize, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.member(at).slower_ms.store(by_ms, Ordering::SeqCst);
    }

    /// Makes something fail of a broker's disk, in this life of its process.
    pub fn fail_disk(&self, at: usize, rule: Rule) {
        self.member(at).faults.add(rule);
    }

    /// Whether a broker's process was to end at once. It goes on here until it is killed.
    #[must_use]
    pub fn has_ended(&self, at: usize) -> bool {
        self.member(at).ended.load(Ordering::SeqCst)
    }

    /// A connection to a broker. It dials with its first call.
    #[must_use]
    pub fn channel(&self, at: usize) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr(at)));
        endpoint.expect("an address makes a URI").connect_lazy()
    }

    /// The way by which one broker reaches another's ports.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> Link {
        self.links.between(from, to)
    }

    /// The way by which a broker reaches the controller.
    #[must_use]
    pub fn link_to_controller(&self, from: usize) -> Link {
        self.links.between(from, THE_CONTROLLER)
    }

    /// Starts a broker that does not run, on what is on its disk, where it was before.
    pub async fn start_broker(&mut self, at: usize) {
        self.try_start_broker(at).await.expect("the broker starts");
    }

    /// The same where it may fail.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn try_start_broker(&mut self, at: usize) -> Result<(), StartError> {
        self.try_start_broker_on(at, []).await
    }

    /// The same on a disk that fails so.
    ///
    /// # Errors
    /// The broker's, which does not run then.
    pub async fn try_start_broker_on(
        &mut self,
        at: usize,
        faults: impl IntoIterator<Item = Rule>,
    ) -> Result<(), StartError> {
        let member = self.member_mut(at);
        member.faults = FaultDisk::over_mem(&member.disk);
        for fault in faults {
            member.faults.add(fault);
        }
        member.ended = Arc::default();
        let member = self.member(at);
        let options = self.options(at, member.listen);
        let disk = Arc::new(member.faults.clone());
        let os: Arc<dyn Os> = Arc::new(RealOs::with_disk(disk, IO_THREADS).expect("threads"));
        let os = self.links.seen_from(at, os, member.slower_ms.clone(), member.ended.clone());
        let process = Process::start(os, options).await?;
        let running = process.running.as_ref().expect("it was started");
        let internal = running.internal_addr().expect("a broker among others listens for them");
        let listen = Listens { public: running.addr(), internal };
        self.links.leads_to(at, [listen.public.port(), listen.internal.port()]);
        let member = self.member_mut(at);
        member.listen = listen;
        member.process = Some(process);
        Ok(())
    }

    /// Stops a broker in order.
    pub async fn stop_broker(&mut self, at: usize) {
        let process = self.member_mut(at).process.take().expect("the broker runs");
        process.stop().await;
    }

    /// Kills a broker: all that it does ends here, and what it has written is what its next life finds.
    pub async fn kill_broker(&mut self, at: usize) {
        let member = self.member_mut(at);
        let process = member.process.take().expect("the broker runs");
        process.kill().await;
        // What an answer was given for before the kill is in here: nobody is left who could give another.
        member.disk = member.disk.after_power_loss(Survival::Everything);
    }

    /// Makes a topic, and waits until every broker that runs knows its leaders.
    pub async fn create(&self, name: &str, partitions: i32, replicas: i32, config: &[(&str, &str)]) {
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let topic = Topic {
            name: name.to_owned(),
            partitions,
            replication_factor: replicas,
            config,
            ..Topic::default()
        };
        let request = CreateTopicRequest { topic: Some(topic), ..CreateTopicRequest::default() };
        let runs = (0..self.brokers.len()).find(|at| self.member(*at).process.is_some());
        let channel = self.channel(runs.expect("a broker runs"));
        TopicServiceClient::new(channel).create_topic(request).await.expect("the topic is made");
        self.until_led(name).await;
    }

    /// Waits until every broker that runs knows the leader of each partition of a topic.
    pub async fn until_led(&self, topic: &str) {
        for at in (0..self.brokers.len()).filter(|at| self.member(*at).process.is_some()) {
            until(&format!("broker {at} knows who leads {topic}"), async || {
                let leaders = self.leaders_seen_by(at, topic).await;
                !leaders.is_empty() && leaders.iter().all(|leader| *leader > 0)
            })
            .await;
        }
    }

    /// The brokers that lead a topic's partitions, by partition.
    pub async fn leaders(&self, topic: &str) -> Vec<usize> {
        let runs = (0..self.brokers.len()).find(|at| self.member(*at).process.is_some());
        let ids = self.leaders_seen_by(runs.expect("a broker runs"), topic).await;
        ids.into_iter().map(|id| usize::try_from(id - 1).expect("every partition has a leader")).collect()
    }

    /// The ids of the leaders of a topic's partitions as one broker tells them: -1 for none.
    pub async fn leaders_seen_by(&self, at: usize, topic: &str) -> Vec<i32> {
        let request = GetMetadataRequest { topics: vec![topic.to_owned()], ..GetMetadataRequest::default() };
        let answer = MetadataServiceClient::new(self.channel(at)).get_metadata(request).await;
        let topics = answer.map(|answer| answer.into_inner().topics).unwrap_or_default();
        topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.leader).collect()
    }

    /// The value of a broker's metric, with its labels if it has some; `None`: it has no such line.
    pub async fn metric(&self, at: usize, name: &str) -> Option<f64> {
        let mut connection = TcpStream::connect(self.http_addr(at)).await.expect("HTTP is served");
        let request = "GET /metrics HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await.expect("a request is taken");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it is answered");
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.trim().parse().expect("a metric is a number"))
    }

    /// Stops everything in order.
    pub async fn stop(mut self) {
        for member in &mut self.brokers {
            if let Some(process) = member.process.take() {
                process.stop().await;
            }
        }
        self.controller.stop.request(Reason::Asked("the test is over".to_owned()));
        self.controller.served.await.expect("the controller's task ends").expect("the controller stops");
    }

    fn options(&self, at: usize, listen: Listens) -> Options {
        let flags = [
            ("--listen", listen.public.to_string()),
            ("--internal-listen", listen.internal.to_string()),
            ("--controllers", self.controller.addr.to_string()),
            ("--disk-reserved-bytes", "0".to_owned()),
        ];
        let own = self.plan.own_flags.iter().filter(|(whose, ..)| *whose == at);
        let own = own.map(|(_, flag, value)| (*flag, value.clone()));
        let flags = flags.into_iter().chain(self.plan.flags.iter().cloned()).chain(own);
        let loader = flags.fold(Loader::new(), |loader, (flag, value)| loader.flag(flag, value));
        let Loaded { config, settings } = loader.load::<BrokerProcess>().expect("the flags are right");
        Options {
            data_dir: LOGS.into(),
            http_listen: ANY_PORT,
            drain: Duration::from_secs(1),
            alone: false,
            config: config.broker,
            settings,
        }
    }

    fn member(&self, at: usize) -> &Member {
        self.brokers.get(at).expect("there are so many brokers")
    }

    fn member_mut(&mut self, at: usize) -> &mut Member {
        self.brokers.get_mut(at).expect("there are so many brokers")
    }

    fn running(&self, at: usize) -> &Running {
        let process = self.member(at).process.as_ref();
        process.and_then(|process| process.running.as_ref()).expect("the broker runs")
    }
}

/// An address that a broker can take, and take again when it comes back: below the ports that the system gives to whoever
/// dials, or one of those connections may have it by then, and below those of [`crate::process::free_port`]. While the
/// socket is held, which is one for datagrams, no other test gets it.
fn free_port() -> (SocketAddr, UdpSocket) {
    loop {
        let port = 10_000 + u16::try_from(random_seed() % 5_000).unwrap_or(0);
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        if let Ok(held) = UdpSocket::bind(addr)
            && std::net::TcpListener::bind(addr).is_ok()
        {
            return (addr, held);
        }
    }
}

impl Controlling {
    async fn start(session: Duration) -> Self {
        let disk = Arc::new(MemDisk::new(u64::MAX));
        let os: Arc<dyn Os> = Arc::new(RealOs::with_disk(disk, IO_THREADS).expect("threads"));
        let config = weir_controller::Config {
            session_timeout: session,
            broker_heartbeat: Duration::from_millis(50),
            ..weir_controller::Config::new(PathBuf::from(CONTROLLER), ANY_PORT).standalone()
        };
        let controller = Controller::build(os, config).await.expect("the controller starts");
        let (addr, handle, stop) = (controller.local_addr(), controller.handle(), Stop::new());
        let served = tokio::spawn(controller.serve(stop.clone()));
        handle.ready().await;
        Self { addr, stop, served }
    }
}

impl Process {
    async fn start(os: Arc<dyn Os>, options: Options) -> Result<Self, StartError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut process = Self { running: None, os: os.clone(), runtime: Some(runtime.expect("a runtime")) };
        let starting = async move {
            let executors = Executors::current(&ExecutorsConfig { data_runtimes: 1, control_threads: 1 });
            weir_broker::start(os, &executors, options, Stop::new()).await
        };
        let started = process.handle().spawn(starting).await.expect("the start does not panic");
        process.running = Some(started?);
        Ok(process)
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.runtime.as_ref().expect("it was not taken").handle().clone()
    }

    async fn stop(mut self) {
        let running = self.running.take().expect("it runs");
        let stopped = self.handle().spawn(running.stop()).await;
        stopped.expect("the stop does not panic").expect("the broker stops");
    }

    async fn kill(mut self) {
        let runtime = self.runtime.take().expect("it was not taken");
        // It waits for what its threads are at, which is not allowed on the test's own.
        blocking(&self.os, move || runtime.shutdown_timeout(PATIENCE)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
