//! The rules of the server, one test per rule, most of them as tables.

mod changing;
mod creating;
mod deleting;
mod fixed;

use std::time::Duration;

use serde_json::{Value, json};

use super::server::ApiServer;
use super::write::{ApiError, Change, ChangeType, Delete, Edit, Patch, Write, Written};
use super::{Clock, Kind, Object};
use crate::runtime::Time;

/// A server and what its watchers saw.
struct Bench {
    server: ApiServer,
    now: Time,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            server: ApiServer::new(Clock::EPOCH),
            now: Time::ZERO,
        }
    }

    fn write(&mut self, write: &Write) -> Result<Written, ApiError> {
        self.server.write("test", write, self.now)
    }

    fn create(&mut self, kind: Kind, json: Value) -> Result<Object, ApiError> {
        let object = Object::from_json(kind, json).expect("the test's JSON fits the kind");
        self.write(&Write::Create(object)).map(|w| w.object)
    }

    fn made(&mut self, kind: Kind, json: Value) -> Object {
        self.create(kind, json).expect("the object is well-formed")
    }

    fn update(&mut self, object: &Object) -> Result<Written, ApiError> {
        self.write(&Write::Update(object.clone()))
    }

    fn patch(&mut self, target: &Object, edits: Vec<Edit>) -> Result<Written, ApiError> {
        self.write(&Write::Patch(Patch::new(target.to_ref(), edits)))
    }

    fn patch_status(&mut self, target: &Object, edits: Vec<Edit>) -> Result<Written, ApiError> {
        self.write(&Write::Patch(Patch::status(target.to_ref(), edits)))
    }

    fn merge(&mut self, target: &Object, patch: Value) -> Result<Written, ApiError> {
        self.patch(target, vec![Edit::Merge(patch)])
    }

    fn delete(&mut self, target: &Object, grace: Option<i64>) -> Result<Written, ApiError> {
        self.write(&Write::Delete(Delete {
            grace_seconds: grace,
            ..Delete::new(target.to_ref())
        }))
    }

    fn stored(&self, target: &Object) -> Option<&Object> {
        self.server.object(target.kind(), &target.key())
    }

    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.server.drain_changes(&mut changes);
        changes
    }

    fn seen(&mut self) -> Vec<ChangeType> {
        self.changes().iter().map(|c| c.change).collect()
    }

    fn after(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    /// A claim that is bound to a volume of 1Gi, of a class that allows expansion.
    fn bound_claim(&mut self) -> Object {
        self.made(Kind::StorageClass, class("fast", json!({"allowVolumeExpansion": true})));
        let claim = self.made(
            Kind::PersistentVolumeClaim,
            claim("data", json!({"storageClassName": "fast"})),
        );
        let status = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        self.patch_status(&claim, vec![Edit::Merge(status)]).unwrap();
        let spec = json!({"spec": {"volumeName": "pv-1"}});
        let bound = self.merge(&claim, spec).unwrap().object;
        self.changes();
        bound
    }
}

fn with(mut base: Value, path: &str, more: Value) -> Value {
    let place = base.pointer_mut(path).expect("the path is in the base");
    let (Value::Object(place), Value::Object(more)) = (place, more) else {
        panic!("both are objects")
    };
    place.extend(more);
    base
}

fn claim(name: &str, spec: Value) -> Value {
    let base = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    with(base, "/spec", spec)
}

fn class(name: &str, more: Value) -> Value {
    with(
        json!({"metadata": {"name": name}, "provisioner": "csi.example.com"}),
        "",
        more,
    )
}

fn volume(name: &str, spec: Value) -> Value {
    let base = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "csi": {"driver": "csi.example.com", "volumeHandle": "h"}}});
    with(base, "/spec", spec)
}

fn pod(name: &str, spec: Value) -> Value {
    let base = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    with(base, "/spec", spec)
}

fn attachment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "attacher": "csi.example.com", "nodeName": "a", "source": {"persistentVolumeName": "pv-1"}}})
}

fn code(result: Result<impl std::fmt::Debug, ApiError>) -> u16 {
    result.map_or_else(|e| e.code, |_| 200)
}
