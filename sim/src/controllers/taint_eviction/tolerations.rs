//! How long a pod bears the taints of its node.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::api::fields;

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    /// For so long from the moment on at which the taint is seen.
    For(Duration),
    /// For ever.
    Endless,
}

/// The patience of a pod with these tolerations: of all that are used, the shortest.
pub(super) fn patience(taints: &[Taint], tolerations: &[Toleration]) -> Patience {
    let mut shortest: Option<i64> = None;
    for taint in taints {
        // The first that fits is the one that is used.
        let Some(used) = tolerations.iter().find(|t| fields::tolerates(t, taint)) else {
            return Patience::None;
        };
        if let Some(seconds) = used.toleration_seconds {
            shortest = Some(shortest.map_or(seconds, |s| s.min(seconds)));
        }
    }
    match shortest {
        None => Patience::Endless,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Patience::For(Duration::from_secs(seconds)),
            _ => Patience::For(Duration::ZERO),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::{Taint, Toleration};
    use serde_json::json;

    use super::{Patience, patience};

    fn taint(key: &str) -> Taint {
        serde_json::from_value(json!({"key": key, "value": "v", "effect": "NoExecute"})).unwrap()
    }

    fn tolerations(list: serde_json::Value) -> Vec<Toleration> {
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn the_shortest_of_the_used_tolerations_counts() {
        let list = tolerations(json!([
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "b", "operator": "Exists", "tolerationSeconds": 10},
            {"key": "c", "operator": "Exists"},
            {"key": "d", "value": "v", "tolerationSeconds": 0},
            {"key": "e", "value": "other"}]));
        let cases: [(&[&str], Patience); 7] = [
            (&["a"], Patience::For(Duration::from_secs(300))),
            (&["a", "b"], Patience::For(Duration::from_secs(10))),
            (&["a", "c"], Patience::For(Duration::from_secs(300))),
            (&["c"], Patience::Endless),
            (&["d"], Patience::For(Duration::ZERO)),
            (&["e"], Patience::None),
            (&["a", "x"], Patience::None),
        ];
        for (taints, expected) in cases {
            let taints: Vec<Taint> = taints.iter().map(|key| taint(key)).collect();
            assert_eq!(patience(&taints, &list), expected, "{taints:?}");
        }
    }

    #[test]
    fn a_toleration_without_key_and_effect_covers_every_taint() {
        let list = tolerations(json!([{"operator": "Exists"}]));
        assert_eq!(patience(&[taint("a"), taint("b")], &list), Patience::Endless);
    }
}
