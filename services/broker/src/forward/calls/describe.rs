//! DescribePartitions: which partitions there are is known here; where one stands, its leader says.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use weir_proto::codec::Encoded;
use weir_proto::v1::{DescribePartitionsRequest, DescribePartitionsResponse, PartitionDescription};
use weir_types::BrokerId;

use crate::calls;
use crate::calls::shared::page;
use crate::forward::hop;
use crate::forward::unary::{About, Answer, Answered, Caller, put_together, read, with};

pub(in crate::forward) const PATH: &str = "/weir.v1.AdminService/DescribePartitions";

/// How long one is waited for, while a person looks. What is known without one that hangs is worth more than nothing.
const WAIT: Duration = Duration::from_secs(1);
/// How many brokers and topics are asked about at the same time.
const ASKED_AT_ONCE: usize = 16;
/// How often others than leaders are asked for one page, about partitions of one topic at a time: what people look at one by one.
const OTHERS_MAX: usize = 64;

/// Answers the call, with what others say.
pub(in crate::forward) async fn call(
    caller: Caller,
    request: Request<Encoded>,
) -> Answer<DescribePartitionsResponse> {
    // Whoever is asked on says what is known there, and asks nobody again.
    let is_asked_on = request.metadata().contains_key(hop::FORWARDED);
    let asked: DescribePartitionsRequest = read(request.get_ref())?;
    let here = calls::admin::describe_partitions(&caller.broker, with(request, asked.clone()))?.into_inner();
    let (owners, answer) = if asked.problems_only {
        problems(&caller, &asked, here).await?
    } else {
        let mut page = completed(&caller, here).await;
        if !is_asked_on {
            damage_elsewhere(&caller, &mut page).await;
        }
        (Vec::new(), page)
    };
    Ok(match owners.is_empty() {
        true => Response::new(Answered::Here(answer)),
        false => put_together(answer, owners.into_iter()),
    })
}

/// A page, with what the leaders of its partitions say of them.
async fn completed(caller: &Caller, mut page: DescribePartitionsResponse) -> DescribePartitionsResponse {
    let mut wanted: BTreeMap<(BrokerId, String), Vec<i32>> = BTreeMap::new();
    for described in &page.partitions {
        if let Some(owner) = caller.broker.owner(&described.topic, described.partition) {
            wanted.entry((owner, described.topic.clone())).or_default().push(described.partition);
        }
    }
    let answers = stream::iter(wanted)
        .map(|((owner, topic), partitions)| async move {
            let request = DescribePartitionsRequest {
                topic,
                partitions,
                page_size: page::SIZE_MAX,
                ..DescribePartitionsRequest::default()
            };
            (owner, ask(caller, owner, &request).await)
        })
        .buffer_unordered(ASKED_AT_ONCE);
    let mut told: BTreeMap<(String, i32), PartitionDescription> = BTreeMap::new();
    for (owner, answer) in answers.collect::<Vec<_>>().await {
        match answer {
            Ok(answer) => told
                .extend(answer.partitions.into_iter().map(|one| ((one.topic.clone(), one.partition), one))),
            Err(status) => {
                tracing::debug!(broker = %owner, said = status.message(), "a leader does not describe");
            }
        }
    }
    for described in &mut page.partitions {
        // The leader's word, while it takes itself for the leader; else what is known here.
        let led = told.remove(&(described.topic.clone(), described.partition));
        if let Some(led) = led.filter(|led| led.leader_epoch >= described.leader_epoch) {
            *described = led;
        }
    }
    page
}

/// What is wrong with the logs of others than the leaders: each broker knows of its own. First of partitions that nobody leads.
async fn damage_elsewhere(caller: &Caller, page: &mut DescribePartitionsResponse) {
    let (image, own) = (caller.broker.cluster.image(), caller.broker.cluster.broker_id());
    let mut wanted: BTreeMap<(bool, BrokerId, String), Vec<i32>> = BTreeMap::new();
    for one in &page.partitions {
        let others =
            one.replicas.iter().map(|id| BrokerId(*id)).filter(|id| *id != own && id.0 != one.leader);
        for id in others.filter(|id| caller.broker.peers.knows(&image, *id)) {
            wanted.entry((one.leader >= 0, id, one.topic.clone())).or_default().push(one.partition);
        }
    }
    let answers = stream::iter(wanted.into_iter().take(OTHERS_MAX))
        .map(|((_, id, topic), partitions)| async move {
            let request = DescribePartitionsRequest {
                topic,
                partitions,
                page_size: page::SIZE_MAX,
                problems_only: true,
                ..DescribePartitionsRequest::default()
            };
            let answer = ask(caller, id, &request).await.ok()?;
            Some((id, answer.partitions))
        })
        .buffer_unordered(ASKED_AT_ONCE);
    let mut found: Vec<_> = answers.filter_map(std::future::ready).collect().await;
    found.sort_by_key(|(id, _)| *id);
    for (id, said) in found.into_iter().flat_map(|(id, said)| said.into_iter().map(move |one| (id, one))) {
        let is_it =
            |one: &&mut PartitionDescription| (&one.topic, one.partition) == (&said.topic, said.partition);
        let Some(one) = page.partitions.iter_mut().find(is_it).filter(|_| !said.problem.is_empty()) else {
            continue;
        };
        // Of one that is led elsewhere it says so itself.
        let problem = match said.leader < 0 || said.leader == id.0 {
            true => of_replica(id, &said.problem),
            false => said.problem,
        };
        one.problem = both(std::mem::take(&mut one.problem), problem);
    }
}

