//! ListOffsets: each question to the leader of its partition.

use futures::future::join_all;
use tonic::{Request, Response, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{
    ErrorReason, Failure, ListOffsetsRequest, ListOffsetsResponse, OffsetAnswer, OffsetQuery,
};
use weir_rpc::Problem;
use weir_types::BrokerId;

use super::{Shares, all_here, only_owner, shares, these};
use crate::calls;
use crate::calls::list_offsets::For;
use crate::forward::VERSION_FACT;
use crate::forward::unary::{About, Answer, Answered, Caller, put_together, read, with};

pub(in crate::forward) const PATH: &str = "/weir.v1.ConsumerService/ListOffsets";

/// Answers the call, or has it answered.
pub(in crate::forward) async fn call(
    caller: Caller,
    request: Request<Encoded>,
) -> Answer<ListOffsetsResponse> {
    let message = request.get_ref().clone();
    let asked: ListOffsetsRequest = read(&message)?;
    let who = whose(&caller, &asked);
    if all_here(&who) {
        let answer = calls::list_offsets::call(&caller.broker, with(request, asked), For::Telling).await?;
        return Ok(answer.map(Answered::Here));
    }
    if let (Some(_), [one]) = (only_owner(&who), &*asked.queries) {
        let (topic, asked) = (one.topic.clone(), asked.clone());
        let about = About { path: PATH, topic: &topic, partition: one.partition, changes: false };
        let here = || calls::list_offsets::call(&caller.broker, with(request, asked), For::Telling);
        return caller.one(about, message, here).await;
    }
    let (owners, answer) = of_several(&caller, asked, For::Telling).await?;
    Ok(put_together(answer, owners.into_iter()))
}

fn whose(caller: &Caller, asked: &ListOffsetsRequest) -> Shares {
    shares(&caller.broker, asked.queries.iter().map(|query| (&*query.topic, query.partition)))
}

/// The answers to questions about partitions of several leaders, and who has given them.
pub(in crate::forward) async fn of_several(
    caller: &Caller,
    asked: ListOffsetsRequest,
    asked_for: For,
) -> Result<(Vec<BrokerId>, ListOffsetsResponse), Status> {
    let mut who = whose(caller, &asked);
    let mut offsets = ask_all(caller, &asked, asked_for, &who).await;
    // Who was refused for having asked the wrong one is looked for again, once.
    let refused = |answer: &OffsetAnswer| answer.failure.as_ref().and_then(not_led);
    if let Some(version) = offsets.iter().filter_map(refused).max() {
        caller.broker.hear_of(version).await;
        who = whose(caller, &asked);
        offsets = ask_all(caller, &asked, asked_for, &who).await;
    }
    let problems: Vec<_> =
        offsets.iter().filter_map(|answer| answer.failure.as_ref()).map(Problem::heard).collect();
    match Problem::status_of_all(&problems).filter(|_| !asked.allow_partial) {
        Some(status) => Err(status),
        None => Ok((who.keys().copied().flatten().collect(), ListOffsetsResponse { offsets })),
    }
}

/// Each share to its owner; the answers in the order of the questions.
async fn ask_all(
    caller: &Caller,
    asked: &ListOffsetsRequest,
    asked_for: For,
    who: &Shares,
) -> Vec<OffsetAnswer> {
    let parts = join_all(who.iter().map(async |(owner, places)| {
        let queries = these(&asked.queries, places);
        let part = ListOffsetsRequest { queries, allow_partial: true, ..asked.clone() };
        (places, ask(caller, *owner, part, asked_for).await)
    }));
    let mut answers = vec![OffsetAnswer::default(); asked.queries.len()];
    for (places, part) in parts.await {
        for (place, answer) in places.iter().zip(part) {
            if let Some(slot) = answers.get_mut(*place) {
                *slot = answer;
            }
        }
    }
    answers
}

async fn ask(
    caller: &Caller,
    owner: Option<BrokerId>,
    part: ListOffsetsRequest,
    asked_for: For,
) -> Vec<OffsetAnswer> {
    let queries = part.queries.clone();
    let answer = match (owner, queries.first()) {
        (Some(to), Some(first)) => {
            let about = About { path: PATH, topic: &first.topic, partition: first.partition, changes: false };
            caller.ask_part(to, about, &part).await
        }
        _ => {
            let answer = calls::list_offsets::call(&caller.broker, Request::new(part), asked_for).await;
            answer.map(Response::into_inner)
        }
    };
    match answer {
        Ok(ListOffsetsResponse { offsets }) => offsets,
        // Nobody has looked at the questions one by one.
        Err(status) => queries.iter().map(|query| failed(query, &status)).collect(),
    }
}

fn failed(query: &OffsetQuery, status: &Status) -> OffsetAnswer {
    let heard = Problem::heard_of_call(status).and_then(|problems| problems.into_iter().next());
    let problem = heard.unwrap_or_else(|| Problem::new(ErrorReason::Internal, status.message()));
    let OffsetQuery { topic, partition, .. } = query;
    OffsetAnswer {
        topic: topic.clone(),
        partition: *partition,
        failure: Some(problem.at(topic, *partition).failure()),
        ..OffsetAnswer::default()
    }
}

/// The version by which another broker has refused a part because it does not lead.
pub(super) fn not_led(failure: &Failure) -> Option<i64> {
    let version = failure.metadata.get(VERSION_FACT);
    (failure.reason() == ErrorReason::NotLeader)
        .then(|| version.and_then(|version| version.parse().ok()).unwrap_or(0))
}
