//! What a caller can know of a failure: from a status with its details, or from a failure inside a message.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::pb::{ErrorInfo, Status as Details};
use weir_proto::v1::{Applied, ErrorReason, Failure, FailureList};

/// Clients in Java end the connection above 8 KiB of headers, so all trailers together stay below half of that.
const TRAILER_BYTES_MAX: usize = 4096;

/// A failure, in the caller's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class.
    pub code: Code,
    /// The reason.
    pub reason: ErrorReason,
    /// Whether it was applied.
    pub applied: Applied,
    /// The words.
    pub message: String,
    /// The facts.
    pub facts: BTreeMap<String, String>,
}

impl Refusal {
    /// Reads a status, and checks that it is built as the API promises: one ErrorInfo of the domain "weir", a
    /// FailureList that says the same, and no more bytes than every client takes.
    ///
    /// # Errors
    /// It is not.
    pub fn of_status(status: &Status) -> Result<Self> {
        let trailers = status.message().len() + status.details().len().div_ceil(3) * 4;
        ensure!(trailers <= TRAILER_BYTES_MAX, "{trailers} bytes of trailers: {status:?}");
        let details = Details::decode(status.details())?.details;
        let find =
            |name: &str| details.iter().find(|any| any.type_url.ends_with(name)).map(|any| &*any.value);
        let info = ErrorInfo::decode(
            find("/google.rpc.ErrorInfo").with_context(|| format!("no ErrorInfo: {status:?}"))?,
        )?;
        ensure!(info.domain == "weir", "the domain is {:?}", info.domain);
        let list = FailureList::decode(find("/weir.v1.FailureList").context("no FailureList")?)?;
        let first = list.failures.first().context("the FailureList is empty")?;
        let refusal = Self::of_failure(first)?;
        let name = refusal.reason.as_str_name().trim_start_matches("ERROR_REASON_");
        ensure!(info.reason == name, "ErrorInfo says {}, FailureList {name}", info.reason);
        ensure!(
            refusal.code == status.code(),
            "the status is {:?}, FailureList says {:?}",
            status.code(),
            refusal.code
        );
        let applied = refusal.applied.as_str_name().trim_start_matches("APPLIED_");
        ensure!(
            info.metadata.get("applied").is_some_and(|said| said == applied),
            "applied differs: {info:?}"
        );
        Ok(refusal)
    }

    /// Reads a failure that came inside a message.
    ///
    /// # Errors
    /// It lacks its reason or its words.
    pub fn of_failure(failure: &Failure) -> Result<Self> {
        let reason = failure.reason();
        ensure!(reason != ErrorReason::Unspecified, "a failure without a reason: {failure:?}");
        ensure!(!failure.message.is_empty(), "a failure without words: {failure:?}");
        ensure!(failure.message.len() <= 512, "a message of {} bytes", failure.message.len());
        Ok(Self {
            code: Code::from_i32(failure.code),
            reason,
            applied: failure.applied(),
            message: failure.message.clone(),
            facts: failure.metadata.clone(),
        })
    }
}
