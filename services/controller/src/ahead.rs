//! Brokers that have seen more of the metadata than there is here, or something else: this controller, or all of them, are of
//! an older state than those who follow them. It answers everybody, and looks well; the brokers refuse it, and only they
//! know why. So it is said here, too, while they come.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weir_rpc::Problem;
use weir_types::BrokerId;

/// A broker that is refused comes again several times a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it goes to the log.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<Option<Seen>>);

/// The last one that came.
#[derive(Debug)]
struct Seen {
    what: String,
    at: Instant,
    logged: Instant,
}

impl Ahead {
    /// A broker that was refused for that.
    pub(crate) fn came(&self, broker: BrokerId, refusal: &Problem) {
        let what =
            format!("broker {broker} is refused and does not follow this controller: {}", refusal.message);
        let now = Instant::now();
        let mut seen = self.0.lock();
        let logged = seen.as_ref().map(|seen| seen.logged).filter(|logged| now - *logged < AGAIN);
        if logged.is_none() {
            tracing::error!("{what}");
        }
        *seen = Some(Seen { what, at: now, logged: logged.unwrap_or(now) });
    }

    /// That there are some now, for people.
    pub(crate) fn now(&self) -> Option<String> {
        let seen = self.0.lock();
        seen.as_ref().filter(|seen| seen.at.elapsed() < PATIENCE).map(|seen| seen.what.clone())
    }
}

#[cfg(test)]
mod tests {
    use weir_metadata::Error;
    use weir_runtime::testing::{Said, listen};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_with_more_is_named_for_as_long_as_it_comes_and_logged_seldom() {
        listen();
        let (said, ahead) = (Said::here(), Ahead::default());
        assert_eq!(ahead.now(), None);
        let refusal = weir_cluster::problem(&Error::Behind { ours: 4, seen: 9 });
        for _ in 0..90 {
            ahead.came(BrokerId(3), &refusal);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(said.count("weir errors CLUSTER_MISMATCH"), 2);
        let now = ahead.now().unwrap();
        assert!(now.contains("broker 3") && now.contains("seen version 9"), "{now}");
        tokio::time::advance(PATIENCE).await;
        assert_eq!(ahead.now(), None, "it comes no more");
    }
}
