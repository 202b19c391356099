//! What can be waited for and expected: states of objects, events, calls.
//!
//! The types are data; `judge.rs` compares them with what a run has shown.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::field::FieldPath;
use super::names::{Call, Code, KindName};

/// Which object is meant.
///
/// Objects with generated names are named by what they were made for: the PersistentVolume of a claim and its VolumeAttachments by `claim`, the
/// VolumeSnapshotContent of a snapshot by `snapshot`. They stay known after the claim or snapshot is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its kind, e.g. `PersistentVolumeClaim` or `pvc`.
    pub kind: KindName,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a PersistentVolume or VolumeAttachment: the claim that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Of a VolumeSnapshotContent: the snapshot that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Of a VolumeAttachment: the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The namespace; `default` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Something that is so or is not so at a moment of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// The state of an object.
    Object(ObjectCondition),
    /// Calls that the driver has had so far.
    Call(CallCondition),
    /// Several conditions, all at the same moment.
    All(AllOf),
}

impl Condition {
    /// Whether it asks only for what has happened so far: calls and events.
    pub fn is_history(&self) -> bool {
        match self {
            Condition::Call(_) => true,
            Condition::Object(object) => {
                let event = ObjectCondition {
                    event: object.event.clone(),
                    ..ObjectCondition::on(object.target())
                };
                object.event.is_some() && *object == event
            }
            Condition::All(all) => all.all.iter().all(Condition::is_history),
        }
    }
}

/// As the subject of a sentence.
impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Object(object) => match &object.event {
                Some(event) => write!(f, "the event {} of {object}", event.like().reason),
                None => write!(f, "{object}"),
            },
            Condition::Call(call) => {
                let (least, _) = call.allowed();
                write!(f, "{}", call.like())?;
                if least > 1 {
                    write!(f, " ({least} times)")
                } else {
                    Ok(())
                }
            }
            Condition::All(all) => {
                for (n, condition) in all.all.iter().enumerate() {
                    let and = if n == 0 { "" } else { " and " };
                    write!(f, "{and}{condition}")?;
                }
                Ok(())
            }
        }
    }
}

/// Several conditions, all at the same moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllOf {
    /// The conditions.
    #[schemars(length(min = 1))]
    pub all: Vec<Condition>,
}

/// The state of an object. Everything that is written must hold; at least one thing must be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectCondition {
    /// Its kind, e.g. `PersistentVolumeClaim` or `pvc`.
    pub kind: KindName,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of a PersistentVolume or VolumeAttachment: the claim that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Of a VolumeSnapshotContent: the snapshot that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Of a VolumeAttachment: the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The namespace; `default` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `status.phase`, e.g. `Bound` or `Running`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// A condition of the status: `Ready` for true, or `Ready=False`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Fields by path, as in `kubectl wait --for=jsonpath=…`: `'{.status.capacity.storage}': 2Gi`. `null` means absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"format": "field-path"}))]
    pub fields: BTreeMap<FieldPath, serde_json::Value>,
    /// The object is there.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exists: bool,
    /// The object is not there, or no longer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// An event about it has been seen; it counts also when the object or the event is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventSeen>,
    /// In expectations only: how long it may take to become so. If left out it must be so at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<GoDuration>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl ObjectCondition {
    /// A condition on this object that says nothing of it yet.
    pub fn on(target: Target) -> ObjectCondition {
        ObjectCondition {
            kind: target.kind,
            name: target.name,
            claim: target.claim,
            snapshot: target.snapshot,
            node: target.node,
            namespace: target.namespace,
            phase: None,
            condition: None,
            fields: BTreeMap::new(),
            exists: false,
            gone: false,
            event: None,
            within: None,
        }
    }

    /// Which object is meant.
    pub fn target(&self) -> Target {
        Target {
            kind: self.kind,
            name: self.name.clone(),
            claim: self.claim.clone(),
            snapshot: self.snapshot.clone(),
            node: self.node.clone(),
            namespace: self.namespace.clone(),
        }
    }

    /// Whether it says nothing of the object.
    pub fn is_empty(&self) -> bool {
        let ObjectCondition {
            phase: None,
            condition: None,
            fields,
            exists: false,
            gone: false,
            event: None,
            ..
        } = self
        else {
            return false;
        };
        fields.is_empty()
    }
}

