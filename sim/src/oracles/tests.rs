//! Each oracle fires where its promise breaks, and none does over an honest story.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::AttachedVolume;
use serde_json::json;
use tonic::Status;
use wavetank_driver::pool::{NewVolume, Pool as _, Provisioning};
use wavetank_driver::{Access, Bytes, NodeId, Segments, VolumeId};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};

use super::{Panel, data};
use crate::api::{ApiError, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Write, Written};
use crate::cluster::{Cluster, Latency};
use crate::host::{AtOnce, Backing, Deed, Fence, ModelPool, Origin, ReadBack, Stamp, Storage, StorageShape};
use crate::host::{VolumeKey, Witnesses};
use crate::link::{Call, CsiReply, CsiRequest, Socket};
use crate::runtime::run;
use crate::trace::{ProcessChange, Record, Trace, What};

const DRIVER: &str = "d";
const GIB: i64 = 1 << 30;

/// A cluster in which nothing runs, a storage system, and the oracles that look at what the test says has happened.
struct Bench {
    cluster: Cluster,
    panel: Panel,
    storage: Storage,
    calls: u64,
}

/// The promises that are broken when the oracles have seen the story and its end.
fn broken<F>(story: impl FnOnce(Bench) -> F + Send + 'static) -> Vec<&'static str>
where
    F: Future<Output = Bench>,
{
    run(move || async move {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        let storage = Storage::new(StorageShape::everywhere(Bytes(1 << 40)));
        cluster.add_storage(DRIVER, storage.clone());
        let bench = Bench {
            cluster,
            panel: Panel::new(),
            storage,
            calls: 0,
        };
        let mut bench = story(bench).await;
        bench.panel.settle(&bench.cluster);
        bench.panel.violations().iter().map(|v| v.promise.name).collect()
    })
}

impl Bench {
    fn push(&mut self, process: &str, what: What) {
        let record = Record {
            at: self.cluster.now(),
            process: process.into(),
            what,
        };
        self.cluster.trace_mut().push(record);
        self.panel.look(&self.cluster);
    }

    fn call(&mut self, process: &str, request: impl Into<CsiRequest>) -> (u64, Arc<Call>) {
        self.calls += 1;
        let socket = if process.starts_with("kubelet") {
            Socket::Node
        } else {
            Socket::Controller
        };
        let call = Arc::new(Call {
            driver: DRIVER.into(),
            socket,
            request: request.into(),
            timeout: Duration::from_secs(15),
        });
        let id = self.calls;
        self.push(
            process,
            What::Call {
                id,
                call: Arc::clone(&call),
            },
        );
        (id, call)
    }

    /// A call and its answer.
    fn ask(&mut self, process: &str, request: impl Into<CsiRequest>, result: Result<CsiReply, Status>) {
        let (id, call) = self.call(process, request);
        let took = Duration::ZERO;
        self.push(process, What::Reply { id, call, took, result });
    }

    async fn make(&self, id: &str) {
        let pool = ModelPool::new(self.storage.clone(), Fence::new(), Arc::new(AtOnce));
        let new = NewVolume {
            id: VolumeId::from(id),
            size: Bytes(1 << 30),
            kind: "standard".into(),
            provisioning: Provisioning::Thin,
            segments: Segments::new(),
            source: None,
            shared_fs: None,
            encrypted: false,
            settings: BTreeMap::new(),
        };
        pool.create(&new).await.expect("there is room");
    }

    fn deed(&mut self, deed: &Deed) {
        self.panel.show(&self.cluster, DRIVER, deed);
    }
}

fn capability(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

fn create(name: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.into(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: GIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        ..csi::CreateVolumeRequest::default()
    }
}

fn volume(id: &str) -> csi::Volume {
    csi::Volume {
        volume_id: id.into(),
        capacity_bytes: GIB,
        ..csi::Volume::default()
    }
}

fn created(volume: csi::Volume) -> Result<CsiReply, Status> {
    Ok(CsiReply::CreateVolume(csi::CreateVolumeResponse {
        volume: Some(volume),
    }))
}

fn attach(node: &str) -> csi::ControllerPublishVolumeRequest {
    csi::ControllerPublishVolumeRequest {
        volume_id: "v".into(),
        node_id: node.into(),
        volume_capability: Some(capability(Mode::SingleNodeWriter)),
        ..csi::ControllerPublishVolumeRequest::default()
    }
}

fn attached() -> Result<CsiReply, Status> {
    Ok(CsiReply::ControllerPublishVolume(
        csi::ControllerPublishVolumeResponse::default(),
    ))
}

fn exported(node: &str) -> Deed {
    Deed::Exported {
        volume: VolumeId::from("v"),
        node: NodeId::from(node),
        access: Access::ReadWrite,
    }
}

#[test]
fn an_honest_story_breaks_nothing() {
    let found = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.deed(&exported("n1"));
        b.ask("attacher", attach("n1"), attached());
        let detach = csi::ControllerUnpublishVolumeRequest {
            volume_id: "v".into(),
            node_id: "n1".into(),
            ..csi::ControllerUnpublishVolumeRequest::default()
        };
        let gone = csi::ControllerUnpublishVolumeResponse::default();
        b.ask("attacher", detach, Ok(CsiReply::ControllerUnpublishVolume(gone)));
        b
    });
    assert_eq!(found, Vec::<&str>::new());
}

