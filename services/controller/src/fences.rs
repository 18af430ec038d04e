//! Fencing and answering heartbeats of one registration exclude each other.
//!
//! The answer to a heartbeat lets a broker promise for another session what epochs do not protect. A fence that was decided
//! upon before, and is on its way into the log, would take its leaderships within that session (correctness rule 10). So who is being
//! fenced is answered when that is over, with what became of it; and who is being answered is not silent. Both are known at the
//! controller that leads alone: another one that leads later has the fence in its log before it answers anybody, or never.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use weir_metadata::{BrokerEpoch, Command};
use weir_types::BrokerId;

use crate::mutant::Mutant;
use crate::propose::{Proposer, Unapplied};

/// Whose turn it is with each registration. Cloning gives another handle to the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fences(Arc<Turns>);

#[derive(Debug, Default)]
struct Turns {
    all: Mutex<BTreeMap<(BrokerId, i64), Turn>>,
    /// Told when a fence is over.
    over: watch::Sender<()>,
}

/// What is on its way; never nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Turn {
    answers: usize,
    fences: usize,
}

/// A heartbeat is being answered, until this is dropped.
#[derive(Debug)]
pub(crate) struct Answering {
    of: Arc<Turns>,
    by: BrokerEpoch,
}

/// A registration is being fenced, until this is dropped.
#[derive(Debug)]
pub(crate) struct Fencing {
    of: Arc<Turns>,
    by: BrokerEpoch,
}

impl Turns {
    fn change(&self, by: BrokerEpoch, change: impl FnOnce(&mut Turn)) {
        let mut all = self.all.lock();
        let turn = all.entry((by.broker, by.epoch)).or_default();
        change(turn);
        if *turn == Turn::default() {
            all.remove(&(by.broker, by.epoch));
        }
    }
}

impl Fences {
    /// A heartbeat has come in: it may be answered once nobody fences that registration. Cancel safe.
    pub(crate) async fn answering(&self, by: BrokerEpoch) -> Answering {
        let mut over = self.0.over.subscribe();
        let may = || {
            let mut may = false;
            self.0.change(by, |turn| {
                may = turn.fences == 0 || Mutant::AnsweredWhileFenced.is_planted();
                turn.answers += usize::from(may);
            });
            may
        };
        // The sender lives in `self`.
        let _ = over.wait_for(|()| may()).await;
        Answering { of: self.0.clone(), by }
    }

    /// Fences a registration, unless a heartbeat of it is being answered, or `is_due` says, once none can be, that it is
    /// not silent after all. Whether that is done. Ends when its outcome is known, or this controller does not lead.
    pub(crate) async fn fence(
        &self,
        proposer: &Proposer,
        by: BrokerEpoch,
        is_due: impl FnOnce() -> bool,
    ) -> bool {
        let Some(_fencing) = self.begin(by).filter(|_| is_due()) else { return false };
        loop {
            let unapplied = match proposer.propose(Command::FenceBroker(by)).await {
                Ok(_) => return true,
                Err(unapplied) => unapplied,
            };
            // That nothing can be decided is said where the quorum is looked at.
            tracing::debug!(
                broker = by.broker.0,
                epoch = by.epoch,
                "could not fence: {}",
                unapplied.problem()
            );
            // It may be in the log still: until it is decided the broker must not be promised anything.
            if !matches!(unapplied, Unapplied::Unknown(_)) {
                return false;
            }
        }
    }

    fn begin(&self, by: BrokerEpoch) -> Option<Fencing> {
        let mut begun = false;
        self.0.change(by, |turn| {
            begun = turn.answers == 0 || Mutant::AnsweredWhileFenced.is_planted();
            turn.fences += usize::from(begun);
        });
        begun.then(|| Fencing { of: self.0.clone(), by })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.of.change(self.by, |turn| turn.answers -= 1);
    }
}

impl Drop for Fencing {
    fn drop(&mut self) {
        self.of.change(self.by, |turn| turn.fences -= 1);
        self.of.over.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn by(epoch: i64) -> BrokerEpoch {
        BrokerEpoch { broker: BrokerId(1), epoch }
    }

    #[tokio::test]
    async fn who_is_being_fenced_is_answered_when_that_is_over() {
        let fences = Fences::default();
        let answering = fences.answering(by(7)).await;
        assert!(fences.begin(by(7)).is_none(), "who is answered is not silent");
        assert!(fences.begin(by(6)).is_some(), "an earlier registration is another one");
        drop(answering);
        let fencing = fences.begin(by(7)).unwrap();
        let again = fences.begin(by(7)).unwrap();
        let mut answered = Box::pin(fences.answering(by(7)));
        assert!(answered.as_mut().now_or_never().is_none());
        drop(fencing);
        assert!(answered.as_mut().now_or_never().is_none(), "the other one is on its way still");
        drop(again);
        let answering = answered.now_or_never().unwrap();
        assert!(fences.begin(by(7)).is_none());
        drop(answering);
        assert!(fences.0.all.lock().is_empty());
    }

    #[test]
    fn who_is_answered_while_it_is_fenced_is_noticed() {
        assert!(Mutant::AnsweredWhileFenced.is_noticed_by(who_is_being_fenced_is_answered_when_that_is_over));
    }
}
