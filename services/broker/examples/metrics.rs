//! Prints docs/metrics.md.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(weir_broker::metrics_page().as_bytes())
}
