//! Conditions and expectations of a scenario, held against the cluster as it is now and the books of what was seen.

use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value as Json, json};

use super::{FOREVER, Player};
use crate::api::{Kind, ObjKey, Object, ObjectRef, fields};
use crate::cluster::Cluster;
use crate::scenario::{Condition, DEFAULT_NAMESPACE, Expectation, ObjectCondition, Target};

use super::books::Books;

/// Whether a condition holds now.
///
/// # Errors
/// What is not so.
pub fn holds(cluster: &Cluster, books: &Books, condition: &Condition) -> Result<(), String> {
    match condition {
        Condition::Object(object) => object_holds(cluster, books, object),
        Condition::Call(call) => call.judge(&books.calls),
        Condition::All(all) => all.all.iter().try_for_each(|c| holds(cluster, books, c)),
    }
}

fn object_holds(cluster: &Cluster, books: &Books, condition: &ObjectCondition) -> Result<(), String> {
    let targets = targets(cluster, books, &condition.target());
    // What is waited for is mostly a phase or an end: that needs no more of the object than its phase.
    let whole = condition.condition.is_some() || !condition.fields.is_empty();
    let read = |object: &Object| match fields::phase(object) {
        _ if whole => object.to_json(),
        Some(phase) => json!({"status": {"phase": phase}}),
        None if condition.phase.is_none() => Json::Null,
        None => object.to_json(),
    };
    let objects: Vec<Json> = targets
        .iter()
        .filter_map(|t| Some(read(cluster.object(t.kind, &t.key)?)))
        .collect();
    let events: Vec<_> = targets.iter().flat_map(|t| books.events(t)).collect();
    condition.judge(&objects, &events)
}

/// Changes whenever the answer to a condition may: the versions of its objects, the events about them, the calls so far.
fn signature(cluster: &Cluster, books: &Books, condition: &Condition) -> u64 {
    match condition {
        Condition::Object(object) => {
            let targets = targets(cluster, books, &object.target());
            let of =
                |t: &ObjectRef| cluster.object(t.kind, &t.key).map_or(1, |o| o.version() + 2) + books.event_writes(t);
            targets.iter().fold(targets.len() as u64, |all, t| {
                all.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(of(t))
            })
        }
        Condition::Call(_) => books.call_changes(),
        Condition::All(all) => all.all.iter().fold(0, |sum, c| {
            sum.wrapping_mul(31).wrapping_add(signature(cluster, books, c))
        }),
    }
}

/// The objects that a target means, those included that are gone by now.
pub fn targets(cluster: &Cluster, books: &Books, target: &Target) -> Vec<ObjectRef> {
    let kind = target.kind.0;
    let namespace = target.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let key = |name: &str| {
        if kind.namespaced() {
            ObjKey::new(namespace, name)
        } else {
            ObjKey::cluster(name)
        }
    };
    if let Some(name) = &target.name {
        return vec![ObjectRef::new(kind, key(name))];
    }
    if let Some(snapshot) = &target.snapshot {
        let contents = books.contents_of(&ObjKey::new(namespace, snapshot.as_str()));
        return contents
            .iter()
            .map(|name| ObjectRef::new(kind, ObjKey::cluster(name.as_str())))
            .collect();
    }
    let volumes = target
        .claim
        .as_ref()
        .map(|claim| books.volumes_of(&ObjKey::new(namespace, claim.as_str())));
    if kind == Kind::PersistentVolume {
        let names = volumes.unwrap_or_default();
        return names
            .iter()
            .map(|name| ObjectRef::new(kind, ObjKey::cluster(name.as_str())))
            .collect();
    }
    let attachments = cluster.api().list::<VolumeAttachment>();
    let fitting = attachments.filter(|va| {
        let of_claim = volumes
            .as_ref()
            .is_none_or(|v| v.iter().any(|name| name == fields::attachment_volume(va)));
        of_claim && target.node.as_ref().is_none_or(|node| *node == va.spec.node_name)
    });
    fitting
        .map(|va| ObjectRef::new(Kind::VolumeAttachment, ObjKey::of(&va.metadata)))
        .collect()
}

/// How often a backend is asked what it still holds.
const ASK: Duration = Duration::from_secs(5);

impl Player<'_> {
    /// Waits until a condition holds.
    pub(super) async fn wait(&mut self, condition: &Condition, within: Duration) -> Result<(), String> {
        let until = self.now() + within.min(FOREVER);
        let (books, panel) = (&mut self.books, &mut self.panel);
        let mut last = None;
        let mut seen = None;
        let held = self
            .cluster
            .run_until(until, |cluster| {
                panel.look(cluster);
                if !books.catch_up(cluster.trace()) && seen.is_some() {
                    return false;
                }
                // Judging reads whole objects: only when something that the condition can see has changed.
                let signature = signature(cluster, books, condition);
                if seen == Some(signature) {
                    return false;
                }
                seen = Some(signature);
                last = holds(cluster, books, condition).err();
                last.is_none()
            })
            .await;
        if held {
            return Ok(());
        }
        let why = last.unwrap_or_default();
        Err(format!("not within {}: {why}", seconds(within)))
    }

    /// Judges an expectation, waiting as long as it allows.
    pub(super) async fn expect(&mut self, expectation: &Expectation) -> Result<(), String> {
        self.books.catch_up(self.cluster.trace());
        match expectation {
            Expectation::Object(object) => {
                let within = object.within.map(|d| d.get()).unwrap_or_default();
                let condition = Condition::Object(object.clone());
                self.judge_within(&condition, within).await
            }
            Expectation::Call(call) => call.judge(&self.books.calls),
            Expectation::All(all) => holds(&self.cluster, &self.books, &Condition::All(all.clone())),
            Expectation::Order(order) => order.judge(&self.books.calls),
            Expectation::Leftovers(leftovers) => {
                let within = leftovers.within.map(|d| d.get()).unwrap_or_default();
                let until = self.now() + within;
                let panel = &mut self.panel;
                let settled = self
                    .cluster
                    .run_until(until, |cluster| {
                        panel.look(cluster);
                        cluster.leftovers().is_empty()
                    })
                    .await;
                let mut leaked = self.cluster.left_elsewhere()?;
                // Nobody tells when a backend lets go: it is asked now and then.
                while settled && !leaked.is_empty() && self.now() < until {
                    self.run_for(ASK).await;
                    leaked = self.cluster.left_elsewhere()?;
                }
                if settled && leaked.is_empty() {
                    Ok(())
                } else if settled {
                    Err(format!("left over: {}", leaked.join(", ")))
                } else {
                    Err(format!("left over: {}", self.cluster.leftovers().join(", ")))
                }
            }
            Expectation::Data(_) => self.data_intact(),
        }
    }

    async fn judge_within(&mut self, condition: &Condition, within: Duration) -> Result<(), String> {
        if within.is_zero() {
            return holds(&self.cluster, &self.books, condition);
        }
        self.wait(condition, within).await
    }
}

/// A duration as people write it: `90s`, `1.5s`, `2m`.
pub fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    match (millis % 1000, millis / 1000) {
        (0, s) if s >= 60 && s % 60 == 0 => format!("{}m", s / 60),
        (0, s) => format!("{s}s"),
        (ms, s) => format!("{s}.{ms:03}s"),
    }
}
