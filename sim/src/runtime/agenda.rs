//! The order of everything: what is due, when, and who goes first when several are due at once.
//!
//! Every scheduling point of a run (a write, a call, a delivery, a host operation, a timer) waits here for its turn; one dispatcher releases exactly one
//! at a time. Ties go by the name of the lane, then by the order in which that lane asked. Both are independent of other lanes, so that an
//! unrelated process never reorders its neighbours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use super::time::Time;

/// Who asks: one per process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(u32);

/// A place on the agenda, to be given back by [`Agenda::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: u32,
    id: u64,
}

/// What is due, in the order in which it will happen.
pub struct Agenda<E> {
    now: Time,
    next_id: u64,
    lanes: Vec<(Arc<str>, u64)>,
    heap: BinaryHeap<Reverse<Due>>,
    slots: Vec<Option<(u64, E)>>,
    free: Vec<u32>,
    live: usize,
    /// What was due in lanes that stand still.
    held: BTreeMap<Arc<str>, Vec<Due>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    lane: Arc<str>,
    nth: u64,
    slot: u32,
    id: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Agenda {
            now: Time::ZERO,
            next_id: 0,
            lanes: Vec::new(),
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            held: BTreeMap::new(),
        }
    }
}

impl<E> Agenda<E> {
    /// The moment of the entry released last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Opens a lane. Its name decides ties; no two lanes share one.
    pub fn lane(&mut self, name: impl Into<Arc<str>>) -> Lane {
        let name = name.into();
        debug_assert!(
            self.lanes.iter().rev().take(64).all(|(n, _)| *n != name),
            "lane {name} opened twice"
        );
        self.lanes.push((name, 0));
        Lane(u32::try_from(self.lanes.len() - 1).expect("fewer than four billion processes"))
    }

    /// The name of a lane.
    pub fn lane_name(&self, lane: Lane) -> &Arc<str> {
        &self.lanes[lane.0 as usize].0
    }

