//! Both arms behind one vocabulary: a modelled machine, and a directory of this one.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use futures::executor::block_on;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use wavetank_driver::host::{Mount, MountEntry, MountSource, NewFs};
use wavetank_driver::linux::{LinuxHost, LinuxPool, Store, StoreShape};
use wavetank_driver::pool::{NewSnapshot, NewVolume, Provisioning, Source};
use wavetank_driver::runtime::{OnTheSpot, Runtime};
use wavetank_driver::units::FsKind;
use wavetank_driver::{
    Access, Bytes, DevicePath, Host, HostPath, HostResult, Key, NodeId, Pool, PoolResult, Segments, VolumeId,
};
use wavetank_sim::host::{AtOnce, Fence, HostSeat, Machine, ModelPool, Storage, StorageShape};
use wavetank_sim::link::{MachineAnswer, MachineOp};
use wavetank_sim::runtime::Time;

use super::{Op, PATHS, Step, VOLUMES};

const SIZE: Bytes = Bytes::mi(32);
const GROWN: Bytes = Bytes::mi(48);
/// The only snapshot.
const SNAPSHOT: &str = "s";
const GROUP: u32 = 2000;
/// Flags that a pod must not get rid of.
const STRICT: [&str; 3] = ["nodev", "noexec", "nosuid"];
const NODE: &str = "n1";

/// One machine with its storage system.
struct Arm {
    host: Arc<dyn Host>,
    pool: Arc<dyn Pool>,
    files: Files,
    /// Does the machine have encryption layers?
    layers: bool,
}

/// How a pod would reach the files of an arm.
enum Files {
    Model(Machine, Storage),
    Kernel(Directory),
}

/// A file system of its own, in which nothing that is mounted shows anywhere else.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        let directory = Self(tempfile::tempdir().expect("a directory"));
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), c"").expect("a tmpfs");
        rustix::mount::mount_change(directory.path(), MountPropagationFlags::PRIVATE).expect("a private mount");
        directory
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().expect("the directory is there")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A test that failed leaves mounts below.
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// Can the kernel make encryption layers, and is the tool there? What it cannot do is left out of both arms.
fn has_layers() -> bool {
    let devices = std::fs::read_to_string("/proc/misc").unwrap_or_default();
    devices.contains("device-mapper") && std::path::Path::new("/usr/sbin/cryptsetup").exists()
}

/// The model first, the kernel second.
pub(crate) struct Arms([Arm; 2]);

fn model() -> Arm {
    let storage = Storage::new(StorageShape::everywhere(Bytes::gi(10)));
    storage.add_node(NODE.into(), Segments::new(), None);
    let machine = Machine::new(NODE);
    let turns = Arc::new(AtOnce);
    let host = machine.host(HostSeat {
        driver: "csi.example".into(),
        node: NODE.into(),
        storage: storage.clone(),
        fence: Fence::new(),
        turns: turns.clone(),
    });
    Arm {
        host: Arc::new(host),
        pool: Arc::new(ModelPool::new(storage.clone(), Fence::new(), turns)),
        files: Files::Model(machine, storage),
        layers: has_layers(),
    }
}

fn kernel() -> Arm {
    let directory = Directory::new();
    let store = Store::open(StoreShape {
        reach: wavetank_driver::linux::Reach::Own,
        root: directory.path().join("state"),
        node: NODE.into(),
        segments: Segments::new(),
        limit: Some(Bytes::gi(10)),
        kinds: [("thin".to_owned(), None)].into(),
    });
    let store = Arc::new(store.expect("a store"));
    let runtime: Arc<dyn Runtime> = Arc::new(OnTheSpot);
    Arm {
        host: Arc::new(LinuxHost::new(Arc::clone(&store), Arc::clone(&runtime))),
        pool: Arc::new(LinuxPool::new(store, runtime)),
        files: Files::Kernel(directory),
        layers: has_layers(),
    }
}

impl Arms {
    pub(crate) fn new() -> Self {
        let arms = Self([model(), kernel()]);
        for arm in &arms.0 {
            for directory in ["/m", "/m/a", "/m/b"] {
                block_on(arm.host.create_dir(&arm.path(directory))).expect("a directory to mount on");
            }
            block_on(arm.host.create_file(&arm.path("/m/file"))).expect("a file to bind over");
        }
        arms
    }

    /// What each arm answers.
    pub(crate) fn perform(&self, step: Step) -> [String; 2] {
        [&self.0[0], &self.0[1]].map(|arm| block_on(arm.perform(step)))
    }

