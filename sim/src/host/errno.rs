//! Why the modelled kernel refuses, and how each of its callers hears it.

use wavetank_driver::{HostError, HostErrorKind};

use crate::link::MachineError;

/// A refusal of the modelled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errno {
    /// Nothing is there.
    Missing,
    /// Something is there already.
    Exists,
    /// In use.
    Busy,
    /// A directory or file that must be empty is not.
    NotEmpty,
    /// Not a mount point.
    NotMounted,
    /// No room left.
    NoSpace,
    /// A directory is needed.
    NotDirectory,
    /// Makes no sense there.
    Invalid,
    /// Writing is forbidden.
    ReadOnly,
    /// Not without another key.
    Denied,
    /// Damaged or gone.
    Io,
    /// This kernel cannot do that.
    Unsupported,
}

impl Errno {
    fn text(self) -> &'static str {
        match self {
            Errno::Missing => "no such file or directory",
            Errno::Exists => "file exists",
            Errno::Busy => "device or resource busy",
            Errno::NotEmpty => "directory not empty",
            Errno::NotMounted => "not mounted",
            Errno::NoSpace => "no space left on device",
            Errno::NotDirectory => "not a directory",
            Errno::Invalid => "invalid argument",
            Errno::ReadOnly => "read-only file system",
            Errno::Denied => "permission denied",
            Errno::Io => "input/output error",
            Errno::Unsupported => "operation not supported",
        }
    }

    /// As a driver hears it.
    pub(super) fn on_host(self, subject: &str) -> HostError {
        let kind = match self {
            Errno::Missing => HostErrorKind::NotFound,
            Errno::Exists => HostErrorKind::Exists,
            Errno::Busy => HostErrorKind::Busy,
            Errno::NotEmpty => HostErrorKind::NotEmpty,
            Errno::NotMounted => HostErrorKind::NotMounted,
            Errno::NoSpace => HostErrorKind::NoSpace,
            Errno::NotDirectory | Errno::Invalid => HostErrorKind::Invalid,
            Errno::ReadOnly => HostErrorKind::ReadOnly,
            Errno::Denied => HostErrorKind::Denied,
            Errno::Io => HostErrorKind::Io,
            Errno::Unsupported => HostErrorKind::Unsupported,
        };
        HostError::new(kind, format!("{subject}: {}", self.text()))
    }

    /// As kubelet hears it.
    pub(super) fn on_machine(self, path: &str) -> MachineError {
        let path = path.to_owned();
        match self {
            Errno::Missing | Errno::NotDirectory => MachineError::Missing(path),
            Errno::Busy | Errno::NotEmpty => MachineError::Busy(path),
            Errno::Exists => MachineError::Exists(path),
            Errno::NotMounted
            | Errno::NoSpace
            | Errno::Invalid
            | Errno::ReadOnly
            | Errno::Denied
            | Errno::Io
            | Errno::Unsupported => MachineError::Io(path),
        }
    }
}
