//! The one shell that performs the effects of every controller: workers, retries, and the gap between two effects where a fault can strike.
//!
//! It holds no clock and no cluster. `pump` starts as many keys as there are workers and hands out requests; the cluster performs them and brings each
//! outcome back. A crash is `forget_everything`: what survives is the API server, the nodes and the storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Cache, Delta, EventRecord, Kind, Queue};
use crate::runtime::Time;

use super::controller::{Ask, Controller, Learner, Requests, Signal};
use super::effect::{Effect, Outcome};

/// An effect that the cluster is to perform.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names it within its shell.
    pub token: u64,
    /// The effect.
    pub effect: Arc<Effect>,
}

/// What came of pumping a shell.
#[derive(Debug, Default)]
pub struct Pumped {
    /// Effects to perform.
    pub requests: Vec<Request>,
    /// Events for the recorder of the process.
    pub records: Vec<EventRecord>,
    /// The process exits.
    pub exit: Option<String>,
}

/// A controller at work, whatever its keys are.
pub trait AnyShell: Send {
    /// The controller's Kubernetes name.
    fn name(&self) -> &'static str;
    /// The source of its events, if not the process's own.
    fn component(&self) -> Option<String>;
    /// The kinds it watches.
    fn kinds(&self) -> &'static [Kind];
    /// Whether it watches the leases of nodes.
    fn hears_heartbeats(&self) -> bool;
    /// The informers are filled.
    fn start(&mut self, cache: &Cache, now: Time);
    /// An event reached the cache.
    fn notice(&mut self, cache: &Cache, delta: &Delta, now: Time);
    /// Something else reached the process.
    fn signal(&mut self, signal: &Signal, now: Time);
    /// An effect has an outcome.
    fn outcome(&mut self, cache: &mut Cache, token: u64, outcome: &Outcome, now: Time);
    /// Starts what can be started now.
    fn pump(&mut self, cache: &mut Cache, now: Time) -> Pumped;
    /// When a delayed key is due.
    fn next_due(&self) -> Option<Time>;
    /// Whether nothing is queued, delayed or under way.
    fn is_idle(&self) -> bool;
    /// The process died: memory and queues are gone.
    fn forget_everything(&mut self);
}

/// A controller with its memory and its queues.
pub struct Shell<C: Controller> {
    controller: C,
    memory: C::Memory,
    lanes: Vec<Lane<C::Key>>,
    /// Keys between two effects or waiting for an outcome, by token.
    active: BTreeMap<u64, (C::Key, Arc<Effect>)>,
    /// Keys whose outcome came in and who want their next decision.
    resumed: Vec<C::Key>,
    next_token: u64,
}

struct Lane<K> {
    queue: Queue<K>,
    workers: usize,
    busy: usize,
}

/// A sync that takes more internal steps than this without an effect is a bug of the controller.
const MAX_INTERNAL_STEPS: u32 = 10_000;

impl<C: Controller> Shell<C> {
    /// A shell for a process that is not yet started.
    pub fn new(controller: C) -> Shell<C> {
        let lanes = Self::fresh_lanes(&controller);
        Shell {
            controller,
            memory: C::Memory::default(),
            lanes,
            active: BTreeMap::new(),
            resumed: Vec::new(),
            next_token: 0,
        }
    }

    fn fresh_lanes(controller: &C) -> Vec<Lane<C::Key>> {
        let lanes = controller.lanes().into_iter();
        lanes
            .map(|spec| Lane {
                queue: Queue::new(spec.limiter),
                workers: spec.workers,
                busy: 0,
            })
            .collect()
    }

    fn take_requests(&mut self, requests: Requests<C::Key>, now: Time) {
        for (key, ask) in requests.asked {
            let queue = &mut self.lanes[self.controller.lane(&key)].queue;
            match ask {
                Ask::Now => queue.add(key),
                Ask::At(at) => queue.add_at(key, at),
                Ask::RateLimited => {
                    queue.add_rate_limited(key, now);
                }
                Ask::Forget => queue.forget(&key),
            }
        }
    }

