//! Which gRPC code an error of the pool or of the host becomes.
//!
//! The split that matters to callers: `UNAVAILABLE` and `DEADLINE_EXCEEDED` mean *it may have happened, or may still
//! happen*; every other code means *it did not happen, and nothing is left over*.

use tonic::Status;

use crate::host::{HostError, HostErrorKind};
use crate::pool::{PoolError, PoolErrorKind};

/// The refusal for a pool error met while `doing` something.
pub(crate) fn pool(doing: &str, error: &PoolError) -> Status {
    let text = format!("{doing}: {error}");
    match error.kind {
        PoolErrorKind::NotFound | PoolErrorKind::NoSuchSource | PoolErrorKind::NoSuchNode => Status::not_found(text),
        PoolErrorKind::NoSuchPlace | PoolErrorKind::NoSpace => Status::resource_exhausted(text),
        PoolErrorKind::Exists => Status::already_exists(text),
        PoolErrorKind::InUse => Status::failed_precondition(text),
        PoolErrorKind::OutOfRange => Status::out_of_range(text),
        PoolErrorKind::Invalid | PoolErrorKind::Unsupported => Status::invalid_argument(text),
        PoolErrorKind::Unavailable | PoolErrorKind::Fenced => Status::unavailable(text),
        PoolErrorKind::TimedOut => Status::deadline_exceeded(text),
        PoolErrorKind::Io => Status::internal(text),
    }
}

/// The refusal for a host error met while `doing` something.
pub(crate) fn host(doing: &str, error: &HostError) -> Status {
    let text = format!("{doing}: {error}");
    match error.kind {
        HostErrorKind::TimedOut => Status::deadline_exceeded(text),
        HostErrorKind::Fenced => Status::unavailable(text),
        HostErrorKind::NoSpace => Status::resource_exhausted(text),
        HostErrorKind::NotFound
        | HostErrorKind::Exists
        | HostErrorKind::Busy
        | HostErrorKind::NotEmpty
        | HostErrorKind::NotMounted
        | HostErrorKind::Invalid
        | HostErrorKind::ReadOnly
        | HostErrorKind::Denied
        | HostErrorKind::Io
        | HostErrorKind::Unsupported => Status::internal(text),
    }
}

/// An error after which nobody can tell what is there: with a code that says so. A caller takes most codes for the end of
/// the matter, and never comes back to clean up.
pub(crate) fn open(status: Status) -> Status {
    use tonic::Code;
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => status,
        _ => Status::unavailable(status.message()),
    }
}

/// Is it certain that the pool did nothing?
pub(crate) fn is_certain(kind: PoolErrorKind) -> bool {
    match kind {
        PoolErrorKind::NotFound
        | PoolErrorKind::NoSuchSource
        | PoolErrorKind::NoSuchNode
        | PoolErrorKind::NoSuchPlace
        | PoolErrorKind::Exists
        | PoolErrorKind::InUse
        | PoolErrorKind::NoSpace
        | PoolErrorKind::OutOfRange
        | PoolErrorKind::Invalid
        | PoolErrorKind::Unsupported => true,
        PoolErrorKind::Unavailable | PoolErrorKind::TimedOut | PoolErrorKind::Io | PoolErrorKind::Fenced => false,
    }
}
