//! A batch came from the broker that leads its partition, and is not what was written. That broker sends batches as they
//! lie on its disk, and does not open them: here it is asked to, as a reader asks for plain records. If its disk is to
//! blame, it knows by that (see `crate::damage`), and refuses as it refuses any reader.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{FetchPartition, FetchRequest, FetchResponse, Route};
use weir_rpc::Problem;
use weir_types::Offset;

use super::calls::fetch::PATH;
use super::hop::{self, Ask, Hop};
use crate::broker::Broker;
use crate::calls::fetch;

/// How long the leader is given.
const PATIENCE: Duration = Duration::from_secs(2);

/// Has leaders look at what did not arrive, or could not be read, as it was written, for as long as the process lives.
pub(crate) async fn keep(broker: Arc<Broker>) {
    loop {
        let (id, offset) = broker.replication.suspects.next().await;
        let image = broker.cluster.image();
        let Some(topic) = image.topic(id.topic) else { continue };
        // What the leader makes of it is its own.
        let _said = ask(&broker, &topic.name, id.partition, offset).await;
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
