//! How a process reaches a driver (`Calls`) and its own node (`Machine`).

pub mod call;
pub mod machine;

pub use call::{Call, CallError, CsiReply, CsiRequest, METHODS, Socket, Wire};
pub use machine::{MachineAnswer, MachineError, MachineOp, PathKind};
