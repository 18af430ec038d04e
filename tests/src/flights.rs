//! The flights that left New York in 2013, one a line, as records keyed by their carrier.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// Partitions of a topic of flights.
pub const PARTITIONS: i32 = 8;

/// A few hundred lines of it.
pub const EXCERPT: &[u8] = include_bytes!("../data/flights-excerpt.csv");

/// A record that came back: carrier, partition, line.
pub type Back = (Vec<u8>, i32, Vec<u8>);

/// A record to be sent: carrier and line.
pub type Flight<'a> = (&'a [u8], &'a [u8]);

/// The file, cut into lines.
#[derive(Clone, Copy, Debug)]
pub struct Flights<'a> {
    csv: &'a [u8],
}

/// The carrier's place in a line.
const CARRIER: usize = 9;

impl<'a> Flights<'a> {
    /// The flights of a file.
    #[must_use]
    pub fn new(csv: &'a [u8]) -> Self {
        Self { csv }
    }

    /// Carrier and line of every flight, in the file's order. The lines are without their ends.
    pub fn records(self) -> impl Iterator<Item = Flight<'a>> {
        let lines = self.csv.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
        lines.map(|line| (line.split(|byte| *byte == b',').nth(CARRIER).unwrap_or_default(), line))
    }

    /// Checks what came back (carrier, partition, line, in the order of reading): every line once, as it was, in
    /// the order of the file for each carrier, and a carrier in one partition only: that of its key.
    ///
    /// # Errors
    /// Something is wrong: the words say what, at the first place.
    pub fn check(self, came_back: impl IntoIterator<Item = Back>) -> Result<()> {
        let mut expected: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
        for (carrier, line) in self.records() {
            expected.entry(carrier).or_default().push(line);
        }
        let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (carrier, partition, line) in came_back {
            let shown = String::from_utf8_lossy(&carrier).into_owned();
            let place = seen.entry(carrier.clone()).or_default();
            let lines =
                expected.get(carrier.as_slice()).with_context(|| format!("no carrier {shown:?} was sent"))?;
            let sent =
                lines.get(*place).with_context(|| format!("{shown}: more than {} lines", lines.len()))?;
            ensure!(
                *sent == line.as_slice(),
                "{shown}, line {place}: sent {:?}, came back {:?}",
                String::from_utf8_lossy(sent),
                String::from_utf8_lossy(&line)
            );
            let of_key = weir_record::partition_for_key(&carrier, PARTITIONS);
            ensure!(partition == of_key, "{shown} came from partition {partition}, its key's is {of_key}");
            *place += 1;
        }
        for (carrier, lines) in expected {
            let came = seen.get(carrier).copied().unwrap_or_default();
            let shown = String::from_utf8_lossy(carrier);
            ensure!(came == lines.len(), "{shown}: {} lines were sent, {came} came back", lines.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back() -> Vec<Back> {
        let flights = Flights::new(EXCERPT);
        let partition = |carrier| weir_record::partition_for_key(carrier, PARTITIONS);
        flights
            .records()
            .map(|(carrier, line)| (carrier.to_vec(), partition(carrier), line.to_vec()))
            .collect()
    }

    #[test]
    fn the_check_takes_what_is_right_and_nothing_else() {
        let flights = Flights::new(EXCERPT);
        assert_eq!(flights.records().count(), 400);
        flights.check(back()).unwrap();
        let wrong: [fn(&mut Vec<Back>); 6] = [
            |back| drop(back.remove(7)),
            |back| back.push(back[399].clone()),
            |back| back[100].2.push(b'\r'),
            |back| back[5].1 ^= 1,
            |back| back[0].0 = b"XX".to_vec(),
            |back| {
                let same: Vec<_> = (0..back.len()).filter(|at| back[*at].0 == back[0].0).take(2).collect();
                back.swap(same[0], same[1]);
            },
        ];
        for (case, change) in wrong.iter().enumerate() {
            let mut back = back();
            change(&mut back);
            assert!(flights.check(back).is_err(), "case {case}");
        }
    }
}
