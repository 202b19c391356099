//! Where a volume may be: from nodes, CSINodes and `allowedTopologies` to the requirement of CreateVolume, and back to a node affinity.
//!
//! A term is a sorted list of `(key, value)`. Requisite terms are sorted by length, then by content, and are unique; the preferred ones are the same, rotated: to
//! the selected node's term, or, for Immediate binding, by a hash of the claim's name that spreads the members of a StatefulSet (fact sheet 3.5).
//! Keys, labels and terms are remembered per claim until it is provisioned or finally refused, so that a repeated call asks for the same.
//!
//! *Blind spots.* For Immediate binding Kubernetes takes the keys of a randomly chosen CSINode; here it is the first by name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorTerm, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::CSINode;
use wavetank_proto::csi::v1 as csi;

use crate::api::Cache;

/// Labels that go together, sorted by key.
pub type Term = Vec<(String, String)>;

/// What is remembered for one claim between attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    keys: Vec<String>,
    labels: BTreeMap<String, String>,
    terms: Vec<Term>,
}

/// Why there is no requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The selected node has no CSINode: the scheduler shall choose again.
    NotFound(String),
    /// Anything else: tried again.
    Other(String),
}

/// For which claim a requirement is sought.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The driver's name.
    pub driver: &'a str,
    /// The claim's name.
    pub claim: &'a str,
    /// `allowedTopologies` of its class.
    pub allowed: &'a [TopologySelectorTerm],
    /// The node that the scheduler selected, or empty.
    pub node: &'a str,
    /// `--strict-topology`.
    pub strict: bool,
    /// `--immediate-topology`.
    pub immediate: bool,
}

impl Query<'_> {
    /// The requirement, or `None` when nothing is to be sent.
    ///
    /// # Errors
    /// When nodes, CSINodes and class do not give one now.
    pub fn requirement(
        &self,
        cache: &Cache,
        remembered: &mut Remembered,
    ) -> Result<Option<csi::TopologyRequirement>, Trouble> {
        let selected = if self.node.is_empty() {
            None
        } else {
            Some(self.selected(cache, remembered)?)
        };
        let mut terms = match &selected {
            Some(selected) if self.strict => {
                self.check_allowed(selected)?;
                vec![selected.clone()]
            }
            _ if !self.allowed.is_empty() => flatten(self.allowed),
            None if !self.immediate => return Ok(None),
            _ => self.aggregate(cache, remembered)?,
        };
        terms.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
        terms.dedup();
        if terms.is_empty() {
            return Ok(None);
        }
        let first = match &selected {
            None => spread(self.claim, terms.len()),
            Some(_) if self.strict => 0,
            Some(selected) => terms.iter().position(|t| is_subset(t, selected)).ok_or_else(|| {
                let node = self.node;
                Trouble::Other(format!(
                    "topology {selected:?} from selected node {node:?} is not in requisite: {terms:?}"
                ))
            })?,
        };
        let requisite = to_csi(&terms);
        terms.rotate_left(first);
        Ok(Some(csi::TopologyRequirement {
            requisite,
            preferred: to_csi(&terms),
        }))
    }

    /// The term of the selected node.
    fn selected(&self, cache: &Cache, remembered: &mut Remembered) -> Result<Term, Trouble> {
        let node = self.node;
        if remembered.keys.is_empty() {
            let csi_node = cache.named::<CSINode>(node).ok_or_else(|| {
                let missing = format!("csinode.storage.k8s.io \"{node}\" not found");
                Trouble::NotFound(format!("failed to get selected CSINode {node}: {missing}"))
            })?;
            remembered.keys = driver_keys(csi_node, self.driver).unwrap_or_default();
        }
        if remembered.keys.is_empty() {
            return Err(Trouble::Other(format!("no topology key found for node {node}")));
        }
        if let Some(term) = term_of(&remembered.labels, &remembered.keys) {
            return Ok(term);
        }
        if let Some(labels) = cache.named::<Node>(node).and_then(|n| n.metadata.labels.as_ref()) {
            remembered.labels.clone_from(labels);
        }
        term_of(&remembered.labels, &remembered.keys).ok_or_else(|| {
            let keys = &remembered.keys;
            Trouble::Other(format!(
                "topology labels from selected node {node} do not match topology keys from CSINode {keys:?}"
            ))
        })
    }

    fn check_allowed(&self, selected: &Term) -> Result<(), Trouble> {
        let allowed = flatten(self.allowed);
        if allowed.is_empty() || allowed.iter().any(|t| is_subset(t, selected)) {
            return Ok(());
        }
        let node = self.node;
        Err(Trouble::Other(format!(
            "selected node {node:?} topology {selected:?} is not in allowed topologies: {allowed:?}"
        )))
    }

    /// The terms of all nodes that have the keys.
    fn aggregate(&self, cache: &Cache, remembered: &mut Remembered) -> Result<Vec<Term>, Trouble> {
        if remembered.keys.is_empty() {
            let all = cache.list::<CSINode>();
            let mut lists = all.filter_map(|n| driver_keys(n, self.driver));
            remembered.keys = lists.find(|keys| !keys.is_empty()).unwrap_or_default();
        }
        if remembered.keys.is_empty() {
            return Err(Trouble::Other("no available topology found".into()));
        }
        if remembered.terms.is_empty() {
            let labels = cache.list::<Node>().filter_map(|n| n.metadata.labels.as_ref());
            remembered.terms = labels.filter_map(|l| term_of(l, &remembered.keys)).collect();
        }
        if remembered.terms.is_empty() {
            let keys = &remembered.keys;
            return Err(Trouble::Other(format!(
                "topologyKeys {keys:?} were not found on any nodes"
            )));
        }
        Ok(remembered.terms.clone())
    }
}

