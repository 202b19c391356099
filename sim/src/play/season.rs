//! The shape of a run: storm, healing, calm, and the look at whether all has settled.
//!
//! ```text
//! fair    steps ─► expectations ─► settle ─► look
//! storm   steps with faults ─ a wait is over, or the steps are done ─► heal everything ─► calm: the rest, the goals ─► settle ─► look
//! ```
//!
//! In a storm a step that fails is no failure: everything is healed, and the step must come true in the calm. What a scenario expects is then a *goal* if
//! it is a state that lasts (an object that is gone, bound, ready, so large); passing states, events and the number or order of calls are judged only
//! where nothing but the scenario's own faults struck. A scenario that brings trouble of its own has no goals after a storm, because its trouble is
//! healed with the rest; the promises hold for it all the same.
//!
//! A scenario whose steps or expectations fail is healed and settled all the same: what is broken there tells more than the expectation.
//!
//! What follows a scenario's own end stays in the trace only where a promise breaks there.

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};

use super::{Options, Player};
use crate::api::{Kind, ObjKey, Object, fields};
use crate::cluster::Cluster;
use crate::oracles::{
    keeps_to_what_is_allocated, settles_violation, unsettled, waits_for_another, waits_for_the_stuck,
};
use crate::runtime::Time;
use crate::scenario::{Condition, DEFAULT_NAMESPACE, Expectation, Manifest, ObjectCondition, Step, Target};
use crate::storm::Strike;

/// In the calm everything that is under way must be done after this much virtual time. The longest chain of Kubernetes' own clocks fits in: five minutes
/// until pods of a lost node are evicted, six until its volumes are detached by force, and then one retry each of provisioner, attacher, resizer (capped
/// at five minutes) and kubelet (two minutes).
pub const CALM: Duration = Duration::from_secs(30 * 60);

/// How long all must stay as it is, once settled.
const STAYS: Duration = Duration::from_secs(3 * 60);

/// How often it is asked whether all has settled.
const LOOK: Duration = Duration::from_secs(15);

/// Whether faults may strike that the scenario does not know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weather {
    /// Only what the scenario itself says.
    Fair,
    /// A storm: more may strike at any time.
    Storm,
    /// The storm is over, and everything was healed.
    Calm,
}

impl Weather {
    pub fn of(options: &Options) -> Weather {
        if options.storm.is_none() && options.strikes.is_empty() {
            Weather::Fair
        } else {
            Weather::Storm
        }
    }
}

