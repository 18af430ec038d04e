//! The way to the server: one connection, tuned as every client of ours is, and words for when there is none.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::address::{Address, Source};
use crate::error::{Error, Result};

/// The largest message we take, in bytes; said to the server in `message_bytes_max`.
pub(crate) const MESSAGE_BYTES_MAX: i32 = 64 << 20;

/// Connects. An address that does not answer is told apart from one where something else answers.
pub(crate) async fn connect(address: &Address, timeout: Duration) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent(concat!("weir-cli/", env!("CARGO_PKG_VERSION"))))
        .map_err(|error| Error::Usage(format!("the server {address} (from {}): {error}", address.source)))?;
    let endpoint = weir_rpc::tuning::endpoint(endpoint).connect_timeout(timeout);
    let connecting = tokio::time::timeout(timeout, endpoint.connect());
    match connecting.await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(unreachable(address, &address.to_string(), &root(&error))),
        Err(_) => {
            Err(unreachable(address, &address.to_string(), &format!("no connection within {timeout:?}")))
        }
    }
}

/// Nobody answers at an address: the server's, or that of a broker that it named.
pub(crate) fn unreachable(server: &Address, address: &str, why: &str) -> Error {
    let is_named = server.to_string() == address;
    let whose = if is_named { format!("from {}", server.source) } else { format!("a broker of {server}") };
    // "Connection refused (os error 111)": the number helps nobody.
    let why = why.split(" (os error").next().unwrap_or(why).to_lowercase();
    let way_out = match server.source {
        Source::Default if is_named => {
            "; start one with `weir standalone`, or name another with -s HOST:PORT"
        }
        // Who was named is one of a cluster, for all that is known here.
        Source::Default | Source::Flag | Source::Environment | Source::Context(_) => {
            "; is it started? Every broker of a cluster answers everything: name another with -s HOST:PORT"
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
                said.contains("no Weir answers at h:1 (from ") && said.contains("-s HOST:PORT"),
                "{said}"
            );
        }
        assert_eq!(
            said(Source::Broker(2)),
            "no Weir answers at h:1 (from what broker 2 advertises): connection refused"
        );
    }
}
