//! Compares conditions with what a run has shown. Pure: the caller looks the objects, events and calls up.

use serde_json::Value as Json;

use super::condition::{
    CallCondition, CallLike, CallOrder, CallPattern, EventLike, EventSeen, EventType, ObjectCondition,
};
use super::names::{Call, Code};

/// An event as the API server has, or had, it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenEvent {
    /// Its reason.
    pub reason: String,
    /// Normal or Warning.
    pub type_: EventType,
    /// Its message.
    pub message: String,
    /// How often it was counted.
    pub count: u32,
}

/// A call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenCall {
    /// Which call.
    pub call: Call,
    /// To which driver.
    pub driver: String,
    /// On or for which node.
    pub node: Option<String>,
    /// For the volume of which claim (`name`, or `namespace/name` outside `default`).
    pub claim: Option<String>,
    /// The answer as the caller saw it. None while it is under way, and for ever if the caller died before it came.
    pub code: Option<Code>,
}

impl ObjectCondition {
    /// Whether the condition holds, given the objects that are meant (as JSON; none if there is none) and every event about them so far.
    ///
    /// # Errors
    /// What is not so, as a sentence for the trace.
    pub fn judge(&self, objects: &[Json], events: &[SeenEvent]) -> Result<(), String> {
        if let Some(event) = &self.event {
            event.judge(events)?;
        }
        if self.gone {
            return match objects.len() {
                0 => Ok(()),
                _ => Err(format!("{self} is still there")),
            };
        }
        let silent = !self.exists && self.phase.is_none() && self.condition.is_none() && self.fields.is_empty();
        if silent {
            return Ok(());
        }
        if objects.is_empty() {
            return Err(format!("{self} is not there"));
        }
        objects.iter().try_for_each(|object| self.judge_one(object))
    }

    fn judge_one(&self, object: &Json) -> Result<(), String> {
        let status = &object["status"];
        if let Some(phase) = &self.phase {
            let found = status["phase"].as_str().unwrap_or("not set");
            if found != phase {
                return Err(format!("the phase of {self} is {found}, not {phase}"));
            }
        }
        if let Some(condition) = &self.condition {
            let (name, wanted) = condition.split_once('=').unwrap_or((condition, "True"));
            let conditions = status["conditions"].as_array();
            let found = conditions
                .into_iter()
                .flatten()
                .find(|found| found["type"].as_str() == Some(name));
            let found = found.and_then(|found| found["status"].as_str()).unwrap_or("not set");
            if !found.eq_ignore_ascii_case(wanted) {
                return Err(format!("the condition {name} of {self} is {found}, not {wanted}"));
            }
        }
        for (path, wanted) in &self.fields {
            path.holds(object, wanted).map_err(|why| format!("of {self} {why}"))?;
        }
        Ok(())
    }
}

impl std::fmt::Display for ObjectCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.target().fmt(f)
    }
}

impl EventSeen {
    /// The event in its long form.
    pub fn like(&self) -> EventLike {
        match self {
            EventSeen::Like(like) => like.clone(),
            EventSeen::Reason(reason) => EventLike {
                reason: reason.clone(),
                type_: None,
                message: None,
                at_least: None,
                at_most: None,
            },
        }
    }

    fn judge(&self, events: &[SeenEvent]) -> Result<(), String> {
        let like = self.like();
        let fits = |event: &&SeenEvent| {
            event.reason == like.reason
                && like.type_.is_none_or(|type_| type_ == event.type_)
                && like
                    .message
                    .as_ref()
                    .is_none_or(|part| event.message.contains(part.as_str()))
        };
        let seen: u32 = events
            .iter()
            .filter(fits)
            .map(|event| event.count.max(1))
            .fold(0, u32::saturating_add);
        let (least, most) = match (like.at_least, like.at_most) {
            (None, None) => (1, u32::MAX),
            (least, most) => (least.unwrap_or(0), most.unwrap_or(u32::MAX)),
        };
        within_bounds(&format!("the event {}", like.reason), seen, least, most)
    }
}

fn within_bounds(what: &str, seen: u32, least: u32, most: u32) -> Result<(), String> {
    let often = |n: u32| match n {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{n} times"),
    };
    let wanted = match (least, most) {
        _ if (least..=most).contains(&seen) => return Ok(()),
        (least, most) if least == most => format!("not {}", often(least)),
        _ if seen < least => format!("not at least {}", often(least)),
        _ => format!("more than {}", often(most)),
    };
    Err(format!("{what} was seen {}, {wanted}", often(seen)))
}

