//! The rules of a machine, through the doors of those who use it: a driver, kubelet and pods. Here are the machines that the tests use.

mod crashes;
mod data;
mod layer;
mod mounting;
mod paths;
mod random;

use std::sync::Arc;

use wavetank_driver::host::{HostErrorKind, Mount, NewFs};
use wavetank_driver::pool::NewVolume;
use wavetank_driver::units::FsKind;
use wavetank_driver::{Access, Bytes, DevicePath, Host, HostPath, HostResult, Pool, PublishContext, Segments};

use crate::link::MachineOp;
use crate::runtime::Time;

use super::cell::{Origin, VolumeKey};
use super::machine::Machine;
use super::modelled::{HostSeat, ModelHost};
use super::pods::{PodError, PodWrite, Written};
use super::pool::ModelPool;
use super::storage::{Storage, StorageShape};
use super::turns::{AtOnce, Fence};

const SIZE: Bytes = Bytes::mi(1);
const STAGING: &str = "/var/lib/kubelet/plugins/staging";
const RW: Access = Access::ReadWrite;
const RO: Access = Access::ReadOnly;

/// A storage system, and the machines of two nodes with one driver each.
struct Tank {
    storage: Storage,
    pool: ModelPool,
    machine: Machine,
    host: ModelHost,
    fence: Fence,
    other: Machine,
    other_host: ModelHost,
}

fn host(machine: &Machine, storage: &Storage, fence: Fence) -> ModelHost {
    machine.host(HostSeat {
        driver: "csi.example".into(),
        node: machine.node().as_ref().into(),
        storage: storage.clone(),
        fence,
        turns: Arc::new(AtOnce),
    })
}

fn tank() -> Tank {
    let storage = Storage::new(StorageShape::everywhere(Bytes::gi(10)));
    let (machine, other) = (Machine::new("n1"), Machine::new("n2"));
    for node in ["n1", "n2"] {
        storage.add_node(node.into(), Segments::new(), None);
    }
    let fence = Fence::new();
    Tank {
        pool: ModelPool::new(storage.clone(), Fence::new(), Arc::new(AtOnce)),
        host: host(&machine, &storage, fence.clone()),
        other_host: host(&other, &storage, Fence::new()),
        storage,
        machine,
        fence,
        other,
    }
}

fn path(text: &str) -> HostPath {
    HostPath::parse(text).unwrap()
}

fn fs(kind: FsKind) -> NewFs {
    NewFs {
        kind,
        label: String::new(),
        uuid: "uuid-1".into(),
        forced: false,
    }
}

fn new(id: &str, size: Bytes) -> NewVolume {
    NewVolume {
        id: id.into(),
        size,
        kind: String::new(),
        provisioning: Default::default(),
        segments: Segments::new(),
        source: None,
        encrypted: false,
        shared_fs: None,
        settings: Default::default(),
    }
}

fn refusal<T: std::fmt::Debug>(result: HostResult<T>) -> HostErrorKind {
    result.unwrap_err().kind
}

fn publish_path(pod: &str) -> String {
    format!("/var/lib/kubelet/pods/{pod}/volumes/kubernetes.io~csi/pv/mount")
}

fn make_dirs(machine: &Machine, path: &str) {
    machine.perform(Time::ZERO, &MachineOp::MakeDirs(path.into())).unwrap();
}

fn origin(machine: &Machine, pod: &str) -> Arc<Origin> {
    Arc::new(Origin {
        pod: format!("default/{pod}"),
        uid: pod.into(),
        node: machine.node().to_string(),
        volume: key(),
    })
}

fn key() -> VolumeKey {
    VolumeKey::new("claim", 1)
}

fn write(machine: &Machine, pod: &str, path: &str, first: u64, count: u64, sequence: u64) -> Result<Written, PodError> {
    machine.pod_write(
        Time::ZERO,
        &PodWrite {
            origin: origin(machine, pod),
            path: path.into(),
            file: "data".into(),
            first,
            count,
            sequence,
            sync: false,
        },
    )
}

impl Tank {
    async fn export(&self, id: &str, node: &str, access: Access) -> PublishContext {
        self.pool.export(&id.into(), &node.into(), access).await.unwrap()
    }

    /// A new volume as a device of the first node.
    async fn attached(&self, id: &str, size: Bytes) -> DevicePath {
        self.pool.create(&new(id, size)).await.unwrap();
        let context = self.export(id, "n1", RW).await;
        self.host.attach(&id.into(), &context, RW).await.unwrap()
    }

    async fn mount(&self, device: &DevicePath, kind: FsKind, target: &str, access: Access) -> HostResult<()> {
        make_dirs(&self.machine, target);
        self.mount_flags(device, kind, target, access, &[]).await
    }

    async fn mount_flags(
        &self,
        device: &DevicePath,
        kind: FsKind,
        target: &str,
        access: Access,
        flags: &[&str],
    ) -> HostResult<()> {
        let mount = Mount {
            device: device.clone(),
            target: path(target),
            kind,
            flags: flags.iter().map(ToString::to_string).collect(),
            access,
        };
        self.host.mount(&mount).await
    }

    /// A new ext4 volume, staged and published to pod `p` on the first node, whose containers run.
    async fn published(&self, id: &str) -> DevicePath {
        let device = self.attached(id, SIZE).await;
        self.host.mkfs(&device, &fs(FsKind::Ext4)).await.unwrap();
        self.mount(&device, FsKind::Ext4, STAGING, RW).await.unwrap();
        make_dirs(&self.machine, &publish_path("p"));
        let target = path(&publish_path("p"));
        self.host.bind(&path(STAGING), &target, RW).await.unwrap();
        self.start("p");
        device
    }

    fn start(&self, pod: &str) {
        self.machine
            .perform(Time::ZERO, &MachineOp::StartPod(pod.into()))
            .unwrap();
    }

    fn stop(&self, pod: &str) {
        let stop = MachineOp::StopPod {
            uid: pod.into(),
            grace_seconds: 30,
        };
        self.machine.perform(Time::ZERO, &stop).unwrap();
    }

    fn on_device(&self, id: &str) -> usize {
        self.storage.contents(&id.into()).unwrap().len()
    }
}
