//! kill -9 at random moments under load: every acknowledged record is there after each restart, at its offset,
//! once, in both durability classes.
//!
//! What a writer was not told may be there or not, but never twice; an idempotent writer sends it again, and in the
//! end all of its records are there once. (The page cache survives a killed process: what a power loss leaves is
//! tested below, in the storage engine, on disks that lose it.)

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_tests::api::Api;
use weir_tests::dice::{self, Dice, times};
use weir_tests::history::{History, Place};
use weir_tests::process::{Process, Setup};
use weir_tests::reader;
use weir_tests::writer::Writer;

const CLASSES: [&str; 2] = ["fsync", "replicated"];
const PARTITIONS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_killed_processes() -> Result<()> {
    let mut dice = dice::of_this_run();
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path().join("data"));
    let mut load = Load::new(&mut dice);

    let server = setup.start().await?;
    let api = Api::connect(server.addr()).await?;
    for class in CLASSES {
        // Small segments, so that some moments are those of a roll.
        let config = [("durability", class), ("segment_bytes", "2MiB")];
        api.create_topic(class, PARTITIONS, &config).await?;
    }
    server.stop().await?;

    for crash in 0..times("WEIR_CRASHES", 10) {
        if dice.below(5) == 0 {
            setup.spawn().await?.kill().await?;
        }
        let server = setup.start().await?;
        load.check(&server, "after the restart").await?;
        let acknowledgements = 1 + dice.below(300);
        eprintln!("crash {crash} after {acknowledgements} acknowledgements");
        load.run_and_kill(server, acknowledgements).await?;
    }

    // What the idempotent writers still had open is sent again and answered.
    let server = setup.start().await?;
    load.finish(&server).await?;
    load.check(&server, "in the end").await?;
    server.stop().await?;
    let server = setup.start().await?;
    load.check(&server, "after an orderly stop").await?;
    server.stop().await
}

/// Two writers, one of them idempotent, for each partition of each class.
struct Load {
    writers: Vec<Writer>,
    places: Vec<Place>,
    history: Arc<Mutex<History>>,
}

impl Load {
    fn new(dice: &mut Dice) -> Self {
        let (mut writers, mut places) = (Vec::new(), Vec::new());
        for topic in CLASSES {
            for partition in 0..PARTITIONS {
                let place = Place { topic: topic.to_owned(), partition };
                for idempotent in [true, false] {
                    let id = u32::try_from(writers.len()).unwrap_or(u32::MAX);
                    writers.push(Writer::new(id, place.clone(), idempotent, dice.roll()));
                }
                places.push(place);
            }
        }
        Self { writers, places, history: Arc::default() }
    }

    /// Writes until the server has acknowledged so many batches, and kills it while more are on their way.
    async fn run_and_kill(&mut self, server: Process, acknowledgements: u64) -> Result<()> {
        let (acknowledged, mut count) = watch::channel(0);
        let (_go_on, enough) = watch::channel(false);
        let addr = server.addr().to_owned();
        let kill = async {
            count.wait_for(|count| *count >= acknowledgements).await?;
            server.kill().await
        };
        let history = &self.history;
        let write = self.writers.iter_mut().map(|writer| {
            let (addr, acknowledged, enough) = (&addr, &acknowledged, &enough);
            // A connection each: one writer's flow control is not another's.
            async move { writer.run(&Api::connect(addr).await?, history, acknowledged, enough).await }
        });
        tokio::try_join!(kill, try_join_all(write))?;
        Ok(())
    }

    async fn finish(&mut self, server: &Process) -> Result<()> {
        let (acknowledged, _count) = watch::channel(0);
        let (_stop, enough) = watch::channel(true);
        let api = Api::connect(server.addr()).await?;
        let history = &self.history;
        let write = self.writers.iter_mut().map(|writer| writer.run(&api, history, &acknowledged, &enough));
        try_join_all(write).await.map(drop)
    }

    /// Reads every partition in every way there is.
    async fn check(&self, server: &Process, when: &str) -> Result<()> {
        let api = Api::connect(server.addr()).await?;
        let mut readings = Vec::new();
        for place in &self.places {
            readings.push(reader::consume(&api, place).await?);
            readings.push(reader::fetch(&api, place).await?);
            readings.push(reader::stream(&api, place).await?);
        }
        let history = self.history.lock();
        let wrong = history.check(&readings);
        let shown: Vec<_> = wrong.iter().take(20).map(ToString::to_string).collect();
        ensure!(
            wrong.is_empty(),
            "{when}, with {} records acknowledged, {} anomalies:\n{}",
            history.acknowledgements(),
            wrong.len(),
            shown.join("\n")
        );
        Ok(())
    }
}
