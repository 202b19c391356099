//! A bench for this controller and external-attacher: both at work in a cluster, the driver a script, kubelet and everybody else played by the test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;

use crate::api::{Delete, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Write};
use crate::cluster::{Cluster, DriverSpec, Latency, ProcessId, ProcessSpec, ScriptedCall};
use crate::control::AnyShell;
use crate::link::{CsiReply, CsiRequest};
use crate::runtime::{Time, run};
use crate::sidecars::attacher;
use crate::sidecars::connect::ControllerRpc;
use crate::trace::{Trace, What};

pub(crate) const DRIVER: &str = "hostpath.csi.k8s.io";
pub(crate) const KCM: &str = "kcm";
pub(crate) const ATTACHER: &str = "attacher";

/// What a driver shall answer: the errors first, then success.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub publish: Arc<Mutex<VecDeque<Code>>>,
    pub unpublish: Arc<Mutex<VecDeque<Code>>>,
    pub capabilities: Vec<ControllerRpc>,
    /// `(volume, node)` of the listing.
    pub listed: Arc<Mutex<Vec<(String, String)>>>,
    /// Requests of ControllerPublishVolume, as they came.
    pub published: Arc<Mutex<Vec<csi::ControllerPublishVolumeRequest>>>,
}

impl Answers {
    /// Of a driver with these capabilities.
    pub fn with(capabilities: &[ControllerRpc]) -> Answers {
        Answers {
            capabilities: capabilities.to_vec(),
            ..Answers::default()
        }
    }

    /// Of an ordinary driver.
    pub fn plain() -> Answers {
        Answers::with(&[
            ControllerRpc::PublishUnpublishVolume,
            ControllerRpc::SingleNodeMultiWriter,
        ])
    }

    pub fn fail_publish(self, codes: &[Code]) -> Answers {
        self.publish.lock().unwrap().extend(codes);
        self
    }

    pub fn fail_unpublish(self, codes: &[Code]) -> Answers {
        self.unpublish.lock().unwrap().extend(codes);
        self
    }

    fn answer(&self, call: &ScriptedCall<'_>) -> (Duration, Result<CsiReply, Status>) {
        let fast = Duration::from_micros(200);
        let refuse = |codes: &Mutex<VecDeque<Code>>| {
            let code = codes.lock().unwrap().pop_front()?;
            Some((fast, Err(Status::new(code, format!("injected {code:?}")))))
        };
        let reply = match &call.call.request {
            CsiRequest::Probe(_) => CsiReply::Probe(csi::ProbeResponse::default()),
            CsiRequest::GetPluginInfo(_) => CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
                name: DRIVER.into(),
                ..Default::default()
            }),
            CsiRequest::GetPluginCapabilities(_) => CsiReply::GetPluginCapabilities(plugin()),
            CsiRequest::ControllerGetCapabilities(_) => {
                CsiReply::ControllerGetCapabilities(csi::ControllerGetCapabilitiesResponse {
                    capabilities: self.capabilities.iter().map(|rpc| capability(*rpc)).collect(),
                })
            }
            CsiRequest::ControllerPublishVolume(request) => {
                self.published.lock().unwrap().push(request.clone());
                if let Some(refused) = refuse(&self.publish) {
                    return refused;
                }
                CsiReply::ControllerPublishVolume(csi::ControllerPublishVolumeResponse::default())
            }
            CsiRequest::ControllerUnpublishVolume(_) => {
                if let Some(refused) = refuse(&self.unpublish) {
                    return refused;
                }
                CsiReply::ControllerUnpublishVolume(csi::ControllerUnpublishVolumeResponse::default())
            }
            CsiRequest::ListVolumes(_) => CsiReply::ListVolumes(self.listing()),
            other => panic!("the script has no answer to {}", other.method()),
        };
        (Duration::from_millis(3), Ok(reply))
    }

    fn listing(&self) -> csi::ListVolumesResponse {
        let listed = self.listed.lock().unwrap();
        let entry = |(volume, node): &(String, String)| csi::list_volumes_response::Entry {
            volume: Some(csi::Volume {
                volume_id: volume.clone(),
                ..Default::default()
            }),
            status: Some(csi::list_volumes_response::VolumeStatus {
                published_node_ids: vec![node.clone()],
                ..Default::default()
            }),
        };
        csi::ListVolumesResponse {
            entries: listed.iter().map(entry).collect(),
            next_token: String::new(),
        }
    }
}

