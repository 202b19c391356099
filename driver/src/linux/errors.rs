//! What the kernel's error numbers mean to the driver.

use std::io;

use rustix::io::Errno;

use crate::host::{HostError, HostErrorKind};
use crate::pool::{PoolError, PoolErrorKind};

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// A failed system call on the machine, met while `doing` something.
pub(super) fn host(doing: &str, error: impl Into<io::Error>) -> HostError {
    let error = error.into();
    let kind = match errno(&error) {
        Some(Errno::NOENT | Errno::NXIO | Errno::NODEV) => HostErrorKind::NotFound,
        Some(Errno::EXIST) => HostErrorKind::Exists,
        Some(Errno::BUSY) => HostErrorKind::Busy,
        Some(Errno::NOTEMPTY) => HostErrorKind::NotEmpty,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE) => HostErrorKind::NoSpace,
        Some(Errno::INVAL | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG) => HostErrorKind::Invalid,
        Some(Errno::ROFS) => HostErrorKind::ReadOnly,
        Some(Errno::PERM | Errno::ACCESS) => HostErrorKind::Denied,
        Some(Errno::TIMEDOUT) => HostErrorKind::TimedOut,
        Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY) => HostErrorKind::Unsupported,
        _ => HostErrorKind::Io,
    };
    HostError::new(kind, format!("{doing}: {error}"))
}

/// A failed system call on the images, met while `doing` something.
pub(super) fn pool(doing: &str, error: impl Into<io::Error>) -> PoolError {
    let error = error.into();
    let kind = match errno(&error) {
        Some(Errno::NOSPC | Errno::DQUOT) => PoolErrorKind::NoSpace,
        Some(Errno::FBIG) => PoolErrorKind::OutOfRange,
        Some(Errno::TIMEDOUT) => PoolErrorKind::TimedOut,
        _ => PoolErrorKind::Io,
    };
    PoolError::new(kind, format!("{doing}: {error}"))
}
