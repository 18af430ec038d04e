//! Prints docs/metrics-of-controllers.md.

use std::io::{self, Write};

fn main() -> io::Result<()> {
    io::stdout().write_all(weir_controller::metrics_page().as_bytes())
}
