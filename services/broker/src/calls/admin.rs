//! What operators ask.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_cluster::public;
use weir_proto::internal::v1 as wire;
use weir_proto::v1::{
    BrokerDescription, ConfigSource, ConfigValue, DescribePartitionsRequest, DescribePartitionsResponse,
    ElectLeadersRequest, ElectLeadersResponse, ErrorReason, FinalizeFeatureLevelRequest,
    FinalizeFeatureLevelResponse, FollowerDescription, ListBrokersRequest, ListBrokersResponse,
    ListConfigsRequest, ListConfigsResponse, ListVotersRequest, ListVotersResponse, LogDirectory,
    PartitionDescription, RemoveBrokerRequest, RemoveBrokerResponse, TrustBrokerRequest, TrustBrokerResponse,
    UpdateConfigsRequest, UpdateConfigsResponse, UpdateVotersRequest, UpdateVotersResponse,
};
use weir_rpc::Problem;
use weir_types::BrokerId;

use crate::awaited::{self, Awaited};
use crate::broker::Broker;
use crate::calls::shared::{of_controller, page};
use crate::calls::topics::check_batch_bytes;
use crate::cluster::{answer_by, ensure_request_id, tell_by};
use crate::leaderless;
use crate::reading;
use crate::replication::Lag;
use crate::topic_map::{Placed, Topic};

/// One page of the brokers.
pub(crate) fn list_brokers(
    broker: &Broker,
    request: Request<ListBrokersRequest>,
) -> Result<Response<ListBrokersResponse>, Status> {
    let request = request.into_inner();
    let size = page::size(request.page_size)?;
    let after: i32 = match page::after(&request.page_token)? {
        token if token.is_empty() => i32::MIN,
        token => token.parse().map_err(|_| {
            Problem::new(ErrorReason::PageTokenInvalid, "page_token is not one of this call's")
        })?,
    };
    let image = broker.cluster.image();
    let mut listed = image.brokers().filter(|other| other.id.0 > after);
    let mut brokers: Vec<_> = listed.by_ref().take(size).map(|other| public::broker(&image, other)).collect();
    let next_page_token = match (listed.next(), brokers.last()) {
        (Some(_), Some(last)) => page::token(image.version(), &last.broker_id.to_string()),
        _ => String::new(),
    };
    if let Some(own) = brokers.iter_mut().find(|other| other.broker_id == broker.cluster.broker_id().0) {
        take_directories(own, vec![own_directory(broker)]);
        own.unreached = broker.cluster.reach.unreached(&image);
    }
    Ok(Response::new(ListBrokersResponse { brokers, next_page_token }))
}

/// Each directory is as its broker says. What has failed is on record, also of those that it has come without.
pub(crate) fn take_directories(broker: &mut BrokerDescription, own_word: Vec<LogDirectory>) {
    for own in own_word {
        let Some(known) = broker.directories.iter_mut().find(|known| known.directory_id == own.directory_id)
        else {
            continue;
        };
        let failures = std::mem::take(&mut known.failures);
        *known = LogDirectory { online: own.online && failures.is_empty(), failures, ..own };
    }
}

fn own_directory(broker: &Broker) -> LogDirectory {
    let space = broker.log_dir.space();
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    LogDirectory {
        directory_id: broker.log_dir.directory_id().to_string(),
        path: broker.data_dir.display().to_string(),
        total_bytes: space.as_ref().map_or(0, |space| bytes(space.total_bytes)),
        available_bytes: space.as_ref().map_or(0, |space| bytes(space.available_bytes)),
        online: space.is_ok(),
        reserved_bytes: bytes(broker.config.disk_reserved_bytes),
        missing_bytes: bytes(broker.log_dir.missing_bytes()),
        failures: Vec::new(),
    }
}

