//! The reference driver with a mistake, as a process: for whoever wants to know whether a suite of theirs notices.
//!
//! `cargo run -p wavetank-driver --example wrong-driver -- attach-retry-refused --endpoint …` takes the name of a quirk and then every option of
//! `wavetank-driver`. Without arguments it lists the quirks.

use std::process::ExitCode;

use clap::Parser;
use wavetank_driver::Quirk;
use wavetank_driver::server::{self, Options};

/// Wrong use of the command, as `sysexits.h` numbers it.
const USAGE: u8 = 64;

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command tells a person")]
fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let Some(name) = arguments.next() else {
        for quirk in Quirk::ALL {
            println!("{:28} {:5} {}", quirk.name(), quirk.bug(), quirk.says());
        }
        return ExitCode::SUCCESS;
    };
    let quirk = match name.parse::<Quirk>() {
        Ok(quirk) => quirk,
        Err(error) => {
            eprintln!("wrong-driver: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let options = Options::parse_from(std::iter::once(program).chain(arguments));
    match server::run_wrongly(&options, Some(quirk)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wrong-driver: {}", server::spell(&error));
            ExitCode::from(if error.is_usage() { USAGE } else { 1 })
        }
    }
}
