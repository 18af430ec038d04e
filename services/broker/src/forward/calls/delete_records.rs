//! DeleteRecords: the start of each log is moved by its leader.

use futures::future::join_all;
use tonic::{Request, Response, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{Applied, DeleteRecordsRequest, DeleteRecordsResponse, ErrorReason};
use weir_rpc::Problem;
use weir_types::BrokerId;

use super::{all_here, only_owner, shares, these};
use crate::calls;
use crate::forward::not_led_there;
use crate::forward::unary::{About, Answer, Answered, Caller, put_together, read, with};

pub(in crate::forward) const PATH: &str = "/weir.v1.TopicService/DeleteRecords";

/// Answers the call, or has it answered.
pub(in crate::forward) async fn call(
    caller: Caller,
    request: Request<Encoded>,
) -> Answer<DeleteRecordsResponse> {
    let message = request.get_ref().clone();
    let asked: DeleteRecordsRequest = read(&message)?;
    let who = shares(&caller.broker, asked.before.iter().map(|before| (&*asked.topic, before.partition)));
    let here = |asked| calls::delete_records::call(&caller.broker, with(request, asked));
    if all_here(&who) {
        return Ok(here(asked).await?.map(Answered::Here));
    }
    if let (Some(_), Some(first)) = (only_owner(&who), asked.before.first()) {
        let (topic, partition) = (asked.topic.clone(), first.partition);
        let about = About { path: PATH, topic: &topic, partition, changes: true };
        return caller.one(about, message, || here(asked)).await;
    }
    let parts = join_all(who.iter().map(|(owner, places)| {
        let part = DeleteRecordsRequest { before: these(&asked.before, places), ..asked.clone() };
        ask(&caller, *owner, part)
    }));
    let (moved, failed): (Vec<_>, Vec<_>) = parts.await.into_iter().partition(Result::is_ok);
    let mut failed = failed.into_iter().filter_map(Result::err);
    let Some(status) = failed.next() else {
        let mut log_start: Vec<_> =
            moved.into_iter().filter_map(Result::ok).flat_map(|part| part.log_start).collect();
        let place = |partition| asked.before.iter().position(|before| before.partition == partition);
        log_start.sort_by_key(|start| place(start.partition));
        return Ok(put_together(DeleteRecordsResponse { log_start }, who.into_keys().flatten()));
    };
    let heard = Problem::heard_of_call(&status).and_then(|problems| problems.into_iter().next());
    let problem = heard.unwrap_or_else(|| Problem::new(ErrorReason::Internal, status.message()));
    // Some logs begin elsewhere now, or may: the call as a whole is not "not applied".
    let none = moved.is_empty() && problem.applied == Applied::No && failed.next().is_none();
    Err(problem.applied(if none { Applied::No } else { Applied::Maybe }).status())
}

async fn ask(
    caller: &Caller,
    owner: Option<BrokerId>,
    part: DeleteRecordsRequest,
) -> Result<DeleteRecordsResponse, Status> {
    let here = async |part| {
        let answer = calls::delete_records::call(&caller.broker, Request::new(part)).await;
        answer.map(Response::into_inner)
    };
    let (Some(to), Some(first)) = (owner, part.before.first()) else { return here(part).await };
    let about = About { path: PATH, topic: &part.topic, partition: first.partition, changes: true };
    let refused = match caller.ask_part(to, about, &part).await {
        Err(status) => status,
        answered => return answered,
    };
    let Some(version) = not_led_there(&refused) else { return Err(refused) };
    caller.broker.hear_of(version).await;
    match caller.broker.owner(&part.topic, about.partition) {
        Some(next) => caller.ask_part(next, about, &part).await,
        None => here(part.clone()).await,
    }
}