/// The cluster's settings, or this broker's. Those of another broker are known to itself alone.
pub(crate) fn list_configs(
    broker: &Broker,
    request: Request<ListConfigsRequest>,
) -> Result<Response<ListConfigsResponse>, Status> {
    let image = broker.cluster.image();
    let configs = match request.into_inner().broker_id {
        None => public::cluster_configs(image.cluster_settings()),
        Some(id) if id == broker.cluster.broker_id().0 => {
            let mut settings: Vec<_> = broker.settings.iter().map(own_setting).collect();
            settings.sort_by(|a, b| a.name.cmp(&b.name));
            settings
        }
        Some(id) if image.brokers().any(|other| other.id.0 == id) => {
            let what = format!("broker_id is {id}: a broker's settings are asked for at that broker");
            return Err(Problem::new(ErrorReason::NotSupported, what).into());
        }
        Some(id) => {
            let what = format!("there is no broker {id} (weir broker list)");
            return Err(Problem::new(ErrorReason::BrokerNotFound, what).into());
        }
    };
    Ok(Response::new(ListConfigsResponse { configs }))
}

/// A setting of this process. It was read when the process started, wherever it stands.
fn own_setting(setting: &weir_config::Resolved) -> ConfigValue {
    let source = match setting.source {
        weir_config::Source::Default => ConfigSource::Default,
        _ => ConfigSource::Broker,
    };
    ConfigValue {
        name: setting.key.name.to_owned(),
        value: setting.value.stored(),
        source: source.into(),
        default_value: setting.default_stored(),
        unit: setting.key.kind.unit().to_owned(),
        help: setting.key.help(),
        sensitive: false,
        needs_restart: true,
        origin: setting.source.to_string(),
    }
}

/// Changes the cluster's settings.
pub(crate) async fn update_configs(
    broker: &Arc<Broker>,
    request: Request<UpdateConfigsRequest>,
) -> Result<Response<UpdateConfigsResponse>, Status> {
    let until = answer_by(&request);
    let mut request = request.into_inner();
    no_broker_settings(request.broker_id)?;
    check_batch_bytes(broker, request.set_config.get("batch_bytes_max").map(String::as_str))?;
    ensure_request_id(&*broker.os, &mut request.request_id);
    let request = wire::UpdateConfigsRequest { request: Some(request) };
    let answer = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.update_configs(request).await })
        .await?;
    done(broker, answer.metadata_version, answer.response).await
}

/// What a controller did, once this broker has seen it.
async fn done<R>(broker: &Broker, version: i64, response: Option<R>) -> Result<Response<R>, Status> {
    let response = of_controller(response)?;
    broker.cluster.seen(version).await;
    Ok(Response::new(response))
}

/// Takes a broker out of the cluster.
pub(crate) async fn remove_broker(
    broker: &Arc<Broker>,
    request: Request<RemoveBrokerRequest>,
) -> Result<Response<RemoveBrokerResponse>, Status> {
    let until = answer_by(&request);
    let request = wire::RemoveBrokerRequest { request: Some(request.into_inner()) };
    let change = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.remove_broker(request).await });
    let answer = change.await?;
    done(broker, answer.metadata_version, answer.response).await
}

/// Lets a broker use its failed log directories again.
pub(crate) async fn trust_broker(
    broker: &Arc<Broker>,
    request: Request<TrustBrokerRequest>,
) -> Result<Response<TrustBrokerResponse>, Status> {
    let until = answer_by(&request);
    let request = wire::TrustBrokerRequest { request: Some(request.into_inner()) };
    let change = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.trust_broker(request).await });
    let answer = change.await?;
    done(broker, answer.metadata_version, answer.response).await
}

/// Takes controllers out of the quorum.
pub(crate) async fn update_voters(
    broker: &Arc<Broker>,
    request: Request<UpdateVotersRequest>,
) -> Result<Response<UpdateVotersResponse>, Status> {
    let until = answer_by(&request);
    let request = wire::UpdateVotersRequest { request: Some(request.into_inner()) };
    let change = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.update_voters(request).await });
    let answer = change.await?;
    done(broker, answer.metadata_version, answer.response).await
}

/// Elects leaders.
pub(crate) async fn elect_leaders(
    broker: &Arc<Broker>,
    request: Request<ElectLeadersRequest>,
) -> Result<Response<ElectLeadersResponse>, Status> {
    let until = answer_by(&request);
    let request = wire::ElectLeadersRequest { request: Some(request.into_inner()) };
    let change = broker
        .cluster
        .change_by(until, request, |mut client, request| async move { client.elect_leaders(request).await });
    let answer = change.await?;
    done(broker, answer.metadata_version, answer.response).await
}

