//! The end of the storm: everything that a fault or a step of the scenario took away is given back, and nothing strikes any more. What a user began to do
//! again is done; a taint by which somebody declared a node dead is taken off.

use super::process::Liveness;
use super::{Cluster, ProcessId};

impl Cluster {
    /// Ends everything that troubles the cluster: what stands still goes on, what is down starts, injections end, nothing that is pinned strikes. The
    /// chooser is never asked again.
    pub fn heal_all(&mut self) {
        self.desk.close();
        self.go_on_all();
        self.see_all();
        self.act_all();
        let dark: Vec<String> = self
            .machines()
            .filter(|(_, machine)| !machine.is_up())
            .map(|(name, _)| name.to_string())
            .collect();
        for node in dark {
            // The node was listed just now.
            let _ = self.start_named(&format!("node/{node}"), true);
        }
        for driver in self.dead_drivers() {
            self.start_driver(&driver);
        }
        for at in 0..self.processes.len() {
            if self.processes[at].liveness == Liveness::Down {
                self.start(ProcessId(u32::try_from(at).expect("fewer than four billion processes")));
            }
        }
    }
}
