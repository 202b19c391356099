//! The API server: what it stores, what it accepts, what watchers see of it.

pub mod clock;
pub mod fields;
pub mod identity;
pub mod informer;
pub mod merge;
pub mod names;
pub mod object;
pub mod quantity;
pub mod queue;
pub mod record;
pub mod snapshot;
pub mod write;

pub use clock::Clock;
pub use informer::{Cache, Delta, Index};
pub use object::{Kind, ObjKey, Object, ObjectRef, Resource, version};
pub use queue::{Bucket, Limiter, Queue, exponential};
pub use record::EventRecord;
pub use write::{ApiError, Change, ChangeType, Delete, Edit, Patch, Read, ReadAnswer, Strings, Write, Written};
