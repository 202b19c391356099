//! The flags of sidecars, kubelet, controller manager and scheduler: real names, real defaults (Kubernetes 1.36 and the sidecars of its time).
//!
//! Every struct lists the flags that change what the tank does. Real flags that cannot matter in it (addresses, logging, metrics) are accepted and
//! have no effect, so that `args` can be copied from a Deployment; any other flag is a mistake. Flags may be written as a map or as a list of
//! arguments (`--timeout=30s`).
//!
//! Where the defaults come from: `main.go` of external-provisioner v6.3, external-attacher v4.12, external-resizer v2.1, external-snapshotter v8.6 and
//! node-driver-registrar v2.17; `pkg/kubelet/apis/config/v1beta1/defaults.go`, `pkg/controller/*/config/v1alpha1/defaults.go` and
//! `pkg/scheduler/apis/config/v1/defaults.go` of Kubernetes 1.36. What is no flag stands in `release/`.
//!
//! What would change what a cluster does and is not played is refused by `unmodelled`, unless it is set to its default.
//!
//! Blind spots: every process is alone, so nothing comes of how long a lease holds; a fault takes the lease, whatever the flags say.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value as Json, json};

use super::duration::GoDuration;

/// Real flags of every sidecar that cannot matter in the tank.
const INERT_SIDECAR: &[&str] = &[
    "add_dir_header",
    "alsologtostderr",
    "csi-address",
    "http-endpoint",
    "kubeconfig",
    "leader-election-namespace",
    "log_backtrace_at",
    "log_dir",
    "log_file",
    "logging-format",
    "logtostderr",
    "master",
    "metrics-address",
    "metrics-path",
    "one_output",
    "skip_headers",
    "stderrthreshold",
    "v",
    "vmodule",
];

/// Real flags of the Kubernetes processes that cannot matter in the tank.
const INERT_KUBERNETES: &[&str] = &[
    "authentication-kubeconfig",
    "authorization-kubeconfig",
    "bind-address",
    "client-ca-file",
    "cloud-provider",
    "cluster-cidr",
    "cluster-dns",
    "cluster-domain",
    "cluster-name",
    "cluster-signing-cert-file",
    "cluster-signing-key-file",
    "config",
    "container-runtime-endpoint",
    "hostname-override",
    "kubeconfig",
    "leader-elect-resource-name",
    "leader-elect-resource-namespace",
    "logging-format",
    "pod-infra-container-image",
    "profiling",
    "root-ca-file",
    "root-dir",
    "secure-port",
    "service-account-private-key-file",
    "service-cluster-ip-range",
    "tls-cert-file",
    "tls-private-key-file",
    "use-service-account-credentials",
    "v",
    "vmodule",
];

/// Turns the schema of a struct of flags into that of its two spellings, a map or a list of arguments.
fn accept(schema: &mut Schema, inert: &[&str]) {
    let mut map = std::mem::take(schema.ensure_object());
    let description = map.remove("description").unwrap_or_default();
    if let Some(properties) = map.get_mut("properties").and_then(Json::as_object_mut) {
        for flag in inert {
            properties
                .entry(*flag)
                .or_insert_with(|| json!({"description": "Accepted; has no effect in the tank."}));
        }
    }
    map.insert("additionalProperties".to_owned(), json!(false));
    map.insert("x-wavetank-flags".to_owned(), json!(true));
    let arguments = json!({"type": "array", "items": {"type": "string", "pattern": "^-"}, "description": "Arguments as in a manifest: `--timeout=30s`."});
    schema.insert("description".to_owned(), description);
    schema.insert("anyOf".to_owned(), json!([map, arguments]));
}

fn sidecar(schema: &mut Schema) {
    accept(schema, INERT_SIDECAR);
}

