//! One kubelet at a bench: its shell, a modelled API server, a machine in memory, a driver that does as it is told, and a hand in place of the attach-detach
//! controller. What happens is logged, a word or two per line with its moment, so that a test reads as a script.

mod block;
mod expanding;
mod failing;
mod mounting;
mod node;
mod pods;
mod registering;
mod restarting;
mod telling;
mod unmounting;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;

use super::csi_client::NodeRpc;
use super::testing::{DRIVER, NODE};
use super::{Constants, Flags, INDEXES, shells};
use crate::api::{
    ApiServer, Cache, Change, Clock, Delete, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Resource, Write, names,
};
use crate::control::{AnyShell, Effect, Outcome, PluginInfo, RegistrationOp, Signal};
use crate::link::{Call, CallError, CsiReply, CsiRequest, MachineOp};
use crate::runtime::{Chance, Time};
use node::TestNode;

/// What the driver does instead of what it is asked for.
#[derive(Clone, Debug, PartialEq)]
enum Fault {
    /// Answers this and does nothing.
    Refuse(Code),
    /// Does it and answers this.
    Lose(Code),
    /// Never answers, and does nothing.
    Hang,
    /// Nobody is there.
    Gone,
}

enum Happening {
    Apply(u64, Box<Write>),
    Return(u64, Outcome),
    Deliver(Box<Change>),
}

/// One kubelet and its surroundings.
pub struct Bench {
    /// The API server.
    pub server: ApiServer,
    /// Now.
    pub now: Time,
    /// The machine.
    pub node: TestNode,
    /// The capabilities of the driver's node service.
    pub rpcs: Vec<NodeRpc>,
    /// What NodeGetInfo says.
    pub info: csi::NodeGetInfoResponse,
    /// Who is behind the plugin sockets.
    pub plugin: PluginInfo,
    /// Every CSI request.
    pub requests: Vec<CsiRequest>,
    /// Machine operations.
    pub ops: Vec<String>,
    log: Vec<(Time, String)>,
    messages: Vec<String>,
    faults: BTreeMap<&'static str, (Fault, u32)>,
    shell: Box<dyn AnyShell>,
    cache: Cache,
    agenda: BTreeMap<(Time, u64), Happening>,
    asked: u64,
    up: bool,
}

const APPLY: Duration = Duration::from_micros(2000);
const RETURN: Duration = Duration::from_micros(1500);
const WATCH: Duration = Duration::from_micros(1200);
const CALL: Duration = Duration::from_millis(2);
const MACHINE: Duration = Duration::from_micros(100);
const CONTAINERS: Duration = Duration::from_millis(150);
/// The socket of the driver's registrar.
pub const SOCKET: &str = "/var/lib/kubelet/plugins_registry/hostpath.csi.k8s.io-reg.sock";

impl Bench {
    /// A node with a registered driver that can stage, and a bound claim `data` of 1 GiB: a kubelet that has run for some seconds.
    pub fn new() -> Bench {
        let mut bench = Bench::bare();
        bench.server_objects();
        bench.start();
        bench.signal(&Signal::SocketCreated(SOCKET.into()));
        bench.run_ms(4000);
        bench
    }

    /// A kubelet that does not run yet, and no objects but its driver's.
    pub fn bare() -> Bench {
        let chance = Chance::new(0);
        let mut shells = shells(NODE, &Flags::default(), &Constants::default(), &chance);
        Bench {
            server: ApiServer::new(Clock::EPOCH),
            now: Time::ZERO,
            node: TestNode::default(),
            rpcs: vec![NodeRpc::StageUnstageVolume, NodeRpc::ExpandVolume],
            info: csi::NodeGetInfoResponse {
                node_id: "node-a-id".into(),
                ..Default::default()
            },
            plugin: PluginInfo {
                name: DRIVER.into(),
                endpoint: "/csi.sock".into(),
                versions: vec!["1.0.0".into()],
            },
            requests: Vec::new(),
            ops: Vec::new(),
            log: Vec::new(),
            messages: Vec::new(),
            faults: BTreeMap::new(),
            shell: shells.pop().expect("kubelet has one controller"),
            cache: Cache::new(INDEXES),
            agenda: BTreeMap::new(),
            asked: 0,
            up: false,
        }
    }

