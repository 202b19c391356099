//! The pod garbage collector of kube-controller-manager: deletes pods that no kubelet will ever end.
//!
//! | every 20 s, pods that … | after |
//! |---|---|
//! | ended, beyond `--terminated-pod-gc-threshold` | – |
//! | terminate on a node that is tainted out-of-service and not ready | – |
//! | are bound to a node that is gone | 40 s of quarantine, and a GET that says so, too |
//! | terminate without ever having had a node | – |
//!
//! ```text
//! pass ─► each victim: PATCH status (Failed, and why) unless it ended by itself ─► DELETE with grace 0
//! ```
//!
//! A force deletion: the attach-detach controller learns by it that nobody needs the pod's volumes. Source: Kubernetes `pkg/controller/podgc` v1.36; fact sheet
//! 10.6; traces 20b and 20c.
//!
//! A pass is run at those of its ticks at which it would find something. A quarantine begins at the first of them that misses the node and is over at the third
//! after it: at the second its 40 s have not quite passed (trace 20c: 74 s from the node's end to the pod's).
//!
//! *Blind spot.* Victims go one after the other; in Kubernetes those of the first two rows go at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use crate::api::{
    Cache, Clock, Delete, Delta, Edit, Index, Kind, Limiter, ObjKey, ObjectRef, Patch, Read, Write, fields, names,
};
use crate::control::{AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::release::RELEASE;
use crate::runtime::Time;

/// The name of its writes.
pub const COMPONENT: &str = "pod-garbage-collector";

/// How often it looks, and how long a node must be missing.
const PERIOD: Duration = RELEASE.nodes.gc_period;
const QUARANTINE: Duration = RELEASE.nodes.gc_quarantine;

/// The controller.
#[derive(Clone, Copy, Debug)]
pub struct PodGc {
    /// `--terminated-pod-gc-threshold`; none or less: it keeps all.
    threshold: i32,
}

/// The controller at work, for kube-controller-manager.
pub fn shells(threshold: i32) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(PodGc { threshold }))]
}

/// Its only key: a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PassKey;

impl fmt::Display for PassKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pods")
    }
}

/// What a crash erases: so a quarantine begins anew.
#[derive(Debug, Default)]
pub struct Memory {
    /// Its loop counts from here.
    started: Option<Time>,
    /// Nodes that are missed, and until when they are given time to show up.
    quarantine: BTreeMap<Arc<str>, Time>,
    /// Pods that ended.
    ended: BTreeSet<ObjKey>,
    /// When the last pass began.
    last: Option<Time>,
    pass: Option<VecDeque<Todo>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Todo {
    /// Is the node really gone?
    Ask(Arc<str>),
    /// The pod fails, for this reason.
    Fail(ObjKey, String, Option<&'static str>),
    Delete(ObjKey),
}

impl Memory {
    /// The next pass from a moment on that has not been run yet.
    fn tick(&self, at: Time) -> Option<Time> {
        let unused = self.last.map_or(at, |last| at.max(Time(last.0 + 1)));
        self.started.map(|phase| unused.tick(phase, PERIOD))
    }
}

fn is_orphan(cache: &Cache, pod: &Pod) -> bool {
    let node = fields::pod_node(pod);
    !node.is_empty() && cache.named::<Node>(node).is_none()
}

/// Whether an operator vouches for the node's being down, and it does not say otherwise.
fn is_out_of_service(node: &Node) -> bool {
    !fields::is_node_ready(node) && fields::has_taint(node, names::TAINT_OUT_OF_SERVICE)
}

/// Whether a terminating pod has nobody who could end it.
fn is_abandoned(cache: &Cache, pod: &Pod) -> bool {
    let node = fields::pod_node(pod);
    let given_up = || cache.named::<Node>(node).is_some_and(|n| is_out_of_service(n));
    fields::is_deleting(&pod.metadata) && (node.is_empty() || given_up())
}

/// What is done to a pod.
fn condemn(pod: &Pod, condition: Option<&'static str>) -> Vec<Todo> {
    let key = ObjKey::of(&pod.metadata);
    let fail = Todo::Fail(key.clone(), fields::uid(&pod.metadata).to_owned(), condition);
    let ended = fields::is_terminated(pod);
    let first = (!ended).then_some(fail);
    first.into_iter().chain([Todo::Delete(key)]).collect()
}

/// Failed, and why.
fn failed(pod: &ObjKey, uid: &str, condition: Option<&str>, now: Time) -> Write {
    let mut status = json!({"phase": "Failed"});
    if let Some(message) = condition {
        status["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": message,
            "lastTransitionTime": Clock::EPOCH.time(now),
        }]);
    }
    let edit = Edit::Strategic(json!({ "status": status }));
    let mut patch = Patch::status(ObjectRef::to::<Pod>(pod), vec![edit]);
    patch.uid = Some(uid.to_owned());
    Write::Patch(patch)
}

