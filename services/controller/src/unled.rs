//! Tells people that this controller is in no quorum that decides, and that it is in one again. Its elections are tried
//! several times a second, and none of them is worth a line; that none succeeds is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_proto::v1::VoterState;
use weir_runtime::Seldom;

use crate::members;
use crate::service::Parts;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// An election takes less.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often people are told again.
const AGAIN: Duration = Duration::from_secs(60);

/// See the module. Ends with raft.
pub(crate) async fn watch(parts: Arc<Parts>) {
    let (mut told, other) = (Told::default(), Seldom::new(AGAIN));
    loop {
        sleep(LOOK).await;
        if parts.raft.server_metrics().has_changed().is_err() || parts.stop.is_requested() {
            return;
        }
        if let Some(said) = parts.other_quorum()
            && other.now().is_some()
        {
            tracing::error!("{said}");
        }
        let missing = parts.no_quorum();
        if missing.is_none() {
            // Taken out at once (rule 34).
            let raft = parts.raft.server_metrics().borrow().clone();
            parts.polled.clear(raft.current_leader == Some(raft.id));
        }
        told.look(missing, || asked(&parts));
    }
}

/// Who was asked for his vote, and what each has said; where this one leads, and nobody votes, who does not answer it.
fn asked(parts: &Parts) -> String {
    let polled = parts.polled.list();
    if !polled.is_empty() {
        return polled;
    }
    let voters = members::voters(parts).into_iter();
    let away = voters.filter(|voter| voter.voting && voter.state() == VoterState::Away);
    let each = away.map(|voter| {
        let silent_s = voter.silent_ms / 1_000;
        format!("controller {} at {}: no answer for {silent_s} s", voter.voter_id, voter.endpoint)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// What people were told of there being no quorum.
#[derive(Debug, Default)]
struct Told {
    /// Since when there is no quorum.
    since: Option<Instant>,
    last: Option<Instant>,
}

impl Told {
    /// `missing`: why there is no quorum now, if so. `asked`: who was asked for his vote, and what each has said.
    fn look(&mut self, missing: Option<String>, asked: impl FnOnce() -> String) {
        let now = Instant::now();
        let Some(why) = missing else {
            let since = self.since.take();
            if let Some(since) = since.filter(|_| self.last.take().is_some()) {
                tracing::info!(away = ?(now - since), "a quorum of controllers answers again");
            }
            return;
        };
        let lasts = now - *self.since.get_or_insert(now);
        let is_due = match self.last {
            None => lasts >= PATIENCE,
            Some(last) => now - last >= AGAIN,
        };
        if is_due {
            self.last = Some(now);
            let asked = asked();
            tracing::warn!(?lasts, asked, "nothing can be decided here: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use weir_runtime::testing::{Said, listen};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_quorum_is_said_once_and_then_seldom_and_so_is_its_return() {
        listen();
        let (said, mut told) = (Said::here(), Told::default());
        let count = || (said.count("nothing can be decided here: nobody leads"), said.count("answers again"));
        let mut look_for = async |seconds: u64, missing: Option<&str>| {
            for _ in 0..seconds {
                told.look(missing.map(str::to_owned), || {
                    "controller 3 at c:3: Connection refused".to_owned()
                });
                advance(LOOK).await;
            }
        };
        look_for(5, Some("nobody leads")).await;
        look_for(5, None).await;
        assert_eq!(count(), (0, 0), "an election");
        look_for(6, Some("nobody leads")).await;
        assert_eq!(count(), (1, 0));
        look_for(114, Some("nobody leads")).await;
        assert_eq!(count(), (2, 0), "within two minutes");
        assert_eq!(said.count("controller 3 at c:3: Connection refused"), 2);
        look_for(10, None).await;
        assert_eq!((count(), said.count("120s")), ((2, 1), 1), "for how long");
        look_for(6, Some("nobody leads")).await;
        assert_eq!(count(), (3, 1), "it begins anew");
    }
}
