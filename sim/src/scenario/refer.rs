//! Do the parts of a scenario fit each other? Names of objects, nodes, drivers, mounts; conditions that say nothing; injections without effect.
//!
//! What Kubernetes itself allows is allowed here: a claim may name a class that nobody made. A step that talks about a pod that nobody made is
//! always a mistake of the author.
//!
//! Blind spots: names that a run makes up (`pvc-<uid>`) are believed by their form.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use wavetank_driver::config::Config;

use super::Scenario;
use super::check::{MOST_MISTAKES, listed};
use super::condition::{CallCondition, CallOrder, Condition, Expectation, ObjectCondition, Target};
use super::effects;
use super::kinds;
use super::known::{Known, births, made_up, mount_paths, storage_volumes};
use super::manifest::{DEFAULT_NAMESPACE, Manifest};
use super::mistake::Mistake;
use super::names::{Code, Role};
use super::nearest::nearest;
use super::shape::Cluster;
use super::site::{Process, Site};
use super::step::{Crash, Inject, InjectPhase, Refusal, Step};
use super::unmodelled;
use crate::api::Kind;
use crate::faults::Strike;

/// What does not fit, and where: `/steps/3/delete/name`.
pub(crate) struct Wrong {
    pub path: String,
    pub mistake: Mistake,
}

/// Fills in the drivers that processes leave out, and reports what does not fit.
pub(crate) fn check(scenario: &mut Scenario) -> Vec<Wrong> {
    fill_in(scenario);
    let mut refer = Refer {
        cluster: &scenario.cluster,
        born: births(scenario),
        pods: BTreeMap::new(),
        now: 0,
        wrong: Vec::new(),
    };
    refer.shape();
    refer.learn(&scenario.manifests);
    for (n, step) in scenario.steps.iter().enumerate() {
        refer.now = n + 1;
        refer.step(step, &format!("/steps/{n}/{}", step.verb()));
    }
    refer.now = usize::MAX;
    for (n, expectation) in scenario.expect.iter().enumerate() {
        refer.expectation(expectation, &format!("/expect/{n}"));
    }
    for (n, condition) in scenario.sometimes.iter().enumerate() {
        let path = format!("/sometimes/{n}");
        refer.condition(condition, &path, false);
        if !condition.is_history() {
            refer.say(
                &path,
                "only calls and events can be asked for here: what was seen stays seen",
            );
        }
    }
    if scenario.steps.is_empty() && scenario.expect.is_empty() {
        refer.say(
            "/because",
            "the scenario has neither steps nor expectations: nothing could come of it",
        );
    }
    refer.wrong
}

/// Writes the names of the drivers into their options, and the only driver of a cluster into every process that belongs to a driver.
fn fill_in(scenario: &mut Scenario) {
    for driver in &mut scenario.cluster.drivers {
        driver.options.name.clone_from(&driver.name);
    }
    let Some(driver) = scenario.cluster.only_driver().map(|driver| driver.name.clone()) else {
        return;
    };
    let fill = |process: &mut Process| {
        if process.role.per_driver() && process.driver.is_none() {
            process.driver = Some(driver.clone());
        }
    };
    for step in &mut scenario.steps {
        match step {
            Step::Restart(process) | Step::Stop(process) | Step::Start(process) => fill(process),
            Step::Crash(crash) => {
                let site = crash.at.as_mut().map(|site| &mut site.process);
                crash.process.as_mut().into_iter().chain(site).for_each(fill);
            }
            Step::Strike(strike) => {
                fill(&mut strike.at.process);
                strike.fault.process_mut().into_iter().for_each(fill);
            }
            _ => {}
        }
    }
}

struct Refer<'a> {
    cluster: &'a Cluster,
    born: BTreeMap<Known, usize>,
    pods: BTreeMap<(String, String), &'a Manifest>,
    now: usize,
    wrong: Vec<Wrong>,
}

