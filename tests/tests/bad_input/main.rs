//! Bad input: every field of every call outside its limits. Each case is answered by a status (or a failure inside
//! a message, where the call has several parts) with code, reason, words that name the field, and "not applied";
//! nothing was applied, and the process lives.
//!
//! The cases stand in tables, a file for each service; `fields.rs` holds them against the descriptors, so that a new
//! field without a case fails.

mod admin;
mod batch;
mod call;
mod fetch;
mod fetch_stream;
mod fields;
mod metadata;
mod produce;
mod produce_stream;
mod topics;
mod world;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use tonic::Code;
use weir_proto::v1::{Applied, ErrorReason};
use weir_runtime::testing::PATIENCE;

use call::Call;
use world::World;

/// One call that is refused.
pub(crate) struct Case {
    /// The field that is wrong, as `Message.field`.
    field: &'static str,
    /// What the message must name.
    names: &'static str,
    reason: ErrorReason,
    call: Call,
}

/// A row of a table.
pub(crate) fn case(field: &'static str, names: &'static str, reason: ErrorReason, call: Call) -> Case {
    Case { field, names, reason, call }
}

/// Every case there is.
pub(crate) fn cases(world: &World) -> Vec<Case> {
    let mut cases = produce::cases(world);
    cases.extend(batch::cases(world));
    cases.extend(produce_stream::cases(world));
    cases.extend(fetch::cases(world));
    cases.extend(fetch_stream::cases(world));
    cases.extend(metadata::cases());
    cases.extend(topics::cases());
    cases.extend(admin::cases());
    cases
}

/// The class that a caller may count on.
fn code(reason: ErrorReason) -> Code {
    use ErrorReason as R;
    match reason {
        R::TopicNotFound | R::PartitionNotFound | R::BrokerNotFound => Code::NotFound,
        R::TopicAlreadyExists => Code::AlreadyExists,
        R::OffsetOutOfRange => Code::OutOfRange,
        R::FeatureUnknown | R::NotSupported => Code::Unimplemented,
        R::TopicIdMismatch
        | R::TopicInternal
        | R::RevisionMismatch
        | R::FloorNotMet
        | R::OffsetMismatch
        | R::LeaderEpochStale
        | R::LogTruncated
        | R::StreamPoisoned
        | R::ProducerUnknown
        | R::ProducerFenced
        | R::SequenceGap => Code::FailedPrecondition,
        R::LeaderEpochUnknown => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_has_limits_and_says_so() -> Result<()> {
    let mut world = World::start().await?;
    let before = world.everything().await?;
    let mut wrong = Vec::new();
    for case in cases(&world) {
        let what = format!("{} ({})", case.field, case.names);
        if let Err(error) = check(&mut world, case).await {
            wrong.push(format!("{what}: {error:#}"));
        }
        world.server.lives()?;
    }
    let after = world.everything().await?;
    ensure!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(before == after, "something was applied:\n{before:#?}\n{after:#?}");
    world.server.stop().await
}

async fn check(world: &mut World, case: Case) -> Result<()> {
    let refusal = timeout(PATIENCE, case.call.refusal(&world.api)).await.context("it is not answered")??;
    let refusal = refusal.context("it was not refused")?;
    ensure!(refusal.reason == case.reason, "expected {:?}, got {refusal:?}", case.reason);
    ensure!(refusal.code == code(case.reason), "expected {:?}, got {refusal:?}", code(case.reason));
    ensure!(refusal.applied == Applied::No, "it is not said that nothing was applied: {refusal:?}");
    let named = refusal.message.contains(case.names) || refusal.facts.values().any(|fact| fact == case.names);
    ensure!(named, "{:?} is not named: {refusal:?}", case.names);
    Ok(())
}

#[tokio::test]
async fn every_field_of_every_call_has_a_case() -> Result<()> {
    let world = World::start().await?;
    let missing = fields::without_a_case(&cases(&world))?;
    ensure!(missing.is_empty(), "no case for\n{}", missing.join("\n"));
    world.server.stop().await
}
