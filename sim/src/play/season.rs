//! The shape of a run: storm, healing, calm, and the look at whether all has settled.
//!
//! ```text
//! steps ──────────────► expectations ──► settle ──► settled ──► a while ──► still so?
//!   └ storm ─ heal ─ calm ┘
//! ```
//!
//! What follows the scenario's own end stays in the trace only where a promise breaks there.

use std::time::Duration;

use super::Player;
use crate::cluster::Cluster;
use crate::oracles::unsettled;
use crate::runtime::Time;

/// In the calm everything that is under way must be done after this much virtual time. The longest chain of Kubernetes' own clocks fits in: five minutes
/// until pods of a lost node are evicted, six until its volumes are detached by force, and then one retry each of provisioner, attacher, resizer (capped
/// at five minutes) and kubelet (two minutes).
pub const CALM: Duration = Duration::from_secs(30 * 60);

/// How long all must stay as it is, once settled.
const STAYS: Duration = Duration::from_secs(3 * 60);

/// How often it is asked whether all has settled.
const LOOK: Duration = Duration::from_secs(15);

impl Player<'_> {
    /// The scenario has come to its end: lets everything settle and has the oracles of the calm look. Gives the time of the scenario's own end.
    pub(super) async fn end(&mut self) -> Time {
        self.panel.look(&self.cluster);
        let (end, shown) = (self.now(), self.cluster.trace().records().len());
        let before = self.panel.violations().len();
        if self.failures.is_empty() && !self.panel.is_unsafe() {
            self.settle().await;
        }
        if self.panel.violations().len() == before {
            self.cluster.trace_mut().truncate(shown);
        }
        end
    }

    async fn settle(&mut self) {
        let until = self.now() + CALM;
        while self.now() < until && !is_settled(&self.cluster) {
            self.run_for(LOOK).await;
        }
        self.run_for(STAYS).await;
        self.panel.settle(&self.cluster);
    }
}

fn is_settled(cluster: &Cluster) -> bool {
    unsettled(cluster).is_empty() && cluster.strays().is_empty()
}
