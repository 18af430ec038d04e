//! Measuring programs: how fast Weir is, against a floor and against other systems, in one run.
//!
//! - `floor`: a broker with nothing in it, the yardstick;
//! - `load`: the load generator, for any server that speaks `weir.v1`;
//! - `raw`: what the disk does without any server;
//! - `storage`: the log without a server, beside `raw`;
//! - `run`: the harness that starts the above in turn and prints medians, spreads and ratios;
//! - `records`: records one by one through the Rust SDK;
//! - `failover`: how long a failure is felt, in a cluster of real processes;
//! - `partitions`: what many partitions cost a cluster of real processes.
//!
//! The library part is what they share beside `weir_load`. None of this is product code: it uses threads and clocks as it
//! likes.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "programs that measure: they need real threads and real clocks, and print"
)]

pub mod dev;
pub mod units;

/// Declares the allocator of a program here: the one that `weir` is linked with, unless built for a comparison.
#[macro_export]
macro_rules! declare_allocator {
    () => {
        #[cfg(feature = "jemalloc")]
        #[global_allocator]
        static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

        #[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
        #[global_allocator]
        static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
    };
}

/// The allocator that this build's programs are linked with, for the head of a report.
#[must_use]
pub fn allocator() -> &'static str {
    if cfg!(feature = "jemalloc") {
        "jemalloc"
    } else if cfg!(feature = "mimalloc") {
        "mimalloc"
    } else {
        "system"
    }
}
