//! What faults do to processes, nodes, storage systems, and to what people own.

use std::time::Duration;

use super::Cluster;
use super::acts::Act;
use crate::faults::Fault;
use crate::scenario::{Process, Role};

/// When somebody taints a node that died, and when it is back.
const DECLARED_DEAD: Duration = Duration::from_secs(60);
const REPAIRED: Duration = Duration::from_secs(420);
/// When a user wants an expansion again.
const SECOND_THOUGHTS: Duration = Duration::from_secs(30);

impl Cluster {
    /// What a fault does, beside what it does to the effect that it strikes. Whom it names was looked up when it was pinned, or when the menu was made.
    pub(super) fn befall(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash { process, down } => self.befall_crash(process, down.map(|down| down.get())),
            Fault::Pause { process, lasts } => self.pause(&process.to_string(), lasts.get()),
            Fault::Restart { process } => {
                let (name, node) = (process.to_string(), process.role == Role::Node);
                let _ = self.stop_named(&name, node);
                self.start_later(&name, node, Duration::ZERO);
            }
            Fault::TwoLeaders { process } => self.depose(&process.to_string()),
            Fault::StaleInformer { process, lasts } => self.blind_named(&process.to_string(), lasts.get(), false),
            Fault::Relist { process, after } => self.blind_named(&process.to_string(), after.get(), true),
            Fault::Outage { lasts } => self.outage(lasts.get()),
            Fault::Partition { node, lasts } => self.partition(node, lasts.get()),
            Fault::PowerLoss { node, torn, down } => {
                self.cut_power(node, *torn);
                self.start_later(&format!("node/{node}"), true, down.get());
            }
            Fault::OutOfService { node } => {
                let _ = self.crash_named(&format!("node/{node}"), true);
                self.act_later(DECLARED_DEAD, Act::Taint(node.clone()));
                self.start_later(&format!("node/{node}"), true, REPAIRED);
                self.act_later(REPAIRED, Act::Untaint(node.clone()));
            }
            Fault::RemoveNode { node, back } => self.remove_node(node, back.map(|back| back.get())),
            Fault::StorageAway { .. } | Fault::StorageFull { .. } | Fault::StaleLists { .. } => {
                self.befall_storage(fault);
            }
            Fault::SlowStorage { by, lasts } => self.desk.slow(self.now() + lasts.get(), by.get()),
            Fault::SkewClock { process, by, back } => self.desk.skew(&process.to_string(), by.get(), *back),
            Fault::FailDevices { .. } | Fault::StaleLink { .. } | Fault::CachedSize { .. } => {
                self.befall_devices(fault);
            }
            Fault::Delete { object } => self.user_deletes(object),
            Fault::Recreate { object } => self.user_recreates(object),
            Fault::ShrinkBack { object } => self.user_shrinks_back(object, SECOND_THOUGHTS),
            Fault::RefuseCall { .. }
            | Fault::DelayCall { .. }
            | Fault::ReorderCall { .. }
            | Fault::DuplicateCall {}
            | Fault::LoseAnswer {}
            | Fault::DelayAnswer { .. }
            | Fault::ReplaceAnswer { .. }
            | Fault::Conflict {}
            | Fault::FailWrite {}
            | Fault::ThrottleWrite { .. }
            | Fault::LoseWriteAnswer {}
            | Fault::FailOperation { .. }
            | Fault::PretendFailure { .. }
            | Fault::SlowOperation { .. } => {}
        }
    }

    /// What befalls the storage systems.
    fn befall_storage(&mut self, fault: &Fault) {
        match fault {
            Fault::StorageAway { lasts } => {
                self.storages()
                    .iter()
                    .for_each(|(_, storage)| storage.set_reachable(false));
                self.act_later(lasts.get(), Act::StorageBack);
            }
            Fault::StorageFull { lasts } => {
                self.storages().iter().for_each(|(_, storage)| storage.set_full(true));
                self.act_later(lasts.get(), Act::StorageHasRoom);
            }
            Fault::StaleLists { lasts } => {
                self.storages()
                    .iter()
                    .for_each(|(_, storage)| storage.set_lagging(true));
                self.act_later(lasts.get(), Act::ListsCatchUp);
            }
            _ => {}
        }
    }

    /// What befalls the devices of a node.
    fn befall_devices(&mut self, fault: &Fault) {
        let Some(machine) = fault.node().and_then(|node| self.machine(node)) else {
            return;
        };
        match fault {
            Fault::FailDevices { node, lasts } => {
                machine.fail_devices(true);
                self.act_later(lasts.get(), Act::DevicesWork(node.clone()));
            }
            Fault::StaleLink { node, lasts } => {
                machine.let_links_stay_behind(true);
                self.act_later(lasts.get(), Act::LinksTurn(node.clone()));
            }
            Fault::CachedSize { node, lasts } => {
                machine.let_sizes_stay_behind(true);
                self.act_later(lasts.get(), Act::SizesShow(node.clone()));
            }
            _ => {}
        }
    }

    fn befall_crash(&mut self, process: &Process, down: Option<Duration>) {
        let (name, node) = (process.to_string(), process.role == Role::Node);
        let _ = self.crash_named(&name, node);
        match (down, node) {
            (Some(down), _) => self.start_later(&name, node, down),
            (None, false) => self.start_later(&name, node, Duration::ZERO),
            (None, true) => {}
        }
    }
}