/// The topology keys of a driver on a node; `None` when the driver is not registered there.
pub fn driver_keys(csi_node: &CSINode, driver: &str) -> Option<Vec<String>> {
    let entry = csi_node.spec.drivers.iter().find(|d| d.name == driver)?;
    Some(entry.topology_keys.clone().unwrap_or_default())
}

/// The term that labels give for these keys, unless one is missing.
pub fn term_of(labels: &BTreeMap<String, String>, keys: &[String]) -> Option<Term> {
    let pair = |key: &String| labels.get(key).map(|value| (key.clone(), value.clone()));
    let mut term = keys.iter().map(pair).collect::<Option<Term>>()?;
    term.sort();
    Some(term)
}

/// Distributes the values of each term over its keys: one term per combination.
fn flatten(allowed: &[TopologySelectorTerm]) -> Vec<Term> {
    let mut all = Vec::new();
    for selector in allowed {
        let mut terms: Vec<Term> = Vec::new();
        for expression in selector.match_label_expressions.as_deref().unwrap_or_default() {
            let pair = |value: &String| (expression.key.clone(), value.clone());
            terms = if terms.is_empty() {
                expression.values.iter().map(|v| vec![pair(v)]).collect()
            } else {
                let with = |value| terms.iter().map(move |old| [old.clone(), vec![pair(value)]].concat());
                expression.values.iter().flat_map(with).collect()
            };
        }
        all.extend(terms);
    }
    all.iter_mut().for_each(|term| term.sort());
    all
}

/// Whether every pair of `term` is in `other`.
fn is_subset(term: &Term, other: &Term) -> bool {
    term.iter().all(|pair| other.contains(pair))
}

/// Where the rotation for Immediate binding starts. A name that ends in `-<number>` is taken for a StatefulSet's: its index counts up from the hash of what
/// stands before it, without the claim template's name.
fn spread(claim: &str, terms: usize) -> usize {
    let member = claim
        .rsplit_once('-')
        .and_then(|(base, index)| Some((base, index.parse::<u32>().ok()?)));
    let (base, index) = match member {
        Some((base, index)) => (base.rsplit_once('-').map_or(base, |(_, set)| set), index),
        None => (claim, 0),
    };
    let terms = u32::try_from(terms).expect("a cluster has fewer than 2^32 terms");
    let start = fnv32(base).wrapping_add(index) % terms;
    usize::try_from(start).expect("an index into the terms")
}

/// FNV-1, 32 bits.
pub fn fnv32(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(byte)
    })
}

fn to_csi(terms: &[Term]) -> Vec<csi::Topology> {
    let terms = terms.iter().filter(|t| !t.is_empty());
    terms
        .map(|term| csi::Topology {
            segments: term.iter().cloned().collect(),
        })
        .collect()
}

