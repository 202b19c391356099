//! Statistics of volumes: NodeGetVolumeStats for each mounted volume of a pod, every 60 to 120 s (fact sheet 6.13).
//!
//! ```text
//! wait for the node's next minute ─► per volume: Query ─► Call ─► … ─► wait 60..120 s ─►
//! ```
//!
//! Errors are only logged. The staging path is not sent.
//!
//! *Blind spots.* The volume condition in the answer is ignored, as kubelet does without the gate CSIVolumeHealth.

use std::collections::VecDeque;
use std::sync::Arc;

use wavetank_proto::csi::v1 as csi;

use super::csi_client::{self, NodeRpc};
use super::volume::{PodRef, VolumeSpec};
use super::{Key, Turn, View};
use crate::control::{Effect, Outcome};
use crate::runtime::Time;

/// The calculator of one pod.
#[derive(Clone, Debug)]
pub struct Calculator {
    at: Time,
    nth: u64,
    round: Option<Round>,
}

#[derive(Clone, Debug)]
struct Round {
    todo: VecDeque<Arc<VolumeSpec>>,
    /// The driver was asked and has GET_VOLUME_STATS.
    capable: bool,
    deadline: Time,
}

/// A pod's volumes are mounted: its calculator begins at the node's next minute, unless it runs already.
pub fn watch(turn: &mut Turn<'_>, key: &PodRef) {
    let Some(loops) = turn.memory.loops else {
        return;
    };
    let at = turn.now.tick(loops.stats, turn.kubelet.flags.volume_stats_agg_period);
    let fresh = Calculator {
        at,
        nth: 0,
        round: None,
    };
    turn.memory.stats.entry(key.clone()).or_insert(fresh);
    turn.queue.add(Key::Stats(key.clone()));
}

/// What next for a pod's statistics?
pub fn decide(view: &View<'_>, key: &PodRef) -> Effect {
    let Some(calculator) = view.memory.stats.get(key) else {
        return Effect::Rest;
    };
    let Some(round) = &calculator.round else {
        return if calculator.at > view.now {
            Effect::RestUntil(calculator.at)
        } else {
            Effect::Note("round")
        };
    };
    let Some(spec) = round.todo.front() else {
        return Effect::Note("round is over");
    };
    let left = round.deadline.since(view.now);
    if !round.capable {
        return csi_client::ask(&spec.driver, left);
    }
    let request = csi::NodeGetVolumeStatsRequest {
        volume_id: spec.handle.clone(),
        volume_path: view.kubelet.paths().stats(spec, key),
        staging_target_path: String::new(),
    };
    csi_client::call(&spec.driver, request, left)
}

/// What did that teach?
pub fn learn(turn: &mut Turn<'_>, key: &PodRef, effect: &Effect, outcome: &Outcome) {
    let deadline = turn.now + turn.kubelet.constants.csi_timeout;
    let Some(calculator) = turn.memory.stats.get_mut(key) else {
        return;
    };
    match (effect, &mut calculator.round) {
        (Effect::Note(_), None) => {
            let plugins = &turn.memory.plugins;
            let mounts = turn.memory.actual.mounted_for(key);
            let todo: VecDeque<_> = mounts
                .filter(|(_, m)| plugins.is_registered(&m.spec.driver))
                .map(|(_, m)| Arc::clone(&m.spec))
                .collect();
            if turn.memory.actual.has_possibly_mounted(key) {
                calculator.round = Some(Round {
                    todo,
                    capable: false,
                    deadline,
                });
            } else {
                turn.memory.stats.remove(key);
            }
        }
        (Effect::Note(_), Some(_)) => {
            calculator.nth += 1;
            let name = ["kubelet", &*turn.kubelet.node, "stats-round", &*key.uid];
            let jitter = turn.kubelet.chance.unit(&name, calculator.nth);
            calculator.at = turn.now + turn.kubelet.flags.volume_stats_agg_period.mul_f64(1.0 + jitter);
            calculator.round = None;
        }
        (_, Some(round)) if !round.capable => {
            round.capable = csi_client::has(outcome, NodeRpc::GetVolumeStats).unwrap_or(false);
            if !round.capable {
                next(round, deadline);
            }
        }
        (_, Some(round)) => next(round, deadline),
        (_, None) => {}
    }
}

fn next(round: &mut Round, deadline: Time) {
    round.todo.pop_front();
    (round.capable, round.deadline) = (false, deadline);
}
