//! The `wavetank` command.

use std::process::ExitCode;

use wavetank_sim::cli;

fn main() -> ExitCode {
    ExitCode::from(cli::main(std::env::args_os(), &cli::Drivers::new()))
}