/// The node affinity of a volume that is accessible there; none when the driver named no place.
pub fn node_affinity(accessible: &[csi::Topology]) -> Option<VolumeNodeAffinity> {
    if accessible.is_empty() {
        return None;
    }
    let places = accessible.iter().filter(|t| !t.segments.is_empty());
    let term = |topology: &csi::Topology| NodeSelectorTerm {
        match_expressions: Some(topology.segments.iter().map(|(k, v)| equals(k, v)).collect()),
        ..Default::default()
    };
    let node_selector_terms = places.map(term).collect();
    Some(VolumeNodeAffinity {
        required: Some(NodeSelector { node_selector_terms }),
    })
}

fn equals(key: &str, value: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![value.to_owned()]),
    }
}

/// The terms of a node affinity that [`node_affinity`] made.
pub fn affinity_terms(affinity: &VolumeNodeAffinity) -> Vec<Term> {
    let terms = affinity.required.iter().flat_map(|r| &r.node_selector_terms);
    let pair = |e: &NodeSelectorRequirement| Some((e.key.clone(), e.values.as_ref()?.first()?.clone()));
    let term = |t: &NodeSelectorTerm| {
        let expressions = t.match_expressions.as_deref().unwrap_or_default();
        let mut term = expressions.iter().map(pair).collect::<Option<Term>>()?;
        term.sort();
        Some(term)
    };
    terms.filter_map(term).collect()
}

