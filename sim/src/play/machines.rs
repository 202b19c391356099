//! The nodes of a cluster as machines, the storage systems behind its drivers, and how a driver's processes are started on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeSpec as KubeNodeSpec, NodeStatus};
use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec};
use wavetank_driver::{Bytes, Disk, Driver, NodeId, Quirk, Segments};
use wavetank_proto::csi::v1::controller_server::ControllerServer;
use wavetank_proto::csi::v1::group_controller_server::GroupControllerServer;
use wavetank_proto::csi::v1::identity_server::IdentityServer;
use wavetank_proto::csi::v1::node_server::NodeServer;
use wavetank_proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;

use super::assemble::Namer;
use crate::api::{Object, names};
use crate::cluster::{Cluster, DriverSpec, Launch, Launching, NodeSpec};
use crate::host::{HostSeat, Machine, ModelDisk, ModelPool, PlaceShape, Storage, StorageShape, Turns};
use crate::kubelet::node_status;
use crate::link::{Factory, NodeSeat, Seat, Served, Services, TankRuntime};
use crate::runtime::Time;
use crate::scenario::{self, DriverShape, NodeShape, Role};

/// Room of a storage system, per topology segment, in bytes.
const ROOM: Bytes = Bytes(64 << 40);

/// Adds the machines and the drivers' processes.
pub(super) fn add(
    cluster: &mut Cluster,
    shape: &scenario::Cluster,
    factories: &BTreeMap<String, Factory>,
    namer: &Namer,
    quirk: Option<Quirk>,
) {
    let machines: Vec<(&NodeShape, Machine)> = shape
        .nodes
        .iter()
        .map(|node| (node, Machine::new(node.name.as_str())))
        .collect();
    let mut disks: BTreeMap<String, Vec<ModelDisk>> = BTreeMap::new();
    // A driver that knows no places has no topology to speak of.
    let placed = shape.nodes.iter().any(|node| !node.topology.is_empty());
    for driver in &shape.drivers {
        let mut driver = driver.clone();
        driver.options.topology &= placed;
        let driver = &driver;
        let storage = storage(driver, &shape.nodes);
        cluster.add_storage(driver.name.as_str(), storage.clone());
        let start = factories
            .get(&driver.name)
            .cloned()
            .unwrap_or_else(|| reference_with(quirk));
        let seats = Seats {
            driver: Arc::from(driver.name.as_str()),
            storage,
            start,
            shape: driver.clone(),
        };
        let (name, disk) = (
            namer.name(Role::DriverController, Some(&driver.name), None),
            ModelDisk::new(),
        );
        cluster.add_ledger(Arc::clone(&name), disk.clone());
        cluster.add_driver(DriverSpec::Process {
            driver: Arc::clone(&seats.driver),
            name,
            node: None,
            launch: seats.launch(None, disk),
        });
        for (node, machine) in &machines {
            let disk = ModelDisk::new();
            disks.entry(node.name.clone()).or_default().push(disk.clone());
            let place = Some(((*node).clone(), machine.clone()));
            let name = namer.name(Role::DriverNode, Some(&driver.name), Some(&node.name));
            cluster.add_ledger(Arc::clone(&name), disk.clone());
            cluster.add_driver(DriverSpec::Process {
                driver: Arc::clone(&seats.driver),
                name,
                node: Some(node.name.as_str().into()),
                launch: seats.launch(place, disk),
            });
        }
    }
    for (node, machine) in machines {
        let disks = disks.remove(&node.name).unwrap_or_default();
        cluster.add_node(NodeSpec {
            name: node.name.as_str().into(),
            machine,
            disks,
        });
    }
}

