//! A cluster around a driver that runs outside: its nodes are real machines, its processes are real processes.

use std::sync::Arc;
use std::time::Duration;

use super::assemble::Namer;
use crate::cluster::{Cluster, DriverSpec, NodeSpec};
use crate::host::Machine;
use crate::link::socket::{self, ProcessShape};
use crate::scenario::{self, Role};

/// How long a container of a driver takes to start, in virtual time.
const START: Duration = Duration::from_millis(300);

/// What remains of a run around an outside driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    /// What happened in real time only, as sentences: repeated, the run may differ.
    pub unrepeatable: Vec<String>,
    /// Connections that the driver broke, as sentences.
    pub broken: Vec<String>,
    /// Where the driver's output is, by node; only of runs that did not hold.
    pub logs: Vec<(String, std::path::PathBuf)>,
}

/// Adds the machines and the processes of the driver.
pub(super) fn add(cluster: &mut Cluster, shape: &scenario::Cluster, run: &Arc<socket::Run>, namer: &Namer) {
    let first = shape.nodes.first().map_or("controller", |node| node.name.as_str());
    cluster.stands_around(Arc::new(socket::Around::new(run, first)));
    for node in &shape.nodes {
        let driver = shape.drivers.first().map_or("", |driver| driver.name.as_str());
        let machine = Box::new(run.machine(&node.name, driver));
        cluster.add_node(NodeSpec {
            name: node.name.as_str().into(),
            machine: Machine::real(node.name.as_str(), machine),
            disks: Vec::new(),
        });
    }
    for driver in &shape.drivers {
        processes(cluster, shape, run, namer, &driver.name);
    }
}

fn processes(cluster: &mut Cluster, shape: &scenario::Cluster, run: &Arc<socket::Run>, namer: &Namer, driver: &str) {
    let profile = run.outside().profile().clone();
    let controller = namer.name(Role::DriverController, Some(driver), None);
    let mut add = |place: &str, on: Option<&str>, shape: &ProcessShape, name: Arc<str>, also: Option<Arc<str>>| {
        cluster.add_driver(DriverSpec::Outside {
            driver: driver.into(),
            name,
            node: on.map(Arc::from),
            controller: also.clone(),
            process: run.process(place, shape, driver, also.is_some() || on.is_none()),
            starts_in: START,
        });
    };
    if let Some(process) = &profile.controller {
        add("controller", None, process, Arc::clone(&controller), None);
    }
    let of_node = profile.node.as_ref().or(profile.combined.as_ref());
    for (nth, node) in shape.nodes.iter().enumerate() {
        let Some(process) = of_node else { continue };
        let name = namer.name(Role::DriverNode, Some(driver), Some(&node.name));
        let also = (nth == 0 && profile.combined.is_some()).then(|| Arc::clone(&controller));
        add(&node.name, Some(&node.name), process, name, also);
    }
}
