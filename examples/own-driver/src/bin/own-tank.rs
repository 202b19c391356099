//! The `wavetank` command with this driver in it: `cargo run -- run scenarios --seeds 100`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let drivers = [(own_driver::NAME.to_owned(), own_driver::factory())].into();
    ExitCode::from(wavetank_sim::cli::main(std::env::args_os(), &drivers))
}
