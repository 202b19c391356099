//! A test bench for one sidecar: its shells and cache, a modelled API server, a driver that answers from a script, and fixed latencies. What happens is logged as one word
//! or two per line, so that a test can compare it with a recorded trace.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use serde_json::Value;
use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;

use crate::api::{
    ApiError, ApiServer, Cache, Change, Clock, Delete, Edit, Index, Kind, ObjKey, Object, ObjectRef, Patch, Resource,
    Write, Written,
};
use crate::control::{AnyShell, Effect, Outcome};
use crate::link::{Call, CallError, CsiReply, CsiRequest};
use crate::runtime::Time;
use crate::sidecars::connect::{ControllerRpc, PluginService};

/// What the driver answers.
pub type Answer = Result<CsiReply, CallError>;
type Driver = Box<dyn FnMut(&CsiRequest) -> Answer>;

/// An error of the driver.
pub fn refuses(code: Code) -> Answer {
    Err(CallError {
        status: Status::new(code, "injected"),
        disconnected: false,
    })
}

/// The driver is gone.
pub fn gone() -> Answer {
    Err(CallError {
        status: Status::unavailable("connection refused"),
        disconnected: true,
    })
}

/// The answer of a plugin with these services.
pub fn plugin_capabilities(services: &[PluginService]) -> CsiReply {
    let capability = |service: &PluginService| csi::PluginCapability {
        r#type: Some(csi::plugin_capability::Type::Service(csi::plugin_capability::Service {
            r#type: *service as i32,
        })),
    };
    CsiReply::GetPluginCapabilities(csi::GetPluginCapabilitiesResponse {
        capabilities: services.iter().map(capability).collect(),
    })
}

/// The answer of a controller with these capabilities.
pub fn controller_capabilities(rpcs: &[ControllerRpc]) -> CsiReply {
    let capability = |rpc: &ControllerRpc| csi::ControllerServiceCapability {
        r#type: Some(csi::controller_service_capability::Type::Rpc(
            csi::controller_service_capability::Rpc { r#type: *rpc as i32 },
        )),
    };
    CsiReply::ControllerGetCapabilities(csi::ControllerGetCapabilitiesResponse {
        capabilities: rpcs.iter().map(capability).collect(),
    })
}

enum Happening {
    Apply {
        shell: usize,
        token: u64,
        write: Box<Write>,
    },
    Return {
        shell: usize,
        token: u64,
        outcome: Outcome,
    },
    Deliver(Box<Change>),
}

/// One sidecar process and its surroundings.
pub struct Bench {
    /// The API server.
    pub server: ApiServer,
    /// Now.
    pub now: Time,
    /// What happened: CSI methods (`CreateVolume`, with `!Code` when refused), writes (`patch pvc/status`), events (`+Reason`).
    pub log: Vec<String>,
    /// The same with the moment in milliseconds.
    pub times: Vec<(u64, String)>,
    /// Every CSI request.
    pub calls: Vec<CsiRequest>,
    /// Why the process exited.
    pub exit: Option<String>,
    /// From applying a write to its delivery.
    pub watch: Duration,
    shells: Vec<Box<dyn AnyShell>>,
    cache: Cache,
    driver: Driver,
    agenda: BTreeMap<(Time, u64), Happening>,
    asked: u64,
}

const APPLY: Duration = Duration::from_micros(2000);
const RETURN: Duration = Duration::from_micros(1500);

impl Bench {
    /// A process that is not yet started.
    pub fn new(
        shells: Vec<Box<dyn AnyShell>>,
        indexes: &[Index],
        driver: impl FnMut(&CsiRequest) -> Answer + 'static,
    ) -> Bench {
        Bench {
            server: ApiServer::new(Clock::EPOCH),
            now: Time::ZERO,
            log: Vec::new(),
            times: Vec::new(),
            calls: Vec::new(),
            exit: None,
            watch: Duration::from_micros(1200),
            shells,
            cache: Cache::new(indexes),
            driver: Box::new(driver),
            agenda: BTreeMap::new(),
            asked: 0,
        }
    }

    /// Replaces the driver.
    pub fn drive(&mut self, driver: impl FnMut(&CsiRequest) -> Answer + 'static) {
        self.driver = Box::new(driver);
    }

    /// The process starts: its informers are filled, every object is noticed.
    pub fn start(&mut self) {
        self.server.drain_changes(&mut Vec::new());
        let kinds = Kind::ALL.iter().copied();
        let watched: Vec<Kind> = kinds
            .filter(|k| self.shells.iter().any(|s| s.kinds().contains(k)))
            .collect();
        for kind in watched {
            let objects: Vec<Object> = self.server.objects(kind).cloned().collect();
            for delta in self.cache.replace(kind, objects) {
                for shell in self.shells.iter_mut().filter(|s| s.kinds().contains(&kind)) {
                    shell.notice(&self.cache, &delta, self.now);
                }
            }
        }
        for shell in &mut self.shells {
            shell.start(&self.cache, self.now);
        }
        self.pump();
    }

    /// The process dies and starts again.
    pub fn restart(&mut self) {
        self.shells.iter_mut().for_each(|s| s.forget_everything());
        self.cache.clear();
        self.agenda.clear();
        self.exit = None;
        self.start();
    }

    fn at(&mut self, later: Duration, happening: Happening) {
        self.asked += 1;
        self.agenda.insert((self.now + later, self.asked), happening);
    }

    fn note(&mut self, line: String) {
        self.times.push((self.now.as_millis(), line.clone()));
        self.log.push(line);
    }

