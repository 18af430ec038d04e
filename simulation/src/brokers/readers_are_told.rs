//! Whoever reads along is told when what it was to read next has gone (OFFSET_OUT_OF_RANGE, with where the log begins now),
//! and is never moved over it in silence (correctness rules 13, 15).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use weir_client::Error;
use weir_proto::v1::ErrorReason;
use weir_tests::history::{Place, Reading};

/// What one reader got of one partition without being told anything in between.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Where it was to go on, as it was told; `None`: at the beginning, wherever that was.
    pub(super) from: Option<i64>,
    pub(super) reading: Reading,
}

/// What a reader was told: of which partition, and where it begins now.
pub(super) fn told(error: &Error) -> Result<(Place, i64)> {
    let is_notice = error.reason() == Some(ErrorReason::OffsetOutOfRange);
    ensure!(is_notice, "a reader was told something else: {error}");
    let fact = |name: &str| error.metadata().get(name).cloned().with_context(|| format!("{name}: {error}"));
    let place = Place { topic: fact("topic")?, partition: fact("partition")?.parse()? };
    let (was_at, start) = (fact("offset")?.parse::<i64>()?, fact("log_start_offset")?.parse::<i64>()?);
    ensure!(was_at < start, "a reader of what is committed is not behind the end: {error}");
    Ok((place, start))
}

/// No record that anybody has read or was told the offset of lies where a reader went on without a word.
pub(super) fn check(stretches: &[Stretch], known: &BTreeMap<Place, BTreeSet<i64>>) -> Result<()> {
    for Stretch { from, reading } in stretches {
        let there = known.get(&reading.place);
        let mut next = *from;
        for &(offset, _) in reading.polls.iter().flatten() {
            let passed_over =
                there.zip(next).and_then(|(there, next)| there.range(next..offset.max(next)).next());
            if let Some(passed_over) = passed_over {
                anyhow::bail!(
                    "{}@{passed_over} was passed over by a reader that went on at {offset}, and was told nothing",
                    reading.place
                );
            }
            next = Some(offset + 1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_without_a_word_is_found() {
        let place = || Place { topic: "t".into(), partition: 0 };
        let stretch = |from, offsets: &[i64]| {
            let polls = vec![offsets.iter().map(|offset| (*offset, Vec::new())).collect()];
            Stretch { from, reading: Reading { place: place(), high_watermark: 9, polls } }
        };
        // There is none at 3.
        let known = BTreeMap::from([(place(), BTreeSet::from([0, 1, 2, 4, 5]))]);
        let holds = |stretches: &[Stretch]| check(stretches, &known).is_ok();
        assert!(holds(&[stretch(None, &[0, 1, 2, 4, 5])]));
        assert!(
            holds(&[stretch(None, &[1, 2]), stretch(Some(5), &[5])]),
            "it was told that the log begins at 5"
        );
        assert!(!holds(&[stretch(None, &[1, 2, 5])]));
        assert!(!holds(&[stretch(None, &[1, 2]), stretch(Some(4), &[5])]));
    }
}
