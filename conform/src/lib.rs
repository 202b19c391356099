//! The obligations of a CSI driver as checks, each with its sentence, its source and what it needs, written once for any link.
//!
//! ```text
//! CHECKS ──run──► Lab ──calls──► UnderTest: the wire of a driver ──► Report
//!                  └──paths───► Machine: what kubelet and pods see
//! ```
//!
//! It knows the wire (`wavetank-proto`) and nothing else of this workspace, so that a driver's author can use it in a test without the tank and without
//! its executor. [`socket`] is the arm for processes behind unix sockets; the tank brings its own.

mod call;
mod check;
mod checks;
mod driver;
mod lab;
mod profile;
pub mod random;
mod raw;
mod run;
mod settings;
#[cfg(all(feature = "socket", target_os = "linux"))]
pub mod socket;
mod undo;

pub use call::{Side, Unary, Wire, descriptors};
pub use check::{Check, Exchange, Finding, Need, Service, Verdict, Weight};
pub use checks::all;
pub use driver::{Kind, Machine, UnderTest, WriteError};
pub use lab::spell;
pub use profile::{Profile, Unreachable};
pub use raw::{frame, raw, read, unframe};
pub use run::{Report, run};
pub use settings::Settings;