#[test]
fn one_writer_sees_a_second_node() {
    let found = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.deed(&exported("n1"));
        b.deed(&exported("n2"));
        b
    });
    assert_eq!(found, ["one-writer"]);
}

/// What a pod that wrote one synced block to `v` finds when its volume is empty; the block was written to `source`.
fn lost(source: &'static str) -> Vec<&'static str> {
    broken(async move |mut b| {
        let (source, v) = (VolumeKey::new(source, 0), VolumeKey::new("v", 0));
        let origin = Origin {
            pod: "default/web".into(),
            uid: "u".into(),
            node: "n1".into(),
            volume: source.clone(),
        };
        let stamp = Stamp {
            origin: Arc::new(origin),
            file: "data".into(),
            block: 0,
            sequence: 1,
        };
        let written = crate::host::Written {
            stamps: vec![stamp],
            synced: true,
            stopped: None,
        };
        let mut witnesses = Witnesses::default();
        witnesses.wrote(&source, &written);
        if source != v {
            witnesses.copied(&source, v.clone());
        }
        let on = Backing::Volume {
            driver: DRIVER.into(),
            id: "v".into(),
        };
        let report = witnesses.verify(&v, &ReadBack { on, found: Vec::new() });
        let violation = data::broken("default/data", &report, &b.panel.view(&b.cluster)).expect("the block is lost");
        b.panel.accuse(violation);
        b
    })
}

#[test]
fn lost_bytes_break_one_promise_and_those_of_a_copy_another() {
    assert_eq!(lost("v"), ["durable-data"]);
    assert_eq!(lost("source"), ["clone-equals-source"]);
}

#[test]
fn no_mkfs_sees_a_second_file_system() {
    let found = broken(async |mut b| {
        let formatted = Deed::Formatted {
            volume: "v".into(),
            over: false,
        };
        b.deed(&formatted);
        b.deed(&formatted);
        b
    });
    assert_eq!(found, ["no-mkfs-on-data"]);
}

#[test]
fn a_copy_names_its_source() {
    use csi::volume_content_source::{Type, VolumeSource};
    let found = broken(async |mut b| {
        let source = VolumeSource { volume_id: "s".into() };
        let request = csi::CreateVolumeRequest {
            volume_content_source: Some(csi::VolumeContentSource {
                r#type: Some(Type::Volume(source)),
            }),
            ..create("pvc-1")
        };
        b.ask("provisioner", request, created(volume("v")));
        b
    });
    assert_eq!(found, ["clone-equals-source"]);
}

#[test]
fn in_use_sees_what_is_taken_away_unasked() {
    let found = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.deed(&Deed::Deleted("v".into()));
        b
    });
    assert_eq!(found, ["in-use"]);
}

