//! What happens in a scenario, step by step.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::condition::{Condition, Expectation, Target};
use super::duration::GoDuration;
use super::manifest::Manifest;
use super::names::{Call, Code, Errno};
use super::site::{Process, Site};
use crate::api::quantity::Amount;
use crate::faults::Strike;

/// One step. Each is a map of one key. Steps follow each other without a pause, but each request of the user takes 10 ms of virtual time to reach
/// the API server, as kubectl does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "a step")]
pub enum Step {
    /// Apply objects, as `kubectl apply` does: create those that are new, merge into those that are there.
    Apply(Apply),
    /// Change an object, as `kubectl patch` does.
    Patch(Patch),
    /// Delete an object, as `kubectl delete` does, but without waiting unless told so.
    Delete(Delete),
    /// Wait until something is so, at most for a time. The scenario fails if it does not become so.
    Wait(Wait),
    /// A pod writes blocks that say who wrote them and when.
    Write(Write),
    /// A pod reads back what was written to its volume, and compares.
    Verify(Verify),
    /// Keep new pods from a node.
    Cordon(String),
    /// Allow new pods on a node again.
    Uncordon(String),
    /// Put a taint on a node.
    Taint(Taint),
    /// Take a taint off a node.
    Untaint(Untaint),
    /// Let time pass.
    Run(GoDuration),
    /// End a process orderly and start it again at once.
    Restart(Process),
    /// End a process orderly; it stays away until `start`. A node is shut down without draining.
    Stop(Process),
    /// Start what `stop` or `crash` ended.
    Start(Process),
    /// Kill a process or a node: now, or at a site.
    Crash(Crash),
    /// Pin a fault to a site, from now on; faults before every other step are pinned before the first manifest is created. A scenario whose site is never
    /// reached fails.
    Strike(Strike),
    /// Let calls fail or hang.
    Inject(Inject),
    /// End injections: those of one call, or `all`.
    Heal(Healed),
    /// Something must be so now.
    Expect(Vec<Expectation>),
}

/// Objects to apply, read already. The objects of a file that were readable are in `manifests`, even if others of it were not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apply {
    /// The objects, in order.
    #[serde(default)]
    pub manifests: Vec<Manifest>,
    /// What was wrong with the others. Only a step that expects a refusal can have any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<WrongKey>,
    /// The refusal that is expected; nothing means that all must be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

impl Apply {
    /// Objects that must be accepted.
    pub fn new(manifests: Vec<Manifest>) -> Apply {
        Apply {
            manifests,
            wrong: Vec::new(),
            refused: None,
        }
    }

    /// Compares the wrong keys that reading found with those that the step expects. Nothing about what the API server answers.
    ///
    /// # Errors
    /// A sentence that says which key was expected and not found, or found and not expected.
    pub fn judge_reading(&self) -> Result<(), String> {
        let expected = self.refused.as_ref().map_or(&[][..], |refused| &refused.keys);
        for wanted in expected {
            let Some(found) = self.wrong.iter().find(|wrong| wrong.key == wanted.key) else {
                return Err(format!("the key `{}` was not refused", wanted.key));
            };
            if wanted.line.is_some() && wanted.line != found.line {
                let line = |line: Option<usize>| line.map_or("no line".to_owned(), |line| format!("line {line}"));
                return Err(format!(
                    "`{}` was refused in {}, not in {}",
                    wanted.key,
                    line(found.line),
                    line(wanted.line)
                ));
            }
            if wanted.suggest.is_some() && wanted.suggest != found.suggest {
                let instead = found.suggest.as_deref().unwrap_or("nothing");
                let suggest = wanted.suggest.as_deref().unwrap_or_default();
                return Err(format!("for `{}` {instead} was suggested, not {suggest}", wanted.key));
            }
        }
        match self
            .wrong
            .iter()
            .find(|wrong| expected.iter().all(|wanted| wanted.key != wrong.key))
        {
            Some(wrong) => Err(format!(
                "`{}` was refused, which was not expected: {}",
                wrong.key, wrong.message
            )),
            None => Ok(()),
        }
    }
}

/// A key of a manifest that was refused before the API server saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WrongKey {
    /// Its path, e.g. `spec.controllerExpand`.
    pub key: String,
    /// The line in its file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The key that is suggested instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggest: Option<String>,
    /// What is said about it; not compared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A refusal that is expected: of the API server, or of keys that do not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Refusal {
    /// The status that the API server answers, e.g. 403 or 422.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub code: Option<u16>,
    /// A part of its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Keys of the manifest that do not exist: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<WrongKey>,
}

