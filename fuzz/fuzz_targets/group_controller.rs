//! Random requests of the GroupController service: see `wavetank_sim::conform::fuzz`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wavetank_sim::conform::{Tank, fuzz};

fuzz_target!(|bytes: &[u8]| {
    if let Err(trouble) = fuzz(&Tank::reference(), "GroupController", bytes) {
        panic!("{trouble}");
    }
});