    /// Decides for one key until an effect must be performed or the sync ends.
    fn advance(&mut self, cache: &mut Cache, key: C::Key, now: Time, out: &mut Pumped) {
        for _ in 0..MAX_INTERNAL_STEPS {
            let effect = self.controller.decide(cache, &self.memory, &key, now);
            if effect.ends() {
                self.end(&key, &effect, now, out);
                return;
            }
            if effect.is_internal() {
                self.learn(cache, &key, &effect, &Outcome::Done, now);
                if let Effect::Record(record) = effect {
                    out.records.push(record);
                }
                continue;
            }
            let token = self.next_token;
            self.next_token += 1;
            let effect = Arc::new(effect);
            out.requests.push(Request {
                token,
                effect: Arc::clone(&effect),
            });
            self.active.insert(token, (key, effect));
            return;
        }
        panic!(
            "{}: the sync of {key:?} goes round in circles without an effect",
            self.controller.name()
        );
    }

    fn learn(&mut self, cache: &mut Cache, key: &C::Key, effect: &Effect, outcome: &Outcome, now: Time) {
        let mut queue = Requests::default();
        let mut learner = Learner {
            cache,
            now,
            queue: &mut queue,
        };
        self.controller
            .learn(&mut self.memory, key, effect, outcome, &mut learner);
        self.take_requests(queue, now);
    }

    fn end(&mut self, key: &C::Key, effect: &Effect, now: Time, out: &mut Pumped) {
        self.controller.ended(&mut self.memory, key, effect);
        let lane = &mut self.lanes[self.controller.lane(key)];
        lane.busy -= 1;
        match effect {
            Effect::Rest => lane.queue.forget(key),
            Effect::RestUntil(at) => {
                lane.queue.forget(key);
                lane.queue.add_at(key.clone(), *at);
            }
            Effect::Retry(_) => {
                lane.queue.add_rate_limited(key.clone(), now);
            }
            Effect::RetryAt(at, _) => lane.queue.add_at(key.clone(), *at),
            Effect::Exit(message) => out.exit = Some(message.to_string()),
            other => unreachable!("{other:?} does not end a sync"),
        }
        lane.queue.done(key);
    }
}

impl<C: Controller> AnyShell for Shell<C> {
    fn name(&self) -> &'static str {
        self.controller.name()
    }

    fn component(&self) -> Option<String> {
        self.controller.component()
    }

    fn kinds(&self) -> &'static [Kind] {
        self.controller.kinds()
    }

    fn hears_heartbeats(&self) -> bool {
        self.controller.hears_heartbeats()
    }

    fn start(&mut self, cache: &Cache, now: Time) {
        let mut queue = Requests::default();
        self.controller.start(cache, &mut self.memory, now, &mut queue);
        self.take_requests(queue, now);
    }

    fn notice(&mut self, cache: &Cache, delta: &Delta, now: Time) {
        let mut queue = Requests::default();
        self.controller.notice(cache, &mut self.memory, delta, now, &mut queue);
        self.take_requests(queue, now);
    }

    fn signal(&mut self, signal: &Signal, now: Time) {
        let mut queue = Requests::default();
        self.controller.signal(&mut self.memory, signal, now, &mut queue);
        self.take_requests(queue, now);
    }

    fn outcome(&mut self, cache: &mut Cache, token: u64, outcome: &Outcome, now: Time) {
        let (key, effect) = self
            .active
            .remove(&token)
            .expect("an outcome belongs to an effect under way");
        self.learn(cache, &key, &effect, outcome, now);
        self.resumed.push(key);
    }

    fn pump(&mut self, cache: &mut Cache, now: Time) -> Pumped {
        let mut out = Pumped::default();
        loop {
            for key in std::mem::take(&mut self.resumed) {
                self.advance(cache, key, now, &mut out);
            }
            let Some(key) = self.next_key(now) else { return out };
            self.advance(cache, key, now, &mut out);
            if out.exit.is_some() {
                return out;
            }
        }
    }

    fn next_due(&self) -> Option<Time> {
        let free = self.lanes.iter().filter(|lane| lane.busy < lane.workers);
        free.filter_map(|lane| lane.queue.next_due()).min()
    }

    fn is_idle(&self) -> bool {
        self.active.is_empty() && self.resumed.is_empty() && self.lanes.iter().all(|lane| lane.queue.is_idle())
    }

    fn forget_everything(&mut self) {
        self.memory = C::Memory::default();
        self.lanes = Self::fresh_lanes(&self.controller);
        self.active.clear();
        self.resumed.clear();
    }
}

impl<C: Controller> Shell<C> {
    fn next_key(&mut self, now: Time) -> Option<C::Key> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.busy < lane.workers) {
            if let Some(key) = lane.queue.next(now) {
                lane.busy += 1;
                return Some(key);
            }
        }
        None
    }
}
