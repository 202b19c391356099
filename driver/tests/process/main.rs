//! `wavetank-driver` as a process: callers on its socket, signals, and what it leaves on the machine.

mod command;
mod loop_backend;
mod rig;
