//! `wavetank-driver`: the reference CSI driver as a process.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use wavetank_driver::server::{self, Options};

/// Wrong use of the command, as `sysexits.h` numbers it.
const USAGE: u8 = 64;
const FAILED: u8 = 1;

#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person why the process ends"
)]
fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(USAGE),
            };
        }
    };
    match server::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wavetank-driver: {}", server::spell(&error));
            ExitCode::from(if error.is_usage() { USAGE } else { FAILED })
        }
    }
}
