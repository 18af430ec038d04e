//! Batches of partitions that another broker leads, for a client who reads here: one FetchStream to each leader that the
//! client's stream needs. Hot path: once a batch, which is passed on as it came.
//!
//! A task of its own reads the stream and always does. What it may hold is bounded by the credit that the leader was
//! given, [`WINDOW_BYTES`] and one batch; credit goes back when a batch has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};
use weir_proto::codec::{Codec, Encoded};
use weir_proto::v1::fetch_stream_request::Frame as Out;
use weir_proto::v1::fetch_stream_response::Frame as In;
use weir_proto::v1::{
    BatchDelivery, FetchAssign, FetchCredit, FetchEnd, FetchHello, FetchRelease, FetchStreamRequest,
    FetchStreamResponse, Route, SubscriptionProgress,
};
use weir_types::BrokerId;

use crate::broker::Broker;
use crate::forward::hop::{self, Ask, Hop};
use crate::forward::peers::Place;

const PATH: &str = "/weir.v1.ConsumerService/FetchStream";
/// Asked of a leader that has a feed already: it answers once it knows what this broker knows.
const PROBE_PATH: &str = "/weir.v1.MetadataService/GetServerInfo";

/// How much a leader may send before something of it has left.
const WINDOW_BYTES: i64 = 1 << 20;
/// Signs of life that nobody has looked at: a leader gives others.
const PROGRESS_MAX: usize = 64;

/// What a leader says on a feed.
#[derive(Debug)]
pub(super) enum Said {
    Delivery(BatchDelivery),
    Progress(Vec<SubscriptionProgress>),
    End(FetchEnd),
    /// It says no more, and why.
    Over(String),
}

/// What was heard, and of whom.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) leader: BrokerId,
    /// Which of the feeds from there.
    pub(super) feed: u64,
    pub(super) said: Said,
}

/// Where everything is heard that the feeds of one client's stream say.
#[derive(Debug)]
pub(super) struct Ear {
    heard: mpsc::UnboundedReceiver<Heard>,
    progress: Arc<AtomicUsize>,
}

/// Tells the [`Ear`].
#[derive(Clone, Debug)]
pub(super) struct Mouth {
    heard: mpsc::UnboundedSender<Heard>,
    /// Signs of life that were not looked at.
    progress: Arc<AtomicUsize>,
}

/// An ear, and what tells it.
pub(super) fn ear() -> (Mouth, Ear) {
    let (tell, heard) = mpsc::unbounded_channel();
    let progress = Arc::<AtomicUsize>::default();
    (Mouth { heard: tell, progress: progress.clone() }, Ear { heard, progress })
}

impl Ear {
    /// What is heard next. Cancel safe: what was not returned stays.
    pub(super) async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => self.looked_at(heard),
            // Whoever has the ear has a mouth, to open feeds with.
            None => std::future::pending().await,
        }
    }

    /// What was heard already.
    pub(super) fn now(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok().map(|heard| self.looked_at(heard))
    }

    fn looked_at(&self, heard: Heard) -> Heard {
        if matches!(heard.said, Said::Progress(_)) {
            self.progress.fetch_sub(1, Ordering::Relaxed);
        }
        heard
    }
}

impl Mouth {
    /// Whether anybody listens.
    fn say(&self, heard: Heard) -> bool {
        if matches!(heard.said, Said::Progress(_))
            && self.progress.fetch_add(1, Ordering::Relaxed) >= PROGRESS_MAX
        {
            self.progress.fetch_sub(1, Ordering::Relaxed);
            return true;
        }
        self.heard.send(heard).is_ok()
    }
}

