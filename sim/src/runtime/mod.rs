//! Time, order, chance and tasks. This is the only module that names the executor.

#[cfg(not(madsim))]
compile_error!(
    "the deterministic executor is chosen by a cfg: put `[build] rustflags = [\"--cfg\", \"madsim\"]` and \
     `rustdocflags = [\"--cfg\", \"madsim\"]` into .cargo/config.toml, and unset RUSTFLAGS, which overrides that file"
);

mod agenda;
mod board;
mod exec;
mod rng;
mod time;

pub use agenda::{Agenda, Lane, Ticket};
pub use board::{Board, Entry, Turn};
pub use exec::{Tasks, run, settle};
pub use rng::{Chance, Draws, fold};
pub use time::Time;
