//! The API server: what it stores, what it accepts, what watchers see of it.

pub mod object;
pub mod snapshot;
pub mod write;

pub use object::{Kind, ObjKey, Object, ObjectRef, Resource, version};
pub use write::{ApiError, Change, ChangeType, Delete, Edit, Patch, Read, ReadAnswer, Strings, Write, Written};
