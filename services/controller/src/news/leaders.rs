//! Says who leads the controllers, at each of them: the one that begins, the one that it took the place of, and whoever
//! follows. That nobody leads is said where it lasts (`unled`).

use std::sync::Arc;

use weir_metadata::{BrokerState, Image};

use crate::service::Parts;

/// Follows who leads. Ends with raft.
pub(crate) async fn watch(parts: Arc<Parts>) {
    let mut changes = parts.raft.server_metrics();
    let mut leaders = Leaders::default();
    loop {
        // Taken out at once (rule 34).
        let metrics = changes.borrow_and_update().clone();
        if let Some(leader) = metrics.current_leader {
            let node = metrics.membership_config.membership().get_node(&leader);
            let seen =
                Seen { leader, term: metrics.vote.leader_id().term, at: node.map(|node| node.addr.clone()) };
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
    fn look(&mut self, me: u64, seen: Seen, image: impl FnOnce() -> Arc<Image>) {
        let Seen { leader, term, at } = seen;
        let known = self.0.replace((leader, term));
        if known == Some((leader, term)) {
            return;
        }
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
        assert_eq!((count("controller 2 leads now"), count("this controller leads now")), (1, 1));
        assert_eq!(count("controller 3 leads now: this one leads no more"), 1);
        assert_eq!(count("controller 3 leads now"), 2, "again, in another term");
    }
}
