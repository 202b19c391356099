//! Compares writes: what each process writes to each object, in which order.
//!
//! Only writes that succeeded. Refusals with 404, 409 and 422 are races between clients, and what follows a lost one is the same write again. The audit log names each controller of
//! the controller manager; the model's trace names the process, so the manager's writes to an object are compared as a set with numbers. Left out: kubelet's patches of node status,
//! which the recording has only where `volumesInUse` changed (the states of nodes say the same), and its patches of pods that carry nothing but memory limits of
//! the host's cgroups. What follows a doubled call (see `calls.rs`) is left out with it: the provisioner's second deletion of a volume, the attacher's second status in a row.

use std::collections::{BTreeMap, BTreeSet};

use crate::fixture::{ApiWrite, Seen};
use crate::names::Names;

type Writes = BTreeMap<(String, String), Vec<String>>;

const MANAGER: &str = "controller-manager";

/// The process behind a user of the audit log.
fn process(user: &str) -> String {
    match user {
        "system:kube-scheduler" => "scheduler".into(),
        user if user.starts_with("system:serviceaccount:") => MANAGER.into(),
        user => user.replace("system:node:node", "kubelet"),
    }
}

/// The writes of a side by process and object.
pub fn writes(seen: &Seen, names: &Names) -> Writes {
    let mut writes: Writes = BTreeMap::new();
    let mut all: Vec<&ApiWrite> = seen.api_writes.iter().filter(|w| w.code < 300).collect();
    all.sort_by(|a, b| a.t_ms.total_cmp(&b.t_ms));
    for write in all {
        let process = process(&write.user);
        let skipped = ["csi-snapshotter", "snapshot-controller"].contains(&process.as_str());
        let heartbeat = process.starts_with("kubelet") && write.resource == "nodes";
        if skipped || heartbeat {
            continue;
        }
        let object = format!(
            "{} {}",
            write.resource,
            names.spell(write.name.as_deref().unwrap_or_default())
        );
        let subresource = write.subresource.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
        let word = format!("{}{subresource}", write.verb);
        let own = writes.entry((process.clone(), object)).or_default();
        let doubled = match word.as_str() {
            "delete" => own.contains(&word),
            "patch/status" | "patch" => process == "csi-attacher" && own.last() == Some(&word),
            _ => false,
        };
        if !doubled {
            own.push(word);
        }
    }
    for ((process, _), words) in &mut writes {
        if process == MANAGER {
            words.sort();
        }
    }
    writes
}

/// How many writes a side has.
pub fn count(writes: &Writes) -> usize {
    writes.values().map(Vec::len).sum()
}

/// What differs.
pub fn compare(recorded: &Writes, model: &Writes, differences: &mut Vec<String>) {
    let keys: BTreeSet<_> = recorded.keys().chain(model.keys()).collect();
    for key in keys {
        let words = |writes: &Writes| {
            writes
                .get(key)
                .map_or_else(|| "nothing".to_owned(), |words| words.join(", "))
        };
        let (there, here) = (words(recorded), words(model));
        if there != here {
            differences.push(format!(
                "writes: {} to {}: recorded {there}; model {here}",
                key.0, key.1
            ));
        }
    }
}