    /// What happened since the last time.
    pub fn take_log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The moments in milliseconds of one kind of line.
    pub fn moments(&self, line: &str) -> Vec<u64> {
        self.times.iter().filter(|(_, l)| l == line).map(|(t, _)| *t).collect()
    }

    fn pump(&mut self) {
        for shell in 0..self.shells.len() {
            let pumped = self.shells[shell].pump(&mut self.cache, self.now);
            for record in pumped.records {
                self.note(format!("+{}", record.reason));
                self.times.push((self.now.as_millis(), format!("  {}", record.message)));
            }
            for request in pumped.requests {
                self.perform(shell, request.token, Effect::clone(&request.effect));
            }
            if pumped.exit.is_some() {
                self.exit = pumped.exit;
            }
        }
    }

    fn perform(&mut self, shell: usize, token: u64, effect: Effect) {
        match effect {
            Effect::Write(write) => self.at(
                APPLY,
                Happening::Apply {
                    shell,
                    token,
                    write: Box::new(write),
                },
            ),
            Effect::Read(read) => {
                let outcome = Outcome::Read(self.server.read(&read));
                self.at(APPLY, Happening::Return { shell, token, outcome });
            }
            Effect::Call(call) => self.call(shell, token, *call),
            Effect::Wait(pause) => self.at(
                pause,
                Happening::Return {
                    shell,
                    token,
                    outcome: Outcome::Done,
                },
            ),
            other => panic!("a sidecar has no effect {other:?}"),
        }
    }

    fn call(&mut self, shell: usize, token: u64, call: Call) {
        let answer = (self.driver)(&call.request);
        let method = call.request.method();
        match &answer {
            Ok(_) => self.note(method.into()),
            Err(error) => self.note(format!("{method}!{:?}", error.code())),
        }
        self.calls.push(call.request);
        let outcome = Outcome::Reply(answer);
        self.at(APPLY, Happening::Return { shell, token, outcome });
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Apply { shell, token, write } => {
                let result = self.server.write("sidecar", &write, self.now);
                let refused = result
                    .as_ref()
                    .err()
                    .map(|e| format!(" {}", e.code))
                    .unwrap_or_default();
                let status = write.subresource().map(|s| format!("/{s}")).unwrap_or_default();
                let (verb, kind) = (write.verb(), write.target().kind.short());
                self.note(format!("{verb} {kind}{status}{refused}"));
                self.publish();
                let outcome = Outcome::Written(result);
                self.at(RETURN, Happening::Return { shell, token, outcome });
            }
            Happening::Return { shell, token, outcome } => {
                self.shells[shell].outcome(&mut self.cache, token, &outcome, self.now);
            }
            Happening::Deliver(change) => {
                let Some(delta) = self.cache.apply(&change) else { return };
                let kind = delta.kind();
                for shell in self.shells.iter_mut().filter(|s| s.kinds().contains(&kind)) {
                    shell.notice(&self.cache, &delta, self.now);
                }
            }
        }
    }

    fn publish(&mut self) {
        let mut changes = Vec::new();
        self.server.drain_changes(&mut changes);
        let watched =
            |c: &Change, shells: &[Box<dyn AnyShell>]| shells.iter().any(|s| s.kinds().contains(&c.object.kind()));
        changes.retain(|c| watched(c, &self.shells));
        for change in changes {
            self.at(self.watch, Happening::Deliver(Box::new(change)));
        }
    }

    /// Lets this much time pass.
    pub fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.exit.is_none() {
            let first = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let due = self.shells.iter().filter_map(|s| s.next_due()).min();
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

    /// Lets milliseconds pass.
    pub fn run_ms(&mut self, milliseconds: u64) {
        self.run(Duration::from_millis(milliseconds));
    }

    /// Somebody else writes; watchers are told.
    pub fn write(&mut self, write: &Write) -> Result<Written, ApiError> {
        let result = self.server.write("user", write, self.now);
        self.publish();
        result
    }

    /// Somebody creates an object from JSON; its status is written too.
    pub fn create(&mut self, kind: Kind, json: Value) -> Object {
        let status = json.get("status").cloned();
        let object = Object::from_json(kind, json).expect("the test's JSON fits the kind");
        let made = self
            .write(&Write::Create(object))
            .expect("the object is well-formed")
            .object;
        if let Some(status) = status {
            self.patch_status(&made.to_ref(), serde_json::json!({"status": status}));
        }
        self.server.object(kind, &made.key()).expect("just made").clone()
    }

    /// Somebody merges a patch into an object.
    pub fn patch(&mut self, target: &ObjectRef, patch: Value) {
        let patch = Patch::new(target.clone(), vec![Edit::Merge(patch)]);
        self.write(&Write::Patch(patch)).expect("the patch fits");
    }

    /// Somebody merges a patch into the status of an object.
    pub fn patch_status(&mut self, target: &ObjectRef, patch: Value) {
        let patch = Patch::status(target.clone(), vec![Edit::Merge(patch)]);
        self.write(&Write::Patch(patch)).expect("the patch fits");
    }

    /// Somebody deletes an object.
    pub fn delete(&mut self, target: &ObjectRef) {
        self.write(&Write::Delete(Delete::new(target.clone())))
            .expect("it is there");
    }

    /// An object as the server has it.
    pub fn get<T: Resource>(&self, key: &ObjKey) -> &T {
        self.server.get::<T>(key).expect("the object is there")
    }
}

/// Compares what happened with a script of lines.
#[track_caller]
pub fn assert_lines<T: AsRef<str> + Debug>(happened: &[T], script: &str) {
    let happened: Vec<&str> = happened.iter().map(AsRef::as_ref).collect();
    let script: Vec<&str> = script.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(happened, script);
}
