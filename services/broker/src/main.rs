//! `weir-broker`. Everything is in the library.

use std::process::ExitCode;

// As in every program of Weir (docs/decisions, "mimalloc for the programs").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir_broker::main()
}
