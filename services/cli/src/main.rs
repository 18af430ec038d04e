//! The `weir` binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_cli::main()
}
