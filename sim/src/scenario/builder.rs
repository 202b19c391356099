//! The same scenarios in Rust: a small vocabulary that reads as a script.
//!
//! ```
//! use wavetank_sim::scenario::Scenario;
//!
//! let scenario = Scenario::builder("grow")
//!     .because("a volume grows under a running pod")
//!     .class("fast", |class| class.expandable())
//!     .claim("data", "1Gi", |claim| claim.class("fast"))
//!     .pod("web", |pod| pod.mounts("data"))
//!     .until("pod/web", "Ready", "1m")
//!     .grow("data", "2Gi")
//!     .until("pvc/data", "{.status.capacity.storage}=2Gi", "3m")
//!     .build()?;
//! # Ok::<(), wavetank_sim::scenario::ScenarioError>(())
//! ```
//!
//! What the vocabulary lacks is added with [`Builder::manifest`], [`Builder::step`] and [`Builder::expect`].

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::condition::{
    CallCondition, CallOrder, CallPattern, Condition, DataIntact, EventSeen, Expectation, Intact, Leftovers,
    NoLeftovers, ObjectCondition, Target,
};
use super::duration::GoDuration;
use super::field::FieldPath;
use super::manifest::Manifest;
use super::mistake::{Mistake, ScenarioError};
use super::names::{Call, KindName};
use super::shape::{Cluster, DriverShape, numbered};
use super::site::{Process, Site};
use super::step::{
    AllInjections, Apply, Crash, Delete, Healed, Inject, Patch, PatchType, Refusal, Step, Taint, TaintEffect, Untaint,
    Verify, Wait, Write,
};
use super::{Places, Scenario, kinds, refer};
use crate::api::Kind;
use crate::faults::{Fault, Strike};

/// A scenario in the making. Objects named before the first step are there from the start; later ones are applied then.
#[derive(Clone, Debug)]
pub struct Builder {
    scenario: Scenario,
    mistakes: Vec<Mistake>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Builder {
        Builder {
            scenario: Scenario {
                name: name.to_owned(),
                because: String::new(),
                cluster: Cluster::default(),
                manifests: Vec::new(),
                steps: Vec::new(),
                expect: Vec::new(),
                sometimes: Vec::new(),
                places: Places::default(),
            },
            mistakes: Vec::new(),
        }
    }

    fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(key, message));
    }

    fn duration(&mut self, text: &str) -> GoDuration {
        GoDuration::parse(text).unwrap_or_else(|error| {
            self.wrong("duration", error.to_string());
            GoDuration::default()
        })
    }

    /// Why the scenario exists.
    pub fn because(mut self, why: &str) -> Builder {
        self.scenario.because = why.to_owned();
        self
    }

    /// How many nodes: `node-1` and so on.
    pub fn nodes(mut self, count: u32) -> Builder {
        self.scenario.cluster.nodes = numbered(count);
        self
    }

    /// Any other change of the cluster's shape.
    pub fn cluster(mut self, change: impl FnOnce(&mut Cluster)) -> Builder {
        change(&mut self.scenario.cluster);
        self
    }

    /// Another driver, with all sidecars.
    pub fn driver(mut self, name: &str) -> Builder {
        self.scenario.cluster.drivers.push(DriverShape::named(name));
        self
    }

    /// An object as JSON, for what the other words cannot say.
    pub fn manifest(mut self, json: Json) -> Builder {
        match Manifest::from_json(json) {
            Ok(manifest) if self.scenario.steps.is_empty() => self.scenario.manifests.push(manifest),
            Ok(manifest) => self.scenario.steps.push(Step::Apply(Apply::new(vec![manifest]))),
            Err(why) => self.wrong("manifest", why),
        }
        self
    }

    /// A StorageClass of the first driver.
    pub fn class(self, name: &str, with: impl FnOnce(Class) -> Class) -> Builder {
        let provisioner = self
            .scenario
            .cluster
            .drivers
            .first()
            .map_or("", |driver| driver.name.as_str());
        let class = with(Class(json!({
            "apiVersion": Kind::StorageClass.api_version(),
            "kind": "StorageClass",
            "metadata": {"name": name},
            "provisioner": provisioner,
        })));
        self.manifest(class.0)
    }

    /// A claim of this size, ReadWriteOnce.
    pub fn claim(self, name: &str, size: &str, with: impl FnOnce(Claim) -> Claim) -> Builder {
        let claim = with(Claim(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
        })));
        self.manifest(claim.0)
    }

    /// A pod with one container named `main`.
    pub fn pod(self, name: &str, with: impl FnOnce(PodShape) -> PodShape) -> Builder {
        let pod = with(PodShape(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "busybox"}]},
        })));
        self.manifest(pod.0)
    }

    /// Any step.
    pub fn step(mut self, step: Step) -> Builder {
        self.scenario.steps.push(step);
        self
    }

    /// Applies an object as kubectl takes it: creates it, or merges it into what is there.
    pub fn apply(mut self, json: Json) -> Builder {
        match Manifest::from_json(json) {
            Ok(manifest) => self.scenario.steps.push(Step::Apply(Apply::new(vec![manifest]))),
            Err(why) => self.wrong("apply", why),
        }
        self
    }

    /// Asks for more room in a claim.
    pub fn grow(self, claim: &str, size: &str) -> Builder {
        let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
        self.patch(&format!("pvc/{claim}"), patch)
    }

    /// A strategic merge patch of an object such as `pvc/data`.
    pub fn patch(mut self, object: &str, patch: Json) -> Builder {
        let Some(target) = self.target(object) else { return self };
        self.step(Step::Patch(Patch {
            target,
            type_: PatchType::default(),
            patch,
            subresource: None,
            refused: None,
        }))
    }

    /// The last step must be refused by the API server with this status.
    pub fn refused(mut self, code: u16) -> Builder {
        let refusal = Some(Refusal {
            code: Some(code),
            ..Refusal::default()
        });
        match self.scenario.steps.last_mut() {
            Some(
                Step::Apply(Apply { refused, .. })
                | Step::Patch(Patch { refused, .. })
                | Step::Delete(Delete { refused, .. }),
            ) => *refused = refusal,
            _ => self.wrong("refused", "only an apply, patch or delete step can be refused"),
        }
        self
    }

    /// Deletes an object such as `pod/web`.
    pub fn delete(mut self, object: &str) -> Builder {
        let Some(target) = self.target(object) else { return self };
        self.step(Step::Delete(Delete {
            target,
            grace_period_seconds: None,
            force: false,
            wait: None,
            refused: None,
        }))
    }

    /// Deletes a pod such as `pod/web` from the API server at once, whatever its kubelet does.
    pub fn delete_now(mut self, object: &str) -> Builder {
        let Some(target) = self.target(object) else { return self };
        self.step(Step::Delete(Delete {
            target,
            grace_period_seconds: None,
            force: true,
            wait: None,
            refused: None,
        }))
    }

    /// Waits for an object: `gone`, `exists`, a phase (`Bound`), a condition (`Ready`), a field (`{.status.phase}=Bound`), an event
    /// (`event:ProvisioningFailed`).
    pub fn until(mut self, object: &str, state: &str, within: &str) -> Builder {
        let within = self.duration(within);
        let Some(condition) = self.state(object, state) else {
            return self;
        };
        self.step(Step::Wait(Wait {
            until: Condition::Object(condition),
            within,
        }))
    }

    /// Lets time pass.
    pub fn run(mut self, time: &str) -> Builder {
        let time = self.duration(time);
        self.step(Step::Run(time))
    }

    /// A pod writes blocks to its volume.
    pub fn write(self, pod: &str, blocks: u64) -> Builder {
        self.step(Step::Write(Write {
            pod: pod.to_owned(),
            namespace: None,
            path: None,
            volume: None,
            blocks: Some(blocks),
            bytes: None,
            sync: true,
            expect: None,
        }))
    }

    /// A pod reads back what was written to its volume.
    pub fn verify(self, pod: &str) -> Builder {
        self.step(Step::Verify(Verify {
            pod: pod.to_owned(),
            namespace: None,
            path: None,
            volume: None,
            blocks: None,
        }))
    }

    /// Keeps new pods from a node.
    pub fn cordon(self, node: &str) -> Builder {
        self.step(Step::Cordon(node.to_owned()))
    }

    /// Allows new pods on a node again.
    pub fn uncordon(self, node: &str) -> Builder {
        self.step(Step::Uncordon(node.to_owned()))
    }

    /// Puts a taint on a node.
    pub fn taint(self, node: &str, key: &str, effect: TaintEffect) -> Builder {
        self.step(Step::Taint(Taint {
            node: node.to_owned(),
            key: key.to_owned(),
            value: None,
            effect,
        }))
    }

    /// Takes the taints with this key off a node.
    pub fn untaint(self, node: &str, key: &str) -> Builder {
        self.step(Step::Untaint(Untaint {
            node: node.to_owned(),
            key: key.to_owned(),
            effect: None,
        }))
    }

    /// Restarts a process such as `kubelet/node-1`.
    pub fn restart(mut self, process: &str) -> Builder {
        match Process::parse(process) {
            Ok(process) => self.scenario.steps.push(Step::Restart(process)),
            Err(why) => self.wrong("restart", why),
        }
        self
    }

    /// Ends a process such as `kubelet/node-1` orderly; it stays away until [`Builder::start`].
    pub fn stop(mut self, process: &str) -> Builder {
        match Process::parse(process) {
            Ok(process) => self.scenario.steps.push(Step::Stop(process)),
            Err(why) => self.wrong("stop", why),
        }
        self
    }

    /// Starts what [`Builder::stop`] ended.
    pub fn start(mut self, process: &str) -> Builder {
        match Process::parse(process) {
            Ok(process) => self.scenario.steps.push(Step::Start(process)),
            Err(why) => self.wrong("start", why),
        }
        self
    }

    /// Kills a process such as `kubelet/node-1` now; it starts again at once. A node such as `node/node-1` stays away until [`Builder::start`].
    pub fn crash(mut self, process: &str) -> Builder {
        match Process::parse(process) {
            Ok(process) => self.scenario.steps.push(Step::Crash(Crash {
                process: Some(process),
                at: None,
                down: None,
            })),
            Err(why) => self.wrong("crash", why),
        }
        self
    }

    /// Kills a process such as `kubelet/node-1` at a site such as `attacher / ControllerPublishVolume / pvc data / attempt 1 / before-reply`, by default the
    /// one whose site it is. It starts again at once.
    pub fn crash_at(mut self, site: &str) -> Builder {
        match Site::parse(site) {
            Ok(site) => self.scenario.steps.push(Step::Crash(Crash {
                process: None,
                at: Some(site),
                down: None,
            })),
            Err(why) => self.wrong("at", why),
        }
        self
    }

    /// Pins a fault to a site such as `attacher / ControllerPublishVolume / pvc data / attempt 1 / before-reply`.
    pub fn strike(mut self, site: &str, fault: Fault) -> Builder {
        match Site::parse(site) {
            Ok(at) => self.scenario.steps.push(Step::Strike(Strike { at, fault })),
            Err(why) => self.wrong("at", why),
        }
        self
    }

    /// Lets calls fail or hang.
    pub fn inject(self, inject: Inject) -> Builder {
        self.step(Step::Inject(inject))
    }

    /// Ends every injection.
    pub fn heal(self) -> Builder {
        self.step(Step::Heal(Healed::All(AllInjections::All)))
    }

    /// Waits until the driver has had so many of these calls.
    pub fn until_called(mut self, call: Call, times: u32, within: &str) -> Builder {
        let within = self.duration(within);
        self.step(Step::Wait(Wait {
            until: Condition::Call(CallCondition {
                at_least: Some(times),
                ..CallCondition::on(call)
            }),
            within,
        }))
    }

    /// Something must be so now.
    pub fn expect_now(self, expectations: Vec<Expectation>) -> Builder {
        self.step(Step::Expect(expectations))
    }

    /// What must have been seen at least once over all seeds.
    pub fn sometimes(mut self, condition: Condition) -> Builder {
        self.scenario.sometimes.push(condition);
        self
    }

    /// Any expectation for the end.
    pub fn expect(mut self, expectation: Expectation) -> Builder {
        self.scenario.expect.push(expectation);
        self
    }

    /// At the end an object is in a state, spelled as for [`Builder::until`].
    pub fn expect_state(mut self, object: &str, state: &str) -> Builder {
        let Some(condition) = self.state(object, state) else {
            return self;
        };
        self.expect(Expectation::Object(condition))
    }

    /// The calls came in this order.
    pub fn expect_calls(self, calls: &[Call]) -> Builder {
        self.expect(Expectation::Order(CallOrder {
            calls: calls.iter().copied().map(CallPattern::Name).collect(),
            claim: None,
            driver: None,
            only: false,
        }))
    }

    /// The call came exactly so often.
    pub fn expect_count(self, call: Call, times: u32) -> Builder {
        self.expect(Expectation::Call(CallCondition {
            times: Some(times),
            ..CallCondition::on(call)
        }))
    }

    /// Nothing is left over at the end.
    pub fn expect_no_leftovers(self) -> Builder {
        self.expect(Expectation::Leftovers(Leftovers {
            leftovers: NoLeftovers::None,
            within: None,
        }))
    }

    /// Data is as it was written.
    pub fn expect_data_intact(self) -> Builder {
        self.expect(Expectation::Data(DataIntact { data: Intact::Intact }))
    }

    /// The scenario.
    ///
    /// # Errors
    /// Everything that does not fit, as for a file.
    pub fn build(mut self) -> Result<Scenario, ScenarioError> {
        if self.scenario.because.trim().is_empty() {
            self.wrong("because", "say why the scenario exists");
        }
        let wrong = refer::check(&mut self.scenario);
        self.mistakes.extend(wrong.into_iter().map(|wrong| wrong.mistake));
        if self.mistakes.is_empty() {
            Ok(self.scenario)
        } else {
            Err(ScenarioError::Mistakes(self.mistakes))
        }
    }

    /// `pod/web` or `pvc/other/data` as a target; `pv/claim:data` and `va/claim:data` for what serves a claim.
    fn target(&mut self, object: &str) -> Option<Target> {
        let parts: Vec<&str> = object.split('/').collect();
        let (word, namespace, name) = match parts[..] {
            [word, name] => (word, None, name),
            [word, namespace, name] => (word, Some(namespace.to_owned()), name),
            _ => {
                self.wrong(
                    "object",
                    format!("an object is named as in `pod/web` or `pod/namespace/web`, not {object:?}"),
                );
                return None;
            }
        };
        let Some(kind) = kinds::by_word(word) else {
            self.wrong("object", format!("there is no kind `{word}`"));
            return None;
        };
        let claim = name.strip_prefix("claim:").map(str::to_owned);
        Some(Target {
            kind: KindName(kind),
            name: claim.is_none().then(|| name.to_owned()),
            claim,
            snapshot: None,
            node: None,
            namespace,
        })
    }

    fn state(&mut self, object: &str, state: &str) -> Option<ObjectCondition> {
        let mut condition = ObjectCondition::on(self.target(object)?);
        match state {
            "gone" => condition.gone = true,
            "exists" => condition.exists = true,
            "Pending" | "Bound" | "Lost" | "Available" | "Released" | "Failed" | "Running" | "Succeeded" => {
                condition.phase = Some(state.to_owned())
            }
            field if field.starts_with('{') => {
                let (path, value) = field
                    .rsplit_once("}=")
                    .map_or((field, ""), |(path, value)| (path, value));
                match FieldPath::parse(path.trim_start_matches('{')) {
                    Ok(path) => condition.fields = BTreeMap::from([(path, Json::from(value))]),
                    Err(why) => self.wrong("field", why),
                }
            }
            event if event.starts_with("event:") => {
                condition.event = Some(EventSeen::Reason(event["event:".len()..].to_owned()))
            }
            other => condition.condition = Some(other.to_owned()),
        }
        Some(condition)
    }
}