fn segments(node: &NodeShape) -> Segments {
    node.topology.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A storage system with a place for each topology segment of the nodes; one place for everybody when they have none.
fn storage(driver: &DriverShape, nodes: &[NodeShape]) -> Storage {
    let mut places: Vec<Segments> = nodes.iter().map(segments).filter(|s| !s.is_empty()).collect();
    places.sort();
    places.dedup();
    let mut shape = StorageShape::everywhere(ROOM);
    if driver.options.topology && !places.is_empty() {
        shape.places = places.into_iter().map(|s| PlaceShape::new(s, ROOM)).collect();
    }
    let storage = Storage::new(shape);
    for node in nodes {
        storage.add_node(NodeId::from(node.name.as_str()), segments(node), None);
    }
    storage
}

struct Seats {
    driver: Arc<str>,
    storage: Storage,
    start: Factory,
    shape: DriverShape,
}

impl Seats {
    fn launch(&self, place: Option<(NodeShape, Machine)>, disk: ModelDisk) -> Launch {
        let (driver, storage, start) = (Arc::clone(&self.driver), self.storage.clone(), Arc::clone(&self.start));
        let options = serde_json::to_value(&self.shape.options).expect("the options of a driver serialise");
        Box::new(move |launching| {
            let Launching {
                lane,
                board,
                tasks,
                fence,
                operations,
                ..
            } = launching;
            let turns: Arc<dyn Turns> = Arc::new(operations.clone());
            let host = place.as_ref().map(|(node, machine)| {
                let seat = HostSeat {
                    driver: Arc::clone(&driver),
                    node: NodeId::from(node.name.as_str()),
                    storage: storage.clone(),
                    fence: fence.clone(),
                    turns: Arc::clone(&turns),
                };
                Arc::new(machine.host(seat)) as Arc<dyn wavetank_driver::Host>
            });
            let node = place.as_ref().map(|(node, _)| NodeSeat {
                name: node.name.clone(),
                topology: node.topology.clone(),
                max_volumes: node.max_volumes.map_or(0, i64::from),
            });
            let starting = start(Seat {
                driver: driver.to_string(),
                node,
                host,
                pool: Arc::new(ModelPool::new(storage.clone(), fence.clone(), turns)),
                runtime: Arc::new(operations.runtime(TankRuntime { tasks, board, lane })),
                disk: Disk::new(disk.open(fence, Some(Arc::new(operations)))),
                options: options.clone(),
            });
            starting.map(|services| services.map(Served::from)).boxed()
        })
    }
}

/// Starts the reference driver: it goes through the same door as every other.
pub fn reference() -> Factory {
    reference_with(None)
}

/// The same with a mistake, for mutants.
pub fn reference_with(quirk: Option<Quirk>) -> Factory {
    Arc::new(move |seat: Seat| {
        async move {
            let mut config: wavetank_driver::Config =
                serde_json::from_value(seat.options).map_err(|e| format!("the options of the driver: {e}"))?;
            config.name.clone_from(&seat.driver);
            let mut place = None;
            if let (Some(node), Some(host)) = (seat.node, seat.host) {
                if node.max_volumes > 0 {
                    config.max_volumes_per_node = u32::try_from(node.max_volumes).unwrap_or(u32::MAX);
                }
                let id = NodeId::from(node.name.as_str());
                let segments = node.topology.into_iter().collect();
                place = Some(wavetank_driver::NodeSeat { id, segments, host });
            }
            let inner = wavetank_driver::Seat {
                runtime: seat.runtime,
                pool: seat.pool,
                disk: seat.disk,
                controller: place.is_none(),
                node: place,
                quirk,
            };
            let driver = Driver::open(config, inner).await.map_err(|e| spell(&e))?;
            let mut services = Services::new().with(IdentityServer::new(driver.identity));
            if let Some(controller) = driver.controller {
                services = services.with(ControllerServer::new(controller));
            }
            if let Some(group) = driver.group {
                services = services.with(GroupControllerServer::new(group));
            }
            if let Some(metadata) = driver.metadata {
                services = services.with(SnapshotMetadataServer::new(metadata));
            }
            if let Some(node) = driver.node {
                services = services.with(NodeServer::new(node));
            }
            Ok(services)
        }
        .boxed()
    })
}

fn spell(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {}", spell(cause)))
}

/// Registers what an installer registers before anything runs: Nodes and CSIDrivers.
pub(super) fn register(cluster: &mut Cluster, shape: &scenario::Cluster) {
    for driver in &shape.drivers {
        let mut object = CSIDriver::default();
        object.metadata.name = Some(driver.name.clone());
        object.spec = driver.csi_driver.clone().unwrap_or_else(|| default_csi_driver(driver));
        let created = cluster.create(Object::new(object));
        debug_assert!(created.is_ok(), "{created:?}");
    }
    for node in &shape.nodes {
        let created = cluster.create(Object::new(kubernetes_node(node)));
        debug_assert!(created.is_ok(), "{created:?}");
    }
}

fn default_csi_driver(driver: &DriverShape) -> CSIDriverSpec {
    CSIDriverSpec {
        attach_required: Some(driver.options.attach),
        pod_info_on_mount: Some(true),
        fs_group_policy: Some("File".into()),
        volume_lifecycle_modes: Some(vec!["Persistent".into(), "Ephemeral".into()]),
        ..CSIDriverSpec::default()
    }
}

fn kubernetes_node(shape: &NodeShape) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(shape.name.clone());
    let mut labels = shape.labels.clone();
    labels.insert(names::HOSTNAME.into(), shape.name.clone());
    labels.insert("kubernetes.io/os".into(), "linux".into());
    node.metadata.labels = Some(labels);
    let managed = (names::CONTROLLER_MANAGED_ATTACH.to_owned(), "true".to_owned());
    node.metadata.annotations = Some(BTreeMap::from([managed]));
    let taints = if shape.taints.is_empty() {
        None
    } else {
        Some(shape.taints.clone())
    };
    node.spec = Some(KubeNodeSpec {
        taints,
        ..KubeNodeSpec::default()
    });
    let hostname = NodeAddress {
        type_: "Hostname".into(),
        address: shape.name.clone(),
    };
    node.status = Some(NodeStatus {
        conditions: Some(node_status::conditions(&node, Time::ZERO)),
        addresses: Some(vec![hostname]),
        ..NodeStatus::default()
    });
    node
}
