//! One attach: write a VolumeAttachment, wait for the external-attacher to make it true.
//!
//! ```text
//! Create ──written, or there already──► Poll ──status.attached──────────────► Attached, told to the pods
//!    │                                  │ ▲ └─being deleted, status.attachError, 2 min─┐
//!    │ refused                          └─┘ not yet                                     ▼
//!    └────────────────────────────────────────────────────────────────────► Uncertain, told to the pods
//! ```
//!
//! The attachment is read and never written again: it is the external-attacher's, whose retries run on a clock of their own. So an error may be stale,
//! and an attach that fails here may succeed there a moment later (fact sheet 4.4; trace 21b). A failed attach leaves the VolumeAttachment where it is.

use std::sync::Arc;

use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec, VolumeAttachmentStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{ApiError, Cache, EventRecord, Object, Write, fields};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;

use super::desired::{Place, PodRef, Spec};
use super::poll::{Look, Poll, Polling, Verdict};

/// An attach at work.
#[derive(Clone, Debug)]
pub struct Attach {
    /// What goes where.
    pub place: Place,
    /// The volume.
    pub spec: Arc<Spec>,
    /// The pods that waited for it when it began: they are told.
    pub pods: Vec<PodRef>,
    attachment: String,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Create,
    Poll(Poll),
    Refused(String),
}

/// How an attach or detach ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As wished.
    Done,
    /// With this error.
    Failed(String),
}

impl Attach {
    /// Begins.
    pub fn new(place: Place, spec: Arc<Spec>, pods: Vec<PodRef>) -> Attach {
        let attachment = crate::api::names::attachment_name(&spec.driver, &spec.handle, &place.node);
        Attach {
            place,
            spec,
            pods,
            attachment,
            step: Step::Create,
        }
    }

    /// What next?
    pub fn decide(&self, cache: &Cache, polling: &Polling, now: Time) -> Effect {
        match &self.step {
            Step::Create if self.seen(cache).is_some() => Effect::Note("the attachment is there"),
            Step::Create => Effect::write(Write::Create(self.object())),
            Step::Poll(_) | Step::Refused(_) => match self.look(cache, polling, now) {
                Look::Wait(wait) => Effect::Wait(wait),
                Look::See(Verdict::Done) => Effect::Note("attached"),
                Look::See(_) => Effect::Note("attach failed"),
                Look::TimedOut => Effect::Note("attach timed out"),
            },
        }
    }

    /// What did that teach? `Some` ends the operation.
    pub fn learn(
        &mut self,
        cache: &Cache,
        polling: &Polling,
        effect: &Effect,
        outcome: &Outcome,
        now: Time,
    ) -> Option<Ended> {
        match (&mut self.step, effect) {
            (Step::Create, Effect::Note(_)) => self.step = Step::Poll(Poll::begin(now)),
            (Step::Create, _) => self.step = created(outcome.written().err(), now),
            (Step::Poll(poll), Effect::Wait(_)) => poll.waited(),
            (Step::Poll(_) | Step::Refused(_), _) => return Some(self.ended(self.look(cache, polling, now))),
        }
        None
    }

    fn look(&self, cache: &Cache, polling: &Polling, now: Time) -> Look {
        match &self.step {
            Step::Poll(poll) => poll.look(polling, verdict(self.seen(cache)), now),
            Step::Refused(message) => Look::See(Verdict::Failed(message.clone())),
            Step::Create => Look::See(Verdict::Pending),
        }
    }

    fn ended(&self, look: Look) -> Ended {
        match look {
            Look::See(Verdict::Done) => Ended::Done,
            Look::See(Verdict::Failed(message)) => Ended::Failed(message),
            Look::TimedOut => Ended::Failed(timed_out(&self.spec.driver, "attach", &self.spec.handle)),
            other => unreachable!("{other:?} does not end an attach"),
        }
    }

    /// What the pods are told of its end.
    pub fn events(&self, ended: &Ended) -> Vec<EventRecord> {
        let volume = &self.spec.pv;
        let (warning, reason, message) = match ended {
            Ended::Done => (
                false,
                "SuccessfulAttachVolume",
                format!("AttachVolume.Attach succeeded for volume \"{volume}\" "),
            ),
            Ended::Failed(error) => (
                true,
                "FailedAttachVolume",
                format!("AttachVolume.Attach failed for volume \"{volume}\" : {error}"),
            ),
        };
        self.pods
            .iter()
            .map(|pod| pod.event(warning, reason, message.clone()))
            .collect()
    }

    fn seen<'a>(&self, cache: &'a Cache) -> Option<&'a Arc<VolumeAttachment>> {
        cache.named(&self.attachment)
    }

    fn object(&self) -> Object {
        Object::new(VolumeAttachment {
            metadata: ObjectMeta {
                name: Some(self.attachment.clone()),
                ..Default::default()
            },
            spec: VolumeAttachmentSpec {
                attacher: self.spec.driver.to_string(),
                node_name: self.place.node.to_string(),
                source: VolumeAttachmentSource {
                    inline_volume_spec: None,
                    persistent_volume_name: Some(self.spec.pv.to_string()),
                },
            },
            status: Some(VolumeAttachmentStatus::default()),
        })
    }
}

fn created(error: Option<&ApiError>, now: Time) -> Step {
    match error {
        None => Step::Poll(Poll::begin(now)),
        Some(e) if e.is_already_exists() => Step::Poll(Poll::begin(now)),
        Some(e) => Step::Refused(format!("kubernetes.io/csi: attacher.Attach failed: {e}")),
    }
}

fn verdict(seen: Option<&Arc<VolumeAttachment>>) -> Verdict {
    // Written a moment ago and not seen yet, or somebody took it away: both look the same.
    let Some(attachment) = seen else {
        return Verdict::Pending;
    };
    if fields::is_deleting(&attachment.metadata) {
        return Verdict::Failed("volume attachment is being deleted".into());
    }
    let Some(status) = &attachment.status else {
        return Verdict::Pending;
    };
    match &status.attach_error {
        _ if status.attached => Verdict::Done,
        Some(error) => Verdict::Failed(error.message.clone().unwrap_or_default()),
        None => Verdict::Pending,
    }
}

/// The error of an operation whose VolumeAttachment did not come true in time.
pub(super) fn timed_out(driver: &str, what: &str, handle: &str) -> String {
    format!("timed out waiting for external-attacher of {driver} CSI driver to {what} volume {handle}")
}
