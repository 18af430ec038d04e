//! Whether all replicas of a partition have the same frames, once everybody has stopped in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use weir_runtime::{Os, RealOs};
use weir_storage::{DirOptions, FrameHeader, Limit, LogDir, ReadRequest};

use crate::who::Who;

/// Read at a time, in bytes.
const CHUNK: usize = 4 << 20;

/// Compares them. Gives the number of replicas that were looked at, of which there must be so many.
pub(crate) async fn compare(brokers: Vec<(Who, PathBuf)>, least: usize) -> Result<usize> {
    let os: Arc<dyn Os> = Arc::new(RealOs::new(4)?);
    let mut known: BTreeMap<String, (Who, Vec<FrameHeader>)> = BTreeMap::new();
    let mut replicas = 0;
    for (broker, data) in brokers {
        for (log, frames) in
            frames(&os, &data).await.with_context(|| format!("reading the logs of {broker}"))?
        {
            replicas += 1;
            match known.get(&log) {
                None => drop(known.insert(log, (broker, frames))),
                Some((other, theirs)) => {
                    let pairs = theirs.iter().zip(&frames);
                    let differ = pairs.into_iter().find(|(theirs, ours)| theirs != ours);
                    if let Some((theirs, ours)) = differ {
                        bail!("{log}: {other} has {theirs:?}, {broker} has {ours:?}");
                    }
                    let (theirs, ours) = (theirs.len(), frames.len());
                    ensure!(theirs == ours, "{log}: {other} has {theirs} frames, {broker} has {ours}");
                }
            }
        }
    }
    ensure!(replicas >= least, "there are {replicas} replicas: fewer than {least}");
    Ok(replicas)
}

/// The headers of all frames of each log, which say what the payloads are; these are checked.
async fn frames(os: &Arc<dyn Os>, data: &Path) -> Result<Vec<(String, Vec<FrameHeader>)>> {
    let options = DirOptions::new(|fatal| println!("chaos: {fatal}"));
    let (dir, _) = LogDir::open(os.clone(), &data.join("logs"), None, options)?;
    let mut logs = Vec::new();
    for log in dir.partitions() {
        let mut frames = Vec::new();
        let mut from = log.ends().log_start;
        loop {
            let chunk = log.read(ReadRequest { from, bytes_max: CHUNK, limit: Limit::LogEnd }).await?;
            if chunk.is_empty() {
                break;
            }
            from = chunk.next_offset;
            for mut frame in chunk.frames() {
                let whole = frame.header.verify_payload(&frame.payload);
                whole.with_context(|| format!("{}: {:?}", log.id(), frame.header))?;
                // A replica's own.
                frame.header.flushed_end = None;
                frames.push(frame.header);
            }
        }
        logs.push((log.id().to_string(), frames));
    }
    Ok(logs)
}