    /// The mount table and the devices, by the names of the test.
    pub(crate) fn state(&self, arm: usize) -> Vec<String> {
        block_on(self.0[arm].state())
    }

    /// What a pod would read at every path.
    pub(crate) fn bytes(&self, arm: usize) -> Vec<Option<Vec<u8>>> {
        PATHS.map(|path| self.0[arm].read(path)).to_vec()
    }

    /// Unmounts newest first, detaches, deletes: nothing may refuse.
    pub(crate) fn clean_up(&self) {
        for arm in &self.0 {
            block_on(arm.clean_up());
        }
    }
}

impl Drop for Arms {
    /// A test that failed leaves devices behind, and what is mounted of them.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let kernel = &self.0[1];
        for entry in block_on(kernel.host.mounts()).into_iter().flatten().rev() {
            if entry.target.as_str().starts_with(&format!("{}/m", kernel.root())) {
                let _ = block_on(kernel.host.unmount(&entry.target));
            }
        }
        for volume in VOLUMES.map(VolumeId::from) {
            let _ = block_on(kernel.host.lock(&volume));
            let _ = block_on(kernel.host.detach(&volume));
        }
    }
}

fn told<T, E>(result: Result<T, E>, kind: impl FnOnce(E) -> String) -> String
where
    T: std::fmt::Debug,
{
    result.map_or_else(kind, |answer| format!("{answer:?}"))
}

fn on_host<T: std::fmt::Debug>(result: HostResult<T>) -> String {
    told(result, |error| format!("{:?}", error.kind))
}

fn in_pool<T: std::fmt::Debug>(result: PoolResult<T>) -> String {
    told(result, |error| format!("{:?}", error.kind))
}

fn fs(volume: &str) -> NewFs {
    let nth = VOLUMES.iter().position(|name| *name == volume).unwrap_or_default();
    NewFs {
        kind: FsKind::Ext4,
        label: volume.to_owned(),
        uuid: format!("00000000-0000-4000-8000-00000000000{nth}"),
        forced: false,
    }
}

fn key(volume: &str) -> Key {
    Key::from(format!("the key of {volume}").as_str())
}

fn new(id: &VolumeId, encrypted: bool, source: Option<Source>) -> NewVolume {
    NewVolume {
        id: id.clone(),
        // A copy may be larger than what it is of.
        size: source.as_ref().map_or(SIZE, |_| GROWN),
        kind: "thin".to_owned(),
        provisioning: Provisioning::Thin,
        segments: Segments::new(),
        source,
        encrypted,
        shared_fs: None,
        settings: Default::default(),
    }
}

impl Arm {
    fn root(&self) -> String {
        match &self.files {
            Files::Model(..) => String::new(),
            Files::Kernel(directory) => directory.path().to_str().expect("a plain path").to_owned(),
        }
    }

    fn path(&self, path: &str) -> HostPath {
        HostPath::parse(&format!("{}{path}", self.root())).expect("a plain path")
    }

    /// The device on which the volume's bytes are seen: its layer's, if one is open.
    async fn device(&self, volume: &VolumeId) -> Option<DevicePath> {
        let layer = self.host.unlocked(volume).await;
        match layer.expect("looking for a layer never fails") {
            Some(layer) => Some(layer),
            None => self.attached(volume).await,
        }
    }

    async fn attached(&self, volume: &VolumeId) -> Option<DevicePath> {
        let device = self.host.attached(volume).await;
        device.expect("looking for a device never fails")
    }

    /// May the volume's bytes be copied now? Not if a pod may be writing to its device; what is written to files is synced first.
    async fn may_be_copied(&self, volume: &VolumeId) -> bool {
        let Some(device) = self.device(volume).await else {
            return true;
        };
        let table = self.host.mounts().await.expect("the mount table can be read");
        let mut shown = table.iter().filter(|entry| entry.source.device() == Some(&device));
        let Some(mounted) = shown.find(|entry| matches!(entry.source, MountSource::FileSystem(_))) else {
            return false;
        };
        let _ = self.host.sync(&mounted.target).await;
        true
    }

    async fn cut(&self, volume: &VolumeId) -> String {
        if !self.may_be_copied(volume).await {
            return "left out".to_owned();
        }
        let new = NewSnapshot {
            id: SNAPSHOT.into(),
            volume: volume.clone(),
        };
        in_pool(
            self.pool
                .cut(&[new])
                .await
                .map(|cut| cut.into_iter().map(|one| (one.size, one.ready)).collect::<Vec<_>>()),
        )
    }

