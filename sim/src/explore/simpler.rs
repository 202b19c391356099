//! What a simpler strike than a given one would be: for shrinking.
//!
//! Simpler means: what a reader understands sooner. A process instead of a node, gone for no time instead of a while, a shorter while, the first attempt instead of a
//! later one. It works on the fields of faults by name, so that a new kind of fault with a duration or a process is simplified without a word here.

use std::time::Duration;

use serde_json::{Map, Value as Json};

use crate::scenario::{GoDuration, Process, Role};
use crate::storm::{Fault, Strike};

/// Simpler strikes, the simplest first. Empty when there is none.
pub fn simpler(strike: &Strike) -> Vec<Strike> {
    let mut all: Vec<Strike> = faults(&strike.fault)
        .into_iter()
        .map(|fault| Strike {
            at: strike.at.clone(),
            fault,
        })
        .collect();
    if strike.at.attempt > 1 {
        let mut first = strike.clone();
        first.at.attempt = 1;
        all.push(first);
    }
    all.retain(|simpler| simpler != strike);
    all
}

fn faults(fault: &Fault) -> Vec<Fault> {
    let Ok(Json::Object(whole)) = serde_json::to_value(fault) else {
        return Vec::new();
    };
    let Some((kind, Json::Object(fields))) = whole.into_iter().next() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (name, value) in &fields {
        for instead in values(value) {
            let mut changed = fields.clone();
            match instead {
                Some(value) => changed.insert(name.clone(), value),
                None => changed.remove(name),
            };
            all.extend(read(&kind, changed));
        }
    }
    all
}

fn read(kind: &str, fields: Map<String, Json>) -> Option<Fault> {
    let whole = Map::from_iter([(kind.to_owned(), Json::Object(fields))]);
    serde_json::from_value(Json::Object(whole)).ok()
}

/// Simpler values of a field; `None` leaves it out.
fn values(value: &Json) -> Vec<Option<Json>> {
    let Json::String(text) = value else {
        return match value {
            Json::Number(_) | Json::Bool(_) => vec![None],
            _ => Vec::new(),
        };
    };
    if let Ok(duration) = GoDuration::parse(text) {
        let shorter = [Duration::from_secs(1), Duration::from_secs(10), duration.get() / 2];
        let shorter = shorter
            .into_iter()
            .filter(|shorter| *shorter < duration.get() && shorter.as_millis() > 0);
        let shorter = shorter.map(|shorter| serde_json::to_value(GoDuration::from(whole_millis(shorter))).ok());
        return std::iter::once(None).chain(shorter).collect();
    }
    match Process::parse(text) {
        Ok(Process {
            role: Role::Node,
            node: Some(node),
            ..
        }) => [format!("kubelet/{node}"), format!("driver-node/{node}")]
            .into_iter()
            .map(|process| Some(Json::from(process)))
            .collect(),
        _ => Vec::new(),
    }
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::simpler;
    use crate::explore::toy::{crash, site};
    use crate::scenario::{GoDuration, PlainPhase, Process};
    use crate::storm::{Fault, Strike};

    #[test]
    fn a_node_becomes_a_process_and_a_while_gets_shorter() {
        let at = site("provisioner", "CreateVolume", "pvc data", 2, PlainPhase::BeforeReply);
        let down = |text: &str| Some(GoDuration::parse(text).unwrap());
        let process = Process::parse("node/node-1").unwrap();
        let fault = Fault::Crash {
            process,
            down: down("1m"),
        };
        let found = simpler(&Strike { at, fault });
        let kinds: Vec<String> = found.iter().map(|s| serde_json::to_string(s).unwrap()).collect();
        let has = |text: &str| kinds.iter().any(|kind| kind.contains(text));
        assert!(has("kubelet/node-1") && has("driver-node/node-1"), "{kinds:#?}");
        assert!(has("\"1s\"") && has("\"30s\"") && has("attempt 1"), "{kinds:#?}");
        assert!(found.iter().any(|s| matches!(s.fault, Fault::Crash { down: None, .. })));
        let plain = Strike {
            at: site("provisioner", "CreateVolume", "pvc data", 1, PlainPhase::BeforeReply),
            fault: crash("provisioner"),
        };
        assert_eq!(simpler(&plain), []);
    }
}
