//! A gRPC channel over the process's own door to the network.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use weir_rpc::tuning;
use weir_runtime::Os;

/// A channel to `host:port`. It connects with its first call, and again whenever the connection has ended.
///
/// # Errors
/// If `endpoint` is no `host:port`. A connection that cannot be made is the first call's error.
pub fn channel(os: &Arc<dyn Os>, endpoint: &str) -> Result<Channel, tonic::transport::Error> {
    let os = os.clone();
    let connector = tower::service_fn(move |uri: Uri| {
        let os = os.clone();
        async move {
            let host = uri.host().unwrap_or_default();
            // An IPv6 address stands in brackets in a URI, and without them everywhere else.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            os.connect(host, uri.port_u16().unwrap_or_default()).await.map(TokioIo::new)
        }
    });
    let endpoint = tuning::endpoint(Endpoint::from_shared(format!("http://{endpoint}"))?);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// `host:port` in two; an IPv6 host may stand in brackets.
pub fn split_endpoint(endpoint: &str) -> Option<(&str, u16)> {
    let (host, port) = endpoint.rsplit_once(':')?;
    let host = host.strip_prefix('[').map_or(host, |rest| rest.strip_suffix(']').unwrap_or(rest));
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_split_at_the_last_colon() {
        assert_eq!(split_endpoint("localhost:9349"), Some(("localhost", 9349)));
        assert_eq!(split_endpoint("[::1]:9349"), Some(("::1", 9349)));
        for bad in ["localhost", ":1", "localhost:", "localhost:66000", ""] {
            assert_eq!(split_endpoint(bad), None, "{bad}");
        }
    }
}