    async fn copy(&self, volume: &VolumeId, source: Source) -> String {
        if let Source::Volume(from) = &source
            && !self.may_be_copied(from).await
        {
            return "left out".to_owned();
        }
        let encrypted = match &source {
            Source::Volume(from) => self
                .pool
                .get(from)
                .await
                .ok()
                .flatten()
                .is_some_and(|found| found.encrypted),
            Source::Snapshot(_) => false,
        };
        in_pool(
            self.pool
                .create(&new(volume, encrypted, Some(source)))
                .await
                .map(|made| made.size),
        )
    }

    async fn perform(&self, step: Step) -> String {
        let id = VolumeId::from(step.volume);
        let node = NodeId::from(NODE);
        match step.op {
            Op::Create => in_pool(
                self.pool
                    .create(&new(&id, self.layers && id.as_str() == VOLUMES[1], None))
                    .await
                    .map(|made| made.size),
            ),
            Op::Restore => self.copy(&id, Source::Snapshot(SNAPSHOT.into())).await,
            Op::Clone => {
                let other = VOLUMES
                    .into_iter()
                    .find(|name| *name != step.volume)
                    .unwrap_or_default();
                self.copy(&id, Source::Volume(other.into())).await
            }
            Op::Cut => self.cut(&id).await,
            Op::DropSnapshot => in_pool(self.pool.delete_snapshot(&SNAPSHOT.into()).await),
            Op::Delete => in_pool(self.pool.delete(&id).await),
            Op::Grow => in_pool(self.pool.grow(&id, GROWN).await),
            Op::Export(access) => in_pool(self.pool.export(&id, &node, access).await.map(drop)),
            Op::Unexport if self.device(&id).await.is_some() => "left out".to_owned(),
            Op::Unexport => in_pool(self.pool.unexport(&id, &node).await),
            Op::Attach(access) => {
                let there = self.pool.get(&id).await.expect("looking never fails");
                let exported = there.and_then(|volume| volume.exports.get(&node).copied());
                let context = match exported {
                    Some(access) => self.pool.export(&id, &node, access).await.unwrap_or_default(),
                    None => Default::default(),
                };
                on_host(self.host.attach(&id, &context, access).await.map(drop))
            }
            Op::Detach => on_host(self.host.detach(&id).await),
            Op::Unlock(access) => on_host(self.host.unlock(&id, &key(step.volume), access).await.map(drop)),
            Op::GrowLayer => on_host(self.host.grow_layer(&id).await),
            Op::Lock => on_host(self.host.lock(&id).await),
            _ => self.perform_on_device(step, &id).await,
        }
    }

    async fn perform_on_device(&self, step: Step, id: &VolumeId) -> String {
        let on_device = matches!(
            step.op,
            Op::Rescan
                | Op::Probe
                | Op::Mkfs
                | Op::Fsck
                | Op::Mount(_)
                | Op::MountStrictly
                | Op::BindDevice
                | Op::Encrypt
        );
        if !on_device {
            return self.perform_on_path(step).await;
        }
        let Some(device) = self.device(id).await else {
            return "no device".to_owned();
        };
        let target = self.path(step.at);
        match step.op {
            Op::Rescan => on_host(self.host.rescan(&device).await),
            Op::Probe => on_host(self.host.probe(&device).await),
            Op::Mkfs => on_host(self.host.mkfs(&device, &fs(step.volume)).await),
            Op::Fsck => on_host(self.host.fsck(&device, FsKind::Ext4).await.map(drop)),
            Op::Encrypt if !self.layers => "left out".to_owned(),
            Op::Encrypt => on_host(
                self.host
                    .encrypt(&device, &fs(step.volume).uuid, &key(step.volume))
                    .await,
            ),
            Op::Mount(access) => self.mount(device, target, &[], access).await,
            Op::MountStrictly => self.mount(device, target, &STRICT, Access::ReadWrite).await,
            _ => on_host(self.host.bind_device(&device, &target, Access::ReadWrite).await),
        }
    }

    async fn mount(&self, device: DevicePath, target: HostPath, flags: &[&str], access: Access) -> String {
        let mount = Mount {
            device,
            target,
            kind: FsKind::Ext4,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            access,
        };
        on_host(self.host.mount(&mount).await)
    }

