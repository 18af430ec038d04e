//! `cargo xtask proto-image`: writes down the API, and the rows on controllers' disks, as they are now: what later
//! changes may not break.
//!
//! Run it when a version is released, never to silence `buf breaking`: that complaint is somebody's program, or
//! somebody's cluster that does not start any more.

use crate::steps::{Outcome, Steps};
use crate::tools::Tools;

/// The files whose messages are stored: raft log rows, commands and snapshot rows (`raft.redb` and `*.snap`).
const STORED: [&str; 2] = ["proto/weir/internal/v1/metadata.proto", "proto/weir/internal/v1/raft.proto"];

/// Builds the public API and what is stored into proto/released.binpb, without source positions and comments.
pub(crate) fn run(steps: &mut Steps) -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    steps.run(
        "buf build",
        tools
            .command("buf")
            .args(["build", "--path", "proto/weir/v1"])
            .args(STORED.iter().flat_map(|file| ["--path", file]))
            .args(["--exclude-source-info", "-o", "proto/released.binpb"]),
    )
}
