//! Processes of drivers that run outside: how they start, and what happens when one ends by itself.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use wavetank_proto::csi::v1::volume_content_source::Type as Source;

use super::drivers::{Launch, Launching};
use super::{Cluster, Due, Who};
use crate::faults::Fault;
use crate::host::Fate;
use crate::link::{Call, CsiReply, CsiRequest, Elsewhere, Served, Sight, socket};
use crate::scenario::{PlainPhase, Role};
use crate::trace::{ProcessChange, Record, What};

/// From the end of a container until it is started again.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Starts an outside process: virtual time passes first, then the world stands still until it serves.
pub(super) fn launch(process: Arc<socket::Process>, starts_in: Duration) -> Launch {
    Box::new(move |launching| {
        let process = Arc::clone(&process);
        let Launching { lane, board, .. } = launching;
        async move {
            board.turn(lane, starts_in).await;
            process.start()?;
            Ok(Served::Outside(process))
        }
        .boxed()
    })
}

impl Cluster {
    /// The drivers and their machines are not in the tank, but there.
    pub fn stands_around(&mut self, elsewhere: Arc<dyn Elsewhere>) {
        self.elsewhere = Some(elsewhere);
    }

    /// Where the drivers and their machines are, if not in the tank.
    pub fn elsewhere(&self) -> Option<&dyn Elsewhere> {
        self.elsewhere.as_deref()
    }

    /// What of the drivers and their machines can be seen.
    pub fn sight(&self) -> Sight {
        self.elsewhere().map_or(Sight::TANK, Elsewhere::sight)
    }

    /// Whether a fault can strike where the drivers are.
    pub(super) fn can_befall(&self, fault: &Fault) -> bool {
        self.elsewhere().is_none_or(|elsewhere| elsewhere.can(fault))
    }

    /// Whether a fault strikes a process in the middle of what it does: a real process that dies when it has a request, as far as nobody asked for less.
    pub(super) fn is_in_the_middle(&self, fault: &Fault, phase: PlainPhase) -> bool {
        let Fault::Crash { process, .. } = fault else {
            return false;
        };
        let of_driver = matches!(process.role, Role::DriverController | Role::DriverNode);
        self.elsewhere.is_some() && phase == PlainPhase::Received && of_driver
    }

    /// What an answer says about data, where no modelled storage system tells it.
    ///
    /// Blind spot: an answer that was lost says nothing; the driver's next one to the same request does.
    pub(super) fn learn_fate(&mut self, who: Who, call: &Call, reply: &CsiReply) {
        if !self.is_outside(who, call) {
            return;
        }
        let copied = |source: String, copy: &str| Fate::Copied {
            source,
            copy: copy.to_owned(),
        };
        let fate = match (&call.request, reply) {
            (CsiRequest::CreateVolume(asked), CsiReply::CreateVolume(made)) => {
                let source = asked
                    .volume_content_source
                    .as_ref()
                    .and_then(|source| source.r#type.clone());
                let source = source.map(|source| match source {
                    Source::Snapshot(of) => of.snapshot_id,
                    Source::Volume(of) => of.volume_id,
                });
                let made = source.zip(made.volume.as_ref());
                made.map(|(source, made)| copied(source, &made.volume_id))
            }
            (CsiRequest::CreateSnapshot(asked), CsiReply::CreateSnapshot(made)) => made
                .snapshot
                .as_ref()
                .map(|made| copied(asked.source_volume_id.clone(), &made.snapshot_id)),
            (CsiRequest::DeleteVolume(asked), _) => Some(Fate::Deleted(asked.volume_id.clone())),
            (CsiRequest::DeleteSnapshot(asked), _) => Some(Fate::Deleted(asked.snapshot_id.clone())),
            _ => None,
        };
        if let Some(fate) = fate {
            self.data.tell(&call.driver, fate);
        }
    }

    /// A call found nobody behind a socket: if the process has ended by itself, its container is started again.
    pub(super) fn driver_gone(&mut self, at: usize, incarnation: u32) {
        let Some((name, how)) = self.ended_by_itself(at, incarnation) else {
            return;
        };
        let waiting = self.end_driver(at);
        debug_assert!(waiting.is_empty(), "a process that took calls was not starting");
        self.trace.push(Record {
            at: self.board.now(),
            process: Arc::clone(&name),
            what: What::Process(ProcessChange::Exited(how)),
        });
        self.board
            .after(self.user, BACK_OFF, Due::StartNamed(name.to_string(), false));
    }
}
