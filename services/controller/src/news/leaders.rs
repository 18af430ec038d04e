//! Says who leads the controllers, at each of them: the one that begins, the one that it took the place of, and whoever
//! follows. That nobody leads is said where it lasts (`unled`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use weir_metadata::{BrokerState, Image};

use crate::service::Parts;

/// How often a controller that leads, and is answered by no quorum, looks whether it is.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows who leads. Ends with raft.
pub(crate) async fn watch(parts: Arc<Parts>) {
    let mut changes = parts.raft.server_metrics();
    let mut leaders = Leaders::default();
    loop {
        // Taken out at once (rule 34).
        let metrics = changes.borrow_and_update().clone();
        let term = metrics.vote.leader_id().term;
        if let Some(leader) = metrics.current_leader.filter(|leader| !leaders.is_told(*leader, term)) {
            // Whoever led when it stopped takes itself for the leader again when it starts, until it hears of another one:
            // only a quorum can say that it is.
            if leader == metrics.id && parts.barrier.pass().await.is_err() {
                if let Ok(Err(_)) = timeout(AGAIN, changes.changed()).await {
                    return;
                }
                continue;
            }
            let node = metrics.membership_config.membership().get_node(&leader);
            let seen = Seen { leader, term, at: node.map(|node| node.addr.clone()) };
            leaders.look(metrics.id, seen, || parts.machine.hub().image());
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Who leads, in which term, and where that is, if it is known.
#[derive(Debug)]
struct Seen {
    leader: u64,
    term: u64,
    at: Option<String>,
}

/// Who led last, and in which term, as far as people were told.
#[derive(Debug, Default)]
struct Leaders(Option<(u64, u64)>);

impl Leaders {
    fn is_told(&self, leader: u64, term: u64) -> bool {
        self.0 == Some((leader, term))
    }

    fn look(&mut self, me: u64, seen: Seen, image: impl FnOnce() -> Arc<Image>) {
        let Seen { leader, term, at } = seen;
        if self.is_told(leader, term) {
            return;
        }
        let known = self.0.replace((leader, term));
        let before = known.map(|(leader, _)| leader);
        if leader == me {
            let image = image();
            let (brokers, partitions) = (image.brokers().count(), image.partition_count());
            let active = image.brokers().filter(|broker| broker.state == BrokerState::Active).count();
            let leaderless = image.health().leaderless;
            tracing::info!(
                term,
                before,
                brokers,
                active,
                partitions,
                leaderless,
                "this controller leads now"
            );
        } else if before == Some(me) {
            tracing::warn!(term, at, "controller {leader} leads now: this one leads no more");
        } else if before.is_none() {
            // What it has on its disk may be of long ago: it says so again once it has heard of another one.
            tracing::info!(term, at, "controller {leader} leads, as far as this one knows");
        } else {
            tracing::info!(term, before, at, "controller {leader} leads now");
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_runtime::testing::Said;

    use super::*;

    #[test]
    fn who_leads_is_said_once_a_term_by_its_name() {
        let (said, mut leaders) = (Said::here(), Leaders::default());
        let mut look = |leader, term| {
            for _ in 0..3 {
                let at = Some(format!("c{leader}:9"));
                leaders.look(1, Seen { leader, term, at }, || Arc::new(Image::default()));
            }
        };
        look(2, 7);
        look(1, 8);
        look(3, 9);
        look(3, 10);
        let count = |words| said.count(words);
        assert_eq!(count("controller 2 leads, as far as this one knows"), 1);
        assert_eq!(count("this controller leads now"), 1);
        assert_eq!(count("controller 3 leads now: this one leads no more"), 1);
        assert_eq!(count("controller 3 leads now"), 2, "again, in another term");
    }
}
