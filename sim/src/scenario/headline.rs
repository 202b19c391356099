//! Steps as headings of a trace: one line each.

use std::fmt::Write as _;

use super::condition::{CallCondition, Condition, ObjectCondition, Target};
use super::step::{Crash, Delete, Healed, Inject, InjectPhase, Step, Times};
use super::{DEFAULT_NAMESPACE, Manifest};

impl Step {
    /// What the step does, in a few words: `wait for pod web Ready, at most 1m0s`.
    pub fn headline(&self) -> String {
        match self {
            Step::Apply(apply) => {
                let objects: Vec<String> = apply.manifests.iter().map(object).collect();
                match (objects.is_empty(), apply.refused.is_some()) {
                    (true, _) => "apply what cannot be read".to_owned(),
                    (false, true) => format!("apply {}, to be refused", objects.join(", ")),
                    (false, false) => format!("apply {}", objects.join(", ")),
                }
            }
            Step::Patch(patch) => format!("patch {}", target(&patch.target)),
            Step::Delete(deletion) => delete(deletion),
            Step::Wait(wait) => format!("wait for {}, at most {}", condition(&wait.until), wait.within),
            Step::Write(write) => format!("pod {} writes {} blocks", write.pod, write.block_count()),
            Step::Verify(verify) => format!("pod {} reads what was written", verify.pod),
            Step::Cordon(node) => format!("cordon {node}"),
            Step::Uncordon(node) => format!("uncordon {node}"),
            Step::Taint(taint) => format!("taint {} with {}:{}", taint.node, taint.key, taint.effect.as_str()),
            Step::Untaint(untaint) => format!("untaint {} of {}", untaint.node, untaint.key),
            Step::Run(duration) => format!("run for {duration}"),
            Step::Restart(process) => format!("restart {process}"),
            Step::Stop(process) => format!("stop {process}"),
            Step::Start(process) => format!("start {process}"),
            Step::Crash(what) => crash(what),
            Step::Strike(strike) => strike.to_string(),
            Step::Inject(what) => inject(what),
            Step::Heal(Healed::All(_)) => "heal every call".to_owned(),
            Step::Heal(Healed::Call(call)) => format!("heal {call}"),
            Step::Expect(expectations) => match expectations.len() {
                1 => "expect one thing".to_owned(),
                n => format!("expect {n} things"),
            },
        }
    }
}

fn object(manifest: &Manifest) -> String {
    let key = &manifest.target.key;
    let namespace = match &*key.namespace {
        "" | DEFAULT_NAMESPACE => String::new(),
        other => format!("{other}/"),
    };
    format!("{} {namespace}{}", manifest.target.kind.short(), key.name)
}

/// An object as traces name it: `pvc data`, `va of pvc data on node-1`.
fn target(target: &Target) -> String {
    let mut text = target.kind.0.short().to_owned();
    let namespace = target.namespace.as_deref().filter(|n| *n != DEFAULT_NAMESPACE);
    let namespace = namespace.map(|n| format!("{n}/")).unwrap_or_default();
    for (preposition, name) in [
        ("", &target.name),
        ("of pvc ", &target.claim),
        ("of vs ", &target.snapshot),
    ] {
        if let Some(name) = name {
            let _ = write!(text, " {preposition}{namespace}{name}");
        }
    }
    if let Some(node) = &target.node {
        let _ = write!(text, " on {node}");
    }
    text
}

fn delete(delete: &Delete) -> String {
    let mut text = format!("delete {}", target(&delete.target));
    if delete.force {
        text.push_str(" by force");
    } else if let Some(grace) = delete.grace_period_seconds {
        let _ = write!(text, " within {grace} s");
    }
    if let Some(wait) = delete.wait {
        let _ = write!(text, ", wait at most {wait}");
    }
    text
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Object(object) => object_condition(object),
        Condition::Call(call) => call_condition(call),
        Condition::All(all) => all.all.iter().map(self::condition).collect::<Vec<_>>().join(" and "),
    }
}

fn object_condition(object: &ObjectCondition) -> String {
    let mut text = target(&object.target());
    let words = object.phase.iter().chain(&object.condition);
    for word in words {
        let _ = write!(text, " {word}");
    }
    for (path, value) in &object.fields {
        let _ = match value {
            serde_json::Value::String(value) => write!(text, " {path}={value}"),
            other => write!(text, " {path}={other}"),
        };
    }
    if let Some(event) = &object.event {
        let _ = write!(text, " event {}", event.like().reason);
    }
    if object.gone {
        text.push_str(" gone");
    }
    text
}

fn call_condition(call: &CallCondition) -> String {
    let mut text = call.call.to_string();
    if let Some(claim) = &call.claim {
        let _ = write!(text, " for pvc {claim}");
    }
    if let Some(node) = &call.node {
        let _ = write!(text, " on {node}");
    }
    if let Some(code) = call.code {
        let _ = write!(text, " answered {code}");
    }
    match call.allowed() {
        (1, u32::MAX) => {}
        (least, most) if least == most => text.push_str(&format!(" {least} times")),
        (least, u32::MAX) => text.push_str(&format!(" at least {least} times")),
        (least, most) => text.push_str(&format!(" {least} to {most} times")),
    }
    text
}

fn crash(crash: &Crash) -> String {
    let victim = crash.victim().map(ToString::to_string).unwrap_or_default();
    let mut text = match &crash.at {
        Some(site) if crash.victim() == Some(&site.process) => format!("crash at {site}"),
        Some(site) => format!("crash {victim} at {site}"),
        None => format!("crash {victim}"),
    };
    if let Some(down) = crash.down {
        let _ = write!(text, ", back after {down}");
    }
    text
}

fn inject(inject: &Inject) -> String {
    let mut text = match (inject.code, inject.phase) {
        (Some(code), InjectPhase::Before) => format!("let {} fail with {code}", inject.call),
        (Some(code), InjectPhase::After) => format!("let {} happen and answer {code}", inject.call),
        (None, _) => format!("let {} take longer", inject.call),
    };
    if let Some(claim) = &inject.claim {
        let _ = write!(text, " for pvc {claim}");
    }
    if let Some(node) = &inject.node {
        let _ = write!(text, " on {node}");
    }
    if let Some(delay) = inject.delay {
        let _ = write!(text, ", after {delay}");
    }
    match inject.times {
        Times::Count(1) => text.push_str(", once"),
        Times::Count(times) => text.push_str(&format!(", {times} times")),
        Times::Always(_) => text.push_str(", until healed"),
    }
    text
}