    /// Asks for a turn at `at`, or now if that has passed.
    pub fn at(&mut self, lane: Lane, at: Time, entry: E) -> Ticket {
        let (name, count) = &mut self.lanes[lane.0 as usize];
        *count += 1;
        let (lane, nth) = (Arc::clone(name), *count);
        let id = self.next_id;
        self.next_id += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer than four billion entries at once")
        });
        self.slots[slot as usize] = Some((id, entry));
        self.live += 1;
        self.heap.push(Reverse(Due {
            at: at.max(self.now),
            lane,
            nth,
            slot,
            id,
        }));
        Ticket { slot, id }
    }

    /// Gives a place back. Nothing happens if its turn has come already.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<E> {
        let slot = &mut self.slots[ticket.slot as usize];
        if slot.as_ref().is_none_or(|(id, _)| *id != ticket.id) {
            return None;
        }
        self.live -= 1;
        // The slot is free for others only once its place in the heap has come up.
        slot.take().map(|(_, entry)| entry)
    }

    /// When the next entry is due.
    pub fn peek(&mut self) -> Option<Time> {
        while let Some(Reverse(due)) = self.heap.peek() {
            if self.slots[due.slot as usize].is_none() {
                self.free.push(due.slot);
                self.heap.pop();
            } else if !self.held.is_empty() && self.held.contains_key(&due.lane) {
                let Some(Reverse(due)) = self.heap.pop() else { break };
                self.held.entry(Arc::clone(&due.lane)).or_default().push(due);
            } else {
                return Some(due.at);
            }
        }
        None
    }

    /// A lane stands still: what is due in it waits until [`Agenda::go_on`].
    pub fn hold(&mut self, lane: Lane) {
        let name = Arc::clone(self.lane_name(lane));
        self.held.entry(name).or_default();
    }

    /// Whether a lane stands still.
    pub fn is_held(&self, lane: Lane) -> bool {
        !self.held.is_empty() && self.held.contains_key(self.lane_name(lane))
    }

    /// A lane goes on: what it has missed is due now, in its order.
    pub fn go_on(&mut self, lane: Lane) {
        let name = Arc::clone(self.lane_name(lane));
        let missed = self.held.remove(&name).unwrap_or_default();
        for (nth, due) in missed.into_iter().enumerate() {
            // Before whatever the lane asks for from now on, in the order in which it came up.
            let at = self.now.max(due.at);
            self.heap.push(Reverse(Due {
                at,
                nth: nth as u64,
                ..due
            }));
        }
    }

    /// Releases the next entry and moves time to it.
    pub fn pop(&mut self) -> Option<E> {
        self.peek()?;
        let Reverse(due) = self.heap.pop()?;
        let (_, entry) = self.slots[due.slot as usize]
            .take()
            .expect("peek left a live entry on top");
        self.free.push(due.slot);
        self.live -= 1;
        self.now = due.at;
        Some(entry)
    }

    /// Moves time forward although nothing is due: the end of a `run` step.
    ///
    /// # Panics
    /// If an entry is due before that.
    pub fn pass_to(&mut self, at: Time) {
        assert!(
            self.peek().is_none_or(|due| due >= at),
            "time passed an entry that was due"
        );
        self.now = self.now.max(at);
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use super::{Agenda, Lane, Time};

    fn drain(agenda: &mut Agenda<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| agenda.pop()).collect()
    }

    #[test]
    fn time_first_then_the_name_of_the_lane_then_the_order_within_it() {
        let mut agenda = Agenda::default();
        let z: Lane = agenda.lane("z");
        let a = agenda.lane("a");
        agenda.at(z, Time(5), "z1");
        agenda.at(z, Time(5), "z2");
        agenda.at(a, Time(5), "a1");
        agenda.at(a, Time(4), "a0");
        assert_eq!(drain(&mut agenda), ["a0", "a1", "z1", "z2"]);
        assert_eq!(agenda.now(), Time(5));
    }

    #[test]
    fn another_lane_never_reorders_its_neighbours() {
        let order = |with_stranger: bool| {
            let mut agenda = Agenda::default();
            let stranger = agenda.lane("m");
            let (b, n) = (agenda.lane("b"), agenda.lane("n"));
            for i in 0..20 {
                if with_stranger {
                    agenda.at(stranger, Time(i % 3), "stranger");
                }
                agenda.at(n, Time(i % 3), if i % 2 == 0 { "n0" } else { "n1" });
                agenda.at(b, Time(i % 3), if i % 2 == 0 { "b0" } else { "b1" });
            }
            let mut all = drain(&mut agenda);
            all.retain(|e| *e != "stranger");
            all
        };
        assert_eq!(order(true), order(false));
    }

    #[test]
    fn a_lane_that_stands_still_misses_nothing_and_delays_nobody() {
        let mut agenda = Agenda::default();
        let (a, b) = (agenda.lane("a"), agenda.lane("b"));
        agenda.at(a, Time(2), "a2");
        agenda.at(a, Time(1), "a1");
        agenda.at(b, Time(3), "b3");
        agenda.hold(a);
        assert_eq!(drain(&mut agenda), ["b3"]);
        agenda.at(a, Time(9), "a9");
        agenda.at(a, Time(3), "a3");
        agenda.go_on(a);
        assert_eq!(drain(&mut agenda), ["a1", "a2", "a3", "a9"]);
    }

    #[test]
    fn a_cancelled_place_is_never_released_and_its_ticket_stays_dead() {
        let mut agenda = Agenda::default();
        let lane = agenda.lane("a");
        let ticket = agenda.at(lane, Time(1), "gone");
        assert_eq!(agenda.cancel(ticket), Some("gone"));
        agenda.at(lane, Time(2), "stays");
        assert_eq!(
            agenda.cancel(ticket),
            None,
            "the ticket does not reach whatever came after"
        );
        assert_eq!(drain(&mut agenda), ["stays"]);
        assert!(agenda.is_empty());
    }
}
