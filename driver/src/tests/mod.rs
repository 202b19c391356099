//! The driver as a whole, against a small fake machine and pool: refusals, repeats, concurrency, crashes, reboots.

mod calls;
mod concurrency;
mod costs;
mod crashes;
mod disk;
mod encrypted;
mod groups;
mod lifecycle;
mod machine;
mod modes;
mod node_refusals;
mod pool;
mod quirks;
mod reboots;
mod refusals;
mod repeats;
mod rig;
mod snapshots;
