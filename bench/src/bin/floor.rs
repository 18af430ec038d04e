//! The floor: a broker with nothing in it. Tuned tonic, a CRC, one write a batch, an acknowledgement; and a fetch
//! that streams the files back, up to their end. No metadata, checks, limits, recovery, retention or groups, one file a partition,
//! any topic name. It is the yardstick: what Weir costs beyond it is Weir's own.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a yardstick, not product code: real threads, one line on stdout"
)]

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{IoSlice, Write};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;

use bytes::Bytes;
use clap::Parser;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_proto::v1::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use weir_proto::v1::producer_service_server::{ProducerService, ProducerServiceServer};
use weir_proto::v1::*;

weir_bench::declare_allocator!();

/// A broker with nothing in it: the yardstick.
#[derive(Parser)]
struct Options {
    /// Where the files go.
    #[arg(long)]
    data_dir: PathBuf,
    /// The port on 127.0.0.1; 0: any, printed.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How many runtimes (one thread each).
    #[arg(long, default_value_t = 2)]
    runtimes: usize,
    /// Acknowledge after fdatasync.
    #[arg(long)]
    fsync: bool,
}

/// Space is taken ahead of the writes in steps of this size.
const STEP: u64 = 64 << 20;
/// A stream that always has input must let go now and then, or its acknowledgements wait for ever.
const YIELD_BYTES: usize = 1 << 20;

/// One batch in a file.
struct Entry {
    position: u64,
    length: usize,
    /// Everything but the payload.
    envelope: RecordBatch,
}

struct Log {
    file: Arc<File>,
    position: u64,
    reserved: u64,
    next_offset: i64,
    entries: Vec<Entry>,
}

impl Log {
    fn append(&mut self, mut batch: RecordBatch) -> std::io::Result<i64> {
        let payload = std::mem::take(&mut batch.records);
        let header = [0_u8; 88];
        let length = header.len() + payload.len();
        if self.position + length as u64 > self.reserved {
            fallocate(&*self.file, FallocateFlags::KEEP_SIZE, self.reserved, STEP)?;
            self.reserved += STEP;
        }
        let mut done = (&*self.file).write_vectored(&[IoSlice::new(&header), IoSlice::new(&payload)])?;
        while done < length {
            let rest = done.saturating_sub(header.len());
            done += (&*self.file).write(payload.get(rest..).unwrap_or_default())?;
        }
        let base = self.next_offset;
        batch.base_offset = base;
        self.next_offset += i64::from(batch.record_count);
        let position = self.position + header.len() as u64;
        self.entries.push(Entry { position, length: payload.len(), envelope: batch });
        self.position += length as u64;
        Ok(base)
    }
}

type Logs = HashMap<(String, i32), Arc<Mutex<Log>>>;
type Flush = (i32, Arc<File>, oneshot::Sender<()>);

#[derive(Clone)]
struct Floor {
    directory: PathBuf,
    logs: Arc<Mutex<Logs>>,
    flusher: Option<mpsc::Sender<Flush>>,
}

impl Floor {
    fn log(&self, topic: &str, partition: i32) -> Result<Arc<Mutex<Log>>, Status> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&(topic.to_owned(), partition)) {
            return Ok(log.clone());
        }
        let path = self.directory.join(format!("{topic}-{partition}.log"));
        let file = File::options().read(true).append(true).create(true).open(path)?;
        let log = Log { file: Arc::new(file), position: 0, reserved: 0, next_offset: 0, entries: Vec::new() };
        let log = Arc::new(Mutex::new(log));
        logs.insert((topic.to_owned(), partition), log.clone());
        Ok(log)
    }
}

/// One thread: whatever waits is one group, each of its files flushed once.
fn flush_groups(waiting: &mpsc::Receiver<Flush>) {
    while let Ok(first) = waiting.recv() {
        let mut group: HashMap<i32, (Arc<File>, Vec<oneshot::Sender<()>>)> = HashMap::new();
        for (partition, file, done) in std::iter::once(first).chain(waiting.try_iter()) {
            group.entry(partition).or_insert_with(|| (file, Vec::new())).1.push(done);
        }
        for (file, dones) in group.into_values() {
            if let Err(error) = file.sync_data() {
                eprintln!("fdatasync: {error}");
                std::process::exit(1);
            }
            for done in dones {
                // Whoever waited may have gone.
                let _ = done.send(());
            }
        }
    }
}

/// The answers of a ProduceStream: polls the requests, appends, answers in order.
struct Produce {
    floor: Floor,
    requests: Streaming<ProduceStreamRequest>,
    recent: HashMap<i32, Arc<Mutex<Log>>>,
    unflushed: VecDeque<(oneshot::Receiver<()>, ProduceStreamResponse)>,
    ended: bool,
    eaten: usize,
}

