//! Which of the other controllers answer: openraft tells its leader how far their logs are, not whether they live. Every
//! answer to a leader counts; it has one from each that lives with every heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// When each was heard last. Shared by whoever asks them and whoever tells people.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    last: Arc<Mutex<BTreeMap<u64, Last>>>,
    /// Whoever is silent for longer is away.
    patience: Duration,
}

/// When somebody was heard last, or asked first, in a term.
#[derive(Clone, Copy, Debug)]
struct Last {
    term: u64,
    at: Instant,
    /// When it was asked last, and since when it has been without a pause: what it did while this process itself was
    /// stopped nobody knows.
    asked: Instant,
    asked_since: Instant,
    /// Whether the log says that it is away.
    is_said: bool,
}

impl Heard {
    /// `patience`: how long somebody who lives may be silent, at a controller that leads.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { last: Arc::default(), patience }
    }

    /// It is asked by the leader of a term. That one does so again and again; its silence before that meant nothing. That it
    /// is away is said here, once: a call that nobody answers is dropped where it waits.
    pub(super) fn asked(&self, id: u64, term: u64) {
        let now = Instant::now();
        let new = Last { term, at: now, asked: now, asked_since: now, is_said: false };
        let mut last = self.last.lock();
        let known = last.entry(id).or_insert(new);
        if known.term != term {
            *known = new;
        }
        if now - std::mem::replace(&mut known.asked, now) > self.patience {
            known.asked_since = now;
        }
        let silence = now - known.at.max(known.asked_since);
        if silence > self.patience && !std::mem::replace(&mut known.is_said, true) {
            tracing::warn!(controller = id, ?silence, "it does not answer");
        }
    }

    /// It has answered.
    pub(super) fn answered(&self, id: u64) {
        if let Some(last) = self.last.lock().get_mut(&id) {
            last.at = Instant::now();
            if std::mem::take(&mut last.is_said) {
                tracing::info!(controller = id, "it answers again");
            }
        }
    }

    /// For how long it has been silent. Means something at a controller that leads; `None`: it was never asked.
    pub(crate) fn silence(&self, id: u64) -> Option<Duration> {
        self.last.lock().get(&id).map(|last| last.at.elapsed())
    }

    /// For how long no quorum of these has answered this controller, which is one of them and leads.
    pub(crate) fn quorum_silence(&self, me: u64, voters: &BTreeSet<u64>) -> Duration {
        let others = voters.iter().filter(|id| **id != me);
        let mut silences: Vec<_> = others.map(|id| self.silence(*id).unwrap_or_default()).collect();
        silences.sort_unstable();
        // Itself, and so many others.
        (voters.len() / 2).checked_sub(1).and_then(|last| silences.get(last)).copied().unwrap_or_default()
    }

    /// Whether it has been silent for so long that it is not there, or not reached.
    pub(crate) fn is_away(&self, id: u64) -> bool {
        self.silence(id).is_some_and(|silence| silence > self.patience)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_for_too_long_is_away_until_it_answers() {
        let heard = Heard::new(Duration::from_secs(1));
        assert!(!heard.is_away(2), "nobody has asked");
        for _ in 0..4 {
            for id in [2, 3] {
                heard.asked(id, 7);
            }
            heard.answered(3);
            advance(Duration::from_millis(400)).await;
        }
        assert!(heard.is_away(2) && !heard.is_away(3), "to be asked is no answer");
        assert_eq!(heard.silence(2), Some(Duration::from_millis(1_600)));
        let said = || {
            let last = heard.last.lock();
            last.iter().filter(|(_, last)| last.is_said).map(|(id, _)| *id).collect::<Vec<_>>()
        };
        assert_eq!(said(), [2]);
        heard.answered(2);
        assert!(!heard.is_away(2) && said().is_empty());
        // What was in an earlier leadership counts for nothing.
        advance(Duration::from_secs(60)).await;
        assert!(heard.is_away(3));
        heard.asked(3, 9);
        assert!(!heard.is_away(3));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_stopped_himself_does_not_say_that_others_were_silent() {
        let heard = Heard::new(Duration::from_secs(1));
        let is_said = || heard.last.lock().values().any(|last| last.is_said);
        heard.asked(2, 7);
        heard.answered(2);
        // SIGSTOP, for a minute.
        advance(Duration::from_secs(60)).await;
        for _ in 0..3 {
            heard.asked(2, 7);
            assert!(!is_said(), "it has not had the time to answer");
            advance(Duration::from_millis(400)).await;
        }
        heard.asked(2, 7);
        assert!(is_said(), "by now it has");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_is_silent_for_as_long_as_those_that_it_takes() {
        let heard = Heard::new(Duration::from_secs(1));
        let silence = |voters: &[u64]| heard.quorum_silence(1, &voters.iter().copied().collect()).as_secs();
        for id in 2..=5 {
            heard.asked(id, 1);
            advance(Duration::from_secs(1)).await;
        }
        // Silent for 4, 3, 2 and 1 seconds.
        assert_eq!(
            [silence(&[1]), silence(&[1, 2]), silence(&[1, 2, 3]), silence(&[1, 2, 3, 4, 5])],
            [0, 4, 3, 2]
        );
        heard.answered(2);
        assert_eq!([silence(&[1, 2]), silence(&[1, 2, 3]), silence(&[1, 2, 3, 4, 5])], [0, 0, 1]);
    }
}
