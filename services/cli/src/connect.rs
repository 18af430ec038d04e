//! The way to the server: one connection, tuned as every client of ours is, and words for when there is none.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use weir_proto::v1::GetServerInfoRequest;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;

use crate::address::{Address, Source};
use crate::error::{Error, Result};

/// The largest message we take, in bytes; said to the server in `message_bytes_max`.
pub(crate) const MESSAGE_BYTES_MAX: i32 = 64 << 20;

/// Of several servers one that says nothing for so long is passed over.
const ANSWERS_IN: Duration = Duration::from_secs(3);

/// Connects. An address that does not answer is told apart from one where something else answers.
pub(crate) async fn connect(address: &Address, timeout: Duration) -> Result<Channel> {
    dial(address, timeout).await?.map_err(|why| unreachable(address, &address.to_string(), &why))
}

/// Connects to the first that is there; which one.
pub(crate) async fn connect_any(address: &Address, timeout: Duration) -> Result<(Channel, Address)> {
    if address.others.is_empty() {
        return Ok((connect(address, timeout).await?, address.clone()));
    }
    let (mut failed, mut starting) = (Vec::new(), None);
    // One that does not answer leaves time for the others.
    let each = ANSWERS_IN.min(timeout / u32::try_from(address.others.len() + 1).unwrap_or(u32::MAX));
    for one in address.each() {
        match dial(&one, each).await? {
            // The system takes connections for a process that hangs.
            Ok(channel) => match tokio::time::timeout(each, serves(channel.clone())).await {
                Ok(true) => return Ok((channel, one)),
                Ok(false) => starting = starting.or(Some((channel, one))),
                Err(_) => failed.push(format!("{one} (no answer within {each:?})")),
            },
            Err(why) => failed.push(format!("{one} ({})", plain(&why))),
        }
    }
    if let Some(starting) = starting {
        // It says what it waits for.
        return Ok(starting);
    }
    let (source, failed) = (&address.source, failed.join(", nor at "));
    Err(Error::Unreachable(format!("no Weir answers (from {source}) at {failed}; is one of them started?")))
}

/// Whether it is there for more than to say that it starts, whatever it says.
async fn serves(channel: Channel) -> bool {
    let said = MetadataServiceClient::new(channel).get_server_info(GetServerInfoRequest {}).await;
    said.map_or_else(|status| !weir_client::Error::from_status(&status, "").is_starting(), |_| true)
}

/// A connection that is made when it is first used.
pub(crate) fn lazily(address: &Address) -> Result<Channel> {
    Ok(endpoint(address)?.connect_timeout(ANSWERS_IN).connect_lazy())
}

fn endpoint(address: &Address) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(concat!("weir-cli/", env!("CARGO_PKG_VERSION"))))
        .map_err(|error| Error::Usage(format!("the server {address} (from {}): {error}", address.source)))?;
    Ok(weir_rpc::tuning::endpoint(endpoint))
}

/// The connection, or why there is none.
async fn dial(address: &Address, timeout: Duration) -> Result<Result<Channel, String>> {
    let endpoint = endpoint(address)?.connect_timeout(timeout);
    Ok(match tokio::time::timeout(timeout, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|error| root(&error)),
        Err(_) => Err(format!("no connection within {timeout:?}")),
    })
}

/// "Connection refused (os error 111)": the number helps nobody.
fn plain(why: &str) -> String {
    why.split(" (os error").next().unwrap_or(why).to_lowercase()
}

/// Nobody answers at an address: the server's, or that of a broker that it named.
pub(crate) fn unreachable(server: &Address, address: &str, why: &str) -> Error {
    let is_named = server.each().any(|one| one.to_string() == address);
    let whose = if is_named { format!("from {}", server.source) } else { format!("a broker of {server}") };
    let why = plain(why);
    let way_out = match server.source {
        Source::Default if is_named => {
            "; start one with `weir standalone`, or name another with -s HOST:PORT"
        }
        // Who was named is one of a cluster, for all that is known here.
        Source::Default | Source::Flag | Source::Environment | Source::Context(_) => {
            "; is it started? Other brokers of its cluster may be named too, separated by commas: -s HOST:PORT,HOST:PORT"
        }
        // Whoever was told the address cannot choose it.
        Source::Broker(_) => "",
    };
    Error::Unreachable(format!("no Weir answers at {address} ({whose}): {why}{way_out}"))
}

/// The cause below tonic's wrappers, in the system's words.
fn root(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_named_a_server_is_not_told_to_start_another() {
        let said = |source| {
            let server = crate::address::parse("h:1", source).unwrap();
            unreachable(&server, "h:1", "Connection refused (os error 111)").to_string()
        };
        let unset = said(Source::Default);
        assert_eq!(
            unset,
            "no Weir answers at h:1 (from the default): connection refused; start one with `weir standalone`, or name \
             another with -s HOST:PORT"
        );
        for source in [Source::Flag, Source::Environment, Source::Context("prod".to_owned())] {
            let said = said(source);
            assert!(!said.contains("standalone"), "{said}");
            assert!(
                said.contains("no Weir answers at h:1 (from ") && said.contains("-s HOST:PORT,HOST:PORT"),
                "{said}"
            );
        }
        assert_eq!(
            said(Source::Broker(2)),
            "no Weir answers at h:1 (from what broker 2 advertises): connection refused"
        );
    }

    #[tokio::test]
    async fn the_first_broker_that_is_there_is_connected_to_and_of_none_all_are_named() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (gone, there) = ("127.0.0.1:1", listener.local_addr().unwrap());
        // To be turned away is a sign of life.
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let named = |text: String| crate::address::parse(&text, Source::Environment).unwrap();
        let timeout = Duration::from_secs(30);
        let (_, one) = connect_any(&named(format!("{gone},{there}")), timeout).await.unwrap();
        assert_eq!(one.list(), there.to_string());
        let none = connect_any(&named(format!("{gone},{gone}")), timeout).await.unwrap_err().to_string();
        assert!(none.starts_with("no Weir answers (from WEIR_SERVER) at 127.0.0.1:1 ("), "{none}");
        assert!(none.contains("nor at 127.0.0.1:1 ("), "{none}");
    }
}