    fn server_objects(&mut self) {
        self.create(Kind::CSIDriver, csi_driver(json!({})));
        self.create(Kind::Node, json!({"metadata": {"name": NODE, "labels": {"zone": "a"}}}));
        let class = json!({"metadata": {"name": "x"}, "provisioner": DRIVER, "allowVolumeExpansion": true});
        self.create(Kind::StorageClass, class);
        self.volume("data", "pvc-1", "h-1", json!({}));
    }

    /// A bound claim and its volume.
    pub fn volume(&mut self, claim: &str, name: &str, handle: &str, more: Value) {
        let made = self.create(
            Kind::PersistentVolumeClaim,
            json!({
                "metadata": {"name": claim, "namespace": "default"},
                "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x",
                    "volumeMode": more.get("volumeMode").cloned().unwrap_or("Filesystem".into())},
                "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
            }),
        );
        let uid = made.meta().uid.clone();
        let mut volume = json!({
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "x",
                "claimRef": {"namespace": "default", "name": claim, "uid": uid},
                "csi": {"driver": DRIVER, "volumeHandle": handle},
            },
        });
        merge(&mut volume["spec"], more);
        self.create(Kind::PersistentVolume, volume);
    }

    /// A pod of this node that mounts claims, named by the claim.
    pub fn pod(&mut self, name: &str, claims: &[&str]) -> String {
        self.pod_like(name, claims, json!({}))
    }

    /// The same, with more in its spec. Answers the UID.
    pub fn pod_like(&mut self, name: &str, claims: &[&str], more: Value) -> String {
        let mounts: Vec<Value> = claims
            .iter()
            .map(|c| json!({"name": c, "mountPath": format!("/{c}")}))
            .collect();
        let volume = |c: &&str| json!({"name": c, "persistentVolumeClaim": {"claimName": c}});
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": NODE, "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "busybox", "volumeMounts": mounts}],
                "volumes": claims.iter().map(volume).collect::<Vec<_>>(),
            },
        });
        merge(&mut pod["spec"], more);
        let made = self.create(Kind::Pod, pod);
        made.meta().uid.clone().expect("the server gives UIDs")
    }

    /// The attach-detach controller attaches a volume.
    pub fn attach(&mut self, volume: &str, handle: &str) {
        let name = names::attachment_name(DRIVER, handle, NODE);
        self.create(
            Kind::VolumeAttachment,
            json!({
                "metadata": {"name": name},
                "spec": {"attacher": DRIVER, "nodeName": NODE, "source": {"persistentVolumeName": volume}},
                "status": {"attached": true, "attachmentMetadata": {"slot": "7"}},
            }),
        );
        let attached = json!([{"name": names::unique_volume_name(DRIVER, handle), "devicePath": ""}]);
        self.patch_status(&node_ref(), json!({"status": {"volumesAttached": attached}}));
    }

    /// A pod on an attached volume that runs.
    pub fn running(&mut self, name: &str) -> String {
        let uid = self.pod(name, &["data"]);
        self.attach("pvc-1", "h-1");
        self.run_ms(12_000);
        assert!(self.node.running.contains(&uid), "{:#?}", self.lines());
        self.forget();
        uid
    }

    /// The process starts: its informers are filled, every object is noticed.
    pub fn start(&mut self) {
        self.server.drain_changes(&mut Vec::new());
        for kind in self.shell.kinds() {
            let objects = self.server.objects(*kind).filter(|o| is_seen(o)).cloned().collect();
            for delta in self.cache.replace(*kind, objects) {
                self.shell.notice(&self.cache, &delta, self.now);
            }
        }
        self.up = true;
        self.shell.start(&self.cache, self.now);
        self.pump();
    }

    /// The process dies. The machine, its containers and the driver go on.
    pub fn kill(&mut self) {
        self.shell.forget_everything();
        self.cache.clear();
        self.agenda.clear();
        self.up = false;
    }

    /// It dies and starts again, with the socket of its driver still there.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
        self.signal(&Signal::SocketCreated(SOCKET.into()));
    }

    /// Something else reaches the process.
    pub fn signal(&mut self, signal: &Signal) {
        self.shell.signal(signal, self.now);
        self.pump();
    }

    /// The driver misbehaves at the next calls of a method.
    fn fault(&mut self, method: &'static str, fault: Fault, times: u32) {
        self.faults.insert(method, (fault, times));
    }

    fn heal(&mut self) {
        self.faults.clear();
    }

    fn at(&mut self, later: Duration, happening: Happening) {
        self.asked += 1;
        self.agenda.insert((self.now + later, self.asked), happening);
    }

    fn note(&mut self, line: String) {
        self.log.push((self.now, line));
    }

    fn pump(&mut self) {
        let pumped = self.shell.pump(&mut self.cache, self.now);
        for record in pumped.records {
            self.note(format!("+{}", record.reason));
            self.messages.push(record.message.to_string());
        }
        for request in pumped.requests {
            self.perform(request.token, &request.effect);
        }
        assert_eq!(pumped.exit, None, "kubelet does not exit");
    }

    fn perform(&mut self, token: u64, effect: &Effect) {
        match effect {
            Effect::Write(write) => self.at(APPLY, Happening::Apply(token, Box::new(write.clone()))),
            Effect::Read(read) => {
                let outcome = Outcome::Read(self.server.read(read));
                self.at(APPLY, Happening::Return(token, outcome));
            }
            Effect::Call(call) => self.call(token, call),
            Effect::Machine(op) => {
                let answer = self.node.perform(op);
                self.ops.push(format!("{op:?}"));
                let time = match op {
                    MachineOp::StartPod(_) | MachineOp::StopPod { .. } => CONTAINERS,
                    _ => MACHINE,
                };
                self.at(time, Happening::Return(token, Outcome::Machine(answer)));
            }
            Effect::Registration(op) => {
                let answer = match op {
                    RegistrationOp::GetInfo { .. } => Ok(Some(self.plugin.clone())),
                    RegistrationOp::Notify { error, .. } => {
                        self.note(error.as_ref().map_or("notify".into(), |_| "notify error".into()));
                        self.messages.extend(error.clone());
                        Ok(None)
                    }
                    other => panic!("kubelet does not do {other:?}"),
                };
                self.at(MACHINE, Happening::Return(token, Outcome::Registration(answer)));
            }
            Effect::Wait(pause) => self.at(*pause, Happening::Return(token, Outcome::Done)),
            other => panic!("kubelet has no effect {other:?}"),
        }
    }

    fn call(&mut self, token: u64, call: &Call) {
        let method = call.request.method();
        self.requests.push(call.request.clone());
        let fault = self.faults.get_mut(method).filter(|(_, times)| *times > 0);
        let fault = fault.map(|(fault, times)| {
            *times -= 1;
            fault.clone()
        });
        let refuse = |code, disconnected| {
            let status = Status::new(code, "injected");
            Err(CallError { status, disconnected })
        };
        let (took, answer) = match fault {
            None => {
                self.node.drive(&call.request);
                (CALL, Ok(self.reply(&call.request)))
            }
            Some(Fault::Refuse(code)) => (CALL, refuse(code, false)),
            Some(Fault::Lose(code)) => {
                self.node.drive(&call.request);
                (CALL, refuse(code, false))
            }
            Some(Fault::Hang) => (call.timeout, refuse(Code::DeadlineExceeded, false)),
            Some(Fault::Gone) => (CALL, refuse(Code::Unavailable, true)),
        };
        match &answer {
            Ok(_) => self.note(method.into()),
            Err(error) => self.note(format!("{method}!{:?}", error.code())),
        }
        self.at(took, Happening::Return(token, Outcome::Reply(answer)));
    }

    fn reply(&self, request: &CsiRequest) -> CsiReply {
        match request {
            CsiRequest::NodeGetCapabilities(_) => capabilities(&self.rpcs),
            CsiRequest::NodeGetInfo(_) => CsiReply::NodeGetInfo(self.info.clone()),
            CsiRequest::NodeStageVolume(_) => CsiReply::NodeStageVolume(csi::NodeStageVolumeResponse {}),
            CsiRequest::NodeUnstageVolume(_) => CsiReply::NodeUnstageVolume(csi::NodeUnstageVolumeResponse {}),
            CsiRequest::NodePublishVolume(_) => CsiReply::NodePublishVolume(csi::NodePublishVolumeResponse {}),
            CsiRequest::NodeUnpublishVolume(_) => CsiReply::NodeUnpublishVolume(csi::NodeUnpublishVolumeResponse {}),
            CsiRequest::NodeExpandVolume(_) => CsiReply::NodeExpandVolume(Default::default()),
            CsiRequest::NodeGetVolumeStats(_) => CsiReply::NodeGetVolumeStats(Default::default()),
            other => panic!("kubelet does not call {}", other.method()),
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Apply(token, write) => {
                let result = self.server.write("kubelet", &write, self.now);
                let refused = result
                    .as_ref()
                    .err()
                    .map(|e| format!(" {}", e.code))
                    .unwrap_or_default();
                let status = write.subresource().map(|s| format!("/{s}")).unwrap_or_default();
                let (verb, kind) = (write.verb(), write.target().kind.short());
                self.note(format!("{verb} {kind}{status}{refused}"));
                self.publish();
                self.at(RETURN, Happening::Return(token, Outcome::Written(result)));
            }
            Happening::Return(token, outcome) => self.shell.outcome(&mut self.cache, token, &outcome, self.now),
            Happening::Deliver(change) => {
                if let Some(delta) = self.cache.apply(&change) {
                    self.shell.notice(&self.cache, &delta, self.now);
                }
            }
        }
    }

    fn publish(&mut self) {
        let mut changes = Vec::new();
        self.server.drain_changes(&mut changes);
        changes.retain(|c| self.up && self.shell.kinds().contains(&c.object.kind()) && is_seen(&c.object));
        for change in changes {
            self.at(WATCH, Happening::Deliver(Box::new(change)));
        }
    }

    /// Lets milliseconds pass.
    pub fn run_ms(&mut self, milliseconds: u64) {
        let until = self.now + Duration::from_millis(milliseconds);
        loop {
            let first = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let due = self.shell.next_due().filter(|_| self.up);
            let Some(next) = first.into_iter().chain(due).min().filter(|t| *t <= until) else {
                break;
            };
            self.now = self.now.max(next);
            if first == Some(next) {
                let (_, happening) = self.agenda.pop_first().expect("it was just seen");
                self.happen(happening);
            }
            self.pump();
        }
        self.now = until;
    }

    /// Somebody else writes; watchers are told.
    pub fn write(&mut self, write: &Write) -> Object {
        let result = self.server.write("user", write, self.now);
        self.publish();
        result.expect("the write is well-formed").object
    }

    /// Somebody creates an object from JSON; its status is written too.
    pub fn create(&mut self, kind: Kind, json: Value) -> Object {
        let status = json.get("status").cloned();
        let object = Object::from_json(kind, json).expect("the test's JSON fits the kind");
        let made = self.write(&Write::Create(object));
        if let Some(status) = status {
            self.patch_status(&made.to_ref(), json!({"status": status}));
        }
        self.server.object(kind, &made.key()).expect("just made").clone()
    }

    /// Somebody merges a patch into an object.
    pub fn patch(&mut self, target: &ObjectRef, patch: Value) {
        self.write(&Write::Patch(Patch::new(target.clone(), vec![Edit::Merge(patch)])));
    }

    /// Somebody merges a patch into the status of an object.
    pub fn patch_status(&mut self, target: &ObjectRef, patch: Value) {
        self.write(&Write::Patch(Patch::status(target.clone(), vec![Edit::Merge(patch)])));
    }

    /// Somebody deletes a pod; with `Some(0)` at once.
    pub fn delete_pod(&mut self, name: &str, grace: Option<i64>) {
        let mut delete = Delete::new(ObjectRef::new(Kind::Pod, ObjKey::new("default", name)));
        delete.grace_seconds = grace;
        self.write(&Write::Delete(delete));
    }

    /// An object as the server has it.
    pub fn get<T: Resource>(&self, key: &ObjKey) -> Option<&T> {
        self.server.get::<T>(key).map(|object| &**object)
    }

    /// Whether the API server has a pod.
    pub fn has_pod(&self, name: &str) -> bool {
        self.server.object(Kind::Pod, &ObjKey::new("default", name)).is_some()
    }

    /// What happened since the last time, without moments.
    pub fn lines(&self) -> Vec<&str> {
        self.log.iter().map(|(_, line)| line.as_str()).collect()
    }

    /// The calls of a volume's life since the last time, with the codes of refused ones.
    pub fn life(&self) -> Vec<&str> {
        const LIFE: [&str; 5] = ["NodeStage", "NodeUnstage", "NodePublish", "NodeUnpublish", "NodeExpand"];
        let ours = |line: &&str| LIFE.iter().any(|method| line.starts_with(method));
        self.lines().into_iter().filter(ours).collect()
    }

    /// The moments of one kind of line, in milliseconds.
    pub fn moments(&self, line: &str) -> Vec<u64> {
        self.log
            .iter()
            .filter(|(_, l)| l == line)
            .map(|(t, _)| t.as_millis())
            .collect()
    }

    /// The pauses between lines of one kind, in milliseconds.
    pub fn pauses(&self, line: &str) -> Vec<u64> {
        self.moments(line).windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// How often a line happened.
    pub fn count(&self, line: &str) -> usize {
        self.moments(line).len()
    }

    /// Whether an event or a registrar was told something with this text.
    pub fn was_told(&self, text: &str) -> bool {
        self.messages.iter().any(|m| m.contains(text))
    }

    /// The log begins anew.
    pub fn forget(&mut self) {
        self.log.clear();
        self.messages.clear();
        self.requests.clear();
        self.ops.clear();
    }

    /// The volumes that the Node says it uses.
    pub fn in_use(&self) -> Vec<String> {
        let node = self.get::<k8s_openapi::api::core::v1::Node>(&ObjKey::cluster(NODE));
        node.map(|n| crate::api::fields::volumes_in_use(n).to_vec())
            .unwrap_or_default()
    }
}

