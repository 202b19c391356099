//! A bench for controllers in tests: the API server model, one cache and some shells, without latency. Every write is delivered at once unless the
//! test holds deliveries back; time stands still unless the test moves it.

use std::collections::{BTreeSet, VecDeque};

use serde_json::Value;

use crate::api::{
    ApiServer, Cache, Change, Clock, Delete, Delta, Edit, Index, Kind, ObjKey, Object, ObjectRef, Patch, Write,
};
use crate::control::{AnyShell, Effect, Outcome, Request, Signal};
use crate::runtime::Time;

/// The bench.
pub(crate) struct Bench {
    pub(crate) api: ApiServer,
    cache: Cache,
    shells: Vec<Box<dyn AnyShell>>,
    pub(crate) now: Time,
    /// The kinds whose deliveries are held back.
    holding: BTreeSet<Kind>,
    held: Vec<Change>,
    requests: VecDeque<(usize, Request)>,
    log: Vec<String>,
}

impl Bench {
    /// A bench whose shells have started on an empty cluster.
    pub(crate) fn new(indexes: &[Index], shells: Vec<Box<dyn AnyShell>>) -> Bench {
        let mut bench = Bench {
            api: ApiServer::new(Clock::EPOCH),
            cache: Cache::new(indexes),
            shells,
            now: Time::ZERO,
            holding: BTreeSet::new(),
            held: Vec::new(),
            requests: VecDeque::new(),
            log: Vec::new(),
        };
        bench.start();
        bench
    }

    fn start(&mut self) {
        for shell in &mut self.shells {
            shell.start(&self.cache, self.now);
        }
    }

    /// The process dies and starts again; its informers see what is there, and then nothing more of these kinds.
    pub(crate) fn restart_holding(&mut self, kinds: &[Kind]) {
        self.requests.clear();
        self.holding = kinds.iter().copied().collect();
        self.held.clear();
        self.cache.clear();
        let mut deltas = Vec::new();
        for kind in Kind::ALL {
            deltas.extend(self.cache.replace(*kind, self.api.objects(*kind).cloned().collect()));
        }
        self.shells.iter_mut().for_each(|shell| shell.forget_everything());
        deltas.iter().for_each(|delta| self.notice(delta));
        self.start();
        self.settle();
    }

    /// Creates an object as the user.
    pub(crate) fn create(&mut self, kind: Kind, json: Value) {
        let object = Object::from_json(kind, json).unwrap();
        self.user(&Write::Create(object));
    }

    /// A merge patch by the user; on the status with `status`.
    pub(crate) fn patch(&mut self, kind: Kind, key: &ObjKey, status: bool, json: Value) {
        let patch = Patch {
            status,
            ..Patch::new(ObjectRef::new(kind, key.clone()), vec![Edit::Merge(json)])
        };
        self.user(&Write::Patch(patch));
    }

    /// A deletion by the user.
    pub(crate) fn delete(&mut self, kind: Kind, key: &ObjKey) {
        self.user(&Write::Delete(Delete::new(ObjectRef::new(kind, key.clone()))));
    }

    /// A write by the user, and all that follows from it at once.
    pub(crate) fn user(&mut self, write: &Write) {
        self.api.write("kubectl", write, self.now).unwrap();
        self.publish();
        self.settle();
    }

    /// A deletion by the user and then a merge patch that the informer does not see: what it shows is out of date from now on.
    pub(crate) fn delete_behind(&mut self, kind: Kind, key: &ObjKey, json: Value) {
        let target = ObjectRef::new(kind, key.clone());
        let delete = Write::Delete(Delete::new(target.clone()));
        self.api.write("kubectl", &delete, self.now).unwrap();
        self.publish();
        self.hold(kind);
        self.user(&Write::Patch(Patch::new(target, vec![Edit::Merge(json)])));
    }

    /// From now on the informer of this kind sees nothing.
    pub(crate) fn hold(&mut self, kind: Kind) {
        self.holding.insert(kind);
    }

    /// The informers see all that was held back.
    pub(crate) fn release(&mut self) {
        self.holding.clear();
        for change in std::mem::take(&mut self.held) {
            self.deliver(&change);
        }
        self.settle();
    }

    /// Something else than the API reaches the process.
    pub(crate) fn signal(&mut self, signal: &Signal) {
        self.shells.iter_mut().for_each(|shell| shell.signal(signal, self.now));
        self.settle();
    }

    /// Time passes.
    pub(crate) fn run_to(&mut self, until: Time) {
        while let Some(due) = self
            .shells
            .iter()
            .filter_map(|shell| shell.next_due())
            .min()
            .filter(|due| *due <= until)
        {
            self.now = due;
            self.settle();
        }
        self.now = until;
    }

    /// When something is due that no event announces.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.shells.iter().filter_map(|shell| shell.next_due()).min()
    }

    /// What was written and said since the last look.
    pub(crate) fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The stored object as JSON.
    pub(crate) fn json(&self, kind: Kind, key: &ObjKey) -> Value {
        self.api.object(kind, key).map_or(Value::Null, Object::to_json)
    }

    fn publish(&mut self) {
        let mut changes = Vec::new();
        self.api.drain_changes(&mut changes);
        for change in changes {
            if self.holding.contains(&change.object.kind()) {
                self.held.push(change);
            } else {
                self.deliver(&change);
            }
        }
    }

    fn deliver(&mut self, change: &Change) {
        if let Some(delta) = self.cache.apply(change) {
            self.notice(&delta);
        }
    }

    fn notice(&mut self, delta: &Delta) {
        for shell in self
            .shells
            .iter_mut()
            .filter(|shell| shell.kinds().contains(&delta.kind()))
        {
            shell.notice(&self.cache, delta, self.now);
        }
    }

    fn settle(&mut self) {
        loop {
            for at in 0..self.shells.len() {
                let pumped = self.shells[at].pump(&mut self.cache, self.now);
                self.requests
                    .extend(pumped.requests.into_iter().map(|request| (at, request)));
                for record in pumped.records {
                    let sort = if record.warning { "W" } else { "N" };
                    self.log.push(format!(
                        "{sort} {} {}: {}",
                        record.reason, record.regarding, record.message
                    ));
                }
            }
            let Some((at, request)) = self.requests.pop_front() else {
                return;
            };
            let outcome = self.perform(at, &request);
            self.shells[at].outcome(&mut self.cache, request.token, &outcome, self.now);
        }
    }

    fn perform(&mut self, at: usize, request: &Request) -> Outcome {
        match &*request.effect {
            Effect::Write(write) => {
                let result = self.api.write(self.shells[at].name(), write, self.now);
                let code = result
                    .as_ref()
                    .map_or_else(|e| format!(" {}", e.code), |_| String::new());
                self.log.push(format!("{write}{code}"));
                self.publish();
                Outcome::Written(result)
            }
            Effect::Read(read) => Outcome::Read(self.api.read(read)),
            other => panic!("no controller under test does this: {other:?}"),
        }
    }
}

/// One JSON value laid over another, object by object.
pub(crate) fn merged(base: Value, change: &Value) -> Value {
    match (base, change) {
        (Value::Object(mut base), Value::Object(change)) => {
            for (key, value) in change {
                let old = base.remove(key).unwrap_or(Value::Null);
                base.insert(key.clone(), merged(old, value));
            }
            Value::Object(base)
        }
        (_, change) => change.clone(),
    }
}