impl Produce {
    fn append(&mut self, append: BatchAppend) -> Result<ProduceStreamResponse, Status> {
        let batch = append.batch.ok_or_else(|| Status::invalid_argument("no batch"))?;
        if crc32fast::hash(&batch.records) != batch.crc {
            return Err(Status::data_loss("crc"));
        }
        self.eaten += batch.records.len();
        let (count, partition) = (i64::from(batch.record_count), append.partition);
        let log = match self.recent.get(&partition) {
            Some(log) => log,
            None => self.recent.entry(partition).or_insert(self.floor.log(&append.topic, partition)?),
        };
        let mut log = log.lock();
        let base_offset = log.append(batch)?;
        let receipt = AppendReceipt {
            topic: append.topic,
            partition,
            base_offset,
            last_offset: base_offset + count - 1,
            committed: true,
            ..AppendReceipt::default()
        };
        let result =
            AppendResult { correlation_id: append.correlation_id, receipt: Some(receipt), failure: None };
        let response = ProduceStreamResponse { frame: Some(produce_stream_response::Frame::Result(result)) };
        if let Some(flusher) = &self.floor.flusher {
            let (done, flushed) = oneshot::channel();
            if flusher.send((partition, log.file.clone(), done)).is_ok() {
                drop(log);
                self.unflushed.push_back((flushed, response.clone()));
            }
        }
        Ok(response)
    }
}

impl Stream for Produce {
    type Item = Result<ProduceStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some((flushed, _)) = self.unflushed.front_mut()
                && flushed.poll_unpin(cx).is_ready()
            {
                return Poll::Ready(self.unflushed.pop_front().map(|(_, response)| Ok(response)));
            }
            if self.ended {
                return if self.unflushed.is_empty() { Poll::Ready(None) } else { Poll::Pending };
            }
            if self.eaten >= YIELD_BYTES {
                self.eaten = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.requests.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(Some(Ok(request))) => match request.frame {
                    Some(produce_stream_request::Frame::Append(append)) => {
                        let answer = self.append(append);
                        if self.floor.flusher.is_none() || answer.is_err() {
                            return Poll::Ready(Some(answer));
                        }
                    }
                    _ => {
                        let welcome = produce_stream_response::Frame::Welcome(StreamWelcome::default());
                        return Poll::Ready(Some(Ok(ProduceStreamResponse { frame: Some(welcome) })));
                    }
                },
            }
        }
    }
}

#[tonic::async_trait]
impl ProducerService for Floor {
    type ProduceStreamStream = Produce;

    async fn produce_stream(
        &self,
        request: Request<Streaming<ProduceStreamRequest>>,
    ) -> Result<Response<Produce>, Status> {
        Ok(Response::new(Produce {
            floor: self.clone(),
            requests: request.into_inner(),
            recent: HashMap::new(),
            unflushed: VecDeque::new(),
            ended: false,
            eaten: 0,
        }))
    }
    async fn produce(&self, _: Request<ProduceRequest>) -> Result<Response<ProduceResponse>, Status> {
        Err(Status::unimplemented("the floor has streams only"))
    }
    async fn open_producer(
        &self,
        _: Request<OpenProducerRequest>,
    ) -> Result<Response<OpenProducerResponse>, Status> {
        Err(Status::unimplemented("the floor has streams only"))
    }
    async fn get_append_outcome(
        &self,
        _: Request<GetAppendOutcomeRequest>,
    ) -> Result<Response<GetAppendOutcomeResponse>, Status> {
        Err(Status::unimplemented("the floor has streams only"))
    }
}

/// One partition that a FetchStream reads.
struct Cursor {
    subscription_id: i64,
    log: Arc<Mutex<Log>>,
    entry: usize,
}

/// The answers of a FetchStream: one batch a message, as long as there is credit.
struct Fetch {
    floor: Floor,
    requests: Streaming<FetchStreamRequest>,
    cursors: VecDeque<Cursor>,
    credit: i64,
    ended: bool,
}

impl Fetch {
    /// The next batch of whichever partition has one, in turn.
    fn next_batch(&mut self) -> std::io::Result<Option<FetchStreamResponse>> {
        for _ in 0..self.cursors.len() {
            let Some(mut cursor) = self.cursors.pop_front() else { break };
            let log = cursor.log.lock();
            let found = log.entries.get(cursor.entry).map(|e| (e.position, e.length, e.envelope.clone()));
            let (file, end) = (log.file.clone(), log.next_offset);
            drop(log);
            cursor.entry += usize::from(found.is_some());
            let subscription_id = cursor.subscription_id;
            self.cursors.push_back(cursor);
            let Some((mut position, length, mut batch)) = found else { continue };
            let mut buffer = Vec::with_capacity(length);
            while buffer.len() < length {
                let read = rustix::io::pread(&*file, rustix::buffer::spare_capacity(&mut buffer), position)?;
                position += read as u64;
            }
            buffer.truncate(length);
            self.credit -= i64::try_from(length).unwrap_or(i64::MAX);
            batch.records = Bytes::from(buffer);
            let delivery = BatchDelivery {
                subscription_id,
                next_offset: batch.base_offset + i64::from(batch.record_count),
                high_watermark: end,
                last_stable_offset: end,
                batch: Some(batch),
                ..BatchDelivery::default()
            };
            return Ok(Some(FetchStreamResponse {
                frame: Some(fetch_stream_response::Frame::Delivery(delivery)),
            }));
        }
        Ok(None)
    }

