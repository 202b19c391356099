//! Calls that drivers work on in real time, and the order in which they reach a process.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Shared, join_all};
use tokio::time::timeout;

/// How long, in real time, a call waits for those of other methods that were sent before it.
const HEAD_START: Duration = Duration::from_millis(250);
/// How long for those of its own method.
const LEAD: Duration = Duration::from_millis(5);

/// How many calls drivers work on in real time. Their answers may be due much later in virtual time.
#[derive(Default)]
pub(super) struct Flights {
    count: Mutex<usize>,
    landed: Condvar,
}

impl Flights {
    /// Until none is under way.
    pub(super) fn lull(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Each ends, at the latest, when the watchdog's time is over.
        drop(self.landed.wait_while(count, |count| *count > 0));
    }
}

/// The calls that one process works on, in the order in which they were sent.
#[derive(Default)]
pub(super) struct Queue(Vec<(&'static str, Landed)>);

/// Completes when a call is over in real time.
type Landed = Shared<oneshot::Receiver<()>>;

impl Queue {
    /// A call of this method is sent.
    pub(super) fn join(&mut self, method: &'static str, flights: &Arc<Flights>) -> Flight {
        *flights.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let (lands, landed) = oneshot::channel();
        self.0.retain(|(_, landed)| landed.clone().now_or_never().is_none());
        let (kin, others): (Vec<_>, Vec<_>) = self.0.iter().cloned().partition(|(other, _)| *other == method);
        self.0.push((method, landed.shared()));
        let landings = |calls: Vec<(&str, Landed)>| calls.into_iter().map(|(_, landed)| landed).collect();
        Flight {
            flights: Arc::clone(flights),
            _lands: lands,
            others: landings(others),
            kin: landings(kin),
        }
    }
}

/// A call that a driver works on in real time, until this is dropped.
pub(super) struct Flight {
    flights: Arc<Flights>,
    /// Canceled by the drop: those who wait for it see that it is over.
    _lands: oneshot::Sender<()>,
    /// The calls that were sent before this one: of other methods, and of its own.
    others: Vec<Landed>,
    kin: Vec<Landed>,
}

impl Flight {
    /// Keeps the order of the run, which would else be that of the driver's threads: lets earlier calls of other methods be answered, if the driver is quick, and
    /// those of its own reach the driver. So a duplicate meets the call that it doubles, and a deletion comes after the creation that was sent before it.
    pub(super) async fn queue(&mut self) {
        // A slow driver gets the opposite call while it works, as it would in a cluster.
        let _ = timeout(HEAD_START, join_all(std::mem::take(&mut self.others))).await;
        let _ = timeout(LEAD, join_all(std::mem::take(&mut self.kin))).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut count = self.flights.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        self.flights.landed.notify_all();
    }
}
