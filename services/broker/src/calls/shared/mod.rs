//! What several calls do alike. No call of its own is here.

pub(crate) mod ending;
pub(crate) mod hello;
pub(crate) mod message_limit;
pub(crate) mod page;

use weir_proto::v1::{Applied, ErrorReason};
use weir_rpc::Problem;

/// What a controller answered. Every answer has it.
pub(crate) fn of_controller<R>(response: Option<R>) -> Result<R, Problem> {
    response.ok_or_else(|| {
        let said = "the controller's answer is empty: whether it did what was asked is not known";
        Problem::new(ErrorReason::Internal, said).applied(Applied::Maybe)
    })
}
