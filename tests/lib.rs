//! Vocabulary shared by the library-wide tests and benchmarks: clusters of a shape, and lifecycles of claims and pods in them.

pub mod calls;

use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use serde_json::json;
use wavetank_sim::api::{Delete, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Write, fields};
use wavetank_sim::cluster::{Cluster, Latency};
use wavetank_sim::play::{assemble, boot};
use wavetank_sim::scenario;
use wavetank_sim::trace::Trace;

/// The driver of these clusters.
pub const DRIVER: &str = scenario::DEFAULT_DRIVER;

/// A cluster of so many nodes that has booted, with one class; it keeps no trace.
pub async fn booted(nodes: u32, seed: u64) -> Cluster {
    booted_as(&shape(nodes), seed).await
}

/// The shape of a cluster with so many nodes.
pub fn shape(nodes: u32) -> scenario::Cluster {
    let text = format!("because: a benchmark\ncluster:\n  nodes: {nodes}\nsteps:\n  - run: 1s\n");
    let scenario = scenario::parse("benchmark", text, std::path::Path::new("."));
    scenario.unwrap_or_else(|e| panic!("{}", e.render(100, false))).cluster
}

/// A shape whose sidecars may send 50 requests a second. Their default of 5 cannot carry one life a second: claims pile up, and pods go before they ran.
pub fn busy_shape(nodes: u32) -> scenario::Cluster {
    let rates = "[--kube-api-qps=50, --kube-api-burst=100]";
    let text = format!(
        "because: a benchmark\ncluster:\n  nodes: {nodes}\n  drivers:\n    - name: {DRIVER}\n      sidecars: {{ provisioner: {rates}, attacher: \
         {rates}, resizer: {rates} }}\nsteps:\n  - run: 1s\n"
    );
    let scenario = scenario::parse("benchmark", text, std::path::Path::new("."));
    scenario.unwrap_or_else(|e| panic!("{}", e.render(100, false))).cluster
}

/// A cluster of this shape that has booted, with one class; it keeps no trace.
pub async fn booted_as(shape: &scenario::Cluster, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, Latency::default(), Trace::off());
    assemble(&mut cluster, shape, &std::collections::BTreeMap::new());
    boot(&mut cluster, shape).await;
    prepare(&mut cluster).await;
    cluster
}

/// A cluster that has not booted.
pub fn empty(nodes: u32, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, Latency::default(), Trace::off());
    assemble(&mut cluster, &shape(nodes), &std::collections::BTreeMap::new());
    cluster
}

/// Creates the class that the lifecycles use, and lets everybody see it.
pub async fn prepare(cluster: &mut Cluster) {
    let class = json!({
        "metadata": { "name": "fast" },
        "provisioner": DRIVER,
        "allowVolumeExpansion": true,
    });
    create(cluster, Kind::StorageClass, class);
    cluster.run_for(Duration::from_secs(1)).await;
}

/// Creates an object; the benchmark's objects are always accepted.
pub fn create(cluster: &mut Cluster, kind: Kind, json: serde_json::Value) {
    let object = Object::from_json(kind, json).expect("the object is well-formed");
    cluster.create(object).expect("the API server accepts it");
}

/// A claim and a pod that mounts it.
pub fn claim_and_pod(cluster: &mut Cluster, name: &str) {
    claim(cluster, name);
    let pod = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "main", "image": "busybox", "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": name } }],
        },
    });
    create(cluster, Kind::Pod, pod);
}

/// A claim.
pub fn claim(cluster: &mut Cluster, name: &str) {
    let claim = json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "fast",
            "resources": { "requests": { "storage": "1Gi" } },
        },
    });
    create(cluster, Kind::PersistentVolumeClaim, claim);
}

/// Raises the request of a claim.
pub fn expand(cluster: &mut Cluster, name: &str, size: &str) {
    let target = ObjectRef::to::<PersistentVolumeClaim>(&ObjKey::new("default", name));
    let edit = Edit::Merge(json!({ "spec": { "resources": { "requests": { "storage": size } } } }));
    // A claim that is not bound yet may not grow: that is an answer like any other.
    let _ = cluster.apply(&Write::Patch(Patch::new(target, vec![edit])));
}

/// Deletes a pod and its claim.
pub fn delete(cluster: &mut Cluster, name: &str) {
    let key = ObjKey::new("default", name);
    for target in [ObjectRef::to::<Pod>(&key), ObjectRef::to::<PersistentVolumeClaim>(&key)] {
        let _ = cluster.apply(&Write::Delete(Delete::new(target)));
    }
}

/// Plays so many whole lives at once: claim and pod made, running, deleted, gone.
///
/// # Panics
/// If they do not come to their end.
pub async fn lives(cluster: &mut Cluster, prefix: &str, count: usize) {
    let names: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
    for name in &names {
        claim_and_pod(cluster, name);
    }
    let all_run = |c: &Cluster| {
        c.api()
            .list::<Pod>()
            .filter(|p| fields::pod_phase(p) == "Running")
            .count()
            == count
    };
    wait(cluster, Duration::from_secs(600), all_run).await;
    for name in &names {
        delete(cluster, name);
    }
    let all_gone = |c: &Cluster| {
        c.api().list::<Pod>().next().is_none()
            && c.api().list::<PersistentVolumeClaim>().next().is_none()
            && c.api().list::<PersistentVolume>().next().is_none()
    };
    wait(cluster, Duration::from_secs(1200), all_gone).await;
}

/// Runs until something is so; looks once a virtual second, so that looking costs nothing.
async fn wait(cluster: &mut Cluster, within: Duration, so: impl Fn(&Cluster) -> bool) {
    let until = cluster.now() + within;
    while !so(cluster) {
        assert!(cluster.now() < until, "not so within {} s", within.as_secs());
        cluster.run_for(Duration::from_secs(1)).await;
    }
}