fn is_seen(object: &Object) -> bool {
    match object {
        Object::Pod(pod) => pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(NODE),
        Object::Node(node) => node.metadata.name.as_deref() == Some(NODE),
        _ => true,
    }
}

/// The reference of this kubelet's Node.
pub fn node_ref() -> ObjectRef {
    ObjectRef::new(Kind::Node, ObjKey::cluster(NODE))
}

/// The reference of a claim in `default`.
pub fn claim_ref(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolumeClaim, ObjKey::new("default", name))
}

/// The reference of a volume.
pub fn volume_ref(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::PersistentVolume, ObjKey::cluster(name))
}

/// The driver's object, with changes in its spec.
pub fn csi_driver(more: Value) -> Value {
    let mut driver = json!({
        "metadata": {"name": DRIVER},
        "spec": {"attachRequired": true, "podInfoOnMount": true, "fsGroupPolicy": "File", "volumeLifecycleModes": ["Persistent", "Ephemeral"]},
    });
    merge(&mut driver["spec"], more);
    driver
}

fn merge(into: &mut Value, more: Value) {
    let Value::Object(more) = more else { return };
    for (key, value) in more {
        into[key] = value;
    }
}

fn capabilities(rpcs: &[NodeRpc]) -> CsiReply {
    use csi::node_service_capability::{Rpc, Type};
    let capability = |rpc: &NodeRpc| csi::NodeServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: *rpc as i32 })),
    };
    CsiReply::NodeGetCapabilities(csi::NodeGetCapabilitiesResponse {
        capabilities: rpcs.iter().map(capability).collect(),
    })
}
