//! `weir doctor`: the way to the server, step by step, and what is wrong with it.

use std::time::Duration;

use clap::Args;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use weir_proto::v1::{
    Broker, BrokerDescription, GetMetadataRequest, GetServerInfoRequest, GetServerInfoResponse,
};

use crate::address::{self, Address, Source};
use crate::commands::broker;
use crate::commands::status::{self, Health, Seen};
use crate::connect;
use crate::error::{Error, Result};
use crate::output::{self, View};
use crate::session::Session;
use crate::units;

/// How many round trips are measured; the shortest is shown.
const ROUNDS: usize = 5;
/// How far clocks may be apart before it is worth a word.
const SKEW_MS: i64 = 1_000;
/// How many brokers are dialled at the same time.
const DIALLED_AT_ONCE: usize = 16;
/// What stock clients take.
const STOCK_MESSAGE_BYTES: u64 = 4 << 20;

/// Check the way to the server, step by step
#[derive(Debug, Args)]
#[command(after_help = "\
It connects, asks who is there, measures the round trip, compares versions and clocks, and dials
every address that the brokers give to clients: a client that connects and then hangs mostly
fails there. Then it says what weir status says, in lines that begin with fail. It ends with 5
where an address cannot be reached, and with 1 where anything else is not well.

Examples:
  $ weir doctor
  $ weir doctor -v
  $ weir doctor -o json --timeout 5s")]
pub(crate) struct Doctor {}

impl Doctor {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        // Of several servers the first that is there is looked at.
        session.channel().await?;
        let address = session.address()?;
        let (info, round_trip, skew_ms) = ask(session).await?;
        let mut client = session.metadata().await?;
        let request = GetMetadataRequest { page_size: 1, ..GetMetadataRequest::default() };
        let brokers = session.read(client.get_metadata(session.request(request))).await?.brokers;
        let seen = Seen::ask(session).await?;
        let health = Health::of(&seen);
        let Dialled { unreachable, mut warnings } = dial_all(session, &address, &info, &seen.brokers).await;
        let problems: Vec<String> = unreachable.iter().chain(&health.problems).cloned().collect();
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
        // Who answers is up, whatever else there is; what fails is said in lines of its own.
        let ok = if problems.is_empty() { "ok" } else { "up" };
        let cluster = match info.cluster_id.get(..4) {
            Some(head) => format!("{head}…"),
            None => info.cluster_id.clone(),
        };
        let line = format!(
            "{ok}  {address}  weir {}, cluster {cluster}, {}, round trip {}, no TLS, messages up to {} by default",
            info.version,
            which(info.broker_id, &seen.brokers),
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
        verdict(unreachable.len(), &health)
    }
}

/// How it ends: what cannot be reached comes first, for nothing else can be relied on then.
fn verdict(unreachable: usize, health: &Health) -> Result<()> {
    let mut said = Vec::new();
    if unreachable > 0 {
        let addresses = units::counted(unreachable as u64, "address");
        said.push(format!("{addresses} that the server gives to clients cannot be reached from here"));
    }
    said.extend(health.brief.iter().cloned());
    let said = said.join("; ");
    match (unreachable, health.problems.len()) {
        (0, 0) => Ok(()),
        (0, _) => Err(Error::Failed(said)),
        _ => Err(Error::Unreachable(said)),
    }
}

/// Which broker it is, of how many: ids go on where brokers were removed.
fn which(id: i32, brokers: &[BrokerDescription]) -> String {
    let count = brokers.len();
    let is_among_them = usize::try_from(id).is_ok_and(|id| (1..=count).contains(&id));
    if is_among_them { format!("broker {id} of {count}") } else { format!("broker {id}, one of {count}") }
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

/// What became of dialling the brokers.
#[derive(Debug, Default)]
struct Dialled {
    /// Addresses at which clients do not find whom they should.
    unreachable: Vec<String>,
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
    // Of those that are down it is said that they are.
    let up: Vec<_> = brokers.iter().filter(|broker| status::serves(broker)).collect();
    // One that hangs keeps nobody from the others.
    let mut dials = Vec::with_capacity(up.len());
    for broker in &up {
        dials.push(dial(session, info, broker.broker_id, broker::public_endpoint(broker)));
    }
    let found: Vec<_> = stream::iter(dials).buffered(DIALLED_AT_ONCE).collect().await;
    for (broker, found) in up.into_iter().zip(found) {
        let (id, endpoint) = (broker.broker_id, broker::public_endpoint(broker));
        match found {
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

    fn health(brief: &[&str]) -> Health {
        let brief: Vec<_> = brief.iter().map(|said| (*said).to_owned()).collect();
        Health { sentence: String::new(), problems: brief.clone(), brief, object: serde_json::Value::Null }
    }

    #[test]
    fn it_ends_well_only_where_all_is_well_and_its_last_words_say_why_not() {
        assert!(verdict(0, &health(&[])).is_ok());
        for (unreachable, brief, code, words) in [
            (0, &["no controller leads"][..], 1, "no controller leads"),
            (0, &["1 disk is full", "1 broker is down"], 1, "1 disk is full; 1 broker is down"),
            (2, &[], 5, "2 addresses"),
            (1, &["1 partition is under-replicated"], 5, "from here; 1 partition is under-replicated"),
        ] {
            let error = verdict(unreachable, &health(brief)).unwrap_err();
            assert_eq!(error.exit_code(), code, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_broker_is_not_the_sixth_of_three() {
        let brokers = [1, 5, 6].map(|broker_id| BrokerDescription { broker_id, ..Default::default() });
        assert_eq!(which(1, &brokers), "broker 1 of 3");
        assert_eq!(which(6, &brokers), "broker 6, one of 3");
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
}
