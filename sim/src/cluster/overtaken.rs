//! Calls that are overtaken: they left their caller, the connection broke, and they arrive behind calls that were sent after them.
//!
//! A call arrives as soon as another one about the same object, of another kind or for another place (node, target), is answered OK, or after its time. Its repeats
//! may come before it. A call that undoes it, or that it would undo, ends it: it never arrives. No driver can tell an old wish from a new one, and CSI leaves it to the
//! CO not to have both under way (*Concurrency*). A call whose driver is down when it should arrive ends as well. What the driver answers goes nowhere.

use std::sync::Arc;
use std::time::Duration;

use super::acts::Act;
use super::{Cluster, Who};
use crate::link::{Call, CsiRequest};
use crate::trace::{Met, Record, What};

/// How far behind another call it arrives.
const BEHIND: Duration = Duration::from_millis(1);

/// A call on its way.
pub(super) struct Overtaken {
    who: Who,
    call: Arc<Call>,
    object: String,
}

impl Cluster {
    /// A call is held back for so long, or until another one overtakes it.
    pub(super) fn hold_call_back(&mut self, id: u64, who: Who, call: &Arc<Call>, met: &Met, by: Duration) {
        let Some((_, _, object, _)) = met.first() else { return };
        let overtaken = Overtaken {
            who,
            call: Arc::clone(call),
            object: object.to_owned(),
        };
        self.overtaken.insert(id, overtaken);
        self.act_later(by, Act::Arrive(id));
    }

    /// A call is sent: its opposite arrives no more.
    pub(super) fn end_opposites(&mut self, call: &Call, met: &Met) {
        let Some((_, _, object, _)) = met.first().filter(|_| !self.overtaken.is_empty()) else {
            return;
        };
        self.overtaken.retain(|_, held| {
            !(held.object == object
                && held.call.driver == call.driver
                && is_opposite(&held.call.request, &call.request))
        });
    }

    /// A call was answered OK: it has overtaken those that are held back.
    pub(super) fn overtake(&mut self, call: &Call, met: &Met) {
        let Some((_, _, object, _)) = met.first().filter(|_| !self.overtaken.is_empty()) else {
            return;
        };
        let other = |held: &Overtaken| {
            held.object == object && held.call.driver == call.driver && !is_repeat(&held.call.request, &call.request)
        };
        let behind: Vec<u64> = self
            .overtaken
            .iter()
            .filter(|(_, held)| other(held))
            .map(|(id, _)| *id)
            .collect();
        for id in behind {
            self.act_later(BEHIND, Act::Arrive(id));
        }
    }

    /// A call that was held back reaches its driver, if that lives.
    pub(super) fn arrive(&mut self, id: u64) {
        let Some(Overtaken { who, call, object }) = self.overtaken.remove(&id) else {
            return;
        };
        let process = Arc::clone(&self.processes[who.process.0 as usize].name);
        if self.bring_late(id, who, &call) {
            let text = format!("{} {object} arrives only now", call.request.method());
            self.trace.push(Record {
                at: self.board.now(),
                process,
                what: What::Fault(text),
            });
        }
    }
}

/// Where on its object a request does something: the node, or the path on it.
fn place(request: &CsiRequest) -> &str {
    match request {
        CsiRequest::NodeStageVolume(r) => &r.staging_target_path,
        CsiRequest::NodeUnstageVolume(r) => &r.staging_target_path,
        CsiRequest::NodePublishVolume(r) => &r.target_path,
        CsiRequest::NodeUnpublishVolume(r) => &r.target_path,
        other => other.node_id().unwrap_or_default(),
    }
}

fn is_repeat(one: &CsiRequest, other: &CsiRequest) -> bool {
    one.method() == other.method() && place(one) == place(other)
}

/// Whether one undoes the other.
fn is_opposite(one: &CsiRequest, other: &CsiRequest) -> bool {
    const PAIRS: [[&str; 2]; 5] = [
        ["CreateVolume", "DeleteVolume"],
        ["CreateSnapshot", "DeleteSnapshot"],
        ["ControllerPublishVolume", "ControllerUnpublishVolume"],
        ["NodeStageVolume", "NodeUnstageVolume"],
        ["NodePublishVolume", "NodeUnpublishVolume"],
    ];
    let (a, b) = (one.method(), other.method());
    let pair = PAIRS
        .iter()
        .any(|[does, undoes]| (a, b) == (does, undoes) || (a, b) == (undoes, does));
    pair && place(one) == place(other)
}