/// Makes an upgrade final.
pub(crate) async fn finalize_feature_level(
    broker: &Arc<Broker>,
    request: Request<FinalizeFeatureLevelRequest>,
) -> Result<Response<FinalizeFeatureLevelResponse>, Status> {
    let until = answer_by(&request);
    let request = wire::FinalizeFeatureLevelRequest { request: Some(request.into_inner()) };
    let change = broker.cluster.change_by(until, request, |mut client, request| async move {
        client.finalize_feature_level(request).await
    });
    let answer = change.await?;
    done(broker, answer.metadata_version, answer.response).await
}

fn no_broker_settings(broker_id: Option<i32>) -> Result<(), Problem> {
    match broker_id {
        None => Ok(()),
        Some(id) => Err(Problem::new(
            ErrorReason::NotSupported,
            format!(
                "broker_id is {id}: a broker's settings are changed in its configuration file or environment, and \
                 in force when it starts; leave broker_id out for the cluster's"
            ),
        )),
    }
}

/// The controllers.
pub(crate) async fn list_voters(
    broker: &Arc<Broker>,
    request: Request<ListVotersRequest>,
) -> Result<Response<ListVotersResponse>, Status> {
    let answer = broker
        .cluster
        .look_by(tell_by(&request), |mut client| async move {
            client.list_voters(wire::ListVotersRequest {}).await
        })
        .await?;
    Ok(Response::new(ListVotersResponse { voters: answer.voters }))
}

/// Where partitions stand on this broker.
pub(crate) fn describe_partitions(
    broker: &Broker,
    request: Request<DescribePartitionsRequest>,
) -> Result<Response<DescribePartitionsResponse>, Status> {
    let request = request.into_inner();
    let size = page::size(request.page_size)?;
    let after = parse_after(&page::after(&request.page_token)?)?;
    let mut topics: Vec<Arc<Topic>> = if request.topic.is_empty() {
        broker.topics.load().iter().cloned().collect()
    } else {
        vec![broker.topics.get(&request.topic)?]
    };
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    if let [topic] = &*topics {
        for partition in &request.partitions {
            topic.partition(*partition)?;
        }
    } else if !request.partitions.is_empty() {
        return Err(Problem::required("topic", "partitions are those of one topic").into());
    }
    let named = |partition: i32| request.partitions.is_empty() || request.partitions.contains(&partition);
    let wanted = |topic: &Topic, partition: i32, placed: &Placed| {
        let id = weir_types::PartitionId { topic: topic.id, partition };
        let is_unwell =
            || problem(broker, id, placed).is_some() || appends_wait(placed, &awaited(placed)).is_some();
        named(partition) && (!request.problems_only || is_unwell())
    };
    let mut rest = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |(number, placed)| (topic, *number, placed)))
        .filter(|(topic, number, _)| (topic.name.to_string(), *number) > after)
        .filter(|(topic, number, placed)| wanted(topic, *number, placed));
    let image = broker.cluster.image();
    let partitions: Vec<_> = rest
        .by_ref()
        .take(size)
        .map(|(topic, number, placed)| describe(broker, &image, topic, number, placed))
        .collect();
    let next_page_token = match (rest.next(), partitions.last()) {
        (Some(_), Some(last)) => page::token(image.version(), &format!("{}/{}", last.topic, last.partition)),
        _ => String::new(),
    };
    Ok(Response::new(DescribePartitionsResponse { partitions, next_page_token }))
}

fn parse_after(token: &str) -> Result<(String, i32), Problem> {
    if token.is_empty() {
        return Ok((String::new(), -1));
    }
    token
        .rsplit_once('/')
        .and_then(|(topic, number)| Some((topic.to_owned(), number.parse().ok()?)))
        .ok_or_else(|| Problem::new(ErrorReason::PageTokenInvalid, "page_token is not one of this call's"))
}

