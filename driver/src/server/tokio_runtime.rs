//! Tasks and time of the process: tokio's threads, the machine's clock.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use crate::runtime::Runtime;

#[expect(clippy::disallowed_types, reason = "the process runs in real time")]
pub(super) type Moment = std::time::Instant;

/// The tokio runtime that called [`TokioRuntime::here`].
pub(super) struct TokioRuntime {
    handle: Handle,
    start: Moment,
}

impl TokioRuntime {
    pub(super) fn here() -> Self {
        Self {
            handle: Handle::current(),
            start: now(),
        }
    }
}

pub(super) fn now() -> Moment {
    Moment::now()
}

/// Time since the Unix epoch.
#[expect(clippy::disallowed_types, reason = "the process runs in real time")]
pub(super) fn wall() -> Duration {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or_default()
}

impl Runtime for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.handle.spawn(task);
    }

    /// The thread that is here does the work, and its place among the async threads goes to another one: so nobody waits for a thread to wake up
    /// before the work, nor after it.
    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        Box::pin(async move { tokio::task::block_in_place(work) })
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Duration {
        wall()
    }
}