/// An event that was seen: its reason, or more of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum EventSeen {
    /// An event with this reason.
    Reason(String),
    /// An event like this.
    Like(EventLike),
}

/// What an event is like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventLike {
    /// Its reason, e.g. `ProvisioningFailed`.
    pub reason: String,
    /// `Normal` or `Warning`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<EventType>,
    /// A part of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How often it must have been seen, counts added; once if neither bound is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
    /// How often it may have been seen at most; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u32>,
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is the word of Kubernetes")]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Calls that the driver has had since the scenario began. Without a number it means: at least one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallCondition {
    /// Which call.
    pub call: Call,
    /// To which driver; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// On which node, for calls of the node service; the target node for ControllerPublishVolume and ControllerUnpublishVolume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For the volume of which claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Answered with this code. If left out every call counts that was made, also one that nobody answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Exactly so often; 0 for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// At least so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<u32>,
    /// At most so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u32>,
}

impl CallCondition {
    /// At least one such call.
    pub fn on(call: Call) -> CallCondition {
        CallCondition {
            call,
            driver: None,
            node: None,
            claim: None,
            code: None,
            times: None,
            at_least: None,
            at_most: None,
        }
    }

    /// The numbers that it allows, both included.
    pub fn allowed(&self) -> (u32, u32) {
        match (self.times, self.at_least, self.at_most) {
            (Some(times), _, _) => (times, times),
            (None, None, None) => (1, u32::MAX),
            (None, least, most) => (least.unwrap_or(0), most.unwrap_or(u32::MAX)),
        }
    }
}

/// What must be so at the end, or at an `expect` step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Expectation {
    /// The state of an object.
    Object(ObjectCondition),
    /// Calls that the driver has had so far.
    Call(CallCondition),
    /// Several conditions.
    All(AllOf),
    /// Calls in this order.
    Order(CallOrder),
    /// Nothing is left over.
    Leftovers(Leftovers),
    /// Data is as it was written.
    Data(DataIntact),
}

impl From<Condition> for Expectation {
    fn from(condition: Condition) -> Expectation {
        match condition {
            Condition::Object(object) => Expectation::Object(object),
            Condition::Call(call) => Expectation::Call(call),
            Condition::All(all) => Expectation::All(all),
        }
    }
}

/// Calls that came in this order, others between them allowed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallOrder {
    /// The calls.
    #[schemars(length(min = 1))]
    pub calls: Vec<CallPattern>,
    /// Count only calls for the volume of this claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Count only calls to this driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// No other call of a volume's or snapshot's life came between, before or after; the same call twice in a row counts once, because
    /// Kubernetes repeats calls. Questions (capabilities, probes, statistics, lists) do not count.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only: bool,
}

/// A call: its name, or more of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum CallPattern {
    /// The call, with any answer.
    Name(Call),
    /// A call like this.
    Like(CallLike),
}

/// What a call is like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CallLike {
    /// Which call.
    pub call: Call,
    /// On or for which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For the volume of which claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Answered with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// Nothing is left over: no volume, snapshot, mount, loop device, staging directory, attachment or finalizer of an object that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Leftovers {
    /// `none`.
    pub leftovers: NoLeftovers,
    /// How long cleaning up may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<GoDuration>,
}

/// The word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NoLeftovers {
    /// Nothing.
    None,
}

/// Every block that a pod wrote and synced is readable as it was written, where its volume still exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataIntact {
    /// `intact`.
    pub data: Intact,
}

/// The word `intact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Intact {
    /// As it was written.
    Intact,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        if let Some(claim) = &self.claim {
            write!(f, " of claim {claim}")?;
        }
        if let Some(snapshot) = &self.snapshot {
            write!(f, " of snapshot {snapshot}")?;
        }
        if let Some(node) = &self.node {
            write!(f, " on {node}")?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}