impl<'a> Refer<'a> {
    fn add(&mut self, path: &str, mistake: Mistake) {
        if self.wrong.len() < MOST_MISTAKES {
            self.wrong.push(Wrong {
                path: path.to_owned(),
                mistake,
            });
        }
    }

    fn say(&mut self, path: &str, message: impl fmt::Display) {
        self.add(path, Mistake::new(readable(path), message.to_string()));
    }

    fn say_near(&mut self, path: &str, message: &str, wrong: &str, valid: &[&str]) {
        if self.wrong.len() >= MOST_MISTAKES {
            return;
        }
        let mistake = Mistake::new(readable(path), message);
        let mistake = match nearest(wrong, valid.iter().copied()) {
            Some(near) => mistake.suggest(near).help(format!("did you mean `{near}`?")),
            None if valid.is_empty() => mistake.help("there is none"),
            None => mistake.help(format!(
                "there {} {}",
                if valid.len() == 1 { "is" } else { "are" },
                listed(valid)
            )),
        };
        self.add(path, mistake);
    }

    fn learn(&mut self, manifests: &'a [Manifest]) {
        for manifest in manifests.iter().filter(|manifest| manifest.kind() == Kind::Pod) {
            let key = (manifest.key().namespace.to_string(), manifest.name().to_owned());
            self.pods.insert(key, manifest);
        }
    }

    fn shape(&mut self) {
        let nodes = self.cluster.nodes.iter().map(|node| node.name.as_str());
        let drivers = self.cluster.drivers.iter().map(|driver| driver.name.as_str());
        let mut twice = Vec::new();
        for (what, names) in [("node", nodes.collect::<Vec<_>>()), ("driver", drivers.collect())] {
            let mut seen = BTreeMap::new();
            for (n, name) in names.into_iter().enumerate() {
                if seen.insert(name, n).is_some() {
                    twice.push((
                        format!("/cluster/{what}s/{n}/name"),
                        format!("there are two {what}s named `{name}`"),
                    ));
                }
            }
        }
        for (path, message) in twice {
            self.say(&path, message);
        }
        for (n, driver) in self.cluster.drivers.iter().enumerate() {
            if let Err(error) = driver.options.validate() {
                self.say(&format!("/cluster/drivers/{n}/options"), error);
            }
        }
        for (n, node) in self.cluster.nodes.iter().enumerate() {
            if let Err(error) = Config::validate_segments(&node.topology) {
                self.say(&format!("/cluster/nodes/{n}/topology"), error);
            }
        }
        for (path, message) in unmodelled::wishes(self.cluster) {
            self.say(&path, message);
        }
        if self.cluster.nodes.is_empty() {
            self.say("/cluster/nodes", "a cluster needs at least one node");
        }
        if self.cluster.nodes.len() > super::MAX_NODES as usize {
            self.say(
                "/cluster/nodes",
                format!("a cluster has at most {} nodes", super::MAX_NODES),
            );
        }
    }

