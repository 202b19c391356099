//! How a process decides and acts: controllers as pure functions, and the one shell that performs their effects.
//!
//! A controller never touches the cluster. [`Controller::decide`] looks at what the process has seen and remembers and names one effect; the shell
//! performs it and tells [`Controller::learn`] the outcome, until there is nothing left to do for that key. A fault can strike between any two
//! effects, because nothing else happens there.

mod controller;
mod effect;
mod shell;

pub use controller::{Controller, LaneSpec, Learner, Requests, Signal};
pub use effect::{Effect, Outcome, PluginInfo, RegistrationOp};
pub use shell::{AnyShell, Pumped, Request, Shell};
