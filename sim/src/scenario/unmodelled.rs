//! Real flags that would change what a cluster does and that the tank does not play: set to anything but their default, they are refused.
//!
//! A flag that is accepted and ignored would let a scenario hold for the wrong reason.

use serde::Serialize;
use serde_json::Value as Json;

use super::shape::Cluster;

/// Flags of one process, and why they are not played.
struct Gap {
    flags: &'static [&'static str],
    why: &'static str,
}

const NODE_DEPLOYMENT: Gap = Gap {
    flags: &[
        "node-deployment",
        "node-deployment-immediate-binding",
        "node-deployment-base-delay",
        "node-deployment-max-delay",
    ],
    why: "the tank has one provisioner for a driver, not one on each node",
};
const OWN_CAPACITY_CLIENT: Gap = Gap {
    flags: &["kube-api-capacity-qps", "kube-api-capacity-burst"],
    why: "in the tank the capacity objects share the limit of `kube-api-qps`",
};
const NO_CLIENT_LIMIT: Gap = Gap {
    flags: &["kube-api-qps", "kube-api-burst"],
    why: "in the tank only the clients of sidecars are limited",
};
const NODE_SHUTDOWN: Gap = Gap {
    flags: &["shutdownGracePeriod", "shutdownGracePeriodCriticalPods"],
    why: "the tank's machines shut down without a grace period",
};
const REPORTS: Gap = Gap {
    flags: &["nodeStatusReportFrequency"],
    why: "the tank's kubelets report an unchanged status every five minutes",
};

/// What the tank does not play of what a scenario asks for: the place of the flag, and a sentence.
pub(super) fn wishes(cluster: &Cluster) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut look = |path: &str, differing: Vec<String>, gaps: &[&Gap]| {
        for flag in differing {
            if let Some(gap) = gaps.iter().find(|gap| gap.flags.contains(&flag.as_str())) {
                let message = format!("`{flag}` is not played: {}; leave it away", gap.why);
                found.push((format!("{path}/{flag}"), message));
            }
        }
    };
    let (kubelet, manager) = (&cluster.kubelet, &cluster.controller_manager);
    look(
        "/cluster/kubelet",
        differing(kubelet),
        &[&NO_CLIENT_LIMIT, &NODE_SHUTDOWN, &REPORTS],
    );
    look("/cluster/controllerManager", differing(manager), &[&NO_CLIENT_LIMIT]);
    let mut gates = vec![
        ("/cluster/kubelet".to_owned(), &kubelet.feature_gates, ""),
        ("/cluster/controllerManager".to_owned(), &manager.feature_gates, ""),
        ("/cluster/scheduler".to_owned(), &cluster.scheduler.feature_gates, ""),
        ("/cluster/apiServer".to_owned(), &cluster.api_server.feature_gates, ""),
    ];
    for (n, driver) in cluster.drivers.iter().enumerate() {
        let (path, sidecars) = (format!("/cluster/drivers/{n}/sidecars"), &driver.sidecars);
        if let Some(flags) = &sidecars.provisioner {
            let path = format!("{path}/provisioner");
            look(&path, differing(flags), &[&NODE_DEPLOYMENT, &OWN_CAPACITY_CLIENT]);
            gates.push((path, &flags.feature_gates, "Topology"));
        }
        if let Some(flags) = &sidecars.attacher {
            gates.push((format!("{path}/attacher"), &flags.feature_gates, ""));
        }
        if let Some(flags) = &sidecars.resizer {
            gates.push((format!("{path}/resizer"), &flags.feature_gates, "VolumeAttributesClass"));
        }
    }
    for (path, given, played) in gates {
        for gate in given.keys().filter(|gate| *gate != played) {
            let known = if played.is_empty() {
                "none".to_owned()
            } else {
                format!("only `{played}`")
            };
            let message = format!("the feature gate `{gate}` is not played: of this process {known} is; leave it away");
            found.push((format!("{path}/feature-gates"), message));
        }
    }
    found.extend(snapshots(cluster));
    found
}

/// Neither the snapshot controller nor its sidecar is played: whatever is set on them is lost.
fn snapshots(cluster: &Cluster) -> Vec<(String, String)> {
    let say = |path: String| (path, "the tank plays no snapshots yet: leave it away".to_owned());
    let mut found = Vec::new();
    let controller = cluster.snapshot_controller.as_ref().map(differing).unwrap_or_default();
    found.extend(
        controller
            .first()
            .map(|flag| say(format!("/cluster/snapshotController/{flag}"))),
    );
    for (n, driver) in cluster.drivers.iter().enumerate() {
        let flags = driver.sidecars.snapshotter.as_ref().map(differing).unwrap_or_default();
        let path = format!("/cluster/drivers/{n}/sidecars/snapshotter");
        found.extend(flags.first().map(|flag| say(format!("{path}/{flag}"))));
    }
    found
}

/// The flags that are not as they are by default, by the names that scenarios use.
fn differing<T: Serialize + Default>(flags: &T) -> Vec<String> {
    let json = |flags: &T| serde_json::to_value(flags).expect("flags are plain data");
    match (json(flags), json(&T::default())) {
        (Json::Object(given), Json::Object(usual)) => given
            .into_iter()
            .filter(|(flag, value)| usual.get(flag) != Some(value))
            .map(|(flag, _)| flag)
            .collect(),
        _ => Vec::new(),
    }
}
