//! A person who is called when a broker is refused because its disk has failed: looks at the disk, finds it good, and says so
//! (`weir broker trust`), at a broker that serves. Where none does it is said to the controllers: one that joined with an
//! empty disk would pass it on.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use weir_cluster::Controllers;
use weir_proto::internal::v1 as pb;
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::{ErrorReason, ListBrokersRequest, TrustBrokerRequest};
use weir_runtime::Os;

use crate::world::note;

/// It takes so long to come, at most, in milliseconds.
const COMES_MS_MAX: u64 = 1_000;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A number that no failure has.
const GUESS: [i64; 1] = [1];

/// Trusts the broker that was refused so, whoever of these it takes.
pub(super) async fn trust(os: &Arc<dyn Os>, refused: &Status, brokers: &[String], controllers: &[String]) {
    let id = weir_cluster::fact(refused, "broker").and_then(|id| id.parse().ok());
    let id = id.expect("a refusal names the broker");
    let controllers = Controllers::new(os.clone(), controllers.to_vec());
    loop {
        sleep(Duration::from_millis(os.random_u64() % COMES_MS_MAX)).await;
        for broker in brokers {
            let asked = timeout(PATIENCE, at_a_broker(os, broker, id)).await;
            if asked.is_ok_and(|asked| asked.is_ok()) {
                note("person", format_args!("trusts broker {id}, at {broker}"), &[]);
                return;
            }
        }
        match at_the_controllers(&controllers, id, GUESS.to_vec()).await {
            Ok(()) => {
                note("person", format_args!("trusts broker {id}, at the controllers"), &[]);
                return;
            }
            Err(status) => tracing::info!("broker {id} is not trusted yet: {}", status.message()),
        }
    }
}

async fn at_a_broker(os: &Arc<dyn Os>, endpoint: &str, id: i32) -> Result<()> {
    let mut admin = AdminServiceClient::new(weir_cluster::channel(os, endpoint)?);
    let brokers = admin.list_brokers(ListBrokersRequest::default()).await?.into_inner().brokers;
    let shown = brokers.iter().find(|broker| broker.broker_id == id).context("it is not known here")?;
    let failures: Vec<_> =
        shown.directories.iter().flat_map(|directory| &directory.failures).copied().collect();
    // Somebody was quicker, or it was refused for another reason and only has to try again.
    if !failures.is_empty() {
        admin.trust_broker(TrustBrokerRequest { broker_id: id, validate_only: false, failures }).await?;
    }
    Ok(())
}

/// A number that is not on record is refused with those that are.
async fn at_the_controllers(controllers: &Controllers, id: i32, failures: Vec<i64>) -> Result<(), Status> {
    let is_guess = failures == GUESS;
    let request = TrustBrokerRequest { broker_id: id, validate_only: false, failures };
    let asked = controllers.call(Instant::now() + PATIENCE, |mut client| {
        let request = pb::TrustBrokerRequest { request: Some(request.clone()) };
        async move { client.trust_broker(request).await }
    });
    let Err(status) = asked.await else { return Ok(()) };
    let current = weir_cluster::fact(&status, "current");
    match current
        .as_deref()
        .filter(|_| is_guess && weir_cluster::is_for(&status, ErrorReason::RevisionMismatch))
    {
        Some("") => Ok(()),
        Some(current) => {
            let current = current.split(',').filter_map(|number| number.parse().ok()).collect();
            Box::pin(at_the_controllers(controllers, id, current)).await
        }
        None => Err(status),
    }
}
