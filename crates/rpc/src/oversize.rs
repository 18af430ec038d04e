//! The one refusal that the gRPC library makes by itself, in the words of the registry: a request above the size that a
//! listener takes never reaches a call.

use std::fmt;

use tonic::{Code, Status};
use weir_proto::v1::ErrorReason;

use crate::Problem;

/// How the library begins what it says: of a message as it came, and of one that grew when it was decompressed.
const BEGINNINGS: [&str; 2] =
    ["Error, decoded message length too large: found ", "Error decompressing: size limit, of "];

/// The status with its reason and facts, if it is the library's "too large"; else the status as it is.
pub fn with_reason(status: Status) -> Status {
    match too_large(&status) {
        Some(problem) => problem.status(),
        None => status,
    }
}

fn too_large(status: &Status) -> Option<Problem> {
    let said = status.message();
    let ours = !status.details().is_empty();
    let code = matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted);
    if ours || !code || !BEGINNINGS.iter().any(|beginning| said.starts_with(beginning)) {
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
    fn anything_else_stays_as_it_is() {
        for status in [Status::out_of_range("offset 9"), Status::internal("Error, decoded message")] {
            assert_eq!(with_reason(status.clone()).message(), status.message());
        }
    }
}
