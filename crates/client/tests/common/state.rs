//! The cluster: brokers that share one state, and what a test does to them.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Server;
use weir_client::ErrorReason;
use weir_proto::v1;

use super::log::Log;
use super::net::Net;

/// What becomes of an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// What should.
    Normal,
    /// Appended, and the connection breaks before the answer.
    LoseAck,
    /// The connection breaks before it is looked at.
    CutBefore,
    /// Appended, and never answered.
    AppendAndForget,
    /// Not appended, never answered.
    Forget,
    /// Refused for this reason, not applied.
    Fail(ErrorReason),
    /// Refused as not applied for what can be judged without the log: in its turn, even where the partition is
    /// poisoned.
    FailAtOnce(ErrorReason),
    /// Refused, and nobody knows (it was not applied).
    FailMaybe(ErrorReason),
    /// The answer waits until [`Cluster::release`].
    Hold,
}

/// An append as it arrived.
#[derive(Clone, Debug)]
pub struct Sent {
    pub broker: i32,
    pub append: v1::BatchAppend,
}

type Script = Box<dyn FnMut(&Sent) -> Fate + Send>;

pub struct Cluster {
    net: Net,
    pub state: Mutex<State>,
    /// Something in a log changed, or in what is to be done.
    pub changed: Notify,
    /// Counts up with every release of held answers.
    pub released: watch::Sender<u64>,
    /// Partitions where an append was not answered, and is now as good as answered.
    pub silences: Silences,
    /// Streams of these brokers say goodbye.
    pub draining: watch::Sender<HashSet<i32>>,
}

/// How often it was asked what became of an append, by topic id and partition.
#[derive(Default)]
pub struct Silences(Mutex<BTreeMap<(String, i32), u64>>);

impl Silences {
    pub fn now(&self, place: &(String, i32)) -> u64 {
        self.0.lock().get(place).copied().unwrap_or(0)
    }

    pub fn over(&self, place: (String, i32)) {
        *self.0.lock().entry(place).or_default() += 1;
    }
}

pub struct State {
    pub version: i64,
    pub topics: BTreeMap<String, Topic>,
    pub brokers: i32,
    /// How long brokers take for the map.
    pub slow: std::time::Duration,
    pub next_topic_id: u64,
    pub next_producer_id: i64,
    pub calls: BTreeMap<&'static str, usize>,
    /// Every append that arrived, in order.
    pub sent: Vec<Sent>,
    pub script: Script,
    /// Reasons that the next fetch streams' subscriptions end with.
    pub end_fetch: Vec<v1::Failure>,
    /// How many of the next deliveries are corrupted.
    pub corrupt: usize,
    /// How many batches were delivered to readers.
    pub delivered: usize,
    /// How many of the next appends wait for a [`Cluster::release`] each before they are looked at, and with them what is
    /// behind them on the stream.
    pub late: usize,
    /// A place for a test to gather what it read.
    pub seen_values: Vec<String>,
    pub seen_hellos: Vec<v1::FetchHello>,
    /// A status that the next call of a name fails with.
    pub fail_call: BTreeMap<&'static str, Vec<tonic::Status>>,
    pub seen_assigns: Vec<v1::FetchAssign>,
    /// What the next questions for the map are answered with instead of what there is.
    pub maps: VecDeque<v1::GetMetadataResponse>,
    /// What the next watches tell instead of what there is; behind it comes nothing but signs of life.
    pub watches: VecDeque<Vec<v1::WatchMetadataResponse>>,
    /// The brokers whose changes were asked for, in order.
    pub watched: Vec<i32>,
}

pub struct Topic {
    pub proto: v1::Topic,
    pub logs: Vec<Log>,
}