impl Player<'_> {
    /// Whether something struck that the scenario does not know of.
    pub(super) fn is_off_script(&self) -> bool {
        self.weather == Weather::Calm || (self.weather == Weather::Storm && !self.cluster.struck().is_empty())
    }

    /// The storm is over.
    fn heal_everything(&mut self) {
        if self.weather == Weather::Storm {
            self.weather = Weather::Calm;
            self.cluster.heal_all();
        }
    }

    /// A pod of the scenario.
    pub(super) fn want(&mut self, manifest: &Manifest) {
        if manifest.target.kind == Kind::Pod {
            self.wanted.insert(manifest.target.key.clone(), manifest.clone());
        }
    }

    /// The scenario deletes what may be one of its pods.
    pub(super) fn want_no_longer(&mut self, target: &Target) {
        match target.kind.0 {
            Kind::Namespace => {
                let name = target.name.as_deref().unwrap_or_default();
                self.wanted.retain(|key, _| *key.namespace != *name);
            }
            _ => {
                if let Some(key) = pod(target) {
                    self.wanted.remove(&key);
                }
            }
        }
    }

    /// Makes pods again that were lost: whoever made them wants them still.
    fn tend(&mut self) {
        let lost: Vec<Manifest> = self
            .wanted
            .iter()
            .filter(|(key, _)| self.cluster.object(Kind::Pod, key).is_none())
            .map(|(_, manifest)| manifest.clone())
            // Another pod of the scenario has taken over.
            .filter(|manifest| match &manifest.object {
                Object::Pod(pod) => !waits_for_another(&self.cluster, pod),
                _ => false,
            })
            .collect();
        for manifest in lost {
            // If it is refused now, it is tried again with the next look.
            let _ = self.cluster.create_or_merge(&manifest);
        }
    }

    /// A step failed in a storm: with everything healed it must come true, if it is of the lasting kind.
    pub(super) async fn in_spite_of_trouble(&mut self, nth: usize, step: &Step) {
        self.heal_everything();
        let reached = match step {
            Step::Wait(wait) if lasts(&wait.until) => self.comes_true(&wait.until).await,
            Step::Delete(delete) if delete.wait.is_some() => {
                let gone = ObjectCondition {
                    gone: true,
                    ..ObjectCondition::on(delete.target.clone())
                };
                self.comes_true(&Condition::Object(gone)).await
            }
            Step::Write(_) | Step::Verify(_) if !self.is_given_up(nth, step) => self.again(step).await,
            _ => Ok(()),
        };
        if let Err(why) = reached {
            self.missed(&format!("step {} ({}) does not come true: {why}", nth + 1, step.verb()));
        }
    }

    /// Whether a step is about a pod that was lost while the scenario's own deletion of its claim waited for it: the claim went, and no pod gets it any more.
    fn is_given_up(&self, nth: usize, step: &Step) -> bool {
        let (name, namespace) = match step {
            Step::Write(write) => (&write.pod, &write.namespace),
            Step::Verify(verify) => (&verify.pod, &verify.namespace),
            _ => return false,
        };
        let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let deleted = |claim: &str| {
            self.scenario.steps[..nth].iter().any(|step| match step {
                Step::Delete(delete) => {
                    delete.target.kind.0 == Kind::PersistentVolumeClaim && delete.target.name.as_deref() == Some(claim)
                }
                _ => false,
            })
        };
        let gone = |claim: &str| {
            let key = ObjKey::new(namespace, claim);
            self.cluster.object(Kind::PersistentVolumeClaim, &key).is_none()
        };
        match self
            .wanted
            .get(&ObjKey::new(namespace, name.as_str()))
            .map(|manifest| &manifest.object)
        {
            Some(Object::Pod(pod)) => fields::pod_claims(pod).any(|of| deleted(&of.claim) && gone(&of.claim)),
            _ => false,
        }
    }

    /// A goal that was not reached is a promise broken, unless the scenario's own trouble was healed away with the storm.
    fn missed(&mut self, text: &str) {
        let mut pods = self.cluster.api().list::<Pod>();
        let stuck = pods.any(|pod| waits_for_the_stuck(pod, &self.cluster));
        if !self.scenario.steps.iter().any(brings_trouble) && !self.panel.is_unsafe() && !stuck {
            let view = self.panel.view(&self.cluster);
            let violation = settles_violation(&view, self.scenario.name.clone(), text);
            self.panel.accuse(violation);
        }
    }

    /// Waits in the calm until a condition holds.
    async fn comes_true(&mut self, condition: &Condition) -> Result<(), String> {
        let until = self.now() + CALM;
        loop {
            self.tend();
            match self.wait(condition, LOOK).await {
                Ok(()) => return Ok(()),
                Err(_) if self.is_stuck_for_good(condition) => return Ok(()),
                Err(why) if self.now() >= until || self.panel.is_unsafe() => return Err(why),
                Err(_) => {}
            }
        }
    }

    /// Whether a condition waits for an expansion that Kubernetes never ends.
    fn is_stuck_for_good(&self, condition: &Condition) -> bool {
        let Condition::Object(object) = condition else {
            return false;
        };
        let waits_for_room = object.kind.0 == Kind::PersistentVolumeClaim && !object.fields.is_empty();
        let key = ObjKey::new(
            object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
            object.name.as_deref().unwrap_or_default(),
        );
        let claim = self.cluster.get::<PersistentVolumeClaim>(&key);
        waits_for_room && claim.is_some_and(|claim| keeps_to_what_is_allocated(&self.cluster, claim))
    }

    /// Tries a step in the calm until it succeeds.
    async fn again(&mut self, step: &Step) -> Result<(), String> {
        let until = self.now() + CALM;
        loop {
            self.tend();
            self.run_for(LOOK).await;
            let done = match step {
                Step::Write(write) => self.pod_write(write).await,
                Step::Verify(verify) => self.pod_verify(verify).await,
                _ => Ok(()),
            };
            match done {
                Ok(()) => return Ok(()),
                Err(why) if self.now() >= until || self.panel.is_unsafe() => return Err(why),
                Err(_) => {}
            }
        }
    }

    /// After a storm: what lasts of what the scenario expects must come true.
    pub(super) async fn goals(&mut self) {
        self.heal_everything();
        for expectation in &self.scenario.expect {
            let condition = match expectation {
                Expectation::Object(object) => Condition::Object(object.clone()),
                Expectation::All(all) => Condition::All(all.clone()),
                _ => continue,
            };
            if lasts(&condition)
                && let Err(why) = self.comes_true(&condition).await
            {
                self.missed(&format!("what is expected does not come true: {why}"));
            }
        }
    }

    /// The scenario has come to its end: lets everything settle and has the oracles of the calm look. Gives the time of the scenario's own end.
    pub(super) async fn end(&mut self) -> Time {
        self.panel.look(&self.cluster);
        if self.weather == Weather::Storm && self.is_off_script() {
            self.heal_everything();
        }
        let (end, shown) = (self.now(), self.cluster.trace().records().len());
        let before = self.panel.violations().len();
        if before == 0 {
            self.judge_what_failed();
            self.settle().await;
        }
        if self.panel.violations().len() == before {
            self.cluster.trace_mut().truncate(shown);
        }
        end
    }

    /// A scenario that failed ends wherever it was, with its own trouble unhealed: what is left of it is judged as after a storm.
    fn judge_what_failed(&mut self) {
        if !self.failures.is_empty() && self.weather == Weather::Fair {
            self.cluster.heal_all();
        }
    }

    /// Waits until all has settled and stays so for a while.
    async fn settle(&mut self) {
        let until = self.now() + CALM;
        let mut pause = LOOK;
        let (mut settled, mut relapse) = (None, None);
        loop {
            let now = self.now();
            match unrest(&self.cluster) {
                None => _ = settled.get_or_insert(now),
                Some(text) if settled.take().is_some() => relapse = Some(text),
                Some(_) => {}
            }
            let rests = settled.is_some_and(|since| now >= since + STAYS);
            if rests || now >= until + STAYS || self.panel.is_unsafe() {
                break;
            }
            if self.weather == Weather::Calm && settled.is_none() {
                self.tend();
            }
            self.run_for(pause).await;
            // What is asked outside takes real time.
            if self.cluster.elsewhere().is_some() {
                pause = (pause * 2).min(STAYS);
            }
        }
        self.look_at_data();
        self.panel.settle(&self.cluster);
        let rests = settled.is_some_and(|since| self.now() >= since + STAYS);
        if let Some(text) = relapse.filter(|_| settled.is_some() && !rests) {
            self.missed(&format!("what had settled does not stay so: {text}"));
        }
    }
}

