//! Compares the calls that ask and change nothing: how often each caller asks what, and before what.
//!
//! A caller that serves one volume is compared question by question, in order, between its other calls. Where two volumes are served at once the questions of both mix, and
//! only their number is compared. Statistics have a phase and jitter of their own: their number may differ by one, and each is preceded by one question.

use std::collections::{BTreeMap, BTreeSet};

use crate::calls::{Call, QUESTIONS};
use crate::fixture::{Rpc, Seen};

/// What differs.
pub fn compare(recorded: &Seen, model: &Seen, calls: &[Call], differences: &mut Vec<String>) {
    let of = |seen: &Seen| -> BTreeSet<String> { seen.rpcs.iter().map(|rpc| rpc.caller.clone()).collect() };
    let callers: BTreeSet<String> = of(recorded).union(&of(model)).cloned().collect();
    for caller in callers.iter().filter(|caller| *caller != "csi-snapshotter") {
        let (there, here) = (by(recorded, caller), by(model, caller));
        statistics(caller, &there, &here, differences);
        let volumes: BTreeSet<&str> = calls
            .iter()
            .filter(|c| c.caller == *caller)
            .map(|c| c.volume.as_str())
            .collect();
        if volumes.len() <= 1 {
            in_order(
                caller,
                &without_statistics(&there),
                &without_statistics(&here),
                differences,
            );
        } else {
            in_number(
                caller,
                &without_statistics(&there),
                &without_statistics(&here),
                differences,
            );
        }
    }
}

fn by<'a>(seen: &'a Seen, caller: &str) -> Vec<&'a Rpc> {
    let mut own: Vec<&Rpc> = seen.rpcs.iter().filter(|rpc| rpc.caller == caller).collect();
    own.sort_by(|a, b| a.t_ms.total_cmp(&b.t_ms));
    own
}

fn is_statistics(rpc: &Rpc) -> bool {
    rpc.method == "NodeGetVolumeStats"
}

fn statistics(caller: &str, there: &[&Rpc], here: &[&Rpc], differences: &mut Vec<String>) {
    let count = |calls: &[&Rpc]| calls.iter().filter(|rpc| is_statistics(rpc)).count();
    if count(there).abs_diff(count(here)) > 1 {
        differences.push(format!(
            "statistics: {caller}: recorded {} times, model {}",
            count(there),
            count(here)
        ));
    }
}

/// Without statistics, and without the question before each.
fn without_statistics<'a>(calls: &[&'a Rpc]) -> Vec<&'a Rpc> {
    let mut kept: Vec<&Rpc> = Vec::new();
    for rpc in calls {
        if !is_statistics(rpc) {
            kept.push(rpc);
            continue;
        }
        let question = kept.iter().rposition(|before| before.method == "NodeGetCapabilities");
        if let Some(at) = question.filter(|at| rpc.t_ms - kept[*at].t_ms < 1_000.0) {
            kept.remove(at);
        }
    }
    kept
}

/// The questions before each other call, as words.
fn words(calls: &[&Rpc]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut asked: Vec<&str> = Vec::new();
    for rpc in calls {
        if QUESTIONS.contains(&rpc.method.as_str()) {
            asked.push(&rpc.method);
            continue;
        }
        let word = format!("{} before {}", run_lengths(&asked), rpc.method);
        // A call that is doubled by a race asks nothing, see `calls.rs`.
        if !(asked.is_empty() && words.last().is_some_and(|before| before.ends_with(&rpc.method))) {
            words.push(word);
        }
        asked.clear();
    }
    if !asked.is_empty() {
        words.push(format!("{} at the end", run_lengths(&asked)));
    }
    words
}

fn run_lengths(asked: &[&str]) -> String {
    if asked.is_empty() {
        return "nothing".into();
    }
    let runs = asked
        .chunk_by(|a, b| a == b)
        .map(|run| format!("{} × {}", run.len(), run[0]));
    runs.collect::<Vec<_>>().join(", ")
}

fn in_order(caller: &str, there: &[&Rpc], here: &[&Rpc], differences: &mut Vec<String>) {
    let (there, here) = (words(there), words(here));
    let first = (0..there.len().max(here.len())).find(|nth| there.get(*nth) != here.get(*nth));
    if let Some(nth) = first {
        let word = |words: &[String]| words.get(nth).cloned().unwrap_or_else(|| "nothing".into());
        differences.push(format!(
            "questions: {caller}: call {}: recorded {}, model {}",
            nth + 1,
            word(&there),
            word(&here)
        ));
    }
}

fn in_number(caller: &str, there: &[&Rpc], here: &[&Rpc], differences: &mut Vec<String>) {
    let count = |calls: &[&Rpc]| -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for rpc in calls.iter().filter(|rpc| QUESTIONS.contains(&rpc.method.as_str())) {
            *counts.entry(rpc.method.clone()).or_default() += 1;
        }
        counts
    };
    let (there, here) = (count(there), count(here));
    if there != here {
        differences.push(format!("questions: {caller}: recorded {there:?}, model {here:?}"));
    }
}
