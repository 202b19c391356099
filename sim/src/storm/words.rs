//! Faults in words: their keys in scenarios, and the beginnings of the sentences that traces tell of them.

use std::fmt;

use super::Fault;

impl Fault {
    /// Its key in a scenario: `crash`, `loseAnswer`.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Crash { .. } => "crash",
            Fault::Pause { .. } => "pause",
            Fault::RefuseCall { .. } => "refuseCall",
            Fault::DelayCall { .. } => "delayCall",
            Fault::ReorderCall { .. } => "reorderCall",
            Fault::DuplicateCall {} => "duplicateCall",
            Fault::LoseAnswer {} => "loseAnswer",
            Fault::DelayAnswer { .. } => "delayAnswer",
            Fault::ReplaceAnswer { .. } => "replaceAnswer",
            Fault::Conflict {} => "conflict",
            Fault::FailWrite {} => "failWrite",
            Fault::ThrottleWrite { .. } => "throttleWrite",
            Fault::LoseWriteAnswer {} => "loseWriteAnswer",
            Fault::FailOperation { .. } => "failOperation",
            Fault::PretendFailure { .. } => "pretendFailure",
            Fault::SlowOperation { .. } => "slowOperation",
            Fault::Restart { .. } => "restart",
            Fault::TwoLeaders { .. } => "twoLeaders",
            Fault::StaleInformer { .. } => "staleInformer",
            Fault::Relist { .. } => "relist",
            Fault::Outage { .. } => "outage",
            Fault::PowerLoss { .. } => "powerLoss",
            Fault::Partition { .. } => "partition",
            Fault::OutOfService { .. } => "outOfService",
            Fault::RemoveNode { .. } => "removeNode",
            Fault::StorageAway { .. } => "storageAway",
            Fault::StorageFull { .. } => "storageFull",
            Fault::SlowStorage { .. } => "slowStorage",
            Fault::StaleLists { .. } => "staleLists",
            Fault::StaleLink { .. } => "staleLink",
            Fault::CachedSize { .. } => "cachedSize",
            Fault::Delete { .. } => "delete",
            Fault::Recreate { .. } => "recreate",
            Fault::ShrinkBack { .. } => "shrinkBack",
            Fault::SkewClock { .. } => "skewClock",
            Fault::FailDevices { .. } => "failDevices",
        }
    }
}

/// As the beginning of a sentence that goes on with the site: `crash kubelet/node-1`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Crash { process, down: None } => write!(f, "crash {process}"),
            Fault::Crash {
                process,
                down: Some(down),
            } => write!(f, "crash {process} for {down}"),
            Fault::Pause { process, lasts } => write!(f, "pause {process} for {lasts}"),
            Fault::RefuseCall { code } => write!(f, "answer {code} without the driver"),
            Fault::DelayCall { by } => write!(f, "delay the call by {by}"),
            Fault::ReorderCall { by } => write!(f, "let others overtake the call for {by}"),
            Fault::DuplicateCall {} => f.write_str("double the call"),
            Fault::LoseAnswer {} => f.write_str("lose the answer"),
            Fault::DelayAnswer { by } => write!(f, "delay the answer by {by}"),
            Fault::ReplaceAnswer { code } => write!(f, "replace the answer by {code}"),
            Fault::Conflict {} => f.write_str("answer 409 Conflict"),
            Fault::FailWrite {} => f.write_str("answer 500 without writing"),
            Fault::ThrottleWrite { by } => write!(f, "answer 429, again after {by}"),
            Fault::LoseWriteAnswer {} => f.write_str("write, but answer 500"),
            Fault::FailOperation { trouble } => write!(f, "fail the operation: {trouble}"),
            Fault::PretendFailure { trouble } => write!(f, "let the operation happen and report: {trouble}"),
            Fault::SlowOperation { by } => write!(f, "delay the operation by {by}"),
            Fault::Restart { process } => write!(f, "restart {process}"),
            Fault::TwoLeaders { process } => write!(f, "give {process} a second leader"),
            Fault::StaleInformer { process, lasts } => write!(f, "let {process} see nothing new for {lasts}"),
            Fault::Relist { process, after } => {
                write!(f, "cut the watches of {process}, which lists again after {after}")
            }
            Fault::Outage { lasts } => write!(f, "take the API server away for {lasts}"),
            Fault::PowerLoss { node, torn, down } => {
                let torn = if *torn { ", a write torn" } else { "" };
                write!(f, "cut the power of {node} for {down}{torn}")
            }
            Fault::Partition { node, lasts } => write!(f, "cut {node} off from the API server for {lasts}"),
            Fault::OutOfService { node } => write!(f, "let {node} die and be tainted out-of-service"),
            Fault::RemoveNode { node, back: None } => write!(f, "take {node} out of the cluster"),
            Fault::RemoveNode { node, back: Some(back) } => {
                write!(f, "take {node} out of the cluster, and back after {back}")
            }
            Fault::StorageAway { lasts } => write!(f, "take the management of the storage away for {lasts}"),
            Fault::StorageFull { lasts } => write!(f, "leave the storage without room for {lasts}"),
            Fault::SlowStorage { by, lasts } => write!(f, "slow the storage down by {by} for {lasts}"),
            Fault::StaleLists { lasts } => write!(f, "let the storage list what it had, for {lasts}"),
            Fault::StaleLink { node, lasts } => write!(f, "let links of devices of {node} stay behind for {lasts}"),
            Fault::CachedSize { node, lasts } => write!(f, "let {node} keep sizes of devices for {lasts}"),
            Fault::Delete { object } => write!(f, "let the user delete {object}"),
            Fault::Recreate { object } => write!(f, "let the user delete {object} and create it again"),
            Fault::ShrinkBack { object } => {
                write!(f, "let the user take the expansion of {object} back and want it again")
            }
            Fault::SkewClock { process, by, back } => {
                let back = if *back { "back" } else { "forward" };
                write!(f, "turn the clock of {process} {back} by {by}")
            }
            Fault::FailDevices { node, lasts } => write!(f, "let the volumes' devices on {node} fail for {lasts}"),
        }
    }
}