#[cfg(test)]
mod tests {
    use super::{Query, Remembered, Trouble, fnv32, spread};
    use crate::api::{Cache, Object};
    use k8s_openapi::api::core::v1::{Node, TopologySelectorLabelRequirement, TopologySelectorTerm};
    use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec};
    use wavetank_proto::csi::v1 as csi;

    const DRIVER: &str = "csi.example";

    /// Nodes `name: zone rack`, on which the driver is registered with both keys.
    fn cluster(nodes: &[(&str, &str, &str)]) -> Cache {
        let mut cache = Cache::new(&[]);
        for (name, zone, rack) in nodes {
            let mut node = Node::default();
            node.metadata.name = Some((*name).into());
            let pairs = [("zone", zone), ("rack", rack)];
            let labels = pairs.iter().filter(|(_, v)| !v.is_empty());
            node.metadata.labels = Some(labels.map(|(k, v)| ((*k).into(), (**v).into())).collect());
            cache.put(Object::new(node));
            let driver = CSINodeDriver {
                name: DRIVER.into(),
                topology_keys: Some(vec!["zone".into(), "rack".into()]),
                ..Default::default()
            };
            let mut csi_node = CSINode {
                spec: CSINodeSpec { drivers: vec![driver] },
                ..Default::default()
            };
            csi_node.metadata.name = Some((*name).into());
            cache.put(Object::new(csi_node));
        }
        cache
    }

    fn query(node: &'static str) -> Query<'static> {
        Query {
            driver: DRIVER,
            claim: "data",
            allowed: &[],
            node,
            strict: false,
            immediate: true,
        }
    }

    fn allowed(expressions: &[(&str, &[&str])]) -> Vec<TopologySelectorTerm> {
        let requirement = |(key, values): &(&str, &[&str])| TopologySelectorLabelRequirement {
            key: (*key).into(),
            values: values.iter().map(|v| (*v).into()).collect(),
        };
        vec![TopologySelectorTerm {
            match_label_expressions: Some(expressions.iter().map(requirement).collect()),
        }]
    }

    fn names(terms: &[csi::Topology]) -> Vec<String> {
        let name = |t: &csi::Topology| t.segments.values().rev().cloned().collect::<Vec<_>>().join("/");
        terms.iter().map(name).collect()
    }

    /// Requisite and preferred terms by name.
    type Asked = Option<(Vec<String>, Vec<String>)>;

    fn ask(query: Query<'_>, cache: &Cache) -> Result<Asked, Trouble> {
        let requirement = query.requirement(cache, &mut Remembered::default())?;
        Ok(requirement.map(|r| (names(&r.requisite), names(&r.preferred))))
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).into()).collect()
    }

    #[test]
    fn a_selected_node_comes_first_among_all_nodes_terms() {
        let cache = cluster(&[("n1", "a", "1"), ("n2", "b", "1"), ("n3", "b", "1"), ("n4", "a", "2")]);
        let expected = (words(&["a/1", "b/1", "a/2"]), words(&["b/1", "a/2", "a/1"]));
        assert_eq!(
            ask(query("n2"), &cache),
            Ok(Some(expected)),
            "sorted by key: rack before zone"
        );
        let strict = Query {
            strict: true,
            ..query("n2")
        };
        assert_eq!(ask(strict, &cache), Ok(Some((words(&["b/1"]), words(&["b/1"])))));
    }

    #[test]
    fn allowed_topologies_are_multiplied_out_and_bind_the_selected_node_when_strict() {
        let cache = cluster(&[("n1", "a", "1"), ("n2", "c", "9")]);
        let terms = allowed(&[("zone", &["a", "b"]), ("rack", &["1", "2"])]);
        let open = Query {
            allowed: &terms,
            ..query("n1")
        };
        let all = words(&["a/1", "b/1", "a/2", "b/2"]);
        assert_eq!(ask(open, &cache), Ok(Some((all.clone(), all))));
        let outside = Query {
            allowed: &terms,
            ..query("n2")
        };
        assert!(
            matches!(ask(outside, &cache), Err(Trouble::Other(_))),
            "its term is in none of them"
        );
        let strict = Query {
            strict: true,
            ..outside
        };
        assert!(matches!(ask(strict, &cache), Err(Trouble::Other(_))));
        let zones = allowed(&[("zone", &["c", "a"])]);
        let partial = Query {
            allowed: &zones,
            ..query("n2")
        };
        assert_eq!(
            ask(partial, &cache),
            Ok(Some((words(&["a", "c"]), words(&["c", "a"])))),
            "a term that is a subset of the node's counts"
        );
    }

    #[test]
    fn without_a_node_all_terms_are_sent_unless_immediate_topology_is_off() {
        let cache = cluster(&[("n1", "a", "1"), ("n2", "b", "1")]);
        let claims = ["web-data-0", "web-data-1"].map(|claim| Query { claim, ..query("") });
        let preferred = claims.map(|q| ask(q, &cache).unwrap().unwrap().1);
        assert_ne!(preferred[0], preferred[1], "neighbours in a StatefulSet spread");
        let off = Query {
            immediate: false,
            ..query("")
        };
        assert_eq!(ask(off, &cache), Ok(None));
        let terms = allowed(&[("zone", &["b"])]);
        let limited = Query { allowed: &terms, ..off };
        assert_eq!(ask(limited, &cache), Ok(Some((words(&["b"]), words(&["b"])))));
    }

    #[test]
    fn what_is_missing_decides_who_tries_again() {
        let none = Cache::new(&[]);
        assert!(
            matches!(ask(query("n1"), &none), Err(Trouble::NotFound(_))),
            "no CSINode: reschedule"
        );
        assert!(
            matches!(ask(query(""), &none), Err(Trouble::Other(_))),
            "no node has the driver"
        );
        let unlabelled = cluster(&[("n1", "a", "")]);
        assert!(
            matches!(ask(query("n1"), &unlabelled), Err(Trouble::Other(_))),
            "labels race with registration"
        );
        assert!(matches!(ask(query(""), &unlabelled), Err(Trouble::Other(_))));
    }

    #[test]
    fn a_repeated_attempt_asks_for_the_same_although_nodes_came_and_went() {
        let mut remembered = Remembered::default();
        let first = query("n1").requirement(&cluster(&[("n1", "a", "1"), ("n2", "b", "1")]), &mut remembered);
        let second = query("n1").requirement(&cluster(&[("n1", "z", "9"), ("n3", "c", "1")]), &mut remembered);
        assert_eq!(first, second);
    }

    #[test]
    fn the_spread_hashes_what_stands_before_the_index() {
        assert_eq!(fnv32(""), 0x811c_9dc5, "the offset basis");
        assert_eq!(fnv32("a"), 0x050c_5d7e, "FNV-1 and not FNV-1a");
        let terms = 7;
        for index in 0..9 {
            assert_eq!(
                spread(&format!("data-web-{index}"), terms),
                spread(&format!("logs-web-{index}"), terms),
                "claims of one member go together"
            );
        }
        assert_eq!((spread("data-web-3", terms) + 1) % terms, spread("data-web-4", terms));
    }
}
