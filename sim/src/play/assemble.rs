//! From the shape of a cluster to its processes, and from there to a cluster that has booted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Patience;
use crate::cluster::{Cluster, Latency, ProcessSpec};
use crate::link::{Factory, socket};
use crate::mutants::{Mutant, Wrong};
use crate::scenario::flags::ApiServerFlags;
use crate::scenario::{self, DriverShape, NodeShape, Process, Role};
use crate::sidecars;
use crate::{controllers, kubelet};

use super::{flags, machines, outside};

/// From the start of a new controller manager until its controllers act: its first detach was recorded 1.6 s after its start.
const CONTROLLER_MANAGER_START: Duration = Duration::from_millis(1500);

/// How long a cluster boots: every driver is registered by then.
const BOOT: Duration = Duration::from_secs(5);

/// The latencies that a scenario asks for.
pub fn latency(flags: &ApiServerFlags) -> Latency {
    let (mut latency, usual) = (Latency::default(), ApiServerFlags::default());
    if flags.latency != usual.latency {
        latency.write = flags.latency.get();
        latency.read = flags.latency.get();
    }
    if flags.watch_latency != usual.watch_latency {
        latency.watch_min = flags.watch_latency.get();
    }
    latency
}

/// Adds everything to an empty cluster: nodes, drivers, processes. Nothing runs yet.
pub fn assemble(cluster: &mut Cluster, shape: &scenario::Cluster, factories: &BTreeMap<String, Factory>) {
    assemble_with(cluster, shape, factories, None, None);
}

/// The same with a mutant in it, or around a driver that runs outside.
pub(super) fn assemble_with(
    cluster: &mut Cluster,
    shape: &scenario::Cluster,
    factories: &BTreeMap<String, Factory>,
    mutant: Option<&Mutant>,
    outside: Option<&Arc<socket::Run>>,
) {
    let wrong = mutant.and_then(Mutant::wrong);
    let alone = shape.only_driver().is_some();
    let namer = Namer { alone };
    let lease = Duration::from_secs(u64::from(shape.kubelet.node_lease_duration_seconds));
    cluster.renew_leases_every(lease / 4);
    cluster.set_patience(Patience {
        not_ready: i64::from(shape.api_server.default_not_ready_toleration_seconds),
        unreachable: i64::from(shape.api_server.default_unreachable_toleration_seconds),
    });
    cluster.keep_events_for(shape.api_server.event_ttl.get());
    control_plane(cluster, shape, wrong);
    for driver in &shape.drivers {
        sidecars_of(cluster, driver, &namer, wrong);
    }
    match outside {
        None => machines::add(cluster, shape, factories, &namer, mutant.and_then(Mutant::quirk)),
        Some(run) => outside::add(cluster, shape, run, &namer),
    }
    for node in &shape.nodes {
        on_node(cluster, shape, node, &namer, wrong);
    }
}

fn on_node(cluster: &mut Cluster, shape: &scenario::Cluster, node: &NodeShape, namer: &Namer, wrong: Option<Wrong>) {
    let chance = cluster.chance().clone();
    let flags = kubelet::Flags {
        wrong,
        ..flags::kubelet(&shape.kubelet, node)
    };
    let kubelet = kubelet::shells(node.name.as_str(), &flags, &kubelet::Constants::default(), &chance);
    cluster.add_process(ProcessSpec {
        name: namer.name(Role::Kubelet, None, Some(&node.name)),
        component: "kubelet".into(),
        node: Some(node.name.as_str().into()),
        node_bound: true,
        shells: kubelet,
        indexes: kubelet::INDEXES.to_vec(),
        throttle: None,
    });
    for driver in &shape.drivers {
        let Some(flags) = &driver.sidecars.registrar else {
            continue;
        };
        cluster.add_process(ProcessSpec {
            name: namer.name(Role::Registrar, Some(&driver.name), Some(&node.name)),
            component: "node-driver-registrar".into(),
            node: Some(node.name.as_str().into()),
            node_bound: false,
            shells: sidecars::registrar::shells(driver.name.as_str(), &flags::registrar(flags)),
            indexes: sidecars::registrar::INDEXES.to_vec(),
            throttle: None,
        });
    }
}

/// Starts everything and lets it boot.
pub async fn boot(cluster: &mut Cluster, shape: &scenario::Cluster) {
    machines::register(cluster, shape);
    let names: Vec<Arc<str>> = cluster.process_names().cloned().collect();
    for name in names {
        let id = cluster.process(&name).expect("it was listed just now");
        cluster.start(id);
    }
    cluster.run_for(BOOT).await;
}