/// A StorageClass in the making.
#[derive(Debug)]
pub struct Class(Json);

impl Class {
    fn set(mut self, key: &str, value: impl Into<Json>) -> Class {
        self.0[key] = value.into();
        self
    }

    /// Claims may grow.
    pub fn expandable(self) -> Class {
        self.set("allowVolumeExpansion", true)
    }

    /// Volumes are made when a pod needs them.
    pub fn wait_for_first_consumer(self) -> Class {
        self.set("volumeBindingMode", "WaitForFirstConsumer")
    }

    /// Volumes stay when their claims go.
    pub fn retain(self) -> Class {
        self.set("reclaimPolicy", "Retain")
    }

    /// Another provisioner.
    pub fn provisioner(self, driver: &str) -> Class {
        self.set("provisioner", driver)
    }

    /// A parameter for the driver.
    pub fn parameter(mut self, key: &str, value: &str) -> Class {
        self.0["parameters"][key] = value.into();
        self
    }
}

/// A claim in the making.
#[derive(Debug)]
pub struct Claim(Json);

impl Claim {
    /// Of this class.
    pub fn class(mut self, name: &str) -> Claim {
        self.0["spec"]["storageClassName"] = name.into();
        self
    }

    /// With this access mode instead of ReadWriteOnce.
    pub fn access(mut self, mode: &str) -> Claim {
        self.0["spec"]["accessModes"] = json!([mode]);
        self
    }

