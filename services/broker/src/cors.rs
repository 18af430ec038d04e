//! Pages of other origins: what a browser asks before it lets one call (a preflight), and what it lets the page see of an
//! answer. Off unless `cors_origins` names somebody.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// Where an answer says more than its body: how a call ended that has none, and its name in the log.
const EXPOSED: [&str; 4] = ["grpc-status", "grpc-message", "grpc-status-details-bin", "weir-request-id"];
/// How long a browser need not ask again; it forgets sooner if it likes.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);

/// The layer for these origins. Nothing where there are none: not even preflights are answered.
pub(crate) fn layer(origins: &[String]) -> Option<CorsLayer> {
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        // The configuration takes only what is a header's value.
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST])
        // Metadata of calls are headers, and a caller's own names for them are not ours to know.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(REMEMBERED);
    (!origins.is_empty()).then_some(layer)
}
