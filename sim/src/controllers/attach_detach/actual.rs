//! The actual state of the world: what the controller believes to be attached, and what it tells the nodes of it.
//!
//! ```text
//!            attach succeeded                 detach succeeded, or the verify pass missed it
//!  (absent) ───────────────────► Attached ───────────────────────────────────────────────────► (absent)
//!      │                          │   ▲                                                            ▲
//!      │ attach failed,           │   │ attach succeeded                                           │
//!      │ or found at start        │   │                                                            │
//!      └────────────────────► Uncertain ◄── detach failed                                          │
//!                                 └────────────────────────── detach succeeded ────────────────────┘
//! ```
//!
//! An uncertain attachment does not count for Multi-Attach (fact sheet 4.3): so a volume can be attached to a second node while its detachment from
//! the first keeps failing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::AttachedVolume;

use crate::runtime::Time;

use super::desired::{Place, Spec};

/// A volume that is, or may be, attached to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Attached, not just uncertain.
    pub confirmed: bool,
    /// Since when it should be detached.
    pub detach_requested: Option<Time>,
}

/// What is attached.
#[derive(Debug, Default)]
pub struct Actual {
    attachments: BTreeMap<Place, Attachment>,
    /// The same by the name of the VolumeAttachment.
    names: BTreeMap<Arc<str>, Place>,
    /// What is known of the attached volumes. Nothing, when only a node's status named them.
    specs: BTreeMap<Arc<str>, Arc<Spec>>,
    /// What each node is told in its `status.volumesAttached`.
    reports: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// The nodes that were not told yet.
    untold: BTreeSet<Arc<str>>,
    /// `status.volumesInUse` of each node as last seen.
    in_use: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Attachments that are taken to be in use because the node has not said otherwise since they began, by node and volume.
    assumed: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Time>>,
    /// What changed since somebody asked.
    touched: Vec<Place>,
}

impl Actual {
    /// An attachment succeeded (`confirmed`), or may have.
    pub fn mark(&mut self, place: &Place, spec: Option<&Arc<Spec>>, confirmed: bool, now: Time) {
        match spec {
            Some(spec) => drop(self.specs.insert(Arc::clone(&place.volume), Arc::clone(spec))),
            None => drop(self.specs.remove(&place.volume)),
        }
        match self.attachments.get_mut(place) {
            Some(attachment) => attachment.confirmed = confirmed,
            None => {
                let attachment = Attachment {
                    confirmed,
                    detach_requested: None,
                };
                self.attachments.insert(place.clone(), attachment);
                if let Some(name) = place.attachment() {
                    self.names.insert(name.into(), place.clone());
                }
                let assumed = self.assumed.entry(Arc::clone(&place.node)).or_default();
                assumed.insert(Arc::clone(&place.volume), now);
            }
        }
        self.touched.push(place.clone());
        if confirmed {
            self.report(place);
        }
    }

    /// An attachment is gone.
    pub fn remove(&mut self, place: &Place) {
        if self.attachments.remove(place).is_none() {
            return;
        }
        if let Some(name) = place.attachment() {
            self.names.remove(name.as_str());
        }
        if let Some(assumed) = self.assumed.get_mut(&place.node) {
            assumed.remove(&place.volume);
        }
        self.touched.push(place.clone());
        if self.nodes_of(&place.volume).next().is_none() {
            self.specs.remove(&place.volume);
        }
        self.withdraw(place);
    }

    /// An attachment.
    pub fn get(&self, place: &Place) -> Option<&Attachment> {
        self.attachments.get(place)
    }

    /// Whether it is attached for sure.
    pub fn is_attached(&self, place: &Place) -> bool {
        self.get(place).is_some_and(|a| a.confirmed)
    }

    /// The attachment that a VolumeAttachment of this name stands for.
    pub fn named(&self, attachment: &str) -> Option<(&Place, &Attachment)> {
        self.attachments.get_key_value(self.names.get(attachment)?)
    }

