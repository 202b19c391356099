//! The `wavetank` command.

use std::process::ExitCode;

use wavetank_sim::cli;

/// A run makes and drops millions of small objects on one thread: a quarter of its time with the system's allocator (docs/speed.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(cli::main(std::env::args_os(), &cli::Drivers::new()))
}
