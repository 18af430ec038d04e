//! Somebody has met a batch that is not what was written. Brokers send batches as they lie on their disks, and do not open
//! them: here it is opened. If the disk is to blame, its broker knows by that (see `crate::damage`), and gives way to a
//! replica that is whole, or refuses whoever reads there.
//!
//! What followers have met is looked at here, by the leader: also what no reader is given, before the log's start and behind
//! its high watermark. What readers have met, the leader is asked for as by a reader of plain records.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{FetchPartition, FetchRequest, FetchResponse, Route};
use weir_rpc::Problem;
use weir_storage::{Limit, ReadError, ReadRequest};
use weir_types::{Offset, PartitionId};

use super::calls::fetch::PATH;
use super::hop::{self, Ask, Hop};
use crate::broker::Broker;
use crate::calls::fetch;
use crate::damage::bad_payload;
use crate::replication::suspects::Suspect;

/// How long the leader is given.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at what could not be read for followers, or came to them as other bytes, for as long as the process lives.
pub(crate) async fn keep(broker: Arc<Broker>) {
    loop {
        let (id, suspect) = broker.replication.suspects.next().await;
        match suspect {
            Suspect::Sent(offset) => look(&broker, id, offset).await,
            Suspect::Read(offset, _) if is_deleted(&broker, id, offset) => look(&broker, id, offset).await,
            Suspect::Read(offset, what) => found(&broker, id, offset, &ReadError::Damaged(what)),
            Suspect::Uncut { to, epoch, what } => {
                let log = broker.log_dir.partition(id);
                log.into_iter().for_each(|log| broker.damage.stuck(&log, to, epoch, &what));
            }
        }
    }
}

/// Whether an offset lies before the log's start. What is there nobody is given who subscribes from now on.
fn is_deleted(broker: &Broker, id: PartitionId, offset: Offset) -> bool {
    broker.log_dir.partition(id).is_some_and(|log| offset < log.ends().log_start)
}

/// Opens the batch at this offset of the log here; at its start, if that has come further: the batch may reach beyond it.
async fn look(broker: &Broker, id: PartitionId, offset: Offset) {
    let Some(log) = broker.log_dir.partition(id) else { return };
    let offset = offset.max(log.ends().log_start);
    let request = ReadRequest { from: offset, bytes_max: 1, limit: Limit::LogEnd };
    let error = match log.read(request).await {
        Ok(chunk) => chunk.frames().find_map(|frame| {
            let error = frame.header.verify_payload(&frame.payload).err()?;
            Some(bad_payload(&log, &frame.header, &error))
        }),
        Err(error) => Some(error),
    };
    // A log that was closed meanwhile has made room for another one.
    if let Some(error) = error.filter(|_| !log.is_closed()) {
        found(broker, id, offset, &error);
    }
}

/// The log here cannot be read.
fn found(broker: &Broker, id: PartitionId, offset: Offset, error: &ReadError) {
    let image = broker.cluster.image();
    let name = image.topic(id.topic).map(|topic| topic.name.clone());
    if let Some(topic) = name.and_then(|name| broker.topics.get(&name).ok()) {
        broker.damage.refused(&topic, id.partition, offset, error);
    }
}

/// What a partition's leader says to a reader at this offset, if it refuses him. `None`: it does not, or does not answer.
pub(crate) async fn ask(
    broker: &Arc<Broker>,
    topic: &str,
    partition: i32,
    offset: Offset,
) -> Option<Problem> {
    let wanted =
        FetchPartition { topic: topic.to_owned(), partition, offset, bytes_max: 1, leader_epoch: None };
    let request = FetchRequest {
        partitions: vec![wanted],
        wait_ms: Some(0),
        route: Route::Direct.into(),
        ..FetchRequest::default()
    };
    let failure = match broker.owner(topic, partition) {
        Some(to) => {
            let hop = Hop::until(Instant::now() + PATIENCE);
            let ask = Ask { to, path: PATH, topic, partition, changes: false };
            let message = Encoded(request.encode_to_vec().into());
            let answer = hop::ask(broker, &hop, ask, message).await.ok()?;
            let answer = FetchResponse::decode(answer.into_inner().0).ok()?;
            answer.partitions.into_iter().next()?.failure
        }
        None => {
            let answer: Result<_, Status> = fetch::call(broker, Request::new(request)).await;
            answer.ok()?.into_inner().partitions.into_iter().next()?.rest.failure
        }
    };
    failure.map(|failure| Problem::heard(&failure))
}
