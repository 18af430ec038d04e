//! The `weir` binary. Everything is in the library.

use std::process::ExitCode;

// Batches are a few hundred KiB each: the system's allocator gives such blocks back to the kernel and faults them in
// again, which costs more than everything else a broker does (docs/decisions, "mimalloc for the programs").
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir_cli::main()
}
