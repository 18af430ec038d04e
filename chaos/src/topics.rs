//! A client that makes and removes topics, and what it was told of them: what controllers promise.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use weir_client::{Applied, Client, NewTopic};
use weir_tests::dice::Dice;

use crate::clients::{Clients, connect};

/// How many of them there are at a time.
const TOPICS_MAX: usize = 6;
/// How long a call is tried.
const CALL: Duration = Duration::from_secs(8);
/// Between two calls, at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 600;

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// These are there.
    there: BTreeSet<String>,
    /// These are not: removed, or refused.
    gone: BTreeSet<String>,
    /// How many calls were answered.
    pub(crate) answered: u64,
}

impl Told {
    /// Makes and removes topics until the clients end.
    pub(crate) async fn gather(clients: &Clients, mut dice: Dice) -> Result<Self> {
        let client = connect(Client::builder().call_timeout(CALL)).await?;
        let mut told = Self::default();
        let mut number = 0;
        while !clients.are_over() {
            if told.there.len() < TOPICS_MAX {
                number += 1;
                let name = format!("made-{number}");
                let made =
                    client.topics().create(NewTopic::new(&name).partitions(1).replication_factor(3)).await;
                told.note(
                    made.map(drop),
                    |told| told.there.insert(name.clone()),
                    |told| told.gone.insert(name.clone()),
                );
            } else if let Some(name) = told.there.pop_first() {
                let removed = client.topics().delete(&name, None).await;
                told.note(
                    removed.map(drop),
                    |told| told.gone.insert(name.clone()),
                    |told| told.there.insert(name.clone()),
                );
            }
            sleep(Duration::from_millis(dice.below(PAUSE_MS_MAX))).await;
        }
        Ok(told)
    }

    /// Of a call whose outcome is unknown nothing is noted.
    fn note(
        &mut self,
        answer: weir_client::Result<()>,
        done: impl FnOnce(&mut Self) -> bool,
        refused: impl FnOnce(&mut Self) -> bool,
    ) {
        match answer {
            Ok(()) => {
                self.answered += 1;
                done(self);
            }
            Err(error) if error.applied() == Applied::No => {
                tracing::info!("refused: {error}");
                refused(self);
            }
            Err(error) => tracing::info!("unknown: {error}"),
        }
    }

    /// Holds it against what is there once all is well.
    pub(crate) async fn check(&self) -> Result<()> {
        let client = connect(Client::builder()).await?;
        let there: BTreeSet<String> =
            client.topics().list().await?.into_iter().map(|topic| topic.name).collect();
        let lost: Vec<_> = self.there.difference(&there).collect();
        ensure!(lost.is_empty(), "topics were made and acknowledged, and are not there: {lost:?}");
        let back: Vec<_> = self.gone.intersection(&there).collect();
        ensure!(back.is_empty(), "topics were removed or refused, and are there: {back:?}");
        Ok(())
    }
}