    fn step(&mut self, step: &'a Step, path: &str) {
        match step {
            Step::Apply(apply) => {
                self.learn(&apply.manifests);
                self.refusal(apply.refused.as_ref(), path);
            }
            Step::Patch(patch) => {
                self.target(&patch.target, path);
                self.refusal(patch.refused.as_ref(), path);
            }
            Step::Delete(delete) => {
                self.target(&delete.target, path);
                self.refusal(delete.refused.as_ref(), path);
                if delete.force && delete.grace_period_seconds.is_some_and(|grace| grace != 0) {
                    self.say(
                        &format!("{path}/force"),
                        "`force` means a grace period of 0: leave one of the two away",
                    );
                }
            }
            Step::Wait(wait) => self.condition(&wait.until, &format!("{path}/for"), true),
            Step::Write(write) => {
                if write.blocks.is_some() && write.bytes.is_some() {
                    self.say(&format!("{path}/bytes"), "write either `blocks` or `bytes`, not both");
                }
                let mount = (write.path.as_deref(), write.volume.as_deref());
                self.mount(&write.pod, write.namespace.as_deref(), mount, path);
            }
            Step::Verify(verify) => {
                let mount = (verify.path.as_deref(), verify.volume.as_deref());
                self.mount(&verify.pod, verify.namespace.as_deref(), mount, path);
            }
            Step::Cordon(node) | Step::Uncordon(node) => self.node(node, path),
            Step::Taint(taint) => self.node(&taint.node, &format!("{path}/node")),
            Step::Untaint(taint) => self.node(&taint.node, &format!("{path}/node")),
            Step::Run(_) | Step::Heal(_) => {}
            Step::Restart(process) | Step::Stop(process) | Step::Start(process) => self.process(process, path),
            Step::Crash(crash) => self.crash(crash, path),
            Step::Strike(strike) => self.strike(strike, path),
            Step::Inject(inject) => self.inject(inject, path),
            Step::Expect(expectations) => {
                for (n, expectation) in expectations.iter().enumerate() {
                    self.expectation(expectation, &format!("{path}/{n}"));
                }
            }
        }
    }

    fn refusal(&mut self, refused: Option<&Refusal>, path: &str) {
        if refused.is_some_and(Refusal::is_empty) {
            self.say(
                &format!("{path}/refused"),
                "`refused` must say how: by `code`, `message` or `keys`",
            );
        }
    }

    fn crash(&mut self, crash: &Crash, path: &str) {
        if let Some(process) = &crash.process {
            self.process(process, &format!("{path}/process"));
        }
        if let Some(site) = &crash.at {
            self.site(site, &format!("{path}/at"));
        }
        if crash.victim().is_none() {
            self.say(
                path,
                "a crash needs a `process`, or the site `at` which the process of that site crashes",
            );
        }
    }

    fn strike(&mut self, strike: &Strike, path: &str) {
        self.site(&strike.at, &format!("{path}/at"));
        let path = format!("{path}/fault/{}", strike.fault.kind());
        if let Some(process) = strike.fault.process() {
            self.process(process, &format!("{path}/process"));
        }
        if let Some(node) = strike.fault.node() {
            self.node(node, &format!("{path}/node"));
        }
        if let Some(object) = strike.fault.object() {
            match effects::object(object) {
                Ok(object) => self.site_object(&object, &format!("{path}/object")),
                Err(message) => self.say(&format!("{path}/object"), message),
            }
        }
        if let Err(message) = strike.fault.fits(strike.at.phase) {
            self.say(&path, message);
        }
    }

    fn site(&mut self, site: &Site, path: &str) {
        self.process(&site.process, path);
        self.site_object(&site.object, path);
    }

    /// The object of a site: volumes, attachments and contents go by the claim or snapshot that they serve, too.
    fn site_object(&mut self, object: &str, path: &str) {
        let Some((kind, name)) = object.split_once(' ') else {
            return;
        };
        let Some(kind) = kinds::by_word(kind) else { return };
        let (namespace, name) = name.split_once('/').unwrap_or((DEFAULT_NAMESPACE, name));
        let serves = match kind {
            Kind::PersistentVolume | Kind::VolumeAttachment => Kind::PersistentVolumeClaim,
            Kind::VolumeSnapshotContent => Kind::VolumeSnapshot,
            other => {
                let namespace = if other.namespaced() { namespace } else { "" };
                return self.will_be(other, namespace, name, path);
            }
        };
        let own = (Kind::PersistentVolume, String::new(), name.to_owned());
        if !self.born.contains_key(&own) && !made_up(kind, name) {
            self.will_be(serves, namespace, name, path);
        }
    }

    /// Whether an object of this name can exist at any time.
    fn will_be(&mut self, kind: Kind, namespace: &str, name: &str, path: &str) {
        let now = std::mem::replace(&mut self.now, usize::MAX);
        self.known(kind, namespace, name, path);
        self.now = now;
    }

