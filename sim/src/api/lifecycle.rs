//! How objects end, and how a pod gets its node.
//!
//! ```text
//! present ──DELETE, no finalizers──────────────────────────────────────► gone
//!    │                                                                     ▲
//!    ├──DELETE, finalizers──► deleting (grace 0) ──last finalizer removed──┤
//!    │                              ▲                                      │
//!    └──DELETE of a running pod──► terminating (grace n) ──DELETE grace 0──┘
//! ```
//!
//! A DELETE with grace 0 of a pod is two transactions, as recorded from the real server: watchers see MODIFIED with grace 0, then DELETED.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use std::sync::Arc;

use crate::runtime::Time;

use super::fields;
use super::object::{Kind, ObjKey, Object, ObjectRef};
use super::server::{ApiServer, Context};
use super::write::{ApiError, Delete, Written};

impl ApiServer {
    /// DELETE.
    pub(super) fn delete(&mut self, context: Context<'_>, delete: &Delete) -> Result<Written, ApiError> {
        let target = &delete.target;
        let stored = self.stored(target)?;
        if let Some(uid) = delete.uid.as_deref().filter(|uid| *uid != stored.uid()) {
            return Err(ApiError::other_uid(target, uid, stored.uid()));
        }
        if let Some(version) = delete.version.filter(|version| *version != stored.version()) {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
                stored.version()
            );
            return Err(ApiError::conflict(target, why));
        }
        Ok(match &stored {
            Object::Pod(pod) if stored.meta().deletion_timestamp.is_none() => {
                let grace = first_grace(pod, delete.grace_seconds);
                self.terminate(context, &stored, context.now + seconds(grace), grace)
            }
            Object::Pod(_) if stored.meta().deletion_grace_period_seconds.is_some_and(|g| g > 0) => {
                self.shorten(context, &stored, delete.grace_seconds)
            }
            _ => self.delete_now(context, &stored),
        })
    }

    /// Begins or shortens the termination of a pod; with grace 0 it ends there unless finalizers hold it.
    fn terminate(&mut self, context: Context<'_>, stored: &Object, at: Time, grace: i64) -> Written {
        let mut pod = stored.clone();
        let key = pod.key();
        let meta = pod.meta_mut();
        if meta.deletion_timestamp.is_none() {
            meta.generation = meta.generation.map(|g| g + 1);
        }
        meta.deletion_timestamp = Some(self.clock.time(at));
        meta.deletion_grace_period_seconds = Some(grace);
        let written = self.put(context, &key, pod);
        if grace > 0 || !fields::finalizers(written.object.meta()).is_empty() {
            return written;
        }
        self.remove(context, &written.object)
    }

    /// A repeated DELETE can only bring the end nearer.
    fn shorten(&mut self, context: Context<'_>, stored: &Object, asked: Option<i64>) -> Written {
        let meta = stored.meta();
        let granted = meta.deletion_grace_period_seconds.unwrap_or(0);
        let asked = asked.unwrap_or(granted).max(0);
        let (Some(end), true) = (&meta.deletion_timestamp, asked < granted) else {
            return unchanged(stored);
        };
        let began = Time(self.clock.moment(end).0.saturating_sub(nanos(granted)));
        let end = began + seconds(asked);
        // Never into the past: then it ends now, within the shortest grace there is.
        let late = end < context.now;
        let grace = if late && asked > 0 { 1 } else { asked };
        self.terminate(context, stored, end.max(context.now), grace)
    }

    /// Deletes what needs no grace: at once, or as soon as its finalizers are gone.
    fn delete_now(&mut self, context: Context<'_>, stored: &Object) -> Written {
        let held = !fields::finalizers(stored.meta()).is_empty() || matches!(stored, Object::Namespace(_));
        if !held {
            return self.remove(context, stored);
        }
        if stored.meta().deletion_grace_period_seconds == Some(0) {
            return unchanged(stored);
        }
        let mut object = stored.clone();
        let key = object.key();
        if let Object::Namespace(namespace) = &mut object {
            let status = Arc::make_mut(namespace).status.get_or_insert_default();
            status.phase = Some("Terminating".into());
        }
        let meta = object.meta_mut();
        meta.generation = meta.generation.map(|g| g + 1);
        meta.deletion_timestamp.get_or_insert(self.clock.time(context.now));
        meta.deletion_grace_period_seconds = Some(0);
        self.put(context, &key, object)
    }

    fn remove(&mut self, context: Context<'_>, stored: &Object) -> Written {
        let last = self.store.remove(context.by, stored.kind(), &stored.key());
        Written {
            object: last.expect("the caller just read it"),
            changed: true,
        }
    }

    /// POST of a pod's binding: sets the node, once.
    pub(super) fn bind(
        &mut self,
        context: Context<'_>,
        key: &ObjKey,
        uid: Option<&str>,
        node: &str,
    ) -> Result<Written, ApiError> {
        let target = ObjectRef::new(Kind::Pod, key.clone());
        let Some(stored) = self.store.get::<Pod>(key).map(Arc::clone) else {
            return Err(ApiError::not_found(&target));
        };
        let stored_uid = fields::uid(&stored.metadata);
        if let Some(uid) = uid.filter(|uid| *uid != stored_uid) {
            return Err(ApiError::other_uid(&target, uid, stored_uid));
        }
        let refuse = |why: String| ApiError {
            code: 409,
            reason: "Conflict",
            message: format!("Operation cannot be fulfilled on pods/binding \"{}\": {why}", key.name),
        };
        if fields::is_deleting(&stored.metadata) {
            return Err(refuse(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                key.name
            )));
        }
        let present = fields::pod_node(&stored);
        if !present.is_empty() {
            return Err(refuse(format!(
                "pod {} is already assigned to node \"{present}\"",
                key.name
            )));
        }
        let mut pod = Pod::clone(&stored);
        pod.spec.get_or_insert_default().node_name = Some(node.into());
        let status = pod.status.get_or_insert_default();
        status.nominated_node_name = None;
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != "PodScheduled");
        conditions.push(PodCondition {
            type_: "PodScheduled".into(),
            status: "True".into(),
            last_transition_time: Some(self.clock.time(context.now)),
            ..Default::default()
        });
        Ok(self.put(context, key, Object::new(pod)))
    }
}

fn unchanged(stored: &Object) -> Written {
    Written {
        object: stored.clone(),
        changed: false,
    }
}

/// The grace of a first DELETE: what the caller asks, else the pod's own; none for a pod that no kubelet runs.
fn first_grace(pod: &Pod, asked: Option<i64>) -> i64 {
    if fields::pod_node(pod).is_empty() || fields::is_terminated(pod) {
        return 0;
    }
    let own = pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    match asked.or(own).unwrap_or(0) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn nanos(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0).saturating_mul(1_000_000_000)
}