    async fn perform_on_path(&self, step: Step) -> String {
        let (from, at) = (self.path(step.from), self.path(step.at));
        match step.op {
            Op::Bind(access) => on_host(self.host.bind(&from, &at, access).await),
            Op::SetGroup => on_host(self.host.set_group(&at, GROUP).await),
            Op::Unmount => on_host(self.host.unmount(&at).await),
            Op::CreateDir => on_host(self.host.create_dir(&at).await),
            Op::RemoveDir => on_host(self.host.remove_dir(&at).await),
            Op::CreateFile => on_host(self.host.create_file(&at).await),
            Op::RemoveFile => on_host(self.host.remove_file(&at).await),
            Op::Kind => on_host(self.host.kind(&at).await),
            Op::Sync => on_host(self.host.sync(&at).await),
            Op::Read => format!("{:?}", self.read(step.at)),
            _ => format!("{}", self.write(step)),
        }
    }

    /// Does a write of a file below a path succeed?
    fn write(&self, step: Step) -> bool {
        let bytes = format!("{} wrote {}", step.volume, step.at).into_bytes();
        match &self.files {
            Files::Model(machine, _) => {
                let write = MachineOp::WriteFile(format!("{}/data", step.at), bytes);
                machine.perform(Time::ZERO, &write).is_ok()
            }
            Files::Kernel(directory) => {
                let path = format!("{}{}/data", directory.path().display(), step.at);
                std::fs::write(path, bytes).is_ok()
            }
        }
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        match &self.files {
            Files::Model(machine, _) => {
                let read = MachineOp::ReadFile(format!("{path}/data"));
                match machine.perform(Time::ZERO, &read) {
                    Ok(MachineAnswer::Bytes(bytes)) => Some(bytes),
                    _ => None,
                }
            }
            Files::Kernel(directory) => std::fs::read(format!("{}{path}/data", directory.path().display())).ok(),
        }
    }

    async fn state(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut state = Vec::new();
        for volume in VOLUMES {
            if let Some(device) = self.device(&volume.into()).await {
                state.push(format!(
                    "{volume} has {}",
                    on_host(self.host.device_size(&device).await)
                ));
                names.push((device, volume));
            }
        }
        let root = self.root();
        for entry in self.host.mounts().await.expect("the mount table can be read") {
            let Some(target) = entry
                .target
                .as_str()
                .strip_prefix(&root)
                .filter(|target| target.starts_with("/m"))
            else {
                continue;
            };
            let named = |device: &DevicePath| {
                let found = names.iter().find(|(known, _)| known == device);
                found.map_or("a stranger", |(_, volume)| volume)
            };
            let source = match &entry.source {
                MountSource::FileSystem(device) => format!("{} {}", named(device), entry.root),
                MountSource::Device(device) => format!("the device of {}", named(device)),
                MountSource::Other(_) => "the machine's own disk".to_owned(),
            };
            let strict = entry.flags.iter().filter(|flag| STRICT.contains(&flag.as_str()));
            let strict: BTreeSet<&String> = strict.collect();
            state.push(format!(
                "{target} shows {source} {:?} {strict:?} of group {:?}",
                entry.access,
                self.group(&entry, &names)
            ));
        }
        state
    }

    /// The group to which the root of a volume's file system belongs.
    fn group(&self, entry: &MountEntry, names: &[(DevicePath, &str)]) -> Option<u32> {
        let MountSource::FileSystem(_) = &entry.source else {
            return None;
        };
        if entry.root != "/" {
            return None;
        }
        match &self.files {
            Files::Model(_, storage) => {
                let mounted = names.iter().find(|(device, _)| entry.source.device() == Some(device));
                let file_system = mounted.and_then(|(_, volume)| storage.file_system(&(*volume).into()));
                Some(file_system.and_then(|found| found.group).unwrap_or_default())
            }
            Files::Kernel(_) => std::fs::metadata(entry.target.as_str()).ok().map(|found| found.gid()),
        }
    }

    async fn clean_up(&self) {
        let root = self.root();
        for entry in self
            .host
            .mounts()
            .await
            .expect("the mount table can be read")
            .into_iter()
            .rev()
        {
            let below = entry
                .target
                .as_str()
                .strip_prefix(&root)
                .is_some_and(|target| target.starts_with("/m"));
            if below {
                self.host
                    .unmount(&entry.target)
                    .await
                    .expect("newest first, everything can be unmounted");
            }
        }
        for volume in VOLUMES.map(VolumeId::from) {
            self.host
                .lock(&volume)
                .await
                .expect("what is not mounted can be closed");
            self.host
                .detach(&volume)
                .await
                .expect("what is not mounted can be detached");
            self.pool
                .unexport(&volume, &NODE.into())
                .await
                .expect("what is not attached can be cut off");
            self.pool
                .delete(&volume)
                .await
                .expect("what is not exported can be deleted");
        }
        let dropped = self.pool.delete_snapshot(&SNAPSHOT.into()).await;
        dropped.expect("a snapshot can always be deleted");
    }
}
