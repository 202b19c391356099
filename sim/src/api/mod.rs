//! The API server: what it stores, what it accepts, what watchers see of it.

mod admission;
pub mod backoff;
pub mod clock;
mod defaults;
mod edit;
pub mod events;
pub mod fields;
pub mod identity;
pub mod informer;
mod json_patch;
mod lifecycle;
mod lru;
pub mod merge;
pub mod names;
pub mod object;
pub mod quantity;
pub mod queue;
pub mod record;
mod refusal;
pub mod server;
#[cfg(test)]
mod server_tests;
pub mod snapshot;
mod store;
mod strategic;
mod strategy;
mod validate;
pub mod watch;
pub mod write;

pub use admission::Patience;
pub use backoff::Backoff;
pub use clock::Clock;
pub use events::Recorder;
pub use informer::{Cache, Delta, Index};
pub use object::{Kind, ObjKey, Object, ObjectRef, Resource, version};
pub use queue::{Bucket, Limiter, Queue, exponential};
pub use record::EventRecord;
pub use server::ApiServer;
pub use watch::{History, Selector};
pub use write::{ApiError, Change, ChangeType, Delete, Edit, Patch, Read, ReadAnswer, Strings, Write, Written};
