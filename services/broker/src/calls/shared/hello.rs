//! What both long streams begin and end with.

use std::sync::Arc;

use weir_proto::v1::{ErrorReason, Route, StreamWelcome};
use weir_rpc::Problem;

use crate::broker::Broker;

/// The one version of the stream protocols there is.
const PROTOCOL_VERSION: i32 = 1;
const CLIENT_NAME_BYTES_MAX: usize = 200;

/// What this server can do beyond the first version, by name.
pub(crate) const FEATURES: &[&str] = &[];

/// The answer to a stream that begins with something else.
pub(crate) fn missing() -> Problem {
    Problem::required("hello", "the first message of a stream is its hello")
}

/// Checks what a hello says of the client.
pub(crate) fn check(
    client: &str,
    version_min: i32,
    version_max: i32,
    features: &[String],
) -> Result<(), Problem> {
    if client.len() > CLIENT_NAME_BYTES_MAX {
        return Err(Problem::out_of_range(
            "hello.client",
            format_args!("{} bytes", client.len()),
            "at most 200 bytes",
        ));
    }
    for (field, given) in [("hello.version_min", version_min), ("hello.version_max", version_max)] {
        if given < 0 {
            return Err(Problem::out_of_range(field, given, "must not be negative"));
        }
    }
    let (lowest, highest) = (version_min.max(1), version_max.max(version_min).max(1));
    if !(lowest..=highest).contains(&PROTOCOL_VERSION) {
        return Err(Problem::new(
            ErrorReason::FeatureUnknown,
            format!(
                "the client speaks versions {lowest} to {highest} of this stream, this server {PROTOCOL_VERSION}"
            ),
        ));
    }
    check_features(features)
}

/// Refuses a call that needs something this server does not know.
pub(crate) fn check_features(required: &[String]) -> Result<(), Problem> {
    match required.iter().find(|feature| !FEATURES.contains(&feature.as_str())) {
        None => Ok(()),
        Some(unknown) => {
            let shown: String = unknown.chars().take(80).collect();
            Err(Problem::new(
                ErrorReason::FeatureUnknown,
                format!(
                    "required feature \"{shown}\" is not known to this server (GetServerInfo lists what is)"
                ),
            )
            .fact("feature", shown))
        }
    }
}

/// Checks that a route is one we know.
pub(crate) fn check_route(route: i32) -> Result<(), Problem> {
    Route::try_from(route).map(|_| ()).map_err(|_| Problem::unknown_enum("route", route))
}

/// Whether the caller wants to be told who leads, instead of having its call passed on.
pub(crate) fn is_direct(route: i32) -> bool {
    route == Route::Direct as i32
}

/// The first answer.
pub(crate) fn welcome(broker: &Arc<Broker>) -> StreamWelcome {
    StreamWelcome {
        version: PROTOCOL_VERSION,
        session_id: format!("{:016x}", broker.os.random_u64()),
        limits: Some(broker.limits()),
        features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_says_nothing_speaks_version_1() {
        assert_eq!(check("", 0, 0, &[]), Ok(()));
        assert_eq!(check("", 1, 7, &[]), Ok(()));
        assert_eq!(check("", 2, 3, &[]).unwrap_err().reason, ErrorReason::FeatureUnknown);
        assert_eq!(check("", -1, 0, &[]).unwrap_err().reason, ErrorReason::FieldOutOfRange);
        assert_eq!(check(&"x".repeat(201), 0, 0, &[]).unwrap_err().reason, ErrorReason::FieldOutOfRange);
    }

    #[test]
    fn an_unknown_feature_is_refused_by_name() {
        let problem = check_features(&["teleport".to_owned()]).unwrap_err();
        assert_eq!(problem.reason, ErrorReason::FeatureUnknown);
        assert!(problem.message.contains("teleport"), "{problem}");
    }
}
