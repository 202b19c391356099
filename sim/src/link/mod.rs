//! How a process reaches a driver (`Calls`) and its own node (`Machine`).

pub mod call;
mod elsewhere;
pub mod inproc;
pub mod layers;
pub mod machine;
mod served;
pub mod socket;
mod tank_runtime;
pub mod vm;

pub use call::{Call, CallError, CsiReply, CsiRequest, METHODS, Socket, Wire};
pub use elsewhere::{Elsewhere, Footprint, Sight};
pub use inproc::{Factory, InProcess, NodeSeat, Seat, Services};
pub use machine::{MachineAnswer, MachineError, MachineOp, PathKind, RealMachine};
pub use served::Served;
pub use tank_runtime::{EPOCH_SECONDS, TankRuntime};