    fn request(&mut self, request: FetchStreamRequest) -> Result<Option<FetchStreamResponse>, Status> {
        match request.frame {
            Some(fetch_stream_request::Frame::Assign(assign)) => {
                let log = self.floor.log(&assign.topic, assign.partition)?;
                let entry = log.lock().entries.partition_point(|e| e.envelope.base_offset < assign.offset);
                self.cursors.push_back(Cursor { subscription_id: assign.subscription_id, log, entry });
            }
            Some(fetch_stream_request::Frame::Credit(credit)) => self.credit += credit.bytes,
            Some(fetch_stream_request::Frame::Hello(_)) => {
                let welcome = fetch_stream_response::Frame::Welcome(StreamWelcome::default());
                return Ok(Some(FetchStreamResponse { frame: Some(welcome) }));
            }
            _ => {}
        }
        Ok(None)
    }
}

impl Stream for Fetch {
    type Item = Result<FetchStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            match self.requests.poll_next_unpin(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(request)) => match request.and_then(|request| self.request(request)) {
                    Ok(None) => {}
                    Ok(Some(response)) => return Poll::Ready(Some(Ok(response))),
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
            }
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.credit <= 0 {
            return Poll::Pending;
        }
        // At the end of every file nothing more comes until the client asks for something else.
        self.next_batch()?.map_or(Poll::Pending, |response| Poll::Ready(Some(Ok(response))))
    }
}

#[tonic::async_trait]
impl ConsumerService for Floor {
    type FetchStreamStream = Fetch;
    type ConsumeStream = tokio_stream::Empty<Result<ConsumeResponse, Status>>;

    async fn fetch_stream(
        &self,
        request: Request<Streaming<FetchStreamRequest>>,
    ) -> Result<Response<Fetch>, Status> {
        let requests = request.into_inner();
        let cursors = VecDeque::new();
        Ok(Response::new(Fetch { floor: self.clone(), requests, cursors, credit: 0, ended: false }))
    }
    async fn list_offsets(
        &self,
        request: Request<ListOffsetsRequest>,
    ) -> Result<Response<ListOffsetsResponse>, Status> {
        let mut answer = ListOffsetsResponse::default();
        for query in request.into_inner().queries {
            let offset = self.log(&query.topic, query.partition)?.lock().next_offset;
            answer.offsets.push(OffsetAnswer { offset, ..OffsetAnswer::default() });
        }
        Ok(Response::new(answer))
    }
    async fn consume(&self, _: Request<ConsumeRequest>) -> Result<Response<Self::ConsumeStream>, Status> {
        Err(Status::unimplemented("the floor has streams only"))
    }
    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        Err(Status::unimplemented("the floor has streams only"))
    }
}

/// One thread, one runtime, one server; connections come through the channel.
fn serve(
    floor: Floor,
    connections: tokio::sync::mpsc::UnboundedReceiver<std::net::TcpStream>,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let incoming = UnboundedReceiverStream::new(connections).map(tokio::net::TcpStream::from_std);
        weir_rpc::tuning::server(tonic::transport::Server::builder())
            .add_service(ProducerServiceServer::new(floor.clone()).max_decoding_message_size(16 << 20))
            .add_service(ConsumerServiceServer::new(floor))
            .serve_with_incoming(incoming)
            .await
    })?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    fs::create_dir_all(&options.data_dir)?;
    let flusher = options.fsync.then(|| {
        let (flusher, waiting) = mpsc::channel();
        thread::spawn(move || flush_groups(&waiting));
        flusher
    });
    let floor = Floor { directory: options.data_dir, logs: Arc::default(), flusher };
    let mut runtimes = Vec::new();
    for _ in 0..options.runtimes.max(1) {
        let (connections, incoming) = tokio::sync::mpsc::unbounded_channel();
        let floor = floor.clone();
        thread::spawn(move || serve(floor, incoming));
        runtimes.push(connections);
    }
    let listener = std::net::TcpListener::bind(("127.0.0.1", options.port))?;
    println!("{{\"grpc\":\"{}\",\"allocator\":\"{}\"}}", listener.local_addr()?, weir_bench::allocator());
    for (turn, connection) in listener.incoming().enumerate() {
        let connection = connection?;
        connection.set_nodelay(true)?;
        connection.set_nonblocking(true)?;
        if let Some(runtime) = runtimes.get(turn % runtimes.len()) {
            runtime.send(connection)?;
        }
    }
    Ok(())
}