    fn inject(&mut self, inject: &Inject, path: &str) {
        self.driver(inject.driver.as_deref(), &format!("{path}/driver"));
        if let Some(node) = &inject.node {
            self.node(node, &format!("{path}/node"));
        }
        if inject.code.is_none() && inject.delay.is_none() {
            self.say(path, "an injection needs a `code` to answer with, or a `delay`");
        }
        if inject.code == Some(Code::Ok) && inject.phase == InjectPhase::Before {
            let message = "only the driver can answer OK: leave `code` away, or write `phase: after`";
            self.say(&format!("{path}/code"), message);
        }
        if inject.message.is_some() && inject.code.is_none_or(|code| code == Code::Ok) {
            self.say(&format!("{path}/message"), "a message needs a `code` other than OK");
        }
    }

    fn expectation(&mut self, expectation: &Expectation, path: &str) {
        match expectation {
            Expectation::Object(object) => self.object(object, path, false),
            Expectation::Call(call) => self.call(call, path),
            Expectation::All(all) => self.conditions(&all.all, path, false),
            Expectation::Order(order) => self.order(order, path),
            Expectation::Leftovers(_) | Expectation::Data(_) => {}
        }
    }

    fn conditions(&mut self, conditions: &[Condition], path: &str, waiting: bool) {
        for (n, condition) in conditions.iter().enumerate() {
            self.condition(condition, &format!("{path}/all/{n}"), waiting);
        }
    }

    fn condition(&mut self, condition: &Condition, path: &str, waiting: bool) {
        match condition {
            Condition::Object(object) => self.object(object, path, waiting),
            Condition::Call(call) => self.call(call, path),
            Condition::All(all) => self.conditions(&all.all, path, waiting),
        }
    }

    fn object(&mut self, object: &ObjectCondition, path: &str, waiting: bool) {
        self.target(&object.target(), path);
        if object.is_empty() {
            let message =
                "this says nothing of the object: add `phase`, `condition`, `fields`, `exists`, `gone` or `event`";
            self.say(path, message);
        }
        if object.gone
            && (object.exists || object.phase.is_some() || object.condition.is_some() || !object.fields.is_empty())
        {
            self.say(
                &format!("{path}/gone"),
                "an object that is gone has no phase, condition or fields",
            );
        }
        if waiting && object.within.is_some() {
            self.say(&format!("{path}/within"), "`within` belongs to the wait, beside `for`");
        }
    }

    fn call(&mut self, call: &CallCondition, path: &str) {
        self.driver(call.driver.as_deref(), &format!("{path}/driver"));
        if let Some(node) = &call.node {
            self.node(node, &format!("{path}/node"));
        }
        self.claim(call.claim.as_deref(), path);
        let (least, most) = call.allowed();
        if call.times.is_some() && (call.at_least.is_some() || call.at_most.is_some()) {
            self.say(
                &format!("{path}/times"),
                "`times` is exact: leave `atLeast` and `atMost` away",
            );
        } else if least > most {
            self.say(
                &format!("{path}/atLeast"),
                format!("no number is at least {least} and at most {most}"),
            );
        }
    }

    fn order(&mut self, order: &CallOrder, path: &str) {
        self.driver(order.driver.as_deref(), &format!("{path}/driver"));
        self.claim(order.claim.as_deref(), path);
        for (n, pattern) in order.calls.iter().enumerate() {
            let like = pattern.like();
            let path = format!("{path}/calls/{n}");
            if let Some(node) = &like.node {
                self.node(node, &format!("{path}/node"));
            }
            self.claim(like.claim.as_deref(), &path);
        }
    }

