//! What is measured: every case is one topic, written and read back, or one latency.

use clap::ValueEnum;

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// Ready batches of 252 KiB, acknowledged from the page cache, and read back; 1 and 8 partitions.
    Bulk,
    /// The same with batches of 1 MiB, 64 KiB, 16 KiB and 4 KiB, one partition.
    Sizes,
    /// 4 KiB, one in flight, from sending to the acknowledgement.
    Latency,
    /// Acknowledged after the disk has it; beside it raw append + fdatasync of groups of the same size.
    Fsync,
}

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// In the table.
    pub(crate) name: String,
    /// Class fsync instead of replicated.
    pub(crate) fsync: bool,
    /// Arguments of `load`: what to write.
    pub(crate) produce: Vec<String>,
    /// Arguments of `load`: what to read back. Empty: nothing.
    pub(crate) consume: Vec<String>,
    /// Arguments of `raw`, for a third column. Empty: none.
    pub(crate) raw: Vec<String>,
}

/// The cases of a suite, writing `total` bytes each.
pub(crate) fn cases(suite: Suite, total: usize) -> Vec<Case> {
    match suite {
        Suite::Bulk => {
            vec![bulk("252KiB", 1, 1, total), bulk("252KiB", 8, 1, total), bulk("252KiB", 8, 8, total)]
        }
        Suite::Sizes => vec![
            bulk("1MiB", 1, 1, total),
            bulk("64KiB", 1, 1, total),
            bulk("16KiB", 1, 1, total / 2),
            bulk("16KiB", 8, 1, total / 2),
            bulk("4KiB", 1, 1, total / 4),
        ],
        Suite::Latency => vec![Case {
            name: "4KiB, one in flight".to_owned(),
            fsync: false,
            produce: words("latency --total 80MiB --create replicated"),
            consume: Vec::new(),
            raw: Vec::new(),
        }],
        Suite::Fsync => vec![
            fsync("64KiB", 1, 64, total / 2),
            fsync("64KiB", 8, 64, total / 2),
            fsync("4KiB", 1, 1, total / 256),
            fsync("4KiB", 8, 64, total / 16),
        ],
    }
}

fn bulk(batch: &str, partitions: u32, connections: u32, total: usize) -> Case {
    let spread = format!("--partitions {partitions} --connections {connections}");
    let inflight = format!("--inflight {}", inflight(batch, connections));
    Case {
        name: format!("{batch}, {}, {}", count(partitions, "partition"), count(connections, "connection")),
        fsync: false,
        produce: words(&format!(
            "produce --batch {batch} --total {total} --create replicated {inflight} {spread}"
        )),
        consume: words(&format!("consume {spread}")),
        raw: Vec::new(),
    }
}

fn fsync(batch: &str, partitions: u32, inflight: u32, total: usize) -> Case {
    Case {
        name: format!("fsync {batch}, {}, {inflight} in flight", count(partitions, "partition")),
        fsync: true,
        produce: words(&format!(
            "produce --batch {batch} --total {total} --create fsync --inflight {inflight} --partitions {partitions}"
        )),
        consume: Vec::new(),
        raw: words(&format!(
            "--what sync --chunk {batch} --total {total} --group {inflight} --files {partitions}"
        )),
    }
}

/// 16 MiB on the way, over all connections, and never fewer than two batches on each.
fn inflight(batch: &str, connections: u32) -> u64 {
    let bytes =
        weir_bench::units::parse_bytes(batch).expect("the sizes of the cases are written here") as u64;
    ((16 << 20) / bytes / u64::from(connections.max(1))).max(2)
}

fn count(n: u32, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
