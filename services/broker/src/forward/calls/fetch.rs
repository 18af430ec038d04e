//! Fetch: each partition from its leader, and one answer of all.
//!
//! Of several leaders all are asked for what is there. If that is not enough, each is asked to say when there is as much
//! more as is missing; whoever does so first ends the wait, and all are asked again. What is there is never held back
//! longer than the caller waits, but what only leaders together would have is waited for to the end.

use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Request, Status};
use weir_proto::codec::{Encoded, Outgoing};
use weir_proto::v1::{ErrorReason, FetchPartition, FetchRequest, FetchResponse, FetchedPartition};
use weir_rpc::{ConnectionInfo, LongCall, Problem, deadline};
use weir_types::BrokerId;

use super::list_offsets::not_led;
use super::{Shares, all_here, only_owner, shares, these};
use crate::calls;
use crate::calls::shared::{hello, message_limit};
use crate::forward::unary::{About, Answer, Answered, Caller, put_together, read, with};
use crate::plain_message::Fetched;

pub(in crate::forward) const PATH: &str = "/weir.v1.ConsumerService/Fetch";

/// What is left of the caller's time when a wait has ended: all are asked once more.
const LAST_ROUND: Duration = Duration::from_millis(200);

/// Answers the call, or has it answered.
pub(in crate::forward) async fn call(caller: Caller, request: Request<Encoded>) -> Answer<Fetched> {
    let message = request.get_ref().clone();
    let asked: FetchRequest = read(&message)?;
    let who = whose(&caller, &asked);
    if all_here(&who) || hello::is_direct(asked.route) {
        return Ok(calls::fetch::call(&caller.broker, with(request, asked)).await?.map(Answered::Here));
    }
    let _long = long_call(&caller, &request, &asked)?;
    if let (Some(owner), Some(first)) = (only_owner(&who), asked.partitions.first()) {
        let about = about(first);
        let answer = caller.ask::<Fetched>(owner, about, message.clone()).await?;
        let Some(version) = calls::fetch::not_led(answer.metadata()) else { return Ok(answer) };
        caller.broker.hear_of(version).await;
        let who = whose(&caller, &asked);
        if let Some(owner) = only_owner(&who) {
            return caller.ask(owner, about, message).await;
        }
        return of_several(&caller, &asked, who).await;
    }
    of_several(&caller, &asked, who).await
}

fn whose(caller: &Caller, asked: &FetchRequest) -> Shares {
    shares(&caller.broker, asked.partitions.iter().map(|wanted| (&*wanted.topic, wanted.partition)))
}

fn about(wanted: &FetchPartition) -> About<'_> {
    About { path: PATH, topic: &wanted.topic, partition: wanted.partition, changes: false }
}

/// A call that may wait counts where it came in, too.
fn long_call(
    caller: &Caller,
    request: &Request<Encoded>,
    asked: &FetchRequest,
) -> Result<Option<LongCall>, Problem> {
    let connection = request.extensions().get::<ConnectionInfo>().filter(|_| asked.wait_ms != Some(0));
    let max = caller.broker.config.long_calls_per_connection_max;
    connection.map(|connection| connection.long_call(max)).transpose()
}

/// What several leaders have.
struct Round {
    partitions: Vec<FetchedPartition>,
    bytes: usize,
    /// The version by which somebody refused because he does not lead.
    not_led: Option<i64>,
}

async fn of_several(caller: &Caller, asked: &FetchRequest, mut who: Shares) -> Answer<Fetched> {
    let started = Instant::now();
    let at_once = FetchRequest { wait_ms: Some(0), ..asked.clone() };
    let mut round = all(caller, &at_once, &who).await?;
    if let Some(version) = round.not_led {
        caller.broker.hear_of(version).await;
        who = whose(caller, asked);
        round = all(caller, &at_once, &who).await?;
    }
    let until = until(caller, asked, started);
    let missing = usize::try_from(asked.bytes_min).unwrap_or(0).max(1).saturating_sub(round.bytes);
    let settled = round.partitions.iter().any(|partition| partition.failure.is_some());
    if missing > 0 && !settled && Instant::now() < until {
        // Every branch is cancel safe: what was said is asked for again.
        tokio::select! {
            () = comes(caller, asked, &who, &round, missing, until) => {}
            () = tokio::time::sleep_until(until) => {}
            () = caller.broker.stopping.requested() => {}
        }
        round = all(caller, &at_once, &who).await?;
    }
    fit(asked, &mut round.partitions)?;
    let waited_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let answer = FetchResponse { partitions: round.partitions, waited_ms };
    let answer = Encoded(answer.encode_to_vec().into());
    Ok(put_together(answer, who.into_keys().flatten()).map(|answer| match answer {
        Answered::Here(answer) | Answered::There(answer) => Answered::There(answer),
    }))
}

/// How long the caller waits.
fn until(caller: &Caller, asked: &FetchRequest, started: Instant) -> Instant {
    let config = &caller.broker.config;
    let wait = asked.wait_ms.map_or(config.wait_ms_default, |ms| {
        Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(config.wait_ms_max)
    });
    let ends =
        caller.hop.ends().map(|ends| deadline::before(ends).checked_sub(LAST_ROUND).unwrap_or(started));
    ends.map_or(started + wait, |ends| ends.min(started + wait))
}