impl PodGc {
    fn too_many(&self, memory: &Memory) -> usize {
        let kept = usize::try_from(self.threshold).unwrap_or(0);
        if kept == 0 {
            0
        } else {
            memory.ended.len().saturating_sub(kept)
        }
    }

    fn begin(&self, cache: &Cache, memory: &mut Memory, now: Time) -> VecDeque<Todo> {
        memory.last = Some(now);
        let mut oldest: Vec<&Arc<Pod>> = memory.ended.iter().filter_map(|key| cache.get::<Pod>(key)).collect();
        oldest.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
        let mut todo: VecDeque<Todo> = oldest
            .into_iter()
            .take(self.too_many(memory))
            .flat_map(|pod| condemn(pod, None))
            .collect();
        let abandoned = |bound: bool| {
            let pods = cache
                .list::<Pod>()
                .filter(move |pod| fields::pod_node(pod).is_empty() != bound);
            pods.filter(|pod| is_abandoned(cache, pod))
                .flat_map(|pod| condemn(pod, None))
        };
        todo.extend(abandoned(true));
        for pod in cache.list::<Pod>().filter(|pod| is_orphan(cache, pod)) {
            let node = Arc::from(fields::pod_node(pod));
            memory.quarantine.entry(node).or_insert(now + QUARANTINE);
        }
        let over: Vec<Arc<str>> = memory
            .quarantine
            .iter()
            .filter(|(_, until)| **until < now)
            .map(|(n, _)| Arc::clone(n))
            .collect();
        for node in over {
            memory.quarantine.remove(&node);
            if cache.named::<Node>(&node).is_none() {
                todo.push_back(Todo::Ask(node));
            }
        }
        todo.extend(abandoned(false));
        todo
    }

    /// The pass that would find something, as far as is known now.
    fn due(&self, cache: &Cache, memory: &Memory, now: Time) -> Option<Time> {
        if self.too_many(memory) > 0 || cache.list::<Pod>().any(|pod| is_abandoned(cache, pod)) {
            return memory.tick(now);
        }
        let missed = |pod: &&Arc<Pod>| is_orphan(cache, pod) && !memory.quarantine.contains_key(fields::pod_node(pod));
        let anew = cache.list::<Pod>().find(missed).map(|_| now);
        let over = memory.quarantine.values().min().map(|until| Time(until.0 + 1));
        anew.into_iter().chain(over).min().and_then(|at| memory.tick(at))
    }

    fn wake(memory: &Memory, now: Time, queue: &mut Requests<PassKey>) {
        if let Some(at) = memory.tick(now) {
            queue.add_at(PassKey, at);
        }
    }
}

