//! Compares the attachments with what the driver lists as published, once a minute, if the driver can tell (fact sheet 5.5).
//!
//! ```text
//! Idle ──tick──► List ──page, next_token──► List … ──last page──► Compare ──► Idle
//!                  └──────────error or out of time──────────────────────────────┘
//! ```
//!
//! An attachment that disagrees is synced by force: published again though its status says attached, unpublished again though it is being deleted and
//! released. A volume that is not in the listing counts as not published.
//!
//! *Blind spots.* While the driver has no attachment at all the real one lists volumes all the same and then does nothing with them; here it does not ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::storage::v1::VolumeAttachment;
use wavetank_proto::csi::v1 as csi;

use crate::api::{Cache, fields};
use crate::control::{Effect, Learner, Outcome};
use crate::link::CsiReply;
use crate::runtime::Time;
use crate::sidecars::connect::{ControllerRpc, Discovered};

use super::attachment::{is_attached, node_id, volume};
use super::{Attacher, Key, Memory};

/// One round of listing.
#[derive(Clone, Debug)]
pub(super) struct Round {
    began: Time,
    token: String,
    published: BTreeMap<String, BTreeSet<String>>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    List,
    Compare,
    Failed,
}

/// Whether the driver can tell where its volumes are published.
pub(super) fn can_tell(driver: &Discovered) -> bool {
    driver.controller(ControllerRpc::PublishUnpublishVolume)
        && driver.controller(ControllerRpc::ListVolumes)
        && driver.controller(ControllerRpc::ListVolumesPublishedNodes)
}

impl Attacher {
    pub(super) fn decide_reconcile(&self, cache: &Cache, memory: &Memory, now: Time) -> Effect {
        let driver = &memory.connection.discovered;
        if !can_tell(driver) {
            return Effect::Rest;
        }
        let Some(round) = &memory.round else {
            return match memory.next_round {
                _ if !self.has_attachments(cache, driver) => Effect::Rest,
                Some(next) if next > now => Effect::RestUntil(next),
                _ => Effect::Note("reconcile"),
            };
        };
        let left = (round.began + self.flags.timeout).since(now);
        match round.state {
            State::List if left.is_zero() => Effect::Note("out of time"),
            State::List => {
                let request = csi::ListVolumesRequest {
                    max_entries: self.flags.max_entries,
                    starting_token: round.token.clone(),
                };
                self.dial.call_within(request, left)
            }
            State::Compare => Effect::Note("compare"),
            State::Failed => Effect::Note("listing failed"),
        }
    }

    pub(super) fn learn_reconcile(&self, memory: &mut Memory, outcome: &Outcome, then: &mut Learner<'_, Key>) {
        let Some(round) = &mut memory.round else {
            memory.round = Some(Round {
                began: then.now,
                token: String::new(),
                published: BTreeMap::new(),
                state: State::List,
            });
            return;
        };
        match (round.state, outcome) {
            (State::List, Outcome::Reply(Ok(CsiReply::ListVolumes(page)))) => round.take(page),
            (State::List, Outcome::Reply(_)) => round.state = State::Failed,
            (State::Compare, _) => {
                self.compare(memory, then);
                self.round_over(memory, then.now);
            }
            (State::List | State::Failed, _) => self.round_over(memory, then.now),
        }
    }

    fn round_over(&self, memory: &mut Memory, now: Time) {
        memory.round = None;
        memory.next_round = Some(now + self.flags.reconcile_sync);
    }

    fn compare(&self, memory: &mut Memory, then: &mut Learner<'_, Key>) {
        let Some(round) = &memory.round else { return };
        let driver = &memory.connection.discovered;
        let ours = then.cache.list::<VolumeAttachment>();
        let ours = ours.filter(|a| *a.spec.attacher == *driver.name);
        let disagrees = |attachment: &&Arc<VolumeAttachment>| {
            let node = node_id(then.cache, &driver.name, &attachment.spec.node_name, Some(attachment));
            let volume = volume(then.cache, attachment);
            let (Ok(node), Some((_, handle))) = (node, volume.ok().and_then(|v| fields::volume_handle(v))) else {
                return false;
            };
            let published = round.published.get(handle).is_some_and(|nodes| nodes.contains(&node));
            published != is_attached(attachment)
        };
        let found: Vec<Arc<str>> = ours
            .filter(disagrees)
            .map(|a| fields::name(&a.metadata).into())
            .collect();
        for name in found {
            memory.forced.insert(Arc::clone(&name));
            then.queue.add(Key::Attachment(name));
        }
    }

    pub(super) fn has_attachments(&self, cache: &Cache, driver: &Discovered) -> bool {
        cache
            .list::<VolumeAttachment>()
            .any(|a| *a.spec.attacher == *driver.name)
    }
}

impl Round {
    fn take(&mut self, page: &csi::ListVolumesResponse) {
        for entry in &page.entries {
            let id = entry.volume.as_ref().map(|v| v.volume_id.clone()).unwrap_or_default();
            let nodes = entry.status.iter().flat_map(|s| s.published_node_ids.iter().cloned());
            self.published.entry(id).or_default().extend(nodes);
        }
        self.token.clone_from(&page.next_token);
        if self.token.is_empty() {
            self.state = State::Compare;
        }
    }
}
