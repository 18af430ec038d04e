//! Data directories that are not as they should be: each start says what is wrong and what to do, damages nothing
//! more, and whatever was acknowledged is there again once the cause is gone.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use weir_proto::v1::{ErrorReason, FetchPartition, FetchRequest, UpdateTopicRequest};
use weir_tests::api::Api;
use weir_tests::process::{Process, Setup};
use weir_tests::refusal::Refusal;

const TOPIC: &str = "flights";
const RECORDS: usize = 300;

/// A directory with 300 records in partition 0, in segments of 1 MiB, and three in partition 1.
struct Data {
    _folder: TempDir,
    setup: Setup,
}

impl Data {
    async fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let setup = Setup::new(folder.path().join("data"));
        let server = setup.start().await?;
        let api = Api::connect(server.addr()).await?;
        api.create_topic(TOPIC, 2, &[("segment_bytes", "2MiB")]).await?;
        for number in 0..RECORDS {
            api.write(TOPIC, 0, [value(number)]).await?;
        }
        api.write(TOPIC, 1, ["one", "two", "three"]).await?;
        server.stop().await?;
        Ok(Self { _folder: folder, setup })
    }

    fn logs(&self) -> PathBuf {
        self.setup.data_dir().join("logs")
    }

    /// The files of partition 0 with this extension, by name.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>> {
        let folders = list(&self.logs())?;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = folders.iter().find(|path| name(path).starts_with("flights-0."));
        let all = list(folder.context("no folder of flights/0")?)?;
        Ok(all.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect())
    }

    /// Starts it, and finds everything there.
    async fn is_whole(&self) -> Result<()> {
        let server = self.setup.start().await?;
        let api = Api::connect(server.addr()).await?;
        let mut records = api.read_all(TOPIC).await?;
        records.retain(|record| record.partition == 0);
        ensure!(records.len() == RECORDS, "{} of {RECORDS} records", records.len());
        for (number, record) in records.iter().enumerate() {
            ensure!(usize::try_from(record.offset)? == number, "{} at {number}", record.offset);
            ensure!(record.value.as_deref() == Some(&*value(number)), "record {number} has changed");
        }
        server.stop().await
    }
}