#[test]
fn ok_of_a_deletion_means_that_the_volume_is_gone() {
    let found = broken(async |mut b| {
        b.make("v").await;
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        let delete = csi::DeleteVolumeRequest {
            volume_id: "v".into(),
            ..csi::DeleteVolumeRequest::default()
        };
        let gone = CsiReply::DeleteVolume(csi::DeleteVolumeResponse::default());
        b.ask("provisioner", delete, Ok(gone));
        b
    });
    // What was not deleted is left over.
    assert_eq!(found, ["ok-means-done", "no-leftovers"]);
}

#[test]
fn the_same_request_gets_the_same_answer() {
    let differently = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.ask("provisioner", create("pvc-1"), created(volume("w")));
        b
    });
    assert_eq!(differently, ["same-answer"]);
    let refused = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), Err(Status::deadline_exceeded("")));
        b.ask(
            "provisioner",
            create("pvc-1"),
            Err(Status::already_exists("it is there")),
        );
        b
    });
    assert_eq!(refused, ["same-answer"]);
}

#[test]
fn sizes_are_kept() {
    let found = broken(async |mut b| {
        let small = csi::Volume {
            capacity_bytes: GIB / 2,
            ..volume("v")
        };
        b.ask("provisioner", create("pvc-1"), created(small));
        b
    });
    assert_eq!(found, ["sizes"]);
}

#[test]
fn an_answer_without_an_id_is_illegal() {
    let found = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("")));
        b
    });
    assert_eq!(found, ["legal-answers"]);
}

#[test]
fn a_secret_in_an_error_is_seen() {
    let found = broken(async |mut b| {
        let request = csi::CreateVolumeRequest {
            secrets: BTreeMap::from([("password".to_owned(), "correct horse".to_owned())]),
            ..create("pvc-1")
        };
        b.ask(
            "provisioner",
            request,
            Err(Status::internal("cannot log in with `correct horse`")),
        );
        b
    });
    assert_eq!(found, ["secrets"]);
}

#[test]
fn order_sees_a_deletion_before_the_detachment() {
    let found = broken(async |mut b| {
        b.ask("provisioner", create("pvc-1"), created(volume("v")));
        b.ask("attacher", attach("n1"), attached());
        let delete = csi::DeleteVolumeRequest {
            volume_id: "v".into(),
            ..csi::DeleteVolumeRequest::default()
        };
        b.ask("provisioner", delete, Err(Status::failed_precondition("in use")));
        b
    });
    assert_eq!(found, ["order"]);
}

#[test]
fn a_request_without_its_fields_is_the_clusters_fault() {
    let found = broken(async |mut b| {
        let nameless = csi::CreateVolumeRequest {
            name: String::new(),
            ..create("")
        };
        b.ask("provisioner", nameless, Err(Status::invalid_argument("a name")));
        b
    });
    assert_eq!(found, ["csi-by-the-cluster"]);
}

#[test]
fn a_claim_does_not_change_its_volume() {
    let found = broken(async |mut b| {
        let claim = |volume: &str| {
            let json = json!({
                "metadata": {"name": "data", "namespace": "default", "uid": "u"},
                "spec": {"volumeName": volume},
                "status": {"phase": "Bound"},
            });
            Object::from_json(Kind::PersistentVolumeClaim, json).expect("a claim")
        };
        let target = ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", "data"));
        let what = What::Write {
            write: Arc::new(Write::Patch(Patch::new(target, Vec::new()))),
            before: Some(claim("one")),
            result: Ok(Written {
                object: claim("two"),
                changed: true,
            }),
        };
        b.push("controller-manager", what);
        b
    });
    assert_eq!(found, ["kubernetes-rules"]);
}

