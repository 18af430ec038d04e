//! What the gRPC library refuses by itself, in the words of the registry: a request that is too large, or no message,
//! never reaches a call. The library calls the latter INTERNAL, as if it were our fault.

use std::fmt;

use tonic::{Code, Status};
use weir_proto::v1::ErrorReason;

use crate::Problem;

/// How the library begins what it says: of a message as it came, and of one that grew when it was decompressed.
const BEGINNINGS: [&str; 2] =
    ["Error, decoded message length too large: found ", "Error decompressing: size limit, of "];

/// How it begins what it says of a request that is no message of the call.
const MALFORMED: [&str; 6] = [
    "failed to decode Protobuf message",
    "Missing request message",
    "Unexpected EOF decoding stream",
    "Error decompressing: ",
    "protocol error: received message with ",
    "tonic-web: ",
];

/// What it says of a connection that ended in the middle of a request.
const GONE: [&str; 2] = ["h2 protocol error: ", "error reading a body from connection"];

/// What it, and what it stands on, says of a connection that ended while something was waited for.
const ENDED: [&str; 7] = [
    "h2 protocol error",
    "error reading a body from connection",
    "transport error",
    "stream closed because of a broken pipe",
    "connection error received",
    "connection closed before message completed",
    "operation was canceled",
];

/// The status with its reason and facts, if it is one that the library makes of a request; that of a caller who went
/// away, if it says so; else the status as it is.
pub fn with_reason(status: Status) -> Status {
    if !status.details().is_empty() {
        return status;
    }
    if matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable)
        && GONE.iter().any(|said| status.message().contains(said))
    {
        return Status::cancelled("the caller went away in the middle of its request");
    }
    match too_large(&status).or_else(|| malformed(&status)) {
        Some(problem) => problem.status(),
        None => status,
    }
}

/// Why a call was not answered, for people: the innermost cause says most ("Connection refused"), the layers above it only that
/// something failed; and what the libraries say of a connection that ended is said in our words.
pub fn cause(error: &(dyn std::error::Error + 'static), said: &str) -> String {
    let mut innermost = None;
    let mut next = error.source();
    while let Some(error) = next {
        innermost = Some(error);
        next = error.source();
    }
    let said = innermost.map_or_else(|| said.to_owned(), ToString::to_string);
    if ENDED.iter().any(|ended| said.starts_with(ended)) {
        return "the connection has ended".to_owned();
    }
    // "Connection refused (os error 111)": the number helps nobody.
    said.split(" (os error").next().unwrap_or(&said).to_owned()
}

fn malformed(status: &Status) -> Option<Problem> {
    let said = status.message();
    if status.code() != Code::Internal || !MALFORMED.iter().any(|beginning| said.starts_with(beginning)) {
        return None;
    }
    let said = said.trim_start_matches("tonic-web: ").trim_end_matches('.');
    let words =
        format!("the request is no message of this call ({said}): encode it with the stubs of weir.v1");
    Some(Problem::new(ErrorReason::FieldMalformed, words).fact("field", "request"))
}

fn too_large(status: &Status) -> Option<Problem> {
    let said = status.message();
    let code = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
    if !code || !BEGINNINGS.iter().any(|beginning| said.starts_with(beginning)) {
        return None;
    }
    let mut numbers = said.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let (first, second) = (numbers.next()?, numbers.next());
    let (found, limit): (&dyn fmt::Display, _) = match &second {
        Some(limit) => (&first, *limit),
        None => (&"more", first),
    };
    let problem = Problem::new(
        ErrorReason::RequestTooLarge,
        format!(
            "the request takes {found} bytes, and request_bytes_max is {limit} bytes: send less in one, or raise it"
        ),
    );
    Some(problem.fact("given", found).fact("limit", limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_gets_its_reason() {
        let as_it_came = "Error, decoded message length too large: found 17 bytes, the limit is: 16 bytes";
        let problem = too_large(&Status::out_of_range(as_it_came)).unwrap();
        assert_eq!(problem.reason, ErrorReason::RequestTooLarge);
        assert_eq!(problem.facts.get("given").map(String::as_str), Some("17"));
        assert_eq!(problem.facts.get("limit").map(String::as_str), Some("16"));
        let grown = "Error decompressing: size limit, of 16 bytes, exceeded while decompressing message";
        let problem = too_large(&Status::resource_exhausted(grown)).unwrap();
        assert_eq!(problem.facts.get("limit").map(String::as_str), Some("16"));
    }

    #[test]
    fn what_is_no_message_is_the_callers_mistake() {
        for said in [
            "failed to decode Protobuf message: invalid varint",
            "Missing request message.",
            "tonic-web: malformed base64 request",
            "Error decompressing: corrupt deflate stream, while sending request",
        ] {
            let status = with_reason(Status::internal(said));
            assert_eq!(status.code(), Code::InvalidArgument, "{said}");
            assert!(status.message().starts_with("the request is no message"), "{}", status.message());
        }
    }

    #[test]
    fn who_went_away_is_no_defect() {
        let said = "h2 protocol error: error reading a body from connection";
        assert_eq!(with_reason(Status::unknown(said)).code(), Code::Cancelled);
        let said = "tonic-web: error reading a body from connection";
        assert_eq!(with_reason(Status::internal(said)).code(), Code::Cancelled);
    }

    #[test]
    fn a_connection_that_has_ended_is_said_in_our_words() {
        let words = |said: &str| cause(&Status::unknown(said), said);
        for said in [
            "h2 protocol error: error reading a body from connection",
            "transport error",
            "connection error received: x",
        ] {
            assert_eq!(words(said), "the connection has ended");
        }
        assert_eq!(words("Connection refused (os error 111)"), "Connection refused");
        assert_eq!(words("no controller leads at the moment"), "no controller leads at the moment");
    }

    #[test]
    fn anything_else_stays_as_it_is() {
        for status in [Status::out_of_range("offset 9"), Status::internal("Error, decoded message")] {
            assert_eq!(with_reason(status.clone()).message(), status.message());
        }
    }
}
