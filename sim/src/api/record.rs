//! What a process wants to tell users about an object: the input of the event recorder.

use super::object::{Object, ObjectRef};

/// One Kubernetes event, before the recorder counts, aggregates or drops it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRecord {
    /// The object it is about.
    pub regarding: ObjectRef,
    /// The UID of that object.
    pub uid: String,
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// The reason, e.g. `FailedAttachVolume`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// The container of a pod that it is about. Such remarks have a budget of their own, as recorded.
    pub container: Option<String>,
}

impl EventRecord {
    /// A `Normal` event about `object`.
    pub fn normal(object: &Object, reason: &'static str, message: impl Into<String>) -> EventRecord {
        EventRecord {
            regarding: object.to_ref(),
            uid: object.uid().to_owned(),
            warning: false,
            reason,
            message: message.into(),
            container: None,
        }
    }

    /// A `Warning` event about `object`.
    pub fn warning(object: &Object, reason: &'static str, message: impl Into<String>) -> EventRecord {
        EventRecord {
            warning: true,
            ..EventRecord::normal(object, reason, message)
        }
    }
}