/// What has a problem anywhere: each broker knows of its own.
async fn problems(
    caller: &Caller,
    asked: &DescribePartitionsRequest,
    here: DescribePartitionsResponse,
) -> Result<(Vec<BrokerId>, DescribePartitionsResponse), Status> {
    let image = caller.broker.cluster.image();
    let others: Vec<_> = image
        .brokers()
        .map(|broker| broker.id)
        .filter(|id| *id != caller.broker.cluster.broker_id() && caller.broker.peers.knows(&image, *id))
        .collect();
    let answers = join_all(others.iter().map(|owner| ask(caller, *owner, asked))).await;
    let mut more = !here.next_page_token.is_empty();
    let mut found: BTreeMap<(String, i32), PartitionDescription> = BTreeMap::new();
    // A broker that does not answer has no partitions that it could speak of for others.
    let told = others.iter().zip(answers).filter_map(|(id, answer)| Some((*id, answer.ok()?)));
    let mut told: Vec<_> = std::iter::once((caller.broker.cluster.broker_id(), here)).chain(told).collect();
    told.sort_by_key(|(id, _)| *id);
    for (id, answer) in told {
        more |= !answer.next_page_token.is_empty();
        for one in answer.partitions {
            gather(&mut found, id, one);
        }
    }
    // Whoever leads no more waits for nobody whom anybody waits for.
    found.retain(|(topic, partition), one| {
        let known = caller.broker.topics.get(topic).ok();
        let newest = known.and_then(|topic| Some(topic.partition(*partition).ok()?.leader_epoch));
        if newest.is_some_and(|newest| newest > one.leader_epoch) {
            one.appends_wait.clear();
            one.awaited.clear();
        }
        !(one.problem.is_empty() && one.appends_wait.is_empty())
    });
    let size = page::size(asked.page_size)?;
    more |= found.len() > size;
    let partitions: Vec<_> = found.into_values().take(size).collect();
    let next_page_token = match partitions.last() {
        Some(last) if more => page::token(image.version(), &format!("{}/{}", last.topic, last.partition)),
        _ => String::new(),
    };
    Ok((others, DescribePartitionsResponse { partitions, next_page_token }))
}

/// The newest word of a partition, with what everybody who has a log of it says of his own, and its leader of appends. In the order
/// of the brokers.
fn gather(
    found: &mut BTreeMap<(String, i32), PartitionDescription>,
    by: BrokerId,
    mut one: PartitionDescription,
) {
    // Of one that is led elsewhere it says so itself.
    if one.leader < 0 && one.replicas.len() > 1 {
        one.problem = of_replica(by, &one.problem);
    }
    let place = (one.topic.clone(), one.partition);
    if let Some(known) = found.get_mut(&place) {
        let problem = both(std::mem::take(&mut known.problem), std::mem::take(&mut one.problem));
        let is_leaders = known.leader_epoch == one.leader_epoch && !one.appends_wait.is_empty();
        if known.leader_epoch < one.leader_epoch || is_leaders {
            std::mem::swap(known, &mut one);
        }
        known.problem = problem;
        return;
    }
    found.insert(place, one);
}

/// What is wrong with one replica of several.
fn of_replica(broker: BrokerId, problem: &str) -> String {
    if problem.is_empty() { String::new() } else { format!("on broker {broker}: {problem}") }
}

/// What is wrong with several replicas, each as it says.
fn both(first: String, second: String) -> String {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, false) => second,
        (false, false) => format!("{first}; {second}"),
    }
}

async fn ask(
    caller: &Caller,
    owner: BrokerId,
    asked: &DescribePartitionsRequest,
) -> Result<DescribePartitionsResponse, Status> {
    let partition = asked.partitions.first().copied().unwrap_or(0);
    let about = About { path: PATH, topic: &asked.topic, partition, changes: false };
    let answer = timeout(WAIT, caller.ask_part(owner, about, asked)).await;
    answer.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("broker {owner} does not say within {WAIT:?}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_says_of_appends_and_what_others_say_of_their_files_is_shown_together() {
        let said = |leader_epoch, problem: &str, appends_wait: &str| PartitionDescription {
            topic: "t".into(),
            leader_epoch,
            problem: problem.into(),
            appends_wait: appends_wait.into(),
            ..PartitionDescription::default()
        };
        let (damaged, waits, older) = (said(3, "damaged", ""), said(3, "", "wait"), said(2, "", "old"));
        for order in [[&damaged, &waits, &older], [&waits, &older, &damaged], [&older, &damaged, &waits]] {
            let mut found = BTreeMap::new();
            order.into_iter().for_each(|one| gather(&mut found, BrokerId(1), one.clone()));
            let all: Vec<_> = found.into_values().collect();
            assert_eq!(all, [said(3, "damaged", "wait")], "{order:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_each_replica_is_shown() {
        let all = |leader, said: &[(i32, &str)]| {
            let mut found = BTreeMap::new();
            for (broker, problem) in said {
                let one = PartitionDescription {
                    leader,
                    replicas: vec![1, 2, 3],
                    problem: (*problem).into(),
                    ..PartitionDescription::default()
                };
                gather(&mut found, BrokerId(*broker), one);
            }
            found.into_values().map(|one| one.problem).collect::<String>()
        };
        // Followers say whose files they are.
        let led = all(1, &[(1, "a"), (2, "on broker 2: b"), (3, "on broker 3: c")]);
        assert_eq!(led, "a; on broker 2: b; on broker 3: c");
        assert_eq!(all(1, &[(1, ""), (3, "on broker 3: c")]), "on broker 3: c");
        assert_eq!(all(-1, &[(1, "a"), (2, ""), (3, "c")]), "on broker 1: a; on broker 3: c");
    }
}