impl CallCondition {
    /// What the call is like, whoever it goes to.
    pub fn like(&self) -> CallLike {
        CallLike {
            call: self.call,
            node: self.node.clone(),
            claim: self.claim.clone(),
            code: self.code,
        }
    }

    /// Whether the condition holds of the calls so far.
    ///
    /// # Errors
    /// How often the call was seen, as a sentence for the trace.
    pub fn judge(&self, calls: &[SeenCall]) -> Result<(), String> {
        let like = self.like();
        let to = |seen: &SeenCall| self.driver.as_ref().is_none_or(|driver| *driver == seen.driver);
        let seen = calls.iter().filter(|seen| to(seen) && like.fits(seen)).count();
        let (least, most) = self.allowed();
        within_bounds(&like.to_string(), u32::try_from(seen).unwrap_or(u32::MAX), least, most)
    }
}

impl CallLike {
    fn fits(&self, seen: &SeenCall) -> bool {
        self.call == seen.call
            && self.node.as_ref().is_none_or(|node| seen.node.as_ref() == Some(node))
            && self
                .claim
                .as_ref()
                .is_none_or(|claim| seen.claim.as_ref() == Some(claim))
            && (self.code.is_none() || self.code == seen.code)
    }
}

impl std::fmt::Display for CallLike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.call)?;
        if let Some(claim) = &self.claim {
            write!(f, " for {claim}")?;
        }
        if let Some(node) = &self.node {
            write!(f, " on {node}")?;
        }
        match self.code {
            Some(code) => write!(f, " answered {code}"),
            None => Ok(()),
        }
    }
}

impl CallPattern {
    /// The call in its long form.
    pub fn like(&self) -> CallLike {
        match self {
            CallPattern::Like(like) => like.clone(),
            CallPattern::Name(call) => CallLike {
                call: *call,
                node: None,
                claim: None,
                code: None,
            },
        }
    }
}

impl CallOrder {
    /// Whether the calls so far came in this order.
    ///
    /// # Errors
    /// The first call that did not come, or came uninvited.
    pub fn judge(&self, calls: &[SeenCall]) -> Result<(), String> {
        let counted = |seen: &&SeenCall| {
            self.claim
                .as_ref()
                .is_none_or(|claim| seen.claim.as_ref() == Some(claim))
                && self.driver.as_ref().is_none_or(|driver| *driver == seen.driver)
        };
        let seen: Vec<&SeenCall> = calls.iter().filter(counted).collect();
        if self.only {
            self.judge_only(&seen)
        } else {
            self.judge_among(&seen)
        }
    }

    fn judge_among(&self, seen: &[&SeenCall]) -> Result<(), String> {
        let mut rest = seen.iter();
        let mut before: Option<String> = None;
        for pattern in &self.calls {
            let like = pattern.like();
            if !rest.any(|call| like.fits(call)) {
                return Err(match before {
                    Some(before) => format!("{like} did not come after {before}"),
                    None => format!("{like} did not come"),
                });
            }
            before = Some(like.to_string());
        }
        Ok(())
    }

    fn judge_only(&self, seen: &[&SeenCall]) -> Result<(), String> {
        let mut seen = seen.iter().filter(|call| call.call.is_lifecycle()).peekable();
        for pattern in &self.calls {
            let like = pattern.like();
            let Some(call) = seen.next() else {
                return Err(format!("{like} did not come: there were no more calls"));
            };
            if !like.fits(call) {
                return Err(format!("{} came where {like} was expected", shown(call)));
            }
            while seen.next_if(|next| same(call, next)).is_some() {}
        }
        match seen.next() {
            Some(call) => Err(format!("{} came after the last expected call", shown(call))),
            None => Ok(()),
        }
    }
}

/// Whether one call repeats another: a call without an answer repeats whatever the other was answered.
fn same(a: &SeenCall, b: &SeenCall) -> bool {
    let alike = (a.call, &a.driver, &a.node, &a.claim) == (b.call, &b.driver, &b.node, &b.claim);
    alike && (a.code == b.code || a.code.is_none() || b.code.is_none())
}

fn shown(call: &SeenCall) -> CallLike {
    CallLike {
        call: call.call,
        node: call.node.clone(),
        claim: call.claim.clone(),
        code: call.code,
    }
}

#[cfg(test)]
mod tests {
    use super::super::condition::Target;
    use super::super::field::FieldPath;
    use super::super::names::KindName;
    use super::*;
    use crate::api::Kind;
    use serde_json::json;