/// Spells process names as scenarios do: the driver is left out where there is only one.
pub(super) struct Namer {
    alone: bool,
}

impl Namer {
    pub fn name(&self, role: Role, driver: Option<&str>, node: Option<&str>) -> Arc<str> {
        let driver = driver.filter(|_| !self.alone).map(str::to_owned);
        Process {
            role,
            driver,
            node: node.map(str::to_owned),
        }
        .to_string()
        .into()
    }
}

fn control_plane(cluster: &mut Cluster, shape: &scenario::Cluster, wrong: Option<Wrong>) {
    let chance = cluster.chance().clone();
    let flags = &shape.controller_manager;
    let mut shells = controllers::volumes::controller_manager_shells(&controllers::volumes::Flags {
        wrong,
        ..flags::volumes(flags)
    });
    shells.extend(controllers::attach_detach::shells(&controllers::attach_detach::Flags {
        wrong,
        ..flags::attach_detach(flags)
    }));
    shells.extend(controllers::node_lifecycle::shells(&flags::node_lifecycle(flags)));
    shells.extend(controllers::taint_eviction::shells());
    shells.extend(controllers::pod_gc::shells(flags.terminated_pod_gc_threshold));
    shells.extend(controllers::namespace::shells());
    let mut indexes = controllers::volumes::indexes();
    indexes.extend(controllers::attach_detach::INDEXES);
    indexes.extend(controllers::node_lifecycle::INDEXES);
    indexes.sort_unstable();
    indexes.dedup();
    let manager = cluster.add_process(ProcessSpec {
        name: "controller-manager".into(),
        component: "kube-controller-manager".into(),
        node: None,
        node_bound: false,
        shells,
        indexes,
        throttle: None,
    });
    cluster.starts_slowly(manager, CONTROLLER_MANAGER_START);
    cluster.add_process(ProcessSpec {
        name: "scheduler".into(),
        component: "default-scheduler".into(),
        node: None,
        node_bound: false,
        shells: controllers::scheduler::shells(&flags::scheduler(&shape.scheduler, &shape.kubelet), chance),
        indexes: controllers::scheduler::INDEXES.to_vec(),
        throttle: None,
    });
}

fn sidecars_of(cluster: &mut Cluster, driver: &DriverShape, namer: &Namer, wrong: Option<Wrong>) {
    let name = driver.name.as_str();
    let sidecar =
        |role: Role, shells, indexes: &[crate::api::Index], component: String, qps: f64, burst: u32| ProcessSpec {
            name: namer.name(role, Some(name), None),
            component,
            node: None,
            node_bound: false,
            shells,
            indexes: indexes.to_vec(),
            throttle: Some((qps, burst)),
        };
    let plan = &driver.sidecars;
    if let Some(flags) = &plan.provisioner {
        let shells = sidecars::provisioner::shells(
            name,
            &sidecars::provisioner::Flags {
                wrong,
                ..flags::provisioner(flags)
            },
        );
        let component = format!("{name}_provisioner");
        let indexes = sidecars::provisioner::INDEXES;
        cluster.add_process(sidecar(
            Role::Provisioner,
            shells,
            indexes,
            component,
            flags.kube_api_qps,
            flags.kube_api_burst,
        ));
    }
    if let Some(flags) = &plan.attacher {
        let shells = sidecars::attacher::shells(
            name,
            &sidecars::attacher::Flags {
                wrong,
                ..flags::attacher(flags)
            },
        );
        let indexes = sidecars::attacher::INDEXES;
        cluster.add_process(sidecar(
            Role::Attacher,
            shells,
            indexes,
            "csi-attacher".into(),
            flags.kube_api_qps,
            flags.kube_api_burst,
        ));
    }
    if let Some(flags) = &plan.resizer {
        let shells = sidecars::resizer::shells(
            name,
            &sidecars::resizer::Flags {
                wrong,
                ..flags::resizer(flags)
            },
        );
        let component = format!("external-resizer {name}");
        let indexes = sidecars::resizer::INDEXES;
        cluster.add_process(sidecar(
            Role::Resizer,
            shells,
            indexes,
            component,
            flags.kube_api_qps,
            flags.kube_api_burst,
        ));
    }
}
