//! Selectors: which labels, and which nodes, an object asks for.
//!
//! Used by the volume controller (a claim's `spec.selector`, a volume's node affinity) and by the scheduler (a volume's and a pod's node affinity).

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::api::{Strings, fields};

/// Whether the volume may be used on this node: its `nodeAffinity.required` matches the node's labels, or it has none.
pub fn volume_fits(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    affinity
        .and_then(|a| a.required.as_ref())
        .is_none_or(|required| selects_node(required, node))
}

/// Whether one of the selector's terms matches the node. A selector without terms matches none.
pub fn selects_node(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_selects(term, node))
}

/// Whether a term matches the node: every expression over its labels and every field holds. An empty term matches nothing.
pub fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let wanted_fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && wanted_fields.is_empty() {
        return false;
    }
    let labels = node.metadata.labels.as_ref();
    let field = |key: &str| (key == "metadata.name").then(|| fields::name(&node.metadata));
    let of_labels = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    expressions.iter().all(|e| requirement_holds(e, of_labels(&e.key)))
        && wanted_fields.iter().all(|e| requirement_holds(e, field(&e.key)))
}

fn requirement_holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    operator_holds(&requirement.operator, values, value)
}

fn operator_holds(operator: &str, values: &[String], value: Option<&str>) -> bool {
    let among = |v: &str| values.iter().any(|w| w == v);
    match operator {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" | "Lt" => {
            let numbers = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
            numbers().is_some_and(|(have, bound)| if operator == "Gt" { have > bound } else { have < bound })
        }
        _ => false,
    }
}

/// Whether the label selector matches these labels. An empty selector matches everything.
pub fn selects_labels(selector: &LabelSelector, labels: Option<&Strings>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    let expression_holds = |e: &LabelSelectorRequirement| {
        operator_holds(&e.operator, e.values.as_deref().unwrap_or_default(), value(&e.key))
    };
    let mut wanted = selector.match_labels.iter().flatten();
    wanted.all(|(key, want)| value(key) == Some(want))
        && selector.match_expressions.iter().flatten().all(expression_holds)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, NodeSelector};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
    use serde_json::json;

    use super::{selects_labels, selects_node};

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cores": "8"}}})).unwrap()
    }

    fn terms(terms: &serde_json::Value) -> NodeSelector {
        serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap()
    }

    #[test]
    fn terms_are_alternatives_and_expressions_add_up() {
        // core/v1 NodeSelector: terms are ORed, what stands in a term is ANDed, an empty term matches nothing.
        let expression =
            |key: &str, operator: &str, values: &[&str]| json!({"key": key, "operator": operator, "values": values});
        let table = [
            (json!([]), false),
            (json!([{}]), false),
            (
                json!([{"matchExpressions": [expression("zone", "In", &["a", "b"])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [expression("zone", "NotIn", &["a"])]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [expression("disk", "NotIn", &["a"])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [expression("zone", "In", &["a"]), expression("disk", "Exists", &[])]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [expression("disk", "Exists", &[])]}, {"matchFields": [expression("metadata.name", "In", &["n1"])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [expression("disk", "DoesNotExist", &[])]}]),
                true,
            ),
            (json!([{"matchExpressions": [expression("cores", "Gt", &["4"])]}]), true),
            (
                json!([{"matchExpressions": [expression("cores", "Lt", &["4"])]}]),
                false,
            ),
        ];
        for (selector, expected) in table {
            assert_eq!(selects_node(&terms(&selector), &node()), expected, "{selector}");
        }
    }

    #[test]
    fn an_empty_label_selector_takes_everything() {
        let labels = node().metadata.labels;
        let matches = |selector: serde_json::Value| {
            selects_labels(
                &serde_json::from_value::<LabelSelector>(selector).unwrap(),
                labels.as_ref(),
            )
        };
        assert!(matches(json!({})));
        assert!(matches(json!({"matchLabels": {"zone": "a"}})));
        assert!(!matches(json!({"matchLabels": {"zone": "b"}})));
        assert!(!matches(
            json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]})
        ));
    }
}
