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
