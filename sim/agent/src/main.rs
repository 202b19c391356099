//! The agent of a real node, as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wavetank_agent::main(std::env::args_os().skip(1), &[]))
}