/// What has not settled, if anything.
fn unrest(cluster: &Cluster) -> Option<String> {
    let first = unsettled(cluster).into_iter().next();
    let first = first.map(|(object, text)| format!("{object} {text}"));
    first.or_else(|| {
        let elsewhere = match cluster.left_elsewhere() {
            Ok(left) => left,
            Err(why) => return Some(why),
        };
        let left = cluster.strays().into_iter().chain(elsewhere).next()?;
        Some(format!("{left} belongs to nothing"))
    })
}

fn pod(target: &Target) -> Option<ObjKey> {
    let name = target.name.as_deref().filter(|_| target.kind.0 == Kind::Pod)?;
    Some(ObjKey::new(
        target.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
        name,
    ))
}

/// Whether a step is trouble by itself, and ends when everything is healed.
fn brings_trouble(step: &Step) -> bool {
    match step {
        Step::Stop(_) | Step::Crash(_) | Step::Inject(_) | Step::Taint(_) | Step::Cordon(_) | Step::Heal(_) => true,
        // What it does to a call or an operation leads to the same end; who loses a process, a node or an object may end elsewhere.
        Step::Strike(Strike { fault, .. }) => {
            fault.process().is_some() || (fault.node().is_some() && !fault.is_of_devices()) || fault.object().is_some()
        }
        Step::Delete(delete) => delete.target.kind.0 == Kind::Node,
        _ => false,
    }
}

/// Whether a condition, once true, stays so until somebody wants it otherwise.
fn lasts(condition: &Condition) -> bool {
    match condition {
        Condition::Call(_) => false,
        Condition::All(all) => all.all.iter().all(lasts),
        Condition::Object(object) => {
            let phase = object.phase.as_deref();
            object.event.is_none()
                && object.condition.as_deref().is_none_or(|condition| condition == "Ready")
                && phase.is_none_or(|phase| phase == "Bound" || phase == "Running")
                && object
                    .fields
                    .keys()
                    .all(|path| path.to_string().ends_with("capacity.storage}"))
        }
    }
}