    /// A claim by name, or as `namespace/name`.
    fn claim(&mut self, claim: Option<&str>, path: &str) {
        if let Some(claim) = claim {
            let (namespace, name) = claim.split_once('/').unwrap_or((DEFAULT_NAMESPACE, claim));
            self.known(Kind::PersistentVolumeClaim, namespace, name, &format!("{path}/claim"));
        }
    }

    fn target(&mut self, target: &Target, path: &str) {
        let kind = target.kind.0;
        let namespace = target.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let of_claim = matches!(kind, Kind::PersistentVolume | Kind::VolumeAttachment);
        let of_snapshot = kind == Kind::VolumeSnapshotContent;
        let ways = [&target.name, &target.claim, &target.snapshot]
            .iter()
            .filter(|way| way.is_some())
            .count();
        if ways != 1 {
            let other = match (of_claim, of_snapshot) {
                (true, _) => ", or the `claim` that it serves",
                (_, true) => ", or the `snapshot` that it serves",
                _ => "",
            };
            return self.say(path, format!("say which {} by its `name`{other}", kind.name()));
        }
        if target.claim.is_some() && !of_claim {
            return self.say(
                &format!("{path}/claim"),
                format!("a {} is named by `name`", kind.name()),
            );
        }
        if target.snapshot.is_some() && !of_snapshot {
            return self.say(
                &format!("{path}/snapshot"),
                format!("a {} is named by `name`", kind.name()),
            );
        }
        if let Some(node) = &target.node {
            match kind {
                Kind::VolumeAttachment => self.node(node, &format!("{path}/node")),
                _ => self.say(&format!("{path}/node"), format!("a {} belongs to no node", kind.name())),
            }
        }
        if target.namespace.is_some() && target.name.is_some() && !kind.namespaced() {
            self.say(
                &format!("{path}/namespace"),
                format!("a {} lives in no namespace", kind.name()),
            );
        }
        if let Some(claim) = &target.claim {
            self.known(Kind::PersistentVolumeClaim, namespace, claim, &format!("{path}/claim"));
        }
        if let Some(snapshot) = &target.snapshot {
            self.known(Kind::VolumeSnapshot, namespace, snapshot, &format!("{path}/snapshot"));
        }
        if let Some(name) = &target.name {
            let namespace = if kind.namespaced() { namespace } else { "" };
            self.known(kind, namespace, name, &format!("{path}/name"));
        }
    }

    /// Whether an object of this name can exist by now.
    fn known(&mut self, kind: Kind, namespace: &str, name: &str, path: &str) {
        if made_up(kind, name) {
            return;
        }
        let called = if namespace.is_empty() || namespace == DEFAULT_NAMESPACE {
            format!("{} `{name}`", kind.name())
        } else {
            format!("{} `{name}` in namespace `{namespace}`", kind.name())
        };
        match self.born.get(&(kind, namespace.to_owned(), name.to_owned())) {
            Some(born) if *born <= self.now => {}
            Some(born) => self.say(path, format!("{called} is not there yet: step {born} creates it")),
            None if kind == Kind::Node => self.node(name, path),
            None if self.wrong.len() >= MOST_MISTAKES => {}
            None => {
                let born = std::mem::take(&mut self.born);
                let names: Vec<&str> = born
                    .keys()
                    .filter(|(k, ns, _)| *k == kind && ns == namespace)
                    .map(|(_, _, name)| name.as_str())
                    .collect();
                let message = format!("no manifest and no step creates {called}");
                if kind == Kind::PersistentVolume && names.is_empty() {
                    let mistake = Mistake::new(readable(path), message);
                    self.add(
                        path,
                        mistake.help("the volume that is made for a claim is named by it: `claim: NAME`"),
                    );
                } else {
                    self.say_near(path, &message, name, &names);
                }
                self.born = born;
            }
        }
    }

    fn node(&mut self, name: &str, path: &str) {
        let cluster = self.cluster;
        if cluster.nodes.iter().all(|node| node.name != name) {
            let names: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
            self.say_near(path, &format!("the cluster has no node `{name}`"), name, &names);
        }
    }