#[test]
fn what_never_ends_and_what_is_left_are_seen_in_the_calm() {
    let unsettled = broken(async |mut b| {
        let json = json!({
            "metadata": {"name": "csi-1"},
            "spec": {"attacher": DRIVER, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
        });
        let attachment = Object::from_json(Kind::VolumeAttachment, json).expect("an attachment");
        b.cluster.create(attachment).expect("it is new");
        b
    });
    assert_eq!(unsettled, ["settles", "no-leftovers"]);
    let left = broken(async |b| {
        b.make("v").await;
        b
    });
    assert_eq!(left, ["no-leftovers"]);
}

#[test]
fn a_loop_is_hot_when_no_back_off_slows_it() {
    let found = broken(async |mut b| {
        for _ in 0..50 {
            b.ask("provisioner", create("pvc-1"), Err(Status::internal("")));
        }
        b
    });
    assert_eq!(found, ["no-hot-loop"]);
}

#[test]
fn what_kubernetes_repeats_in_each_pass_is_not_hot() {
    let refused = |edit: fn() -> Edit| {
        broken(async move |mut b| {
            for _ in 0..50 {
                let node = ObjectRef::new(Kind::Node, ObjKey::cluster("n1"));
                let patch = Patch::status(node, vec![edit()]);
                let what = What::Write {
                    write: Arc::new(Write::Patch(patch)),
                    before: None,
                    result: Err(ApiError::unavailable()),
                };
                b.push("controller-manager", what);
            }
            b
        })
    };
    assert!(refused(|| Edit::VolumesAttached(Vec::new())).is_empty());
    assert_eq!(refused(|| Edit::Merge(json!({}))), ["no-hot-loop"]);
}

#[test]
fn many_volumes_that_leave_one_node_are_no_loop() {
    let taken = |volumes: fn(usize) -> usize| {
        broken(async move |mut b| {
            for nth in 0..50 {
                let name = |nth: usize| AttachedVolume {
                    name: format!("kubernetes.io/csi/csi.wavetank.dev^v{nth}"),
                    ..AttachedVolume::default()
                };
                let left = (0..volumes(nth)).map(name).collect();
                let node = ObjectRef::new(Kind::Node, ObjKey::cluster("n1"));
                let patch = Patch::status(node, vec![Edit::VolumesAttached(left)]);
                let object = Object::from_json(Kind::Node, json!({"metadata": {"name": "n1"}})).expect("a node");
                let what = What::Write {
                    write: Arc::new(Write::Patch(patch)),
                    before: None,
                    result: Ok(Written { object, changed: true }),
                };
                b.push("controller-manager", what);
            }
            b
        })
    };
    assert!(taken(|nth| 50 - nth).is_empty());
    assert_eq!(taken(|_| 7), ["no-hot-loop"]);
}

#[test]
fn a_driver_that_does_not_start_is_missed() {
    let found = broken(async |mut b| {
        let failed = ProcessChange::Failed("the ledger is torn".into());
        b.push("driver-controller", What::Process(failed));
        b
    });
    assert_eq!(found, ["driver-alive"]);
}

/// What is found when kubelet of `n1` unpublishes `v` from two paths at once.
fn unpublished_at_once(one: &'static str, other: &'static str) -> Vec<&'static str> {
    broken(async move |mut b| {
        for path in [one, other] {
            let unpublish = csi::NodeUnpublishVolumeRequest {
                volume_id: "v".into(),
                target_path: path.into(),
            };
            b.call("kubelet/n1", unpublish);
        }
        b
    })
}

#[test]
fn two_pods_are_unpublished_at_once_and_one_is_not() {
    assert_eq!(unpublished_at_once("/a", "/b"), Vec::<&str>::new());
    assert_eq!(unpublished_at_once("/a", "/a"), ["csi-by-the-cluster"]);
}

/// What is found when a publish fails so, then so, and kubelet unstages.
fn unstaged_after(codes: [tonic::Code; 2]) -> Vec<&'static str> {
    broken(async move |mut b| {
        for code in codes {
            let publish = csi::NodePublishVolumeRequest {
                volume_id: "v".into(),
                target_path: "/a".into(),
                volume_capability: Some(capability(Mode::SingleNodeWriter)),
                ..csi::NodePublishVolumeRequest::default()
            };
            b.ask("kubelet/n1", publish, Err(Status::new(code, "")));
        }
        let unstage = csi::NodeUnstageVolumeRequest {
            volume_id: "v".into(),
            staging_target_path: "/s".into(),
        };
        b.call("kubelet/n1", unstage);
        b
    })
}

#[test]
fn what_failed_for_certain_need_not_be_unpublished() {
    use tonic::Code::{Internal, Unavailable};
    assert_eq!(unstaged_after([Unavailable, Internal]), Vec::<&str>::new());
    assert_eq!(unstaged_after([Internal, Unavailable]), ["order"]);
}
