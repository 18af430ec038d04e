//! A net under openraft's elections: it draws its election timeout once per process, so two controllers that drew
//! the same could keep each other from winning (correctness rule 31).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weir_runtime::Os;

use super::types::Raft;

/// Starts an election whenever there was no leader for two election timeouts, after a fresh random delay. Ends
/// with raft.
pub(crate) async fn watch_elections(
    os: Arc<dyn Os>,
    raft: Raft,
    node_id: u64,
    election_timeout_max: Duration,
) {
    let mut changes = raft.server_metrics();
    let mut leaderless_since: Option<Instant> = None;
    loop {
        // Taken out at once: a reference that is held keeps openraft from telling anybody anything (rule 34).
        let metrics = changes.borrow_and_update().clone();
        let votes = metrics.membership_config.membership().voter_ids().any(|id| id == node_id);
        leaderless_since = match metrics.current_leader {
            None if votes => Some(leaderless_since.unwrap_or_else(Instant::now)),
            _ => None,
        };
        if leaderless_since.is_some_and(|since| since.elapsed() >= 2 * election_timeout_max) {
            let span_ms = u64::try_from(election_timeout_max.as_millis()).unwrap_or(u64::MAX).max(1);
            sleep(Duration::from_millis(os.random_u64() % span_ms)).await;
            let still = raft.server_metrics().borrow().current_leader.is_none();
            if still {
                tracing::warn!("no leader for two election timeouts: standing for election");
                if raft.trigger().elect().await.is_err() {
                    return;
                }
            }
            leaderless_since = None;
        }
        // Woken by a change, or to look at the clock.
        if let Ok(Err(_)) = timeout(election_timeout_max, changes.changed()).await {
            return;
        }
    }
}
