//! What may differ: `allow.json`, a list of (trace, what, why). `what` is the beginning of a difference as the tests print it; `*` as trace stands for every trace.
//!
//! An allowance that nothing needs fails its test.

use serde::Deserialize;

/// A difference that is known.
#[derive(Clone, Debug, Deserialize)]
pub struct Allowance {
    pub trace: String,
    pub what: String,
    pub why: String,
}

/// All of them.
///
/// # Panics
/// If the list cannot be read.
pub fn load() -> Vec<Allowance> {
    serde_json::from_str(include_str!("allow.json")).expect("allow.json is a list of allowances")
}

/// Those of one trace.
pub fn of<'a>(all: &'a [Allowance], trace: &str) -> Vec<&'a Allowance> {
    all.iter().filter(|a| a.trace == trace).collect()
}
