//! The operations of a driver's process on its machine, its storage system and its ledger's disk: each waits for its turn, belongs to the call that caused
//! it, and can be struck (`after-op(k)`).
//!
//! A task works on behalf of a call while it is polled by the task that serves the call, or was spawned by one that did. What a process does on its own
//! (when it starts) belongs to no call and is not struck. Reading the ledger's disk does not count: it changes nothing.
//!
//! A crash after an operation lets that operation happen and none after it: the process is doomed, its next operation finds its fence frozen, and the cluster
//! kills it before anything else happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use wavetank_driver::runtime::Runtime;

use super::storm::Desk;
use super::{Due, Latency};
use crate::faults::Fault;
use crate::host::{Fence, Gate, OpGate, Turn, Turns};
use crate::link::{EPOCH_SECONDS, TankRuntime};
use crate::runtime::{Board, Lane, Time};

/// What the operations of one incarnation of a driver's process go through. A clone is the same.
#[derive(Clone)]
pub struct Operations(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    lane: Lane,
    board: Arc<Board<Due>>,
    fence: Fence,
    latency: Latency,
    desk: Desk,
    /// The call on whose behalf the task works that is polled now; 0 for none.
    call: AtomicU64,
    /// The next operation finds the process dead.
    doomed: AtomicBool,
}

impl Operations {
    pub(super) fn new(
        name: &Arc<str>,
        lane: Lane,
        board: &Arc<Board<Due>>,
        fence: &Fence,
        latency: &Latency,
        desk: &Desk,
    ) -> Operations {
        Operations(Arc::new(Inner {
            name: Arc::clone(name),
            lane,
            board: Arc::clone(board),
            fence: fence.clone(),
            latency: latency.clone(),
            desk: desk.clone(),
            call: AtomicU64::new(0),
            doomed: AtomicBool::new(false),
        }))
    }

    /// A task that works on behalf of a call.
    pub fn on_behalf(&self, call: u64, task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        if call == 0 {
            return task;
        }
        Box::pin(OnBehalf {
            operations: self.clone(),
            call,
            task,
        })
    }

    /// The runtime of the process: what a task spawns works on behalf of the same call.
    pub fn runtime(&self, runtime: TankRuntime) -> impl Runtime + use<> {
        SeatRuntime {
            operations: self.clone(),
            runtime,
        }
    }

    /// Has the process met its end in an operation?
    fn is_doomed(&self) -> bool {
        let doomed = self.0.doomed.load(Ordering::Relaxed);
        if doomed {
            self.0.fence.freeze();
        }
        doomed || self.0.fence.is_frozen()
    }

    /// What strikes this operation, if anything does.
    fn strike(&self, site: &'static str) -> Option<Fault> {
        let call = self.0.call.load(Ordering::Relaxed);
        if call == 0 || !self.0.desk.is_open() {
            return None;
        }
        let strike = self.0.desk.operation(&self.0.name, call, site, self.0.board.now())?;
        if self.0.desk.ends(&self.0.name, &strike.fault) {
            self.0.doomed.store(true, Ordering::Relaxed);
        }
        let fault = strike.fault.clone();
        self.0
            .board
            .after(self.0.lane, Duration::ZERO, Due::Befall(call, strike));
        Some(fault)
    }

    fn wall_clock(&self) -> Duration {
        let true_time = Duration::from_secs(EPOCH_SECONDS) + self.0.board.now().since(Time::ZERO);
        self.0.desk.shown(&self.0.name, true_time)
    }
}

#[async_trait]
impl Turns for Operations {
    async fn turn(&self, site: &'static str, _subject: &str) -> Turn {
        if self.is_doomed() {
            return Turn::Fenced;
        }
        let Inner {
            board,
            lane,
            latency,
            desk,
            ..
        } = &*self.0;
        let takes = if site.starts_with("pool.") {
            latency.pool + desk.slowness(board.now())
        } else {
            latency.host
        };
        board.turn(*lane, takes).await;
        if self.is_doomed() {
            return Turn::Fenced;
        }
        match self.strike(site) {
            Some(Fault::FailOperation { trouble }) => Turn::Fail(trouble),
            Some(Fault::PretendFailure { trouble }) => Turn::Pretend(trouble),
            Some(Fault::SlowOperation { by }) => {
                board.turn(*lane, by.get()).await;
                if self.is_doomed() { Turn::Fenced } else { Turn::Proceed }
            }
            _ => Turn::Proceed,
        }
    }

    fn wall(&self) -> Duration {
        self.wall_clock()
    }
}

impl OpGate for Operations {
    fn before(&self, site: &'static str, _nth: u64) -> Gate {
        if self.is_doomed() {
            return Gate::Freeze;
        }
        if site == "disk.read" {
            return Gate::Proceed;
        }
        match self.strike(site) {
            Some(Fault::FailOperation { trouble }) => Gate::Fail(trouble),
            _ => Gate::Proceed,
        }
    }
}

struct OnBehalf {
    operations: Operations,
    call: u64,
    task: BoxFuture<'static, ()>,
}

impl Future for OnBehalf {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let before = this.operations.0.call.swap(this.call, Ordering::Relaxed);
        let polled = this.task.as_mut().poll(context);
        this.operations.0.call.store(before, Ordering::Relaxed);
        polled
    }
}

struct SeatRuntime {
    operations: Operations,
    runtime: TankRuntime,
}

impl Runtime for SeatRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let call = self.operations.0.call.load(Ordering::Relaxed);
        self.runtime.spawn(self.operations.on_behalf(call, task));
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send + 'static>) -> BoxFuture<'static, ()> {
        self.runtime.blocking(work)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.runtime.sleep(duration)
    }

    fn now(&self) -> Duration {
        self.runtime.now()
    }

    fn wall(&self) -> Duration {
        self.operations.wall_clock()
    }
}

/// On whose behalf a request is served, for the wire.
#[derive(Clone)]
pub struct Behalf {
    /// The process that serves it.
    pub operations: Operations,
    /// The call.
    pub call: u64,
}