fn kubernetes(schema: &mut Schema) {
    accept(schema, INERT_KUBERNETES);
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident, $title:literal, $transform:path { $($(#[$field:meta])* $flag:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", default)]
        #[schemars(title = $title, transform = $transform)]
        pub struct $name {
            $($(#[$field])* pub $flag: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($flag: $default,)* }
            }
        }
    };
}

const S: fn(u64) -> GoDuration = GoDuration::secs;

/// Feature gates by name, on or off. Written as a map or as `Topology=true,Other=false`.
pub type FeatureGates = BTreeMap<String, bool>;

/// A map of gates, or their text as on a command line.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "FeatureGates")]
enum GatesSpelling {
    Map(BTreeMap<String, bool>),
    #[schemars(extend("format" = "feature-gates"))]
    Text(String),
}

fn gates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FeatureGates, D::Error> {
    match GatesSpelling::deserialize(deserializer)? {
        GatesSpelling::Map(map) => Ok(map),
        GatesSpelling::Text(text) => parse_gates(&text).map_err(serde::de::Error::custom),
    }
}

/// Reads `Topology=true,Other=false`.
pub(crate) fn parse_gates(text: &str) -> Result<FeatureGates, String> {
    text.split(',')
        .filter(|gate| !gate.trim().is_empty())
        .map(|gate| match gate.trim().split_once('=') {
            Some((name, "true" | "1" | "t" | "T" | "True" | "TRUE")) => Ok((name.to_owned(), true)),
            Some((name, "false" | "0" | "f" | "F" | "False" | "FALSE")) => Ok((name.to_owned(), false)),
            _ => Err(format!(
                "feature gates are written `Name=true` or `Name=false`, not {gate:?}"
            )),
        })
        .collect()
}

flags! {
    /// Flags of the external-provisioner.
    ProvisionerFlags, "the external-provisioner", sidecar {
        /// Deadline of each CSI call.
        timeout: GoDuration = S(10),
        /// First delay after a failed provision or delete; doubles up to `retry-interval-max`.
        retry_interval_start: GoDuration = S(1),
        /// The longest such delay, and how long infeasible claims rest.
        retry_interval_max: GoDuration = S(300),
        /// Claim workers, and as many volume workers.
        worker_threads: u32 = 100,
        /// First part of a volume's name.
        volume_name_prefix: String = "pvc".to_owned(),
        /// How many digits of the claim's uid follow; -1 for all of it.
        volume_name_uuid_length: i32 = -1,
        /// Topology requirement of exactly the selected node.
        strict_topology: bool = false,
        /// Whether claims of Immediate classes carry a topology requirement.
        immediate_topology: bool = true,
        /// The file system of volumes whose class names none.
        default_fstype: String = String::new(),
        /// Claim and volume names in the parameters of CreateVolume.
        extra_create_metadata: bool = false,
        /// Publish volumes of read-only access modes as read-only.
        controller_publish_readonly: bool = false,
        /// Refuse to turn a snapshot's volume mode.
        prevent_volume_mode_conversion: bool = true,
        /// Publish CSIStorageCapacity objects.
        enable_capacity: bool = false,
        /// How often capacity is asked for.
        capacity_poll_interval: GoDuration = S(60),
        /// Workers asking for capacity.
        capacity_threads: u32 = 1,
        /// Which owner of the sidecar's pod owns the capacity objects. No effect in the tank.
        capacity_ownerref_level: i32 = 1,
        /// Capacity for classes that bind immediately, too.
        capacity_for_immediate_binding: bool = false,
        /// One provisioner on each node.
        node_deployment: bool = false,
        /// With `node-deployment`: whether Immediate claims are provisioned.
        node_deployment_immediate_binding: bool = true,
        /// With `node-deployment`: first delay before a provisioner takes an Immediate claim.
        node_deployment_base_delay: GoDuration = S(20),
        /// With `node-deployment`: the longest such delay.
        node_deployment_max_delay: GoDuration = S(60),
        /// Workers that take the protection off cloned claims.
        cloning_protection_threads: u32 = 1,
        /// How often forgotten snapshot finalizers are looked for.
        snapshot_orphan_sweep_interval: GoDuration = S(300),
        /// API calls a second.
        kube_api_qps: f64 = 5.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 10,
        /// API calls a second of the capacity controller.
        kube_api_capacity_qps: f64 = 1.0,
        /// API calls at once of the capacity controller.
        kube_api_capacity_burst: u32 = 5,
        /// Work only while holding the lease. No effect in the tank.
        leader_election: bool = false,
        /// How long a lease holds. No effect in the tank.
        leader_election_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_election_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_election_retry_period: GoDuration = S(5),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the external-attacher.
    AttacherFlags, "the external-attacher", sidecar {
        /// Deadline of each ControllerPublish and ControllerUnpublish, and of one whole reconciliation.
        timeout: GoDuration = S(15),
        /// VolumeAttachment workers, and as many PersistentVolume workers.
        worker_threads: u32 = 10,
        /// Resync of the informers.
        resync: GoDuration = S(600),
        /// How often attachments are compared with ListVolumes.
        reconcile_sync: GoDuration = S(60),
        /// First delay after a failure; doubles up to `retry-interval-max`.
        retry_interval_start: GoDuration = S(1),
        /// The longest such delay.
        retry_interval_max: GoDuration = S(300),
        /// Page size of ListVolumes; 0 for no limit.
        max_entries: u32 = 0,
        /// The file system of volumes that name none.
        default_fstype: String = String::new(),
        /// API calls a second.
        kube_api_qps: f64 = 5.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 10,
        /// Work only while holding the lease. No effect in the tank.
        leader_election: bool = false,
        /// How long a lease holds. No effect in the tank.
        leader_election_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_election_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_election_retry_period: GoDuration = S(5),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the external-resizer.
    ResizerFlags, "the external-resizer", sidecar {
        /// Deadline of each CSI call.
        timeout: GoDuration = S(10),
        /// Workers of the resize controller, and as many of the modify controller.
        workers: u32 = 10,
        /// Resync of the informers. No effect in the tank: every claim that it would find has an event or a back-off of its own.
        resync_period: GoDuration = S(600),
        /// First delay after a failure; doubles up to `retry-interval-max`.
        retry_interval_start: GoDuration = S(1),
        /// The longest such delay, and how long infeasible expansions rest.
        retry_interval_max: GoDuration = S(300),
        /// Wait with an expansion that failed because the volume is in use until it is not.
        handle_volume_inuse_error: bool = true,
        /// Claim and volume names in the parameters of ControllerModifyVolume.
        extra_modify_metadata: bool = false,
        /// API calls a second.
        kube_api_qps: f64 = 5.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 10,
        /// Work only while holding the lease. No effect in the tank.
        leader_election: bool = false,
        /// How long a lease holds. No effect in the tank.
        leader_election_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_election_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_election_retry_period: GoDuration = S(5),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the csi-snapshotter.
    SnapshotterFlags, "the csi-snapshotter", sidecar {
        /// Deadline of each CSI call.
        timeout: GoDuration = S(60),
        /// Workers of each queue.
        worker_threads: u32 = 10,
        /// Resync of the informers.
        resync_period: GoDuration = S(900),
        /// First delay after a failure; doubles up to `retry-interval-max`.
        retry_interval_start: GoDuration = S(1),
        /// The longest such delay.
        retry_interval_max: GoDuration = S(300),
        /// First part of a snapshot's name.
        snapshot_name_prefix: String = "snapshot".to_owned(),
        /// How many digits of the snapshot's uid follow; -1 for all of it.
        snapshot_name_uuid_length: i32 = -1,
        /// Snapshot and content names in the parameters of CreateSnapshot.
        extra_create_metadata: bool = false,
        /// One snapshotter on each node.
        node_deployment: bool = false,
        /// API calls a second.
        kube_api_qps: f64 = 5.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 10,
        /// Work only while holding the lease. No effect in the tank.
        leader_election: bool = false,
        /// How long a lease holds. No effect in the tank.
        leader_election_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_election_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_election_retry_period: GoDuration = S(5),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the node-driver-registrar.
    RegistrarFlags, "the node-driver-registrar", sidecar {
        /// Deadline of GetPluginInfo.
        timeout: GoDuration = S(1),
        /// Where kubelet finds the driver; empty for the usual path.
        kubelet_registration_path: String = String::new(),
        /// Where the registration socket is made; empty for the usual path. No effect in the tank.
        plugin_registration_path: String = String::new(),
    }
}

flags! {
    /// Flags of the snapshot-controller, which serves every driver of a cluster.
    SnapshotControllerFlags, "the snapshot-controller", sidecar {
        /// Workers of each queue.
        worker_threads: u32 = 10,
        /// Resync of the informers.
        resync_period: GoDuration = S(900),
        /// First delay after a failure; doubles up to `retry-interval-max`.
        retry_interval_start: GoDuration = S(1),
        /// The longest such delay.
        retry_interval_max: GoDuration = S(300),
        /// How long it waits for its custom resources at start.
        retry_crd_interval_max: GoDuration = S(30),
        /// Refuse to turn a snapshot's volume mode.
        prevent_volume_mode_conversion: bool = true,
        /// Leave contents to a snapshotter on each node.
        enable_distributed_snapshotting: bool = false,
        /// API calls a second.
        kube_api_qps: f64 = 5.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 10,
        /// Work only while holding the lease. No effect in the tank.
        leader_election: bool = false,
        /// How long a lease holds. No effect in the tank.
        leader_election_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_election_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_election_retry_period: GoDuration = S(5),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the kube-controller-manager.
    ControllerManagerFlags, "the kube-controller-manager", kubernetes {
        /// Resync of claims and volumes in the PV controller.
        pvclaimbinder_sync_period: GoDuration = S(15),
        /// How often attachments are compared with what is reported attached.
        attach_detach_reconcile_sync_period: GoDuration = S(60),
        /// Never make that comparison.
        disable_attach_detach_reconcile_sync: bool = false,
        /// Never detach by force, however long an unmount takes.
        disable_force_detach_on_timeout: bool = false,
        /// How often nodes are looked at.
        node_monitor_period: GoDuration = S(5),
        /// Silence after which a node is Unknown.
        node_monitor_grace_period: GoDuration = S(50),
        /// The same for a node that has just come up.
        node_startup_grace_period: GoDuration = S(60),
        /// Nodes a second whose pods are evicted, in a healthy zone.
        node_eviction_rate: f64 = 0.1,
        /// The same in an unhealthy zone.
        secondary_node_eviction_rate: f64 = 0.01,
        /// The share of nodes that are not ready that makes a zone unhealthy.
        unhealthy_zone_threshold: f64 = 0.55,
        /// The most nodes of a zone in which eviction stops when it is unhealthy.
        large_cluster_size_threshold: u32 = 50,
        /// Terminated pods kept before the pod garbage collector takes them.
        terminated_pod_gc_threshold: i32 = 12500,
        /// API calls a second.
        kube_api_qps: f64 = 20.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 30,
        /// Work only while holding the lease. No effect in the tank.
        leader_elect: bool = true,
        /// How long a lease holds. No effect in the tank.
        leader_elect_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_elect_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_elect_retry_period: GoDuration = S(2),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the kubelet, and those keys of its configuration file that have no flag.
    KubeletFlags, "the kubelet", kubernetes {
        /// How often the node's status is computed.
        node_status_update_frequency: GoDuration = S(10),
        /// How often it is written although nothing changed (configuration file).
        #[serde(rename = "nodeStatusReportFrequency")]
        node_status_report_frequency: GoDuration = S(300),
        /// How long the node's lease holds (configuration file).
        #[serde(rename = "nodeLeaseDurationSeconds")]
        node_lease_duration_seconds: u32 = 40,
        /// Resync of running pods, before jitter.
        sync_frequency: GoDuration = S(60),
        /// How often volume statistics are collected.
        volume_stats_agg_period: GoDuration = S(60),
        /// The most pods of a node.
        max_pods: u32 = 110,
        /// Time for pods to end when the machine shuts down (configuration file); 0 for none.
        #[serde(rename = "shutdownGracePeriod")]
        shutdown_grace_period: GoDuration = S(0),
        /// The part of it that is kept for critical pods (configuration file).
        #[serde(rename = "shutdownGracePeriodCriticalPods")]
        shutdown_grace_period_critical_pods: GoDuration = S(0),
        /// API calls a second.
        kube_api_qps: f64 = 50.0,
        /// API calls at once before that rate holds.
        kube_api_burst: u32 = 100,
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// Flags of the kube-scheduler, and those keys of its configuration file that have no flag.
    SchedulerFlags, "the kube-scheduler", kubernetes {
        /// How long a pod waits for its volumes to be bound (configuration file, plugin VolumeBinding).
        #[serde(rename = "bindTimeoutSeconds")]
        bind_timeout_seconds: u32 = 600,
        /// First delay of a pod that did not fit (configuration file).
        #[serde(rename = "podInitialBackoffSeconds")]
        pod_initial_backoff_seconds: u32 = 1,
        /// The longest such delay (configuration file).
        #[serde(rename = "podMaxBackoffSeconds")]
        pod_max_backoff_seconds: u32 = 10,
        /// How long a pod that fits nowhere waits at most for an event.
        pod_max_in_unschedulable_pods_duration: GoDuration = S(300),
        /// Work only while holding the lease. No effect in the tank.
        leader_elect: bool = true,
        /// How long a lease holds. No effect in the tank.
        leader_elect_lease_duration: GoDuration = S(15),
        /// How long a leader tries to renew. No effect in the tank.
        leader_elect_renew_deadline: GoDuration = S(10),
        /// How often it tries. No effect in the tank.
        leader_elect_retry_period: GoDuration = S(2),
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}

flags! {
    /// What the API server does: its flags, and how long its answers and watch events take in the tank.
    ApiServerFlags, "the kube-apiserver", kubernetes {
        /// How long a typical request takes.
        latency: GoDuration = GoDuration::millis(2),
        /// How long a typical watch event takes to reach a watcher.
        #[serde(rename = "watchLatency")]
        watch_latency: GoDuration = GoDuration::millis(5),
        /// How long events are kept.
        event_ttl: GoDuration = S(3600),
        /// Toleration of nodes that are not ready, given to every pod.
        default_not_ready_toleration_seconds: u32 = 300,
        /// Toleration of nodes that cannot be reached, given to every pod.
        default_unreachable_toleration_seconds: u32 = 300,
        /// Feature gates.
        #[serde(deserialize_with = "gates")]
        #[schemars(with = "GatesSpelling")]
        feature_gates: FeatureGates = FeatureGates::new(),
    }
}