/// About 16 KiB.
fn value(number: usize) -> Vec<u8> {
    format!("{number} ").repeat(4_000).into_bytes()
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

fn flip(path: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    *bytes.get_mut(at).with_context(|| format!("{} has no byte {at}", path.display()))? ^= 0x10;
    Ok(fs::write(path, bytes)?)
}

/// Reads a partition from its beginning until it is refused; `None`: it was read to its end. What is read before
/// must be what was written.
async fn read_until_refused(server: &Process, partition: i32) -> Result<Option<Refusal>> {
    let api = Api::connect(server.addr()).await?;
    let mut offset = 0;
    loop {
        let wanted =
            FetchPartition { topic: TOPIC.to_owned(), partition, offset, ..FetchPartition::default() };
        let request = FetchRequest { partitions: vec![wanted], wait_ms: Some(0), ..FetchRequest::default() };
        let response = api.consumer().fetch(request).await?.into_inner();
        let fetched = response.partitions.into_iter().next().context("one partition")?;
        if let Some(failure) = &fetched.failure {
            return Refusal::of_failure(failure).map(Some);
        }
        for record in fetched.records.iter().filter(|_| partition == 0) {
            let number = usize::try_from(record.offset)?;
            ensure!(record.value.as_deref() == Some(&*value(number)), "record {number} has changed");
        }
        let progress = fetched.progress.context("progress")?;
        if progress.next_offset == progress.high_watermark {
            return Ok(None);
        }
        offset = progress.next_offset;
    }
}

#[tokio::test]
async fn an_orderly_stop_leaves_a_marker_that_the_next_start_takes_away() -> Result<()> {
    let data = Data::new().await?;
    let marker = data.logs().join("clean");
    ensure!(marker.exists(), "no marker after an orderly stop");
    let server = data.setup.start().await?;
    ensure!(!marker.exists(), "the marker is still there while a server writes");
    server.kill().await?;
    ensure!(!marker.exists(), "a killed server left a marker");
    data.is_whole().await
}

#[tokio::test]
async fn a_second_process_is_refused_and_told_who_has_the_directory() -> Result<()> {
    let data = Data::new().await?;
    let mut server = data.setup.start().await?;
    let refused = data.setup.refused().await?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    let pid = server.pid().to_string();
    ensure!(refused.said.contains(&pid), "process {pid} is not named: {}", refused.said);
    server.lives()?;
    Api::connect(server.addr()).await?.write(TOPIC, 1, ["four"]).await?;
    server.stop().await?;
    data.is_whole().await
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> Result<()> {
    let data = Data::new().await?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let addr = taken.local_addr()?.to_string();
    for flag in ["--listen", "--http-listen", "--controller-listen"] {
        let refused = data.setup.clone().flag(flag, &addr).refused().await?;
        ensure!(refused.status.code() == Some(1), "{flag}: {}", refused.status);
        ensure!(refused.said.contains(&addr), "{flag}: {addr} is not named: {}", refused.said);
    }
    data.is_whole().await
}

#[tokio::test]
async fn a_directory_of_a_newer_version_is_left_alone() -> Result<()> {
    let data = Data::new().await?;
    let file = data.logs().join("dir.json");
    let kept = fs::read_to_string(&file)?;
    let mut newer: serde_json::Value = serde_json::from_str(&kept)?;
    if let Some(version) = newer.get_mut("format_version") {
        *version = 99.into();
    }
    let newer = newer.to_string();
    fs::write(&file, &newer)?;
    let refused = data.setup.refused().await?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    for word in ["dir.json", "99", "newer"] {
        ensure!(refused.said.contains(word), "{word:?} is not said: {}", refused.said);
    }
    ensure!(fs::read_to_string(&file)? == newer, "it was changed");
    fs::write(&file, kept)?;
    data.is_whole().await
}

#[tokio::test]
async fn the_logs_of_another_cluster_are_refused() -> Result<()> {
    let (ours, theirs) = (Data::new().await?, Data::new().await?);
    let aside = ours.setup.data_dir().join("aside");
    fs::rename(ours.logs(), &aside)?;
    fs::rename(theirs.logs(), ours.logs())?;
    let refused = ours.setup.refused().await?;
    ensure!(refused.status.code() == Some(1), "{}", refused.status);
    ensure!(refused.said.contains("cluster"), "the cluster is not named: {}", refused.said);
    ensure!(ours.logs().join("clean").exists(), "a start in vain took the marker of the orderly stop");
    fs::rename(ours.logs(), theirs.logs())?;
    fs::rename(&aside, ours.logs())?;
    theirs.is_whole().await?;
    ours.is_whole().await
}

#[tokio::test]
async fn small_files_that_make_no_sense_are_named_and_kept() -> Result<()> {
    let data = Data::new().await?;
    for name in ["dir.json", "checkpoint"] {
        let file = data.logs().join(name);
        let kept = fs::read(&file)?;
        fs::write(&file, b"nonsense")?;
        let refused = data.setup.refused().await.with_context(|| name.to_owned())?;
        ensure!(refused.status.code() == Some(1), "{name}: {}", refused.status);
        ensure!(refused.said.contains(name), "{name} is not named: {}", refused.said);
        ensure!(fs::read(&file)? == b"nonsense", "{name} was changed");
        fs::write(&file, kept)?;
        data.is_whole().await?;
    }
    Ok(())
}

#[tokio::test]
async fn damage_below_what_is_proven_is_never_taken_for_a_torn_tail() -> Result<()> {
    let mut data = Data::new().await?;
    // No checkpoint says how far the log is on the disk: each frame says it of those before it.
    data.setup = data.setup.env("WEIR_CHECKPOINT_INTERVAL_MS", "1h");
    let length = async |data: &Data| {
        let segments = data.files("log")?;
        anyhow::Ok(fs::metadata(segments.last().context("a segment")?)?.len())
    };
    let server = data.setup.start().await?;
    let before = length(&data).await?;
    let api = Api::connect(server.addr()).await?;
    for number in RECORDS..RECORDS + 10 {
        api.write(TOPIC, 0, [value(number)]).await?;
    }
    server.kill().await?;
    let (segments, after) = (data.files("log")?, length(&data).await?);
    let last = segments.last().context("a segment")?;
    let (whole, middle) = (fs::read(last)?, usize::try_from((before + after) / 2)?);
    flip(last, middle)?;

    let mut server = data.setup.start().await?;
    let refusal = read_until_refused(&server, 0).await?.context("a damaged partition was read")?;
    let reasons = [ErrorReason::PartitionDamaged, ErrorReason::PartitionOffline, ErrorReason::NoLeader];
    ensure!(reasons.contains(&refusal.reason), "{refusal:?}");
    ensure!(fs::metadata(last)?.len() == after, "it was cut");
    ensure!(read_until_refused(&server, 1).await?.is_none(), "the other partition is not read");
    ensure!(server.log().contains("damaged"), "nothing is said: {}", server.log());
    server.lives()?;
    server.stop().await?;
    // What is there stays there, for whoever has to decide about it.
    flip(last, middle)?;
    ensure!(fs::read(last)? == whole, "it was changed");

    // Put right by a person, it still waits for that person's word: that it fits together proves no end.
    let server = data.setup.start().await?;
    let refusal = read_until_refused(&server, 0).await?.context("it is believed by itself")?;
    ensure!(refusal.reason == ErrorReason::NoLeader, "{refusal:?}");
    ensure!(refusal.message.contains("no replica is known to hold every acknowledged record"), "{refusal:?}");
    let api = Api::connect(server.addr()).await?;
    let set_config = [("unclean_recovery".to_owned(), "longest".to_owned())].into();
    let request = UpdateTopicRequest { name: TOPIC.to_owned(), set_config, ..UpdateTopicRequest::default() };
    api.topics().update_topic(request).await?;
    ensure!(read_until_refused(&server, 0).await?.is_none(), "it is not read");
    ensure!(api.ends(TOPIC, 1).await? == [i64::try_from(RECORDS)? + 10], "records are missing");
    server.stop().await
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_nothing_acknowledged_with_it() -> Result<()> {
    let data = Data::new().await?;
    let server = data.setup.start().await?;
    server.kill().await?;
    let segments = data.files("log")?;
    let last = segments.last().context("a segment")?;
    let mut bytes = fs::read(last)?;
    let frame = bytes.get(..1_000).context("a frame")?.to_vec();
    // The beginning of a frame, as a write that was cut off leaves it.
    bytes.extend(frame);
    fs::write(last, bytes)?;
    data.is_whole().await
}

#[tokio::test]
async fn damaged_and_missing_indexes_are_made_again() -> Result<()> {
    let data = Data::new().await?;
    let seals = data.files("seal")?;
    ensure!(seals.len() >= 2, "{seals:?}");
    for (number, seal) in seals.iter().enumerate() {
        match number % 3 {
            0 => flip(seal, 40)?,
            1 => fs::remove_file(seal)?,
            _ => fs::write(seal, b"")?,
        }
    }
    data.is_whole().await?;
    // And once more as after a crash.
    for seal in data.files("seal")? {
        flip(&seal, 60)?;
    }
    fs::remove_file(data.logs().join("clean"))?;
    data.is_whole().await
}