impl Refusal {
    /// Compares what the API server answered with what is expected of it. Without `code` and `message` it must have accepted.
    ///
    /// # Errors
    /// A sentence that says what came instead.
    pub fn judge(expected: Option<&Refusal>, answer: Result<(), (u16, &str)>) -> Result<(), String> {
        let asked = expected.filter(|refusal| refusal.code.is_some() || refusal.message.is_some());
        match (asked, answer) {
            (None, Ok(())) => Ok(()),
            (None, Err((code, message))) => Err(format!("refused with {code}: {message}")),
            (Some(_), Ok(())) => Err("accepted, although a refusal was expected".to_owned()),
            (Some(refusal), Err((code, message))) => {
                if refusal.code.is_some_and(|wanted| wanted != code) {
                    let wanted = refusal.code.unwrap_or_default();
                    return Err(format!("refused with {code}, not with {wanted}: {message}"));
                }
                match &refusal.message {
                    Some(part) if !message.contains(part.as_str()) => {
                        Err(format!("refused with {code}, but {message:?} does not say {part:?}"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// How an apply step is written: `file:`, `manifest:` or `manifests:` with an expected refusal, or the object itself.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "the schema is derived from it; `load.rs` reads the tree")]
struct ApplySpelled {
    /// A file with one or more objects, relative to the scenario.
    file: Option<String>,
    /// One object.
    manifest: Option<Manifest>,
    /// Several objects.
    manifests: Option<Vec<Manifest>>,
    /// The refusal that is expected.
    refused: Option<Refusal>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the schema is derived from it; `load.rs` reads the tree")]
enum ApplyForms {
    Spelled(ApplySpelled),
    Inline(Manifest),
}

impl JsonSchema for Apply {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Apply".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ApplyForms::json_schema(generator)
    }
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("additionalProperties" = false))]
pub struct Patch {
    /// Which object.
    #[serde(flatten)]
    pub target: Target,
    /// How the patch is merged; `strategic` if left out, as kubectl has it.
    #[serde(default, rename = "type")]
    pub type_: PatchType,
    /// The patch: a map, or a list of operations for `json`.
    pub patch: serde_json::Value,
    /// `status` to patch the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<Subresource>,
    /// The refusal that is expected; nothing means that it must be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PatchType {
    /// Lists are merged by their keys.
    #[default]
    Strategic,
    /// RFC 7386: lists are replaced, null deletes.
    Merge,
    /// RFC 6902: a list of operations.
    Json,
}

/// A part of an object with a door of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Subresource {
    /// The status.
    Status,
}

/// The deletion of an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("additionalProperties" = false))]
pub struct Delete {
    /// Which object.
    #[serde(flatten)]
    pub target: Target,
    /// Of a pod: how long it may take to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub grace_period_seconds: Option<i64>,
    /// Delete the API object at once, without waiting for the kubelet: `kubectl delete --force --grace-period=0`.
    #[serde(default)]
    pub force: bool,
    /// Wait so long until it is gone; if left out, go on at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<GoDuration>,
    /// The refusal that is expected; nothing means that it must be accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// Waiting for something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wait {
    /// For what.
    #[serde(rename = "for")]
    pub until: Condition,
    /// How long at most, in virtual time.
    pub within: GoDuration,
}

/// A pod writes to one of its volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Write {
    /// The pod.
    pub pod: String,
    /// Its namespace; `default` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where it writes: a path below a mount, or the path of a block device. May be left out if the pod has one volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Or the volume, by its name in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// How many blocks of 4096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub blocks: Option<u64>,
    /// Or how many bytes, e.g. `1Gi`; rounded up to whole blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "quantity"))]
    pub bytes: Option<String>,
    /// Whether the data is synced to the device; true if left out.
    #[serde(default = "yes")]
    pub sync: bool,
    /// The error that is expected; nothing means that all must be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Errno>,
}

fn yes() -> bool {
    true
}

/// The size of a written block, in bytes.
pub const BLOCK: u64 = 4096;

impl Write {
    /// How many blocks are to be written.
    pub fn block_count(&self) -> u64 {
        let bytes = self.bytes.as_deref().and_then(|text| Amount::parse(text).ok());
        match (self.blocks, bytes) {
            (Some(blocks), _) => blocks,
            (None, Some(bytes)) => bytes.ceil().div_ceil(BLOCK),
            (None, None) => 1,
        }
    }
}

/// A pod reads back what was written to one of its volumes, by whichever pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// The pod.
    pub pod: String,
    /// Its namespace; `default` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What it reads: a path below a mount, or the path of a block device. May be left out if the pod has one volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Or the volume, by its name in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// How many blocks must be there; all that were written and synced if left out. 0: the volume must show nothing old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
}

/// A taint for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// The node.
    pub node: String,
    /// The key, e.g. `node.kubernetes.io/out-of-service`.
    pub key: String,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What it does to pods.
    pub effect: TaintEffect,
}

/// What a taint does to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is the word of Kubernetes")]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

impl TaintEffect {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            TaintEffect::NoSchedule => "NoSchedule",
            TaintEffect::PreferNoSchedule => "PreferNoSchedule",
            TaintEffect::NoExecute => "NoExecute",
        }
    }
}

/// A taint to be taken off a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Untaint {
    /// The node.
    pub node: String,
    /// The key.
    pub key: String,
    /// The effect; all taints with this key if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
}

