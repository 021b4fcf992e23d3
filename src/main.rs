//! The `waypost` command: parse, run, exit code.

use std::process::ExitCode;

/// Mail is many small pieces of memory taken and given back on many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    waypost::cli::main()
}