/// Asks each for its share; what comes is in the order in which it was asked for.
async fn all(caller: &Caller, asked: &FetchRequest, who: &Shares) -> Result<Round, Status> {
    let parts = join_all(who.iter().map(async |(owner, places)| {
        let part = FetchRequest { partitions: these(&asked.partitions, places), ..asked.clone() };
        (places, ask(caller, *owner, &part).await)
    }));
    let mut partitions = vec![FetchedPartition::default(); asked.partitions.len()];
    for (places, part) in parts.await {
        let part = match part {
            Ok(part) => part.partitions,
            // What is wrong with the request is wrong with all of it.
            Err(status) if is_about_the_request(&status) => return Err(status),
            Err(status) => places.iter().map(|_| failed(&status)).collect(),
        };
        for (place, fetched) in places.iter().zip(part) {
            if let Some(slot) = partitions.get_mut(*place) {
                *slot = fetched;
            }
        }
    }
    let filled = |fetched: &&FetchedPartition| !fetched.records.is_empty() || !fetched.batches.is_empty();
    Ok(Round {
        bytes: partitions.iter().filter(filled).map(Message::encoded_len).sum(),
        not_led: partitions.iter().filter_map(|fetched| not_led(fetched.failure.as_ref()?)).max(),
        partitions,
    })
}

fn is_about_the_request(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::Unimplemented | Code::ResourceExhausted)
}

fn failed(status: &Status) -> FetchedPartition {
    let heard = Problem::heard_of_call(status).and_then(|problems| problems.into_iter().next());
    let problem = heard.unwrap_or_else(|| Problem::new(ErrorReason::Internal, status.message()));
    FetchedPartition { failure: Some(problem.failure()), ..FetchedPartition::default() }
}

async fn ask(caller: &Caller, owner: Option<BrokerId>, part: &FetchRequest) -> Result<FetchResponse, Status> {
    if let (Some(to), Some(first)) = (owner, part.partitions.first()) {
        return caller.ask_part(to, about(first), part).await;
    }
    let answer = calls::fetch::call(&caller.broker, Request::new(part.clone())).await?;
    let mut bytes = bytes::BytesMut::with_capacity(answer.get_ref().length());
    answer.get_ref().write(&mut bytes);
    FetchResponse::decode(bytes.freeze()).map_err(|error| Status::internal(error.to_string()))
}

/// Waits until somebody has so much more, or something that waiting does not mend.
async fn comes(
    caller: &Caller,
    asked: &FetchRequest,
    who: &Shares,
    round: &Round,
    missing: usize,
    until: Instant,
) {
    let behind = |place: &usize| {
        let next = round.partitions.get(*place)?.progress.as_ref()?.next_offset;
        Some(FetchPartition { offset: next, leader_epoch: None, ..asked.partitions.get(*place)?.clone() })
    };
    let left = until.saturating_duration_since(Instant::now());
    let missing = i32::try_from(missing).unwrap_or(i32::MAX);
    let parts = who.iter().map(|(owner, places)| {
        let part = FetchRequest {
            partitions: places.iter().filter_map(behind).collect(),
            wait_ms: Some(i64::try_from(left.as_millis()).unwrap_or(0)),
            bytes_min: missing,
            // It is read again; what does not fit is not needed to know that it came.
            bytes_max: missing,
            ..asked.clone()
        };
        async move { ask(caller, *owner, &part).await }
    });
    let mut parts: FuturesUnordered<_> = parts.collect();
    while let Some(part) = parts.next().await {
        let came = |fetched: &FetchedPartition| {
            !fetched.records.is_empty() || !fetched.batches.is_empty() || fetched.failure.is_some()
        };
        if part.is_err() || part.is_ok_and(|part| part.partitions.iter().any(came)) {
            return;
        }
    }
}

/// Leaves out what would not fit the answer: it is asked for again.
fn fit(asked: &FetchRequest, partitions: &mut [FetchedPartition]) -> Result<(), Problem> {
    let message = message_limit::check(asked.message_bytes_max)?;
    let limit = match usize::try_from(asked.bytes_max) {
        Ok(0) | Err(_) => message,
        Ok(given) => given.min(message),
    };
    let mut taken = 0;
    for (fetched, wanted) in partitions.iter_mut().zip(&asked.partitions) {
        let bytes = fetched.encoded_len();
        let filled = !fetched.records.is_empty() || !fetched.batches.is_empty();
        if filled && taken > 0 && taken + bytes > limit {
            fetched.records.clear();
            fetched.batches.clear();
            if let Some(progress) = &mut fetched.progress {
                (progress.next_offset, progress.leader_epoch) = (wanted.offset, wanted.leader_epoch);
            }
        } else if filled {
            taken += bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_proto::v1::{PartitionProgress, RecordBatch};

    use super::*;

    fn fetched(bytes: usize) -> FetchedPartition {
        let progress = PartitionProgress { next_offset: 9, ..PartitionProgress::default() };
        let batch = RecordBatch { records: vec![7; bytes].into(), ..RecordBatch::default() };
        FetchedPartition { progress: Some(progress), batches: vec![batch], ..FetchedPartition::default() }
    }

    #[test]
    fn what_does_not_fit_is_left_for_the_next_call_and_the_first_comes_whole() {
        let wanted = FetchPartition { offset: 3, ..FetchPartition::default() };
        let asked = FetchRequest { partitions: vec![wanted; 3], bytes_max: 1_000, ..FetchRequest::default() };
        let mut partitions = [fetched(5_000), fetched(100), FetchedPartition::default()];
        fit(&asked, &mut partitions).unwrap();
        let told = partitions
            .map(|fetched| (fetched.batches.len(), fetched.progress.map(|progress| progress.next_offset)));
        assert_eq!(told, [(1, Some(9)), (0, Some(3)), (0, None)]);
    }
}
