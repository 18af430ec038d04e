//! `cargo xtask proto-image`: writes down the API as it is now, as the one that later changes may not break.
//!
//! Run it when a version is released, never to silence `buf breaking`: that complaint is somebody's program.

use crate::steps::{Outcome, Steps};
use crate::tools::Tools;

/// Builds the public API into proto/released.binpb, without source positions and comments.
pub(crate) fn run(steps: &mut Steps) -> Result<Outcome, String> {
    let tools = Tools::fetch()?;
    steps.run(
        "buf build",
        tools.command("buf").args([
            "build",
            "--path",
            "proto/weir/v1",
            "--exclude-source-info",
            "-o",
            "proto/released.binpb",
        ]),
    )
}