fn plugin() -> csi::GetPluginCapabilitiesResponse {
    use csi::plugin_capability::{Service, Type, service};
    let service = Service {
        r#type: service::Type::ControllerService as i32,
    };
    csi::GetPluginCapabilitiesResponse {
        capabilities: vec![csi::PluginCapability {
            r#type: Some(Type::Service(service)),
        }],
    }
}

fn capability(rpc: ControllerRpc) -> csi::ControllerServiceCapability {
    use csi::controller_service_capability::{Rpc, Type};
    csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: rpc as i32 })),
    }
}

/// The bench.
pub(crate) struct Bench {
    pub cluster: Cluster,
    pub kcm: ProcessId,
    pub attacher: ProcessId,
    /// Story times count from here.
    origin: Time,
}

/// Runs a test on a bench with two nodes, a bound claim `data` and its volume `vol` (handle `h`), and tells the story since its last [`Bench::mark`].
pub(crate) fn bench<F>(answers: Answers, test: impl FnOnce(Bench) -> F + Send + 'static) -> Vec<String>
where
    F: Future<Output = Bench>,
{
    run(move || async move {
        let bench = test(Bench::new(answers).await).await;
        let origin = bench.origin;
        story(&bench.cluster.shut_down().await, origin)
    })
}

impl Bench {
    async fn new(answers: Answers) -> Bench {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        cluster.add_driver(DriverSpec::Scripted {
            driver: DRIVER.into(),
            script: Box::new(move |call| answers.answer(call)),
        });
        let spec = |name: &str, component: &str, shells: Vec<Box<dyn AnyShell>>, indexes: &[_]| ProcessSpec {
            name: name.into(),
            component: component.into(),
            node: None,
            node_bound: false,
            shells,
            indexes: indexes.to_vec(),
            throttle: None,
        };
        let kcm = spec(
            KCM,
            super::COMPONENT,
            super::shells(&super::Flags::default()),
            super::INDEXES,
        );
        let attacher = attacher::shells(DRIVER, &attacher::Flags::default());
        let attacher = spec(ATTACHER, "csi-attacher", attacher, attacher::INDEXES);
        let (kcm, attacher) = (cluster.add_process(kcm), cluster.add_process(attacher));
        let mut bench = Bench {
            cluster,
            kcm,
            attacher,
            origin: Time::ZERO,
        };
        bench.node("node-a");
        bench.node("node-b");
        bench.volume("vol", "h", "data", "ReadWriteOnce");
        bench.cluster.start(kcm);
        bench.cluster.start(attacher);
        bench.run(1000).await;
        bench
    }

    /// The story begins here.
    pub fn mark(&mut self) {
        self.origin = self.cluster.now();
    }

    /// Lets time pass, in milliseconds.
    pub async fn run(&mut self, milliseconds: u64) {
        self.cluster.run_for(Duration::from_millis(milliseconds)).await;
    }

    pub fn create(&mut self, kind: Kind, json: Value) {
        self.cluster.create(Object::from_json(kind, json).unwrap()).unwrap();
    }

    /// Patches an object or its status as its owner would.
    pub fn patch(&mut self, kind: Kind, namespace: &str, name: &str, status: bool, patch: Value) {
        let target = ObjectRef::new(kind, ObjKey::new(namespace, name));
        let patch = Patch::new(target, vec![Edit::Merge(patch)]);
        let patch = Patch { status, ..patch };
        self.cluster.apply(&Write::Patch(patch)).unwrap();
    }

    /// Deletes an object at once.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let mut delete = Delete::new(ObjectRef::new(kind, ObjKey::new(namespace, name)));
        delete.grace_seconds = Some(0);
        self.cluster.apply(&Write::Delete(delete)).unwrap();
    }

    pub fn node(&mut self, name: &str) {
        self.create(
            Kind::Node,
            json!({"metadata": {"name": name, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}),
        );
        self.ready(name, "True");
        self.create(
            Kind::CSINode,
            json!({"metadata": {"name": name}, "spec": {"drivers": [{"name": DRIVER, "nodeID": name, "topologyKeys": null}]}}),
        );
    }

    pub fn ready(&mut self, node: &str, status: &str) {
        let conditions = json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        self.patch(Kind::Node, "", node, true, conditions);
    }

    /// A bound pair of volume and claim.
    pub fn volume(&mut self, volume: &str, handle: &str, claim: &str, mode: &str) {
        let resources = json!({"requests": {"storage": "1Gi"}});
        self.create(
            Kind::PersistentVolumeClaim,
            json!({"metadata": {"name": claim, "namespace": "default",
                "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"accessModes": [mode], "resources": resources, "storageClassName": "x", "volumeName": volume}}),
        );
        let key = ObjKey::new("default", claim);
        let uid = self
            .cluster
            .object(Kind::PersistentVolumeClaim, &key)
            .unwrap()
            .uid()
            .to_owned();
        self.create(
            Kind::PersistentVolume,
            json!({"metadata": {"name": volume, "finalizers": ["kubernetes.io/pv-protection"]},
                "spec": {"accessModes": [mode], "capacity": {"storage": "1Gi"}, "storageClassName": "x",
                "claimRef": {"namespace": "default", "name": claim, "uid": uid},
                "csi": {"driver": DRIVER, "volumeHandle": handle, "volumeAttributes": {"k": "v"}}}}),
        );
        let bound = json!({"status": {"phase": "Bound"}});
        self.patch(Kind::PersistentVolumeClaim, "default", claim, true, bound);
    }

    /// A pod on a node that uses a claim.
    pub fn pod(&mut self, name: &str, node: &str, claim: &str) {
        self.create(
            Kind::Pod,
            json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "pause"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}}),
        );
    }

    /// What kubelet says it uses, by handle.
    pub fn in_use(&mut self, node: &str, handles: &[&str]) {
        let names: Vec<String> = handles.iter().map(|h| unique(h)).collect();
        let names = if names.is_empty() { Value::Null } else { json!(names) };
        self.patch(Kind::Node, "", node, true, json!({"status": {"volumesInUse": names}}));
    }

    /// The attachments, `node attached?`.
    pub fn attachments(&self) -> Vec<String> {
        let all = self.cluster.api().list::<VolumeAttachment>();
        let mut all: Vec<String> = all
            .map(|a| {
                let attached = a.status.as_ref().is_some_and(|s| s.attached);
                format!("{} {attached}", a.spec.node_name)
            })
            .collect();
        all.sort();
        all
    }
}

/// The unique name of a handle.
pub(crate) fn unique(handle: &str) -> String {
    crate::api::names::unique_volume_name(DRIVER, handle)
}

/// What the two processes did since `origin`: milliseconds, who, what, how it went.
fn story(trace: &Trace, origin: Time) -> Vec<String> {
    let mut told = Vec::new();
    for record in trace
        .records()
        .iter()
        .filter(|r| r.at >= origin && &*r.process != "kubectl")
    {
        let what = match &record.what {
            What::Write { write, result, .. } => {
                let code = result.as_ref().map_or_else(|e| e.code.to_string(), |_| "ok".into());
                write_line(write, &code)
            }
            What::Call { .. } | What::Machine { .. } => continue,
            What::Reply { call, result, .. } => {
                let code = result
                    .as_ref()
                    .map_or_else(|s| format!("{:?}", s.code()), |_| "OK".into());
                format!("{} {code}", call.request.method())
            }
            What::Process(change) => format!("{change:?}"),
            What::Fault(text) | What::Step(text) => text.clone(),
        };
        told.push(format!(
            "{} {} {what}",
            record.at.since(origin).as_millis(),
            record.process
        ));
    }
    told
}

fn write_line(write: &Write, code: &str) -> String {
    let target = write.target();
    let detail = match write {
        Write::Create(Object::Event(event)) => {
            return format!(
                "event {} {}",
                event.reason.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default()
            );
        }
        Write::Patch(patch) => match patch.edits.as_slice() {
            [Edit::Merge(json)] => format!(" {json}"),
            [Edit::VolumesAttached(volumes)] => {
                let names: Vec<&str> = volumes.iter().map(|v| v.name.as_str()).collect();
                format!(" attached {names:?}")
            }
            [Edit::EventSeen { count, .. }] => return format!("event again {count}"),
            other => format!(" {other:?}"),
        },
        _ => String::new(),
    };
    let subject = match target.kind {
        Kind::VolumeAttachment => "va".to_owned(),
        kind => format!("{} {}", kind.short(), target.key.name),
    };
    let part = write.subresource().map_or(String::new(), |s| format!("/{s}"));
    format!("{} {subject}{part}{detail} {code}", write.verb())
}
