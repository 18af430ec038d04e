//! The way to the server: one connection, tuned as every client of ours is, and words for when there is none.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::address::Address;
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
    let whose = match server.to_string() {
        same if same == address => format!("from {}", server.source),
        named => format!("a broker of {named}"),
    };
    // "Connection refused (os error 111)": the number helps nobody.
    let why = why.split(" (os error").next().unwrap_or(why).to_lowercase();
    Error::Unreachable(format!(
        "no Weir answers at {address} ({whose}): {why}; start one with `weir standalone`, or name another with -s \
         HOST:PORT"
    ))
}

/// The cause below tonic's wrappers, in the system's words.
fn root(error: &tonic::transport::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}
