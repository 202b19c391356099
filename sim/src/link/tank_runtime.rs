//! The driver's `Runtime` in the tank: its tasks are the process's, its time is the agenda's.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use wavetank_driver::runtime::Runtime;

use crate::cluster::Due;
use crate::runtime::{Board, Lane, Tasks, Time};

/// Seconds between the Unix epoch and the beginning of every run: 2026-01-01T00:00:00Z.
pub const EPOCH_SECONDS: u64 = 1_767_225_600;

/// Tasks and time of one incarnation of a driver process.
pub struct TankRuntime {
    /// Its tasks.
    pub tasks: Tasks,
    /// The agenda.
    pub board: Arc<Board<Due>>,
    /// Its lane.
    pub lane: Lane,
}

impl Runtime for TankRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.tasks.spawn(task);
        self.board.stir();
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        async move { work() }.boxed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.board.turn(self.lane, duration).boxed()
    }

    fn now(&self) -> Duration {
        self.board.now().since(Time::ZERO)
    }

    fn wall(&self) -> Duration {
        Duration::from_secs(EPOCH_SECONDS) + self.now()
    }
}