impl Controller for PodGc {
    type Key = PassKey;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn component(&self) -> Option<String> {
        Some(COMPONENT.to_owned())
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::Pod, Kind::Node]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "gc",
            workers: 1,
            limiter: Limiter::Controller,
        }]
    }

    fn start(&self, _: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<PassKey>) {
        memory.started = Some(now);
        queue.add(PassKey);
    }

    fn notice(&self, cache: &Cache, memory: &mut Memory, delta: &Delta, now: Time, queue: &mut Requests<PassKey>) {
        if let Some((_, new)) = delta.of::<Pod>() {
            let key = delta.object().key();
            if new.is_some_and(|pod| fields::is_terminated(pod)) {
                memory.ended.insert(key);
            } else {
                memory.ended.remove(&key);
            }
            let finds = |pod: &Arc<Pod>| is_abandoned(cache, pod) || is_orphan(cache, pod);
            if self.too_many(memory) > 0 || new.is_some_and(finds) {
                Self::wake(memory, now, queue);
            }
        } else if let Some((old, new)) = delta.of::<Node>() {
            let name = fields::name(delta.object().meta());
            let given_up = |node: Option<&Arc<Node>>| node.is_some_and(|n| is_out_of_service(n));
            let worse = new.is_none() || given_up(new) && !given_up(old);
            if worse && cache.keys_by(Index::PodsByNode, name).next().is_some() {
                Self::wake(memory, now, queue);
            }
        }
    }

    fn decide(&self, cache: &Cache, memory: &Memory, _: &PassKey, now: Time) -> Effect {
        let Some(todo) = &memory.pass else {
            return match self.due(cache, memory, now) {
                Some(due) if due > now => Effect::RestUntil(due),
                Some(_) => Effect::Note("pass"),
                None => Effect::Rest,
            };
        };
        match todo.front() {
            Some(Todo::Ask(node)) => {
                Effect::Read(Read::Get(ObjectRef::new(Kind::Node, ObjKey::cluster(Arc::clone(node)))))
            }
            Some(Todo::Fail(pod, uid, condition)) => Effect::write(failed(pod, uid, *condition, now)),
            Some(Todo::Delete(pod)) => {
                let mut delete = Delete::new(ObjectRef::to::<Pod>(pod));
                delete.grace_seconds = Some(0);
                Effect::write(Write::Delete(delete))
            }
            None => match self.due(cache, memory, now) {
                Some(due) => Effect::RestUntil(due),
                None => Effect::Rest,
            },
        }
    }

    fn learn(
        &self,
        memory: &mut Memory,
        _: &PassKey,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, PassKey>,
    ) {
        if let Effect::Note(_) = effect {
            let todo = self.begin(then.cache, memory, then.now);
            memory.pass = Some(todo);
            return;
        }
        let Some(todo) = &mut memory.pass else { return };
        match todo.pop_front() {
            Some(Todo::Ask(node)) if outcome.read().is_err_and(|e| e.is_not_found()) => {
                let pods = then.cache.by::<Pod>(Index::PodsByNode, &node);
                let gone = pods.flat_map(|pod| condemn(pod, Some("PodGC: node no longer exists")));
                let gone: Vec<Todo> = gone.collect();
                gone.into_iter().rev().for_each(|next| todo.push_front(next));
            }
            // What cannot be marked is not deleted; a later pass tries again.
            Some(Todo::Fail(..)) if outcome.written().is_err() => drop(todo.pop_front()),
            _ => {}
        }
    }

    fn ended(&self, memory: &mut Memory, _: &PassKey, _: &Effect) {
        memory.pass = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::PodGc;
    use crate::api::{Index, Kind, ObjKey};
    use crate::control::Shell;
    use crate::controllers::bench::Bench;
    use crate::runtime::Time;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn web() -> ObjKey {
        ObjKey::new("default", "web")
    }

    fn bench(threshold: i32) -> Bench {
        let mut bench = Bench::new(&[Index::PodsByNode], vec![Box::new(Shell::new(PodGc { threshold }))]);
        let status = json!({"conditions": [{"type": "Ready", "status": "Unknown"}]});
        bench.create(Kind::Node, json!({"metadata": {"name": "n1"}, "status": status}));
        bench
    }

    fn pod(bench: &mut Bench, name: &str, node: &str) {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        bench.create(
            Kind::Pod,
            json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
        let running = json!({"status": {"phase": "Running"}});
        bench.patch(Kind::Pod, &ObjKey::new("default", name), true, running);
    }

    const GONE: [&str; 2] = ["patch pod default/web /status", "delete pod default/web"];

    #[test]
    fn a_pod_follows_its_node_after_the_third_pass_that_misses_it() {
        // Trace 20c: 74 s, which is 14 s to the next pass and three periods.
        let mut bench = bench(0);
        pod(&mut bench, "web", "n1");
        bench.run_to(at(26));
        bench.delete(Kind::Node, &ObjKey::cluster("n1"));
        bench.run_to(Time(at(100).0 - 1));
        assert_eq!(bench.take_log(), [""; 0]);
        bench.run_to(at(100));
        assert_eq!(bench.take_log(), GONE);
        assert_eq!(bench.json(Kind::Pod, &web()), Value::Null);
        bench.run_to(at(1000));
        assert_eq!(bench.next_due(), None);
    }

    #[test]
    fn an_orphan_fails_with_a_reason_before_it_goes() {
        let mut bench = bench(0);
        pod(&mut bench, "web", "n1");
        let held = json!({"metadata": {"finalizers": ["example.com/hold"]}});
        bench.patch(Kind::Pod, &web(), false, held);
        bench.delete(Kind::Node, &ObjKey::cluster("n1"));
        bench.run_to(at(80));
        let status = bench.json(Kind::Pod, &web())["status"].clone();
        assert_eq!(status["phase"], "Failed");
        assert_eq!(status["conditions"][0]["reason"], "DeletionByPodGC");
    }

    #[test]
    fn a_node_that_shows_up_again_keeps_its_pods() {
        let mut bench = bench(0);
        pod(&mut bench, "web", "n1");
        bench.delete(Kind::Node, &ObjKey::cluster("n1"));
        bench.run_to(at(50));
        bench.create(Kind::Node, json!({"metadata": {"name": "n1"}}));
        bench.run_to(at(1000));
        assert_eq!(bench.take_log(), [""; 0]);
    }

    #[test]
    fn only_a_terminating_pod_on_a_node_out_of_service_and_not_ready_is_ended() {
        // Trace 20b. Each of the three alone, or two of them, changes nothing.
        let mut bench = bench(0);
        pod(&mut bench, "web", "n1");
        let node = ObjKey::cluster("n1");
        let taint = json!({"spec": {"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}});
        bench.patch(Kind::Node, &node, false, taint);
        bench.run_to(at(100));
        assert_eq!(bench.take_log(), [""; 0], "it does not terminate");
        let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        bench.patch(Kind::Node, &node, true, ready("True"));
        bench.delete(Kind::Pod, &web());
        bench.run_to(at(210));
        assert_eq!(bench.take_log(), [""; 0], "its node is ready");
        bench.patch(Kind::Node, &node, true, ready("Unknown"));
        bench.run_to(Time(at(220).0 - 1));
        assert_eq!(bench.take_log(), [""; 0]);
        bench.run_to(at(220));
        assert_eq!(bench.take_log(), GONE, "at the next pass");
    }

    #[test]
    fn the_oldest_of_too_many_ended_pods_go() {
        let mut bench = bench(2);
        for name in ["web", "b", "c"] {
            pod(&mut bench, name, "n1");
            bench.patch(
                Kind::Pod,
                &ObjKey::new("default", name),
                true,
                json!({"status": {"phase": "Succeeded"}}),
            );
            bench.run_to(bench.now + Duration::from_secs(1));
        }
        bench.run_to(at(40));
        assert_eq!(
            bench.take_log(),
            ["delete pod default/web"],
            "it has failed or succeeded already"
        );
    }

    #[test]
    fn an_idle_cluster_is_not_looked_at() {
        let mut bench = bench(12_500);
        pod(&mut bench, "web", "n1");
        assert_eq!(bench.next_due(), None);
    }
}
