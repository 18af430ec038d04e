//! `weir doctor`: the way to the server, step by step, and what is wrong with it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use weir_proto::v1::{
    Broker, BrokerDescription, BrokerState, GetMetadataRequest, GetServerInfoRequest, GetServerInfoResponse,
    PartitionDescription,
};

use crate::address::{self, Address, Source};
use crate::commands::{broker, partition, status};
use crate::connect;
use crate::error::{Error, Result};
use crate::offsets;
use crate::output::{self, View};
use crate::session::Session;
use crate::units;

/// How many round trips are measured; the shortest is shown.
const ROUNDS: usize = 5;
/// How far clocks may be apart before it is worth a word.
const SKEW_MS: i64 = 1_000;
/// How many partitions that are damaged or offline are named one by one.
const NAMED: usize = 10;
/// The listener that is for clients.
const PUBLIC: &str = "public";
/// What stock clients take.
const STOCK_MESSAGE_BYTES: u64 = 4 << 20;

/// Check the way to the server, step by step
#[derive(Debug, Args)]
#[command(after_help = "\
It connects, asks who is there, measures the round trip, compares versions and clocks, and dials
every address that the brokers give to clients: a client that connects and then hangs mostly
fails at the last step. It ends with 5 where an address cannot be reached, and with 1 where
brokers are down, partitions are damaged or offline, or a disk is too full to append to.

Examples:
  $ weir doctor
  $ weir doctor -v
  $ weir doctor -o json --timeout 5s")]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        let address = session.address()?;
        let (info, round_trip, skew_ms) = ask(session).await?;
        let mut client = session.metadata().await?;
        let request = GetMetadataRequest { page_size: 1, ..GetMetadataRequest::default() };
        let brokers = session.read(client.get_metadata(session.request(request))).await?.brokers;
        let described = broker::all(session).await?;
        let Dialled { unreachable, down, mut warnings } =
            dial_all(session, &address, &info, &described).await;
        let mut problems: Vec<String> = unreachable.iter().chain(&down).cloned().collect();
        let unwell = unwell_partitions(session, &described).await?;
        problems.extend(said_of(&unwell));
        let full: Vec<String> = broker::full(&described).map(broker::said_of_full).collect();
        problems.extend(full.iter().cloned());
        if skew_ms.abs() > SKEW_MS {
            let apart = units::elapsed(Duration::from_millis(skew_ms.unsigned_abs()));
            let side = if skew_ms > 0 { "ahead of" } else { "behind" };
            warnings.push(format!(
                "the server's clock is {apart} {side} this machine's: timestamps and @-1h are off by that"
            ));
        }
        let own = env!("CARGO_PKG_VERSION");
        if info.version != own {
            warnings.push(format!("this program is weir {own}, the server {}", info.version));
        }
        let ok = if problems.is_empty() { "ok" } else { "fail" };
        let cluster = match info.cluster_id.get(..4) {
            Some(head) => format!("{head}…"),
            None => info.cluster_id.clone(),
        };
        let line = format!(
            "{ok}  {address}  weir {}, cluster {cluster}, broker {} of {}, round trip {}, no TLS, messages up to {} \
             by default",
            info.version,
            info.broker_id,
            described.iter().filter(|broker| broker.state() != BrokerState::Removed).count(),
            units::elapsed(round_trip),
            units::binary_bytes(STOCK_MESSAGE_BYTES),
        );
        let object = serde_json::json!({
            "address": address.to_string(), "from": address.source.to_string(),
            "server": output::proto_json(&info, "weir.v1.GetServerInfoResponse"),
            "roundTripUs": u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX),
            "clockSkewMs": skew_ms, "tls": false,
            "brokers": brokers.iter().map(|b| output::proto_json(b, "weir.v1.Broker")).collect::<Vec<_>>(),
            "warnings": warnings, "problems": problems,
        });
        let mut view = View::sentence(line, address.to_string(), object);
        if session.verbose() > 0 {
            details(&mut view, &info, &brokers, skew_ms);
        }
        warnings.iter().for_each(|warning| view.line(format!("warn  {warning}")));
        problems.iter().for_each(|problem| view.line(format!("fail  {problem}")));
        session.print(&view)?;
        verdict(unreachable.len(), down.len(), unwell.len(), full.len())
    }
}

/// How it ends: what cannot be reached comes first, for nothing else can be relied on then.
fn verdict(unreachable: usize, down: usize, unwell: usize, full: usize) -> Result<()> {
    let mut said = Vec::new();
    if unreachable > 0 {
        let addresses = units::counted(unreachable as i64, "address");
        said.push(format!("{addresses} that the server gives to clients cannot be reached from here"));
    }
    if down > 0 {
        said.push(format!("{} down (weir broker list)", are(down, "broker")));
    }
    match unwell {
        0 => {}
        1 => said.push("1 partition is damaged or offline (weir topic list)".to_owned()),
        n => said.push(format!(
            "{} are damaged or offline (weir topic list)",
            units::counted(n as i64, "partition")
        )),
    }
    match full {
        0 => {}
        1 => said.push("1 disk is full: appends are refused".to_owned()),
        n => said.push(format!("{} are full: appends are refused", units::counted(n as i64, "disk"))),
    }
    let said = said.join("; ");
    match (unreachable, down + unwell + full) {
        (0, 0) => Ok(()),
        (0, _) => Err(Error::Failed(said)),
        _ => Err(Error::Unreachable(said)),
    }
}