    fn claim() -> ObjectCondition {
        ObjectCondition::on(Target {
            kind: KindName(Kind::PersistentVolumeClaim),
            name: Some("data".into()),
            claim: None,
            snapshot: None,
            node: None,
            namespace: None,
        })
    }

    fn call(call: Call, node: Option<&str>, code: Code) -> SeenCall {
        SeenCall {
            call,
            driver: "d".into(),
            node: node.map(str::to_owned),
            claim: Some("data".into()),
            code: Some(code),
        }
    }

    #[test]
    fn objects_are_judged_by_everything_that_is_written() {
        let object = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "conditions": [{"type": "Resizing", "status": "True"}]}});
        let mut condition = claim();
        condition.phase = Some("Bound".into());
        condition.condition = Some("Resizing".into());
        condition
            .fields
            .insert(FieldPath::parse("{.status.capacity.storage}").unwrap(), json!("1024Mi"));
        assert_eq!(condition.judge(std::slice::from_ref(&object), &[]), Ok(()));
        assert_eq!(
            condition.judge(&[], &[]).unwrap_err(),
            "PersistentVolumeClaim data is not there"
        );
        condition.condition = Some("Resizing=False".into());
        assert_eq!(
            condition.judge(&[object], &[]).unwrap_err(),
            "the condition Resizing of PersistentVolumeClaim data is True, not False"
        );
    }

    #[test]
    fn events_count_even_when_the_object_is_gone() {
        let mut condition = claim();
        condition.gone = true;
        condition.event = Some(EventSeen::Reason("ProvisioningFailed".into()));
        let event = SeenEvent {
            reason: "ProvisioningFailed".into(),
            type_: EventType::Warning,
            message: "no".into(),
            count: 2,
        };
        assert_eq!(condition.judge(&[], &[event]), Ok(()));
        let error = condition.judge(&[], &[]).unwrap_err();
        assert_eq!(error, "the event ProvisioningFailed was seen never, not at least once");
    }

    #[test]
    fn order_skips_others_unless_only_and_forgives_repeats() {
        let calls = [
            call(Call::CreateVolume, None, Code::Internal),
            call(Call::CreateVolume, None, Code::Ok),
            call(Call::NodeGetCapabilities, Some("node-1"), Code::Ok),
            call(Call::NodeStageVolume, Some("node-1"), Code::Ok),
            call(Call::NodeStageVolume, Some("node-1"), Code::Ok),
        ];
        let mut order = CallOrder {
            calls: vec![
                CallPattern::Name(Call::CreateVolume),
                CallPattern::Name(Call::NodeStageVolume),
            ],
            claim: Some("data".into()),
            driver: None,
            only: false,
        };
        assert_eq!(order.judge(&calls), Ok(()));
        order.only = true;
        assert_eq!(
            order.judge(&calls).unwrap_err(),
            "CreateVolume for data answered OK came where NodeStageVolume was expected",
            "two answers are two calls"
        );
        assert_eq!(
            order.judge(&calls[1..]),
            Ok(()),
            "questions do not count and equal repeats count once"
        );
        order.calls.reverse();
        order.only = false;
        assert_eq!(
            order.judge(&calls).unwrap_err(),
            "CreateVolume did not come after NodeStageVolume"
        );
    }

    #[test]
    fn a_call_whose_caller_died_was_made_but_never_answered() {
        let mut lost = call(Call::CreateVolume, None, Code::Ok);
        lost.code = None;
        let calls = [lost, call(Call::CreateVolume, None, Code::Ok)];
        let mut condition = CallCondition::on(Call::CreateVolume);
        condition.times = Some(2);
        assert_eq!(condition.judge(&calls), Ok(()));
        (condition.code, condition.times) = (Some(Code::Ok), Some(1));
        assert_eq!(condition.judge(&calls), Ok(()));
    }

    #[test]
    fn calls_are_counted() {
        let calls = vec![call(Call::NodeStageVolume, Some("node-1"), Code::Internal); 3];
        let mut condition = CallCondition::on(Call::NodeStageVolume);
        condition.code = Some(Code::Internal);
        condition.times = Some(3);
        assert_eq!(condition.judge(&calls), Ok(()));
        condition.times = Some(0);
        let error = condition.judge(&calls).unwrap_err();
        assert_eq!(error, "NodeStageVolume answered INTERNAL was seen 3 times, not never");
    }
}
