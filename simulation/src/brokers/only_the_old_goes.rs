//! What is deleted by its age was old enough, by every clock that its brokers may have believed (correctness rules 18, 40),
//! and committed (rule 15): nobody who says where a log begins may name an offset behind a record that is younger, and no
//! log ends before that from then on. What somebody has asked to be deleted may go at any age, and where nothing is
//! deleted by its age nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::timeout;
use weir_client::Client;
use weir_runtime::Os;
use weir_tests::history::Place;

use super::subject::Subject;
use super::work::Work;
use crate::life::Machine;

/// Time passes by steps.
const STEP_MS: i64 = 100;
/// An answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// How old everything is, and what was said of where logs begin.
#[derive(Default)]
pub(super) struct Ages {
    /// Whose clocks say how old something is.
    brokers: Vec<Arc<Machine>>,
    /// When the records were sent that were acknowledged, by their offsets.
    sent_ms: BTreeMap<Place, BTreeMap<i64, i64>>,
    /// What is below may be deleted: somebody has asked for it.
    asked: BTreeMap<Place, i64>,
    begins: BTreeMap<Place, Vec<Begins>>,
}

/// Somebody said that a log begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Begins {
    at: i64,
    /// What was sent later was too young.
    sent_until_ms: i64,
}

impl Ages {
    /// In the logs of these.
    pub(super) fn new(brokers: &[Arc<Machine>]) -> Self {
        Self { brokers: brokers.to_vec(), ..Self::default() }
    }

    /// A record was acknowledged.
    pub(super) fn acknowledged(&mut self, place: &Place, offset: i64, sent_ms: i64) {
        self.sent_ms.entry(place.clone()).or_default().insert(offset, sent_ms);
    }

    /// Somebody is about to delete what is below.
    pub(super) fn asked(&mut self, place: &Place, before: i64) {
        let asked = self.asked.entry(place.clone()).or_insert(before);
        *asked = before.max(*asked);
    }

    /// Somebody was told by now that a log begins there, which keeps its records for so long.
    fn begins(&mut self, place: &Place, at: i64, now_ms: i64, retention_ms: Option<i64>) -> Result<()> {
        let Some(retention_ms) = retention_ms else {
            let asked = self.asked.get(place).copied().unwrap_or(0);
            ensure!(
                at <= asked,
                "{place} begins at {at}, and nobody has deleted more than what is below {asked}"
            );
            return Ok(());
        };
        let clocks: Vec<_> = self.brokers.iter().map(|broker| broker.was_wrong_by_ms()).collect();
        let behind_ms = clocks.iter().map(|(behind_ms, _)| *behind_ms).min().unwrap_or(0);
        let ahead_ms = clocks.iter().map(|(_, ahead_ms)| *ahead_ms).max().unwrap_or(0);
        let begins = Begins { at, sent_until_ms: now_ms + STEP_MS + ahead_ms - behind_ms - retention_ms };
        let known = self.begins.entry(place.clone()).or_default();
        if known.last().is_none_or(|last| last.at < at) {
            known.push(begins);
        }
        Ok(())
    }

    /// The latest place where a log was said to begin.
    pub(super) fn beginning(&self, place: &Place) -> i64 {
        self.begins.get(place).and_then(|begins| begins.last()).map_or(0, |last| last.at)
    }

    /// Whether what has gone was old enough, of what was acknowledged. Says how much of it has gone.
    pub(super) fn check(&self) -> Result<usize> {
        let mut gone = 0;
        for (place, begins) in &self.begins {
            let asked = self.asked.get(place).copied().unwrap_or(0);
            for (&offset, &sent_ms) in
                self.sent_ms.get(place).into_iter().flat_map(|sent| sent.range(asked..))
            {
                let Some(first) = begins.iter().find(|begins| begins.at > offset) else { break };
                let young_ms = sent_ms - first.sent_until_ms;
                ensure!(
                    young_ms <= 0,
                    "{place}@{offset} was deleted, and {young_ms} ms too young for it: {first:?}"
                );
                gone += 1;
            }
        }
        Ok(gone)
    }
}

impl Work {
    /// Somebody was told that a partition begins there.
    pub(super) fn begins(&self, subject: &Subject, partition: i32, at: i64, now_ms: i64) -> Result<()> {
        let place = subject.place(partition);
        self.ages.lock().begins(&place, at, now_ms, subject.retention_ms)?;
        self.history.lock().deleted(&place, at);
        Ok(())
    }

    /// Asks where a partition begins, and takes it down. Whether somebody said so.
    pub(super) async fn ask_for_the_beginning(
        &self,
        os: &dyn Os,
        client: &Client,
        subject: &Subject,
        partition: i32,
    ) -> Result<bool> {
        match timeout(PATIENCE, client.offsets().earliest(subject.name, partition)).await {
            Ok(Ok(at)) => {
                self.begins(subject, partition, at, os.wall_ms())?;
                return Ok(true);
            }
            Ok(Err(error)) => tracing::info!("{}: no beginning is known: {error}", subject.place(partition)),
            Err(_) => tracing::info!("{}: no beginning is said", subject.place(partition)),
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { topic: "t".into(), partition: 0 }
    }

    #[test]
    fn what_was_deleted_too_young_is_found_and_what_was_asked_for_is_not() {
        let mut ages = Ages::default();
        for (offset, sent_ms) in [(0, 1_000), (1, 2_000), (2, 3_000)] {
            ages.acknowledged(&place(), offset, sent_ms);
        }
        ages.begins(&place(), 1, 6_000, Some(5_000)).unwrap();
        assert_eq!(ages.check().unwrap(), 1);
        ages.begins(&place(), 3, 7_500, Some(5_000)).unwrap();
        let said = ages.check().unwrap_err().to_string();
        assert!(said.starts_with("t/0@2 was deleted, and 400 ms too young"), "{said}");
        ages.begins(&place(), 3, 9_000, Some(5_000)).unwrap();
        assert!(ages.check().is_err(), "it is old enough by now, and was not then");
        ages.asked(&place(), 3);
        assert_eq!(ages.check().unwrap(), 0);
    }

    #[test]
    fn where_nothing_is_deleted_by_its_age_only_what_was_asked_for_goes() {
        let mut ages = Ages::default();
        ages.begins(&place(), 0, 0, None).unwrap();
        ages.asked(&place(), 5);
        ages.begins(&place(), 5, 0, None).unwrap();
        assert!(ages.begins(&place(), 6, 0, None).is_err());
    }
}