    /// As a raw block device.
    pub fn block(mut self) -> Claim {
        self.0["spec"]["volumeMode"] = "Block".into();
        self
    }

    /// As a copy of another claim.
    pub fn clone_of(mut self, claim: &str) -> Claim {
        self.0["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": claim});
        self
    }
}

/// A pod in the making.
#[derive(Debug)]
pub struct PodShape(Json);

impl PodShape {
    /// Mounts a claim at `/<claim>`.
    pub fn mounts(mut self, claim: &str) -> PodShape {
        self.volume(claim);
        self.push("volumeMounts", json!({"name": claim, "mountPath": format!("/{claim}")}));
        self
    }

    /// Has a block claim as the device `/dev/<claim>`.
    pub fn device(mut self, claim: &str) -> PodShape {
        self.volume(claim);
        self.push(
            "volumeDevices",
            json!({"name": claim, "devicePath": format!("/dev/{claim}")}),
        );
        self
    }

    /// Runs on this node and no other (by nodeSelector, so that the scheduler takes part).
    pub fn on(mut self, node: &str) -> PodShape {
        self.0["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        self
    }

    fn volume(&mut self, claim: &str) {
        let volume = json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        push(&mut self.0["spec"]["volumes"], volume);
    }

    fn push(&mut self, key: &str, item: Json) {
        push(&mut self.0["spec"]["containers"][0][key], item);
    }
}

fn push(list: &mut Json, item: Json) {
    match list {
        Json::Array(items) => items.push(item),
        other => *other = Json::Array(vec![item]),
    }
}
