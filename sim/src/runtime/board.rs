//! The agenda as tasks and dispatcher share it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::oneshot;

use super::agenda::{Agenda, Lane, Ticket};
use super::time::Time;

/// What the dispatcher finds on the agenda.
pub enum Entry<E> {
    /// A task waits for its turn.
    Turn(oneshot::Sender<()>),
    /// Something the cluster does itself.
    Event(E),
}

/// The agenda behind a lock, for futures that must be `Send`. Nothing ever contends: one thread runs a world.
pub struct Board<E> {
    agenda: Mutex<Agenda<Entry<E>>>,
    stirred: AtomicBool,
}

impl<E> Default for Board<E> {
    fn default() -> Self {
        Board {
            agenda: Mutex::new(Agenda::default()),
            stirred: AtomicBool::new(false),
        }
    }
}

impl<E> Board<E> {
    fn agenda(&self) -> MutexGuard<'_, Agenda<Entry<E>>> {
        self.agenda.lock().expect("no holder of the agenda panics")
    }

    /// The present moment.
    pub fn now(&self) -> Time {
        self.agenda().now()
    }

    /// Opens a lane.
    pub fn lane(&self, name: &str) -> Lane {
        self.agenda().lane(name)
    }

    /// Puts an event on the agenda.
    pub fn at(&self, lane: Lane, at: Time, event: E) -> Ticket {
        self.agenda().at(lane, at, Entry::Event(event))
    }

    /// Puts an event on the agenda, `later` from now.
    pub fn after(&self, lane: Lane, later: Duration, event: E) -> Ticket {
        let mut agenda = self.agenda();
        let at = agenda.now() + later;
        agenda.at(lane, at, Entry::Event(event))
    }

    /// Takes an entry back.
    pub fn cancel(&self, ticket: Ticket) {
        // Taken out first: dropping an entry may drop tasks that cancel theirs.
        let entry = self.agenda().cancel(ticket);
        drop(entry);
    }

    /// When the next entry is due.
    pub fn peek(&self) -> Option<Time> {
        self.agenda().peek()
    }

    /// Releases the next entry and moves time to it.
    pub fn pop(&self) -> Option<Entry<E>> {
        self.agenda().pop()
    }

    /// Moves time to `at`; nothing may be due before.
    pub fn pass_to(&self, at: Time) {
        self.agenda().pass_to(at);
    }

    /// A lane stands still: what is due in it waits until [`Board::go_on`].
    pub fn hold(&self, lane: Lane) {
        self.agenda().hold(lane);
    }

    /// Whether a lane stands still.
    pub fn is_held(&self, lane: Lane) -> bool {
        self.agenda().is_held(lane)
    }

    /// A lane goes on: what it has missed is due now.
    pub fn go_on(&self, lane: Lane) {
        self.agenda().go_on(lane);
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.agenda().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A task asks for a turn `later` from now and waits until the dispatcher releases it. Dropping the wait gives the place back.
    pub fn turn(self: &Arc<Self>, lane: Lane, later: Duration) -> Turn<E> {
        let (release, released) = oneshot::channel();
        let mut agenda = self.agenda();
        let at = agenda.now() + later;
        let ticket = agenda.at(lane, at, Entry::Turn(release));
        drop(agenda);
        Turn {
            board: Arc::clone(self),
            ticket,
            released,
        }
    }

    /// Tells the dispatcher that a task became ready: it must settle before it releases the next entry.
    pub fn stir(&self) {
        self.stirred.store(true, Ordering::Relaxed);
    }

    /// Whether a task became ready since the last time.
    pub fn take_stirred(&self) -> bool {
        self.stirred.swap(false, Ordering::Relaxed)
    }
}

/// A task's place on the agenda.
pub struct Turn<E> {
    board: Arc<Board<E>>,
    ticket: Ticket,
    released: oneshot::Receiver<()>,
}

impl<E> Future for Turn<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match Pin::new(&mut self.released).poll(context) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            // A world that is taken down drops its agenda first: this task is about to be dropped and must not go on.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<E> Drop for Turn<E> {
    fn drop(&mut self) {
        self.board.cancel(self.ticket);
    }
}
