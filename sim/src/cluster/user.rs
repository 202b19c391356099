//! What the user of a scenario does: kubectl, with no latency of its own.

use std::sync::Arc;

use super::Cluster;
use crate::api::{ApiError, Edit, Kind, ObjKey, Object, Patch, Resource, Write, Written};
use crate::scenario::Manifest;
use crate::trace::{Record, What};

/// The name of the user in traces and audit logs.
pub const USER: &str = "kubectl";

impl Cluster {
    /// Performs a write as the user.
    ///
    /// # Errors
    /// What the API server answers.
    pub fn apply(&mut self, write: &Write) -> Result<Written, ApiError> {
        let by: Arc<str> = Arc::from(USER);
        self.write(&by, USER, write)
    }

    /// Applies a manifest as `kubectl apply` does: creates the object, or merges what is written into the one that is there.
    ///
    /// # Errors
    /// What the API server answers.
    pub fn create_or_merge(&mut self, manifest: &Manifest) -> Result<Written, ApiError> {
        if self.api.object(manifest.kind(), manifest.key()).is_none() {
            return self.create(manifest.object.clone());
        }
        let edit = Edit::Merge(manifest.json.clone());
        self.apply(&Write::Patch(Patch::new(manifest.target.clone(), vec![edit])))
    }

    /// Creates an object as the user.
    ///
    /// # Errors
    /// What the API server answers.
    pub fn create(&mut self, object: Object) -> Result<Written, ApiError> {
        self.apply(&Write::Create(object))
    }

    /// The stored object of `T`'s kind.
    pub fn get<T: Resource>(&self, key: &ObjKey) -> Option<&Arc<T>> {
        self.api.object(T::KIND, key).and_then(Object::get)
    }

    /// The stored object of a kind.
    pub fn object(&self, kind: Kind, key: &ObjKey) -> Option<&Object> {
        self.api.object(kind, key)
    }

    /// Notes a step of the scenario in the trace.
    pub fn note_step(&mut self, text: impl Into<String>) {
        let at = self.now();
        self.trace.push(Record {
            at,
            process: Arc::from(USER),
            what: What::Step(text.into()),
        });
    }
}