/// The sudden end of a process or a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Crash {
    /// What crashes. With `at` it may be left out: then it is the process of the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// When: at this site, from now on; crashes before every other step are pinned before the first manifest is created. If left out, now. A scenario
    /// whose site is never reached fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Site>,
    /// How long it stays away before it starts again. If left out a process starts again at once and a node stays away until `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<GoDuration>,
}

impl Crash {
    /// What crashes.
    pub fn victim(&self) -> Option<&Process> {
        self.process
            .as_ref()
            .or_else(|| self.at.as_ref().map(|site| &site.process))
    }
}

/// Calls that fail or hang. The first injection that fits a call and is not used up strikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inject {
    /// Which call.
    pub call: Call,
    /// To which driver; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// On or for which node; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// For the volume of which claim; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Only requests that carry this text in a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// The answer; the driver's own if left out (then `delay` must be given).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// The message of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long the answer takes; a caller with a shorter deadline gives up before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<GoDuration>,
    /// `before`: the driver does not see the call. `after`: it does what it is told, and its answer is replaced or delayed.
    #[serde(default)]
    pub phase: InjectPhase,
    /// How often; `always` until `heal`; once if left out.
    #[serde(default)]
    pub times: Times,
}

impl Inject {
    /// Strikes the next such call, whoever makes it. What strikes it is still to be said.
    pub fn into_call(call: Call) -> Inject {
        Inject {
            call,
            driver: None,
            node: None,
            claim: None,
            contains: None,
            code: None,
            message: None,
            delay: None,
            phase: InjectPhase::Before,
            times: Times::default(),
        }
    }

    /// Answers with this code instead of the driver.
    pub fn code(self, code: Code) -> Inject {
        Inject {
            code: Some(code),
            ..self
        }
    }

    /// The answer takes so long.
    pub fn delay(self, delay: GoDuration) -> Inject {
        Inject {
            delay: Some(delay),
            ..self
        }
    }

    /// The driver does what it is told, before.
    pub fn after(self) -> Inject {
        Inject {
            phase: InjectPhase::After,
            ..self
        }
    }

    /// So often.
    pub fn times(self, times: u32) -> Inject {
        Inject {
            times: Times::Count(times),
            ..self
        }
    }

    /// Until it is healed.
    pub fn always(self) -> Inject {
        Inject {
            times: Times::Always(Always::Always),
            ..self
        }
    }
}

/// Whether an injection strikes before or after the driver has seen the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InjectPhase {
    /// The driver does not see the call.
    #[default]
    Before,
    /// The driver does what it is told; its answer is replaced or delayed.
    After,
}

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Times {
    /// So often.
    Count(#[schemars(range(min = 1))] u32),
    /// Until it is ended.
    Always(Always),
}

impl Default for Times {
    fn default() -> Times {
        Times::Count(1)
    }
}

/// The word `always`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Always {
    /// Without end.
    Always,
}

/// Which injections end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Healed {
    /// All of them.
    All(AllInjections),
    /// Those of this call.
    Call(Call),
}

/// The word `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum AllInjections {
    /// Every injection.
    All,
}

impl Step {
    /// Whether it pins a fault to a site.
    pub fn is_pinned(&self) -> bool {
        match self {
            Step::Crash(crash) => crash.at.is_some(),
            Step::Strike(_) => true,
            _ => false,
        }
    }

    /// The word that the step begins with in YAML.
    pub fn verb(&self) -> &'static str {
        match self {
            Step::Apply(_) => "apply",
            Step::Patch(_) => "patch",
            Step::Delete(_) => "delete",
            Step::Wait(_) => "wait",
            Step::Write(_) => "write",
            Step::Verify(_) => "verify",
            Step::Cordon(_) => "cordon",
            Step::Uncordon(_) => "uncordon",
            Step::Taint(_) => "taint",
            Step::Untaint(_) => "untaint",
            Step::Run(_) => "run",
            Step::Restart(_) => "restart",
            Step::Stop(_) => "stop",
            Step::Start(_) => "start",
            Step::Crash(_) => "crash",
            Step::Strike(_) => "strike",
            Step::Inject(_) => "inject",
            Step::Heal(_) => "heal",
            Step::Expect(_) => "expect",
        }
    }
}
