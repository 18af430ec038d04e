//! A net under openraft's elections (correctness rule 31). Two things keep a controller there from standing for election
//! when it should: it draws its election timeout once per process, so that two which drew the same meet again and again;
//! and who was once refused for lack of entries waits two election timeouts more the next time, even if it has all of
//! them by then and nobody else can win.
//!
//! So the same is done here once more, with a timeout that is drawn anew each time, and with the longer wait only for who
//! was refused since it obeyed a leader last. Whichever of both is first moves the vote, and the other begins to wait
//! anew.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use tokio::time::{Instant, timeout_at};
use weir_runtime::Os;

use super::pulse::Pulse;
use super::types::Raft;

/// How long followers wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// See [`Config::election_timeout_min`](crate::Config::election_timeout_min).
    pub(crate) min: Duration,
    /// Also for how long a follower votes for nobody after it has obeyed a leader.
    pub(crate) max: Duration,
}

impl Timing {
    /// How long after a leader was obeyed, or a vote was given or asked for, this controller stands for election.
    /// `obeying`: its vote is a leader's; others still hold to him for as long. `outdone`: it would only be in the way of
    /// somebody who has more.
    fn patience(self, os: &dyn Os, obeying: bool, outdone: bool) -> Duration {
        let span_ms = u64::try_from((self.max.saturating_sub(self.min)).as_millis()).unwrap_or(0) + 1;
        let drawn = self.min + Duration::from_millis(os.random_u64() % span_ms);
        let lease = if obeying { self.max } else { Duration::ZERO };
        drawn + lease + if outdone { 2 * self.max } else { Duration::ZERO }
    }
}

/// Starts an election when no leader was heard of for long enough. Ends with raft.
pub(crate) async fn watch_elections(os: Arc<dyn Os>, raft: Raft, pulse: Pulse, timing: Timing) {
    let mut changes = raft.server_metrics();
    // The vote as it was last seen, and since when; and what was drawn for it.
    let mut seen = None;
    let mut stirred = Instant::now();
    let mut patience = timing.max;
    loop {
        // Taken out at once: a reference that is held keeps openraft from telling anybody anything (rule 34).
        let metrics = changes.borrow_and_update().clone();
        let (obeyed, outdone) = pulse.last();
        if seen != Some((metrics.vote, outdone)) {
            // A vote that has moved is somebody's attempt; to be found lacking is not, and only makes this one wait.
            if seen.is_none_or(|(vote, _)| vote != metrics.vote) {
                stirred = Instant::now();
            }
            seen = Some((metrics.vote, outdone));
            patience = timing.patience(&*os, metrics.vote.is_committed(), outdone);
        }
        let membership = metrics.membership_config.membership();
        // Who is alone needs nobody.
        let one_of_many =
            membership.voter_ids().any(|id| id == metrics.id) && membership.voter_ids().count() > 1;
        let mut due = obeyed.max(stirred) + patience;
        if due <= Instant::now() {
            if one_of_many && metrics.state != ServerState::Leader {
                tracing::info!("no leader was heard of for {patience:?}: standing for election");
                if raft.trigger().elect().await.is_err() {
                    return;
                }
            }
            stirred = Instant::now();
            patience = timing.patience(&*os, metrics.vote.is_committed(), outdone);
            due = stirred + patience;
        }
        // Woken by a change, or to look at the clock: a leader that is obeyed meanwhile puts it off.
        if let Ok(Err(_)) = timeout_at(due, changes.changed()).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_io::MemDisk;
    use weir_runtime::testing::TestOs;

    use super::*;

    #[tokio::test]
    async fn who_obeys_waits_for_the_lease_and_who_lacks_entries_for_others() {
        let os = TestOs::new(Arc::new(MemDisk::new(1)));
        let timing = Timing { min: Duration::from_millis(300), max: Duration::from_millis(600) };
        for (obeying, outdone, beyond) in
            [(false, false, 0), (true, false, 600), (false, true, 1_200), (true, true, 1_800)]
        {
            for _ in 0..100 {
                let patience = timing.patience(&os, obeying, outdone) - Duration::from_millis(beyond);
                assert!(patience >= timing.min && patience <= timing.max, "{patience:?}");
            }
        }
    }
}