    /// What changed since this was last asked.
    pub fn take_touched(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.touched)
    }

    /// All attachments, in order of volume and node.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, &Attachment)> {
        self.attachments.iter()
    }

    /// What is known of a volume that is attached.
    pub fn spec(&self, volume: &str) -> Option<&Arc<Spec>> {
        self.specs.get(volume)
    }

    fn nodes_of<'a>(&'a self, volume: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Attachment)> + use<'a> {
        let from = Place::new(volume, "");
        let entries = self.attachments.range(from..);
        entries
            .take_while(move |(p, _)| &*p.volume == volume)
            .map(|(p, a)| (&p.node, a))
    }

    /// The nodes to which a volume is attached for sure.
    pub fn attached_nodes(&self, volume: &str) -> Vec<Arc<str>> {
        let confirmed = self.nodes_of(volume).filter(|(_, a)| a.confirmed);
        confirmed.map(|(node, _)| Arc::clone(node)).collect()
    }

    /// The attachment should go: its clock runs from the first time this is said.
    pub fn request_detach(&mut self, place: &Place, now: Time) {
        if let Some(attachment) = self.attachments.get_mut(place) {
            attachment.detach_requested.get_or_insert(now);
        }
    }

    /// The attachment is wanted again.
    pub fn reset_detach(&mut self, place: &Place) {
        if let Some(attachment) = self.attachments.get_mut(place) {
            attachment.detach_requested = None;
        }
    }

    /// A node said what it uses: that replaces everything that was known or assumed.
    pub fn set_in_use(&mut self, node: &str, volumes: &[String]) {
        let volumes = volumes.iter().map(|v| Arc::from(v.as_str())).collect();
        self.in_use.insert(node.into(), volumes);
        self.assumed.remove(node);
    }

    /// Whether a node uses a volume, as far as is known.
    pub fn is_in_use(&self, place: &Place) -> bool {
        let said = self.in_use.get(&place.node).is_some_and(|v| v.contains(&place.volume));
        said || self.assumed_since(place).is_some()
    }

    /// When an assumption ends because a healthy node reports itself at least every `report`, even if nothing changed.
    pub fn assumed_until(&self, place: &Place, report: Duration) -> Option<Time> {
        let said = self.in_use.get(&place.node).is_some_and(|v| v.contains(&place.volume));
        self.assumed_since(place).filter(|_| !said).map(|since| since + report)
    }

    fn assumed_since(&self, place: &Place) -> Option<Time> {
        self.assumed.get(&place.node)?.get(&place.volume).copied()
    }

    // What nodes are told.

    /// Reports a volume as attached.
    pub fn report(&mut self, place: &Place) {
        if !self.attachments.contains_key(place) {
            return;
        }
        let report = self.reports.entry(Arc::clone(&place.node)).or_default();
        if report.insert(Arc::clone(&place.volume)) {
            self.untold.insert(Arc::clone(&place.node));
        }
    }

    /// No longer reports a volume as attached: before it is detached, so that kubelet does not mount it any more.
    pub fn withdraw(&mut self, place: &Place) {
        let report = self.reports.get_mut(&place.node);
        if report.is_some_and(|report| report.remove(&place.volume)) {
            self.untold.insert(Arc::clone(&place.node));
        }
    }

    /// The node must be told again, for the write failed or the node is a new one.
    pub fn tell_again(&mut self, node: &str) {
        if let Some((node, _)) = self.reports.get_key_value(node) {
            self.untold.insert(Arc::clone(node));
        }
    }

    /// What to write to a node that was not told yet. It counts as told from now on.
    pub fn take_report(&mut self, node: &str) -> Option<Vec<AttachedVolume>> {
        if !self.untold.remove(node) {
            return None;
        }
        Some(self.reports.get(node)?.iter().map(|name| attached(name)).collect())
    }

    /// The nodes that were not told yet.
    pub fn untold(&self) -> impl Iterator<Item = &Arc<str>> {
        self.untold.iter()
    }
}

fn attached(name: &str) -> AttachedVolume {
    AttachedVolume {
        device_path: String::new(),
        name: name.to_owned(),
    }
}
