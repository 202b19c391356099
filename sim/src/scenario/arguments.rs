//! Flags written as a manifest has them, `[--timeout=30s, --extra-create-metadata]`, become maps before anything is checked.

use super::mistake::{Mistake, Span};
use super::tree::{self, Entry, Node, Value};

/// Turns lists of arguments into maps of flags; what is no argument is reported.
pub(crate) fn read_arguments(root: &mut Node) -> Vec<(Mistake, Span)> {
    let Some(cluster) = get_mut(root, "cluster") else {
        return Vec::new();
    };
    let mut lists = Vec::new();
    for entry in entries_mut(cluster) {
        match entry.key.as_str() {
            "kubelet" | "controllerManager" | "scheduler" | "apiServer" | "snapshotController" => {
                lists.push(&mut entry.value)
            }
            "drivers" => {
                if let Value::List(drivers) = &mut entry.value.value {
                    let sidecars = drivers.iter_mut().filter_map(|driver| get_mut(driver, "sidecars"));
                    lists.extend(sidecars.flat_map(entries_mut).map(|entry| &mut entry.value));
                }
            }
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    for node in lists {
        if let Value::List(items) = &node.value {
            node.value = flags_of(items, &mut wrong);
        }
    }
    wrong
}

/// `[--timeout=10s, --strict-topology]` as a map of flags.
fn flags_of(items: &[Node], wrong: &mut Vec<(Mistake, Span)>) -> Value {
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(flag) = item.text().and_then(|text| text.strip_prefix('-')) else {
            let message = format!("an argument is written `--flag=value`, not as {}", item.what());
            wrong.push((Mistake::new("", message), item.span));
            continue;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        let (key, value) = match flag.split_once('=') {
            Some((key, value)) => (key, tree::resolve(value.to_owned())),
            None => (flag, Value::Bool(true)),
        };
        if entries.iter().any(|entry| entry.key == key) {
            wrong.push((
                Mistake::new(key, format!("the flag `{key}` is already there")),
                item.span,
            ));
            continue;
        }
        entries.push(Entry {
            key: key.to_owned(),
            span: item.span,
            value: Node { value, span: item.span },
        });
    }
    Value::Map(entries)
}

fn get_mut<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    entries_mut(node)
        .iter_mut()
        .find(|entry| entry.key == key)
        .map(|entry| &mut entry.value)
}

fn entries_mut(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Value::Map(entries) => entries,
        _ => &mut [],
    }
}