/// What is wrong with a partition's files here, if anything is known to be. Of one that another broker leads it says whose
/// files these are.
fn problem(broker: &Broker, id: weir_types::PartitionId, placed: &Placed) -> Option<String> {
    let of_log = || broker.damage.of(&broker.log_dir.partition(id)?);
    let of_place = |said: &Option<Arc<str>>| said.as_deref().map(str::to_owned);
    let problem = of_place(&placed.problem).or_else(|| of_place(&placed.mends)).or_else(of_log)?;
    let me = broker.cluster.broker_id();
    Some(match placed.leader.is_some_and(|leader| leader != me) {
        true => format!("on broker {me}: {problem}"),
        false => problem,
    })
}

/// Whom appends wait for, as far as this broker leads.
fn awaited(placed: &Placed) -> Awaited {
    placed.led.as_ref().map(|led| led.awaited(awaited::MOMENT_MS)).unwrap_or_default()
}

/// The same in words; or whom the leader hears before there can be any.
fn appends_wait(placed: &Placed, awaited: &Awaited) -> Option<String> {
    placed.hears().or_else(|| awaited.said())
}

fn describe(
    broker: &Broker,
    image: &weir_metadata::Image,
    topic: &Topic,
    number: i32,
    placed: &Placed,
) -> PartitionDescription {
    let id = weir_types::PartitionId { topic: topic.id, partition: number };
    let record = image.partition(id);
    let described = PartitionDescription {
        topic: topic.name.to_string(),
        partition: number,
        leader: placed.leader.map_or(-1, |leader| leader.0),
        leader_epoch: placed.leader_epoch,
        replicas: record
            .map(|r| r.replicas.iter().map(|replica| replica.broker.0).collect())
            .unwrap_or_default(),
        isr: record.map(|r| r.isr.iter().map(|member| member.0).collect()).unwrap_or_default(),
        eligible: record.map(|r| r.elr.iter().map(|member| member.0).collect()).unwrap_or_default(),
        partition_epoch: record.map_or(0, |r| r.partition_epoch),
        min_insync_replicas: record.map_or(0, |r| r.min_insync),
        last_known_leader: record.and_then(|r| r.last_known_leader).map_or(-1, |leader| leader.0),
        unclean_epoch: record.map_or(0, |r| r.unclean_epoch),
        waits_for_a_person: record.is_some_and(|r| r.waits_for_a_person()),
        waits_for_the_longest: record.is_some_and(|r| leaderless::waits_for_the_longest(image, id, r)),
        local: placed.local.is_some(),
        problem: problem(broker, id, placed).unwrap_or_default(),
        directory_id: broker.log_dir.directory_id().to_string(),
        ..PartitionDescription::default()
    };
    let Some(log) = &placed.local else { return described };
    let others = described.replicas.iter().filter(|id| **id != broker.cluster.broker_id().0);
    let lag = |id: &i32| placed.led.as_ref().map(|led| (*id, led.lag_of(BrokerId(*id))));
    let in_sync = |id: i32| described.isr.contains(&id);
    let followers = others.filter_map(lag).map(|(id, lag)| follower(id, in_sync(id), &lag)).collect();
    let ends = log.ends();
    let files = log.describe();
    let awaited = awaited(placed);
    PartitionDescription {
        log_start_offset: ends.log_start,
        flushed_offset: ends.flushed_end,
        high_watermark: reading::told(&ends, ends.high_watermark),
        last_stable_offset: reading::told(&ends, ends.last_stable),
        last_append_ms: files.last_append_ms.unwrap_or(0),
        log_end_offset: ends.log_end,
        size_bytes: i64::try_from(files.bytes).unwrap_or(i64::MAX),
        segments: i32::try_from(files.segments).unwrap_or(i32::MAX),
        followers,
        appends_wait: appends_wait(placed, &awaited).unwrap_or_default(),
        awaited: awaited.to_wire(),
        ..described
    }
}

fn follower(broker_id: i32, in_sync: bool, lag: &Lag) -> FollowerDescription {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    FollowerDescription {
        broker_id,
        log_end_offset: lag.ends.map_or(-1, |ends| ends.written),
        flushed_offset: lag.ends.map_or(-1, |ends| ends.flushed),
        lag_records: lag.records,
        lag_bytes: signed(lag.bytes),
        lag_ms: signed(lag.ms),
        in_sync,
    }
}