impl Cluster {
    /// Brokers `broker1:1` to `brokerN:1`.
    pub fn start(brokers: i32) -> Arc<Self> {
        let net = Net::default();
        *net.clock_ms.lock() = 1_000_000;
        let cluster = Arc::new(Self {
            net: net.clone(),
            state: Mutex::new(State {
                version: 1,
                topics: BTreeMap::new(),
                brokers,
                slow: std::time::Duration::ZERO,
                next_topic_id: 1,
                next_producer_id: 100,
                calls: BTreeMap::new(),
                sent: Vec::new(),
                script: Box::new(|_| Fate::Normal),
                end_fetch: Vec::new(),
                corrupt: 0,
                delivered: 0,
                late: 0,
                seen_values: Vec::new(),
                seen_hellos: Vec::new(),
                fail_call: BTreeMap::new(),
                seen_assigns: Vec::new(),
                maps: VecDeque::new(),
                watches: VecDeque::new(),
                watched: Vec::new(),
            }),
            changed: Notify::new(),
            released: watch::channel(0).0,
            silences: Silences::default(),
            draining: watch::channel(HashSet::new()).0,
        });
        for id in 1..=brokers {
            let incoming = net.host(&format!("broker{id}"));
            let broker = Broker { id, cluster: Arc::clone(&cluster) };
            let serving = weir_rpc::tuning::server(Server::builder())
                .add_service(v1::metadata_service_server::MetadataServiceServer::new(broker.clone()))
                .add_service(v1::topic_service_server::TopicServiceServer::new(broker.clone()))
                .add_service(
                    v1::producer_service_server::ProducerServiceServer::new(broker.clone())
                        .max_decoding_message_size(16 << 20),
                )
                .add_service(v1::consumer_service_server::ConsumerServiceServer::new(broker))
                .serve_with_incoming(UnboundedReceiverStream::new(incoming));
            tokio::spawn(async move { serving.await.expect("the fake serves") });
        }
        cluster
    }