/// Asks the server who it is, several times: its answer, the shortest round trip, how far its clock is ahead.
async fn ask(session: &Session) -> Result<(GetServerInfoResponse, Duration, i64)> {
    let mut client = session.metadata().await?;
    let mut best: Option<(GetServerInfoResponse, Duration, i64)> = None;
    for _ in 0..ROUNDS {
        let (sent, sent_ms) = (Instant::now(), session.wall_ms());
        let info = session.read(client.get_server_info(session.request(GetServerInfoRequest {}))).await?;
        let took = sent.elapsed();
        // The server looked at its clock half a round trip after we looked at ours.
        let middle = sent_ms + i64::try_from(took.as_millis() / 2).unwrap_or(0);
        let skew = info.now_ms - middle;
        if best.as_ref().is_none_or(|(_, shortest, _)| took < *shortest) {
            best = Some((info, took, skew));
        }
    }
    best.ok_or_else(|| Error::Failed("the server was not asked".to_owned()))
}

/// The partitions whose files are damaged, as the broker that answers says, and those that nobody leads; each once,
/// with what is wrong with it.
async fn unwell_partitions(
    session: &Session,
    brokers: &[BrokerDescription],
) -> Result<Vec<(String, String)>> {
    let mut unwell = partition::damaged(session).await?;
    let (mut offline, _) = status::unwell(&offsets::topics(session, &[]).await?);
    let damaged: HashSet<String> = unwell.iter().map(|(name, _)| name.clone()).collect();
    offline.retain(|name| !damaged.contains(name));
    let first: Vec<_> = offline.iter().take(NAMED).cloned().collect();
    let described = partition::named(session, &first).await?;
    let stuck: HashMap<_, _> = described
        .iter()
        .map(|p| (format!("{}/{}", p.topic, p.partition), without_leader(p, brokers)))
        .collect();
    unwell.extend(offline.into_iter().map(|name| {
        let why = stuck.get(&name).map_or("", String::as_str);
        let said = format!("is offline: no broker leads it{why}");
        (name, said)
    }));
    Ok(unwell)
}

/// What a partition waits for that nobody leads, behind the words that nobody does.
fn without_leader(partition: &PartitionDescription, brokers: &[BrokerDescription]) -> String {
    if partition.waits_for_a_person {
        let name = format!("{}/{}", partition.topic, partition.partition);
        return format!(", and none will by itself (weir partition describe {name} says what to do)");
    }
    partition::waiting::said(partition, brokers).map_or_else(String::new, |said| format!("; {said}"))
}

/// The first of them, and how many more there are.
fn said_of(unwell: &[(String, String)]) -> Vec<String> {
    let named = unwell.iter().take(NAMED);
    let mut said: Vec<String> = named.map(|(name, problem)| format!("{name}: {problem}")).collect();
    let more = unwell.len().saturating_sub(NAMED);
    if more > 0 {
        said.push(format!("{more} more partitions are damaged or offline (weir topic list)"));
    }
    said
}

/// How many of them are.
fn are(number: usize, one: &str) -> String {
    let verb = if number == 1 { "is" } else { "are" };
    format!("{} {verb}", units::counted(number as i64, one))
}

/// What became of dialling the brokers.
#[derive(Debug, Default)]
struct Dialled {
    /// Addresses at which clients do not find whom they should.
    unreachable: Vec<String>,
    /// Brokers that the controllers do not hear of.
    down: Vec<String>,
    warnings: Vec<String>,
}

