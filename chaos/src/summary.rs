//! What a history came to, in numbers: a run in which nothing was done must not look like one in which nothing went wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Of one history, or of several together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Records that writers were told are there.
    pub(crate) acknowledged: u64,
    /// Records of which they were told nothing.
    pub(crate) unknown: u64,
    /// Records of which they were told that they are not there.
    pub(crate) refused: u64,
    /// Records that readers met while things broke, all together.
    pub(crate) read: u64,
    /// Records that were there in the end.
    pub(crate) there: u64,
    /// The longest time for which nothing was acknowledged in some partition.
    pub(crate) silence_ms: u64,
    /// Topics made and removed, as was answered.
    pub(crate) topics: u64,
    /// What happened, how often.
    pub(crate) faults: BTreeMap<String, u64>,
    /// Whom or what that met, how often, where a fault may meet nothing.
    pub(crate) met: BTreeMap<String, u64>,
}

impl Summary {
    /// As a history left it in its folder.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("summary.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Leaves it there.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        Ok(fs::write(folder.join("summary.json"), serde_json::to_vec_pretty(self)?)?)
    }

    /// With another history's.
    pub(crate) fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        self.refused += other.refused;
        self.read += other.read;
        self.there += other.there;
        self.silence_ms = self.silence_ms.max(other.silence_ms);
        self.topics += other.topics;
        let add = |to: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>| {
            more.into_iter().for_each(|(kind, count)| *to.entry(kind).or_default() += count);
        };
        add(&mut self.faults, other.faults);
        add(&mut self.met, other.met);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, unknown, refused, read, there, silence_ms, topics, faults, met } = self;
        let all = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
        };
        write!(
            f,
            "{acknowledged} records acknowledged, {unknown} of unknown outcome, {refused} refused; {read} read along, {there} \
             there in the end; {topics} topics made or removed; longest time without an acknowledgement in a partition {}.{:03} s; {}{}{}",
            silence_ms / 1000,
            silence_ms % 1000,
            if faults.is_empty() { "nothing happened".to_owned() } else { all(faults) },
            if met.is_empty() { "" } else { "; met: " },
            all(met)
        )
    }
}