    fn driver(&mut self, name: Option<&str>, path: &str) {
        let cluster = self.cluster;
        if let Some(name) = name
            && cluster.driver(name).is_none()
        {
            let names: Vec<&str> = cluster.drivers.iter().map(|driver| driver.name.as_str()).collect();
            self.say_near(path, &format!("the cluster has no driver `{name}`"), name, &names);
        }
    }

    fn process(&mut self, process: &Process, path: &str) {
        if let Some(node) = &process.node {
            self.node(node, path);
        }
        self.driver(process.driver.as_deref(), path);
        if process.role == Role::SnapshotController && self.cluster.snapshot_controller.is_none() {
            return self.say(path, "the cluster has no snapshot controller");
        }
        if !process.role.per_driver() {
            return;
        }
        let Some(name) = process.driver.as_deref() else {
            let first = self
                .cluster
                .drivers
                .first()
                .map_or("DRIVER", |driver| driver.name.as_str());
            let message = format!(
                "the cluster has {} drivers: write whose {} it is",
                self.cluster.drivers.len(),
                process.role
            );
            let help = format!("for example `{}@{first}`", process.role);
            return self.add(path, Mistake::new(readable(path), message).help(help));
        };
        let Some(driver) = self.cluster.driver(name) else {
            return;
        };
        let sidecars = &driver.sidecars;
        let there = match process.role {
            Role::Provisioner => sidecars.provisioner.is_some(),
            Role::Attacher => sidecars.attacher.is_some(),
            Role::Resizer => sidecars.resizer.is_some(),
            Role::Snapshotter => sidecars.snapshotter.is_some(),
            Role::Registrar => sidecars.registrar.is_some(),
            _ => true,
        };
        if !there {
            self.say(
                path,
                format!("the driver `{name}` is deployed without {}", process.role),
            );
        }
    }

    /// Whether the pod has what the step reads or writes.
    fn mount(&mut self, pod: &str, namespace: Option<&str>, (path, volume): (Option<&str>, Option<&str>), at: &str) {
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
        let before = self.wrong.len();
        self.known(Kind::Pod, namespace, pod, &format!("{at}/pod"));
        if self.wrong.len() > before {
            return;
        }
        let Some(manifest) = self.pods.get(&(namespace.to_owned(), pod.to_owned())) else {
            return;
        };
        let Some(spec) = manifest.object.get::<Pod>().and_then(|pod| pod.spec.as_ref()) else {
            return;
        };
        match (path, volume) {
            (Some(_), Some(_)) => self.say(&format!("{at}/volume"), "write either `path` or `volume`, not both"),
            (Some(path), None) => {
                let mounts = mount_paths(spec);
                if !mounts
                    .iter()
                    .any(|mount| path == *mount || path.starts_with(&format!("{}/", mount.trim_end_matches('/'))))
                {
                    self.say_near(
                        &format!("{at}/path"),
                        &format!("pod `{pod}` mounts no volume at or above {path:?}"),
                        path,
                        &mounts,
                    );
                }
            }
            (None, Some(volume)) => {
                let volumes = storage_volumes(spec);
                if !volumes.contains(&volume) {
                    self.say_near(
                        &format!("{at}/volume"),
                        &format!("pod `{pod}` has no such storage volume: `{volume}`"),
                        volume,
                        &volumes,
                    );
                }
            }
            (None, None) => {
                let volumes = storage_volumes(spec);
                if volumes.len() != 1 {
                    let message = format!(
                        "pod `{pod}` has {} storage volumes: say which by `path` or `volume`",
                        volumes.len()
                    );
                    self.say(at, message);
                }
            }
        }
    }
}

/// `/steps/3/delete/name` as `steps[3].delete.name`.
fn readable(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if part.parse::<usize>().is_ok() {
            text.push_str(&format!("[{part}]"));
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(part);
        }
    }
    text
}