/// A stream from one leader. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) number: u64,
    leader: BrokerId,
    outlet: mpsc::UnboundedSender<FetchStreamRequest>,
    reader: AbortHandle,
    /// The version of the metadata that the leader has at least.
    version: i64,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Feed {
    /// Begins one, on the terms of a client's stream.
    pub(super) fn open(
        broker: &Arc<Broker>,
        hop: &Hop,
        leader: BrokerId,
        number: u64,
        terms: &FetchHello,
        mouth: Mouth,
    ) -> Self {
        let image = broker.cluster.image();
        let version = image.version();
        let (outlet, requests) = mpsc::unbounded_channel();
        let hello = FetchHello {
            route: Route::Direct.into(),
            credit: Some(FetchCredit { bytes: WINDOW_BYTES, records: 0 }),
            ..terms.clone()
        };
        let mut request = Request::new(UnboundedReceiverStream::new(requests));
        *request.metadata_mut() = MetadataMap::from_headers(hop.headers(version));
        let place = broker.peers.place(&image, leader);
        let broker = broker.clone();
        let reader = tokio::spawn(async move {
            let mut reading = Reading { leader, feed: number, mouth, bytes: 0, broker };
            let ended = match place {
                Some(place) => reading.run(&place, request).await,
                None => Status::unavailable("it is gone"),
            };
            reading.over(&ended);
        });
        let feed = Self { number, leader, outlet, reader: reader.abort_handle(), version };
        feed.say(Out::Hello(hello));
        feed
    }

    /// Sees to it that the leader knows of its leadership of a partition before it is asked for it.
    pub(super) async fn prepare(&mut self, broker: &Arc<Broker>, hop: &Hop, assign: &FetchAssign) {
        let version = broker.cluster.image().version();
        if self.version >= version {
            return;
        }
        self.version = version;
        let FetchAssign { topic, partition, .. } = assign;
        let ask = Ask { to: self.leader, path: PROBE_PATH, topic, partition: *partition, changes: false };
        // One that does not answer refuses, or its stream breaks: that is heard there.
        let _heard = hop::ask(broker, hop, ask, Encoded::default()).await;
    }

    pub(super) fn assign(&self, assign: FetchAssign) {
        self.say(Out::Assign(assign));
    }

    pub(super) fn release(&self, subscription_id: i64) {
        self.say(Out::Release(FetchRelease { subscription_id }));
    }

    /// So many bytes have left.
    pub(super) fn left(&self, bytes: usize) {
        if bytes > 0 {
            self.say(Out::Credit(FetchCredit {
                bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
                records: 0,
            }));
        }
    }

    fn say(&self, frame: Out) {
        // If the stream is over, that is heard.
        let _over = self.outlet.send(FetchStreamRequest { frame: Some(frame) });
    }
}

/// What a delivery takes of the credit.
pub(super) fn size(delivery: &BatchDelivery) -> usize {
    delivery.batch.as_ref().map_or(0, |batch| batch.records.len())
}

struct Reading {
    leader: BrokerId,
    feed: u64,
    mouth: Mouth,
    bytes: usize,
    broker: Arc<Broker>,
}

impl Reading {
    async fn run<S>(&mut self, place: &Place, request: Request<S>) -> Status
    where
        S: futures::Stream<Item = FetchStreamRequest> + Send + 'static,
    {
        let mut grpc = Grpc::new(place.channel()).max_decoding_message_size(usize::MAX);
        if let Err(error) = grpc.ready().await {
            return Status::from_error(Box::new(error));
        }
        let codec = Codec::<FetchStreamRequest, FetchStreamResponse>::default();
        let mut answers = match grpc.streaming(request, PathAndQuery::from_static(PATH), codec).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        loop {
            let said = match answers.message().await {
                Ok(Some(FetchStreamResponse { frame })) => match frame {
                    Some(In::Delivery(delivery)) => {
                        self.bytes += delivery.encoded_len();
                        Said::Delivery(delivery)
                    }
                    Some(In::Heartbeat(heartbeat)) => Said::Progress(heartbeat.progress),
                    Some(In::End(end)) => Said::End(end),
                    Some(In::Goodbye(_)) => return Status::unavailable("it is stopping"),
                    Some(In::Welcome(_)) | None => continue,
                },
                Ok(None) => return Status::ok("it has ended the stream"),
                Err(status) => return status,
            };
            if !self.say(said) {
                return Status::ok("");
            }
        }
    }

    fn say(&self, said: Said) -> bool {
        self.mouth.say(Heard { leader: self.leader, feed: self.feed, said })
    }

    fn over(self, ended: &Status) {
        self.say(Said::Over(match ended.code() {
            Code::Ok => ended.message().to_owned(),
            _ => hop::cause(ended),
        }));
        self.broker.metrics.forwarded(PATH, ended.code(), self.bytes);
    }
}
