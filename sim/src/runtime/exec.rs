//! Tasks of processes that run foreign code (drivers), on madsim's executor.
//!
//! The executor's own order is random; nothing here depends on it, because the dispatcher releases one entry of the agenda at a time and then waits in
//! [`settle`] until no task is ready.

use std::future::Future;
use std::time::Duration;

use madsim::Config;
use madsim::runtime::{Handle, NodeHandle, Runtime};

/// The tasks of one incarnation of a process. Killing them drops every future; destructors run, so fence their disk and host first.
#[derive(Clone)]
pub struct Tasks {
    node: NodeHandle,
}

impl Tasks {
    /// A fresh set of tasks. Only inside [`run`].
    pub fn new(name: &str) -> Tasks {
        Tasks {
            node: Handle::current().create_node().name(name).build(),
        }
    }

    /// Starts a task.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.node.spawn(task));
    }

    /// Kills every task. They never run again; their futures are dropped by the executor.
    pub fn kill(&self) {
        Handle::current().kill(self.node.id());
    }
}

/// Waits until no task is ready: the executor's timers fire only then.
pub async fn settle() {
    madsim::time::sleep(Duration::from_nanos(1)).await;
}

/// Runs one world to its end on a thread of its own, with an executor of its own.
///
/// A fresh thread, because the hash keys of the standard library are per thread and dependencies use its maps: the 1,000th run of
/// a process must equal the first.
///
/// # Panics
/// With the panic of `world`.
pub fn run<F, T>(world: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    let body = move || Runtime::with_seed_and_config(0, Config::default()).block_on(world());
    let thread = std::thread::Builder::new().name("world".into()).stack_size(8 << 20);
    let handle = thread.spawn(body).expect("the machine can start a thread");
    match handle.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::{Tasks, run, settle};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn settle_waits_for_every_ready_task_and_a_killed_one_never_runs_again() {
        let seen = run(|| async {
            let count = Arc::new(AtomicU32::new(0));
            let tasks = Tasks::new("driver");
            let (wake, wait) = futures::channel::oneshot::channel::<()>();
            let counter = Arc::clone(&count);
            tasks.spawn(async move {
                counter.fetch_add(1, Ordering::Relaxed);
                let _ = wait.await;
                counter.fetch_add(10, Ordering::Relaxed);
            });
            settle().await;
            let before = count.load(Ordering::Relaxed);
            tasks.kill();
            let _ = wake.send(());
            settle().await;
            (before, count.load(Ordering::Relaxed))
        });
        assert_eq!(seen, (1, 1));
    }
}
