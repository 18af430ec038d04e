//! GetAppendOutcome, to the leader of its partition.

use tonic::Request;
use weir_proto::codec::Encoded;
use weir_proto::v1::{GetAppendOutcomeRequest, GetAppendOutcomeResponse};

use crate::calls;
use crate::forward::unary::{About, Answer, Caller, read, with};

pub(in crate::forward) const PATH: &str = "/weir.v1.ProducerService/GetAppendOutcome";

/// Answers the call, or has it answered.
pub(in crate::forward) async fn call(
    caller: Caller,
    request: Request<Encoded>,
) -> Answer<GetAppendOutcomeResponse> {
    let message = request.get_ref().clone();
    let asked: GetAppendOutcomeRequest = read(&message)?;
    let topic = asked.topic.clone();
    // A seal may be laid twice: the second time it is found.
    let about = About { path: PATH, topic: &topic, partition: asked.partition, changes: false };
    let here = || calls::append_outcome::call(&caller.broker, with(request, asked));
    caller.one(about, message, here).await
}
