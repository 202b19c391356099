//! One detach: make sure that the node does not use the volume, delete the VolumeAttachment, wait until it is gone.
//!
//! ```text
//!           not in use,           deleted
//! Verify ──── no node ──► Delete ─────────► Poll ──gone──────────────────────────► absent
//!    │ (skipped when       │   │            │ ▲ └─status.detachError, 2 min─┐
//!    │  detach is forced)  │   └──was gone already: done                    ▼
//!    └──in use, no answer──┴──refused──────────────────────────────────► Uncertain
//! ```
//!
//! A failed detach tells nobody. It leaves the attachment uncertain and out of the node's `volumesAttached` (fact sheet 4.5). Deleting again what is being
//! deleted changes nothing and is done at every retry (trace 21b).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use crate::api::{ApiError, Cache, Delete, Kind, ObjKey, ObjectRef, Read, ReadAnswer, Write, fields};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;

use super::attach::{Ended, timed_out};
use super::desired::Place;
use super::poll::{Look, Poll, Polling, Verdict};

/// A detach at work.
#[derive(Clone, Debug)]
pub struct Detach {
    /// What leaves where.
    pub place: Place,
    attachment: String,
    step: Step,
}

#[derive(Clone, Debug)]
enum Step {
    Verify,
    Delete,
    Poll(Poll),
    Over(Ended),
}

impl Detach {
    /// Begins, with a last look at the node unless it is forced. `None` if the volume is not CSI's.
    pub fn new(place: Place, verify: bool) -> Option<Detach> {
        let attachment = place.attachment()?;
        Some(Detach {
            place,
            attachment,
            step: if verify { Step::Verify } else { Step::Delete },
        })
    }

    /// What next?
    pub fn decide(&self, cache: &Cache, polling: &Polling, now: Time) -> Effect {
        match &self.step {
            Step::Verify => Effect::Read(Read::Get(ObjectRef::new(
                Kind::Node,
                ObjKey::cluster(Arc::clone(&self.place.node)),
            ))),
            Step::Delete => {
                let target = ObjectRef::new(Kind::VolumeAttachment, ObjKey::cluster(self.attachment.as_str()));
                Effect::write(Write::Delete(Delete::new(target)))
            }
            Step::Over(_) => Effect::Note("detach is over"),
            Step::Poll(poll) => match poll.look(polling, self.verdict(cache), now) {
                Look::Wait(wait) => Effect::Wait(wait),
                Look::See(Verdict::Done) => Effect::Note("detached"),
                Look::See(_) => Effect::Note("detach failed"),
                Look::TimedOut => Effect::Note("detach timed out"),
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
        let verdict = self.verdict(cache);
        match (&mut self.step, effect) {
            (Step::Verify, _) => self.step = self.verified(outcome.read()),
            (Step::Delete, _) => self.step = deleted(outcome.written().err(), now),
            (Step::Poll(poll), Effect::Wait(_)) => poll.waited(),
            (Step::Poll(poll), _) => {
                let look = poll.look(polling, verdict, now);
                return Some(self.ended(look));
            }
            (Step::Over(ended), _) => return Some(ended.clone()),
        }
        None
    }

    fn verified(&self, answer: Result<&ReadAnswer, &ApiError>) -> Step {
        let node: Option<&Arc<Node>> = match answer {
            Ok(ReadAnswer::Object(object)) => object.get(),
            Ok(ReadAnswer::List(_)) => None,
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                let why = format!("DetachVolume failed fetching node from API server: {error}");
                return Step::Over(Ended::Failed(why));
            }
        };
        let in_use = node.is_some_and(|n| fields::volumes_in_use(n).iter().any(|v| **v == *self.place.volume));
        if in_use {
            return Step::Over(Ended::Failed(
                "volume is still in use by node, according to Node status".into(),
            ));
        }
        Step::Delete
    }

    fn verdict(&self, cache: &Cache) -> Verdict {
        let Some(attachment) = cache.named::<VolumeAttachment>(&self.attachment) else {
            return Verdict::Done;
        };
        let error = attachment.status.as_ref().and_then(|s| s.detach_error.as_ref());
        error.map_or(Verdict::Pending, |e| {
            Verdict::Failed(e.message.clone().unwrap_or_default())
        })
    }

    fn ended(&self, look: Look) -> Ended {
        match look {
            Look::See(Verdict::Done) => Ended::Done,
            Look::See(Verdict::Failed(message)) => Ended::Failed(message),
            Look::TimedOut => {
                let (driver, handle) = self.place.driver_and_handle().unwrap_or_default();
                Ended::Failed(timed_out(driver, "detach", handle))
            }
            other => unreachable!("{other:?} does not end a detach"),
        }
    }
}

fn deleted(error: Option<&ApiError>, now: Time) -> Step {
    match error {
        None => Step::Poll(Poll::begin(now)),
        Some(e) if e.is_not_found() => Step::Over(Ended::Done),
        Some(e) => Step::Over(Ended::Failed(format!(
            "kubernetes.io/csi: detacher.Detach failed to delete VolumeAttachment: {e}"
        ))),
    }
}
