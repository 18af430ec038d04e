//! Produce. What names its partition goes to its leader as it came. What is spread by key is packed here, and each
//! partition's batch goes to its leader ([`crate::calls::produce`]).

use tonic::{Request, Response, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{AppendReceipt, ProduceRequest, ProduceResponse};
use weir_rpc::Problem;
use weir_types::BrokerId;

use crate::calls;
use crate::calls::shared::hello;
use crate::forward::unary::{About, Answer, Answered, Caller, read, with};
use crate::forward::{leads_not, not_led_there};
use crate::problems;

pub(in crate::forward) const PATH: &str = "/weir.v1.ProducerService/Produce";

/// Answers the call, or has it answered.
pub(in crate::forward) async fn call(caller: Caller, request: Request<Encoded>) -> Answer<ProduceResponse> {
    let message = request.get_ref().clone();
    let asked: ProduceRequest = read(&message)?;
    let onward = (!hello::is_direct(asked.route)).then_some(&caller);
    let Some(partition) = asked.partition.filter(|_| onward.is_some()) else {
        let answer = calls::produce::call(&caller.broker, with(request, asked), onward).await?;
        return Ok(answer.map(Answered::Here));
    };
    let topic = asked.topic.clone();
    let about = About { path: PATH, topic: &topic, partition, changes: true };
    let here = || calls::produce::call(&caller.broker, with(request, asked), None);
    caller.one(about, message, here).await
}

impl Caller {
    /// Has a batch appended that is one partition's share of a call.
    pub(crate) async fn append(
        &self,
        owner: BrokerId,
        share: &ProduceRequest,
    ) -> Result<Option<AppendReceipt>, Vec<Problem>> {
        let partition = share.partition.unwrap_or(0);
        let about = About { path: PATH, topic: &share.topic, partition, changes: true };
        let heard = |status: Status| {
            let unknown = || Problem::new(weir_proto::v1::ErrorReason::OutcomeUnknown, status.message());
            Problem::heard_of_call(&status).unwrap_or_else(|| vec![unknown().at(&share.topic, partition)])
        };
        let refused = match self.ask_part(owner, about, share).await {
            Ok(ProduceResponse { receipts }) => return Ok(receipts.into_iter().next()),
            Err(status) => status,
        };
        let Some(version) = not_led_there(&refused) else { return Err(heard(refused)) };
        self.broker.hear_of(version).await;
        let answer = match self.broker.owner(&share.topic, partition) {
            Some(next) => self.ask_part(next, about, share).await,
            None => {
                let here = calls::produce::call(&self.broker, Request::new(share.clone()), None);
                // In a box: it may be what this is a part of.
                Box::pin(here).await.map(Response::into_inner)
            }
        };
        match answer {
            Ok(ProduceResponse { receipts }) => Ok(receipts.into_iter().next()),
            Err(status) if leads_not(&status) => Err(vec![problems::moving(&share.topic, partition)]),
            Err(status) => Err(heard(status)),
        }
    }
}