/// Dials each broker where it tells clients to connect to.
async fn dial_all(
    session: &Session,
    server: &Address,
    info: &GetServerInfoResponse,
    brokers: &[BrokerDescription],
) -> Dialled {
    let mut dialled = Dialled::default();
    for broker in brokers {
        let (id, endpoint) = (broker.broker_id, broker.endpoints.get(PUBLIC).map_or("", String::as_str));
        match broker.state() {
            BrokerState::Removed => continue,
            BrokerState::Failed => {
                dialled.down.push(broker::said_of_failed(id));
                continue;
            }
            BrokerState::Fenced => {
                dialled.down.push(format!(
                    "broker {id} is fenced: the controllers do not hear of it (it was at {endpoint} last), and others \
                     lead its partitions"
                ));
                continue;
            }
            BrokerState::Slow => dialled.warnings.push(format!(
                "broker {id} has a slow disk: others lead what they can (weir_flush_seconds at {endpoint} says how slow)"
            )),
            _ => {}
        }
        match dial(session, info, id, endpoint).await {
            Ok(version) if version != info.version => {
                dialled.warnings.push(format!(
                    "broker {id} is weir {version}, broker {} {}",
                    info.broker_id, info.version
                ));
            }
            Ok(_) => {}
            Err(why) => {
                let elsewhere = !is_local(server.endpoint.host()) && is_local(host(endpoint));
                let hint = if elsewhere {
                    "; that address means every machine itself: set advertised_address to one that clients reach"
                } else {
                    ""
                };
                let leads = units::counted(i64::from(broker.leaders), "partition");
                dialled.unreachable.push(format!(
                    "broker {id} at {endpoint}: {why}{hint}. It leads {leads}: clients that go to the leader are sent \
                     there, and hang or fail"
                ));
            }
        }
    }
    dialled
}

/// Asks at an address that a broker gives to clients whether it is the broker it should be; its version.
async fn dial(
    session: &Session,
    info: &GetServerInfoResponse,
    id: i32,
    endpoint: &str,
) -> Result<String, String> {
    let said = |error: Error| error.to_string();
    let address = address::parse(endpoint, Source::Broker(id)).map_err(said)?;
    let channel =
        connect::connect(&address, session.timeout().min(Duration::from_secs(5))).await.map_err(said)?;
    let mut client = weir_proto::v1::metadata_service_client::MetadataServiceClient::new(channel);
    let asked = client.get_server_info(session.request(GetServerInfoRequest {}));
    let found = session.read_from(&address, asked).await.map_err(said)?;
    if found.cluster_id != info.cluster_id {
        return Err(format!(
            "broker {} of another cluster ({}) answers there",
            found.broker_id, found.cluster_id
        ));
    }
    if found.broker_id != id {
        return Err(format!("broker {} answers there", found.broker_id));
    }
    Ok(found.version)
}

/// The host of an address as it was given.
fn host(endpoint: &str) -> &str {
    endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host)
}

/// Whether an address means whoever dials it.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

fn details(view: &mut View, info: &GetServerInfoResponse, brokers: &[Broker], skew_ms: i64) {
    let bytes = |bytes: i64| units::binary_bytes(bytes.max(0).unsigned_abs());
    view.line(format!("      cluster id {}", info.cluster_id));
    let who = if info.principal.is_empty() { "anonymous" } else { &info.principal };
    view.line(format!("      you are {who}; clocks are {skew_ms} ms apart"));
    if let Some(limits) = &info.limits {
        view.line(format!(
            "      requests up to {}, batches {}, records {}, {} records a request",
            bytes(limits.request_bytes_max),
            bytes(limits.batch_bytes_max),
            bytes(limits.record_bytes_max),
            units::count(limits.records_per_request_max)
        ));
    }
    if !info.features.is_empty() {
        view.line(format!("      features {}", info.features.join(", ")));
    }
    for broker in brokers {
        view.line(format!("      broker {} at {}", broker.broker_id, broker.endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_well_only_where_all_is_well_and_its_last_words_say_why_not() {
        assert!(verdict(0, 0, 0, 0).is_ok());
        for (unreachable, down, unwell, full, code, words) in [
            (0, 0, 1, 0, 1, "1 partition is damaged or offline"),
            (0, 0, 12, 0, 1, "12 partitions are damaged or offline"),
            (0, 0, 0, 1, 1, "1 disk is full"),
            (0, 0, 1, 2, 1, "2 disks are full"),
            (0, 1, 0, 0, 1, "1 broker is down"),
            (0, 2, 1, 0, 1, "2 brokers are down"),
            (2, 0, 0, 0, 5, "2 addresses"),
            (1, 1, 3, 0, 5, "3 partitions are damaged or offline"),
        ] {
            let error = verdict(unreachable, down, unwell, full).unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn an_address_that_means_every_machine_itself_is_known() {
        for (endpoint, local) in [
            ("127.0.0.1:9347", true),
            ("localhost:9347", true),
            ("[::1]:9347", true),
            ("0.0.0.0:9347", true),
            ("10.0.0.7:9347", false),
            ("b1.example:9347", false),
        ] {
            assert_eq!(is_local(host(endpoint)), local, "{endpoint}");
        }
    }

    #[test]
    fn many_partitions_are_counted_and_not_named() {
        let unwell: Vec<_> = (0..12).map(|n| (format!("t/{n}"), "is offline".to_owned())).collect();
        let said = said_of(&unwell);
        assert_eq!((said.len(), said[0].as_str()), (11, "t/0: is offline"));
        assert!(said[10].starts_with("2 more partitions"), "{}", said[10]);
        assert_eq!(said_of(&[]), Vec::<String>::new());
    }
}