    pub fn net(&self) -> Net {
        self.net.clone()
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Makes a topic, its partitions led by broker 1.
    pub fn topic(&self, name: &str, partitions: usize) {
        let mut state = self.lock();
        state.create(name, partitions);
    }

    /// Another broker leads from now on.
    pub fn lead(&self, topic: &str, partition: usize, broker: i32) {
        let mut state = self.lock();
        state.version += 1;
        let log = &mut state.topics.get_mut(topic).expect("the topic exists").logs[partition];
        log.leader = broker;
        log.epoch += 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Tells whoever waits that something in the state changed.
    pub fn tell(&self) {
        self.changed.notify_waiters();
    }

    /// What becomes of the appends that arrive from now on.
    pub fn script(&self, script: impl FnMut(&Sent) -> Fate + Send + 'static) {
        self.lock().script = Box::new(script);
    }

    /// The appends that arrive next have these fates, and all after them the normal one.
    pub fn fates(&self, fates: impl IntoIterator<Item = Fate>) {
        let mut fates: std::collections::VecDeque<_> = fates.into_iter().collect();
        self.script(move |_| fates.pop_front().unwrap_or(Fate::Normal));
    }

    /// Lets all held answers go, and each stream's late append.
    pub fn release(&self) {
        self.released.send_modify(|n| *n += 1);
    }

    /// A broker says goodbye on its streams.
    pub fn drain(&self, broker: i32, draining: bool) {
        self.draining.send_modify(|set| {
            if draining {
                set.insert(broker);
            } else {
                set.remove(&broker);
            }
        });
    }

    /// The values in a partition, in order.
    pub fn values(&self, topic: &str, partition: usize) -> Vec<String> {
        let state = self.lock();
        state.topics[topic].logs[partition].values().into_iter().map(|(_, value)| value).collect()
    }

    /// Appends records as some other client would: one batch.
    pub fn put(&self, topic: &str, partition: usize, values: &[&str]) -> i64 {
        let mut builder = weir_record::BatchBuilder::new();
        for (i, value) in values.iter().enumerate() {
            builder
                .push(1_000 + i as i64, None, Some(value.as_bytes()), weir_record::NO_HEADERS)
                .expect("fits");
        }
        let batch = builder.finish(weir_record::Codec::None).expect("not empty");
        let batch = v1::RecordBatch {
            last_offset_delta: batch.last_offset_delta(),
            record_count: batch.record_count,
            base_timestamp_ms: batch.base_timestamp_ms,
            max_timestamp_ms: batch.max_timestamp_ms,
            codec: v1::Codec::None.into(),
            uncompressed_bytes: batch.uncompressed_bytes,
            crc: batch.crc,
            records: batch.payload,
            ..Default::default()
        };
        let mut state = self.lock();
        let log = &mut state.topics.get_mut(topic).expect("the topic exists").logs[partition];
        log.append(&batch, None);
        let end = log.end();
        drop(state);
        self.changed.notify_waiters();
        end
    }

    /// A fence at the end, of a new leader's epoch: it takes an offset, and nobody gets anything of it.
    pub fn fence(&self, topic: &str, partition: usize) {
        let nobody = v1::ProducerIdentity { id: 1, epoch: 0 };
        self.lead(topic, partition, 1);
        self.lock().topics.get_mut(topic).expect("the topic exists").logs[partition]
            .outcome(&nobody, 0, true);
        self.tell();
    }

    /// An unclean election: what is from this offset on is lost, and others write there.
    pub fn lose(&self, topic: &str, partition: usize, from: i64) {
        self.lock().topics.get_mut(topic).expect("the topic exists").logs[partition].lose(from);
        self.put(topic, partition, &["other"]);
        self.put(topic, partition, &["history"]);
    }

    pub fn calls(&self, name: &str) -> usize {
        self.lock().calls.get(name).copied().unwrap_or(0)
    }
}

impl State {
    pub fn create(&mut self, name: &str, partitions: usize) -> v1::Topic {
        self.version += 1;
        let proto = v1::Topic {
            name: name.to_owned(),
            topic_id: format!("{:032x}", self.next_topic_id),
            partitions: partitions as i32,
            replication_factor: 1,
            revision: 1,
            ..Default::default()
        };
        self.next_topic_id += 1;
        let logs = (0..partitions).map(|_| Log::new()).collect();
        self.topics.insert(name.to_owned(), Topic { proto: proto.clone(), logs });
        proto
    }

    /// What there is of topics of these names, or of all.
    pub fn map(&self, names: &[String]) -> v1::GetMetadataResponse {
        let brokers = (1..=self.brokers).map(|id| v1::Broker {
            broker_id: id,
            rack: String::new(),
            endpoint: format!("broker{id}:1"),
        });
        let wanted = |name: &String| names.is_empty() || names.contains(name);
        let topics = self.topics.values().filter(|topic| wanted(&topic.proto.name)).map(|topic| {
            let partitions = topic.logs.iter().enumerate().map(|(i, log)| v1::PartitionMetadata {
                partition: i as i32,
                leader: log.leader,
                leader_epoch: log.epoch,
                replicas: vec![log.leader],
                isr: vec![log.leader],
            });
            v1::TopicMetadata {
                name: topic.proto.name.clone(),
                topic_id: topic.proto.topic_id.clone(),
                partition_count: topic.logs.len() as i32,
                partitions: partitions.collect(),
            }
        });
        v1::GetMetadataResponse {
            version: self.version,
            brokers: brokers.collect(),
            topics: topics.collect(),
            next_page_token: String::new(),
        }
    }

    pub fn count(&mut self, call: &'static str) -> Result<(), tonic::Status> {
        *self.calls.entry(call).or_default() += 1;
        match self.fail_call.get_mut(call) {
            Some(fails) if !fails.is_empty() => Err(fails.remove(0)),
            _ => Ok(()),
        }
    }
}

/// One broker of the cluster.
#[derive(Clone)]
pub struct Broker {
    pub id: i32,
    pub cluster: Arc<Cluster>,
}

impl Broker {
    pub fn host(&self) -> String {
        format!("broker{}", self.id)
    }

    pub fn welcome() -> v1::StreamWelcome {
        v1::StreamWelcome { version: 1, session_id: "s".into(), limits: Some(limits()), features: Vec::new() }
    }
}

pub fn limits() -> v1::Limits {
    v1::Limits {
        request_bytes_max: 16 << 20,
        batch_bytes_max: 1 << 20,
        record_bytes_max: 1 << 20,
        records_per_request_max: 10_000,
        inflight_bytes_max: 16 << 20,
        wait_ms_max: 30_000,
        long_calls_per_connection_max: 256,
    }
}
