//! Faults as data. What each may break, and why the system must survive it, stands in `faults`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::host::Trouble;
use crate::scenario::{Code, GoDuration, Phase, PlainPhase, Process, Role};

/// One trouble.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Fault {
    /// A process or a whole node ends suddenly, and comes back after a while.
    Crash {
        /// Which.
        process: Process,
        /// For how long. A process that says nothing starts again at once; a node stays away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        down: Option<GoDuration>,
    },
    /// A process stands still, and goes on with what it knew.
    Pause {
        /// Which.
        process: Process,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The caller gets this code; the driver never sees the call.
    RefuseCall {
        /// The code.
        code: Code,
    },
    /// The call reaches the driver this much later.
    DelayCall {
        /// How much.
        by: GoDuration,
    },
    /// The caller loses its connection and gets UNAVAILABLE; the call reaches the driver when another one about the same object, of another kind or for another
    /// node, has been answered OK, or after this time. A call that undoes it, or that it would undo, ends it.
    ReorderCall {
        /// How long at most.
        by: GoDuration,
    },
    /// The call reaches the driver twice, the second time while the first is under way. The caller gets the answer to the first.
    DuplicateCall {},
    /// The driver has done what it was told, and its answer never arrives: the caller waits for its deadline.
    LoseAnswer {},
    /// The driver has answered, and its answer arrives this much later, or never if the caller's deadline is earlier.
    DelayAnswer {
        /// How much.
        by: GoDuration,
    },
    /// The driver has done what it was told, and the caller gets this code.
    ReplaceAnswer {
        /// The code.
        code: Code,
    },
    /// The API server refuses a write with 409: somebody else wrote first.
    Conflict {},
    /// The API server refuses a write with 500, because etcd timed out. Nothing was written.
    FailWrite {},
    /// The API server answers 429; the client waits for so long and sends the write again.
    ThrottleWrite {
        /// How long.
        by: GoDuration,
    },
    /// The write is done, and the client gets 500.
    LoseWriteAnswer {},
    /// An operation of a driver does not happen, and reports this.
    FailOperation {
        /// What it reports.
        trouble: Trouble,
    },
    /// An operation of a driver happens, and nevertheless reports this. The disk of a ledger knows no such fault: there the operation just happens.
    PretendFailure {
        /// What it reports.
        trouble: Trouble,
    },
    /// An operation of a driver takes this much longer. The disk of a ledger does not wait.
    SlowOperation {
        /// How much.
        by: GoDuration,
    },
    /// A process ends orderly and starts again at once.
    Restart {
        /// Which.
        process: Process,
    },
    /// A controller loses its lease: another instance starts, and what the old one has under way happens all the same, but the old one never learns of it.
    TwoLeaders {
        /// Which.
        process: Process,
    },
    /// What a process sees of the API stays as it is for a while; then it sees everything that it missed, in order.
    StaleInformer {
        /// Which.
        process: Process,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// A process loses its watches and lists again after a while (410 Gone): what happened in between it never sees.
    Relist {
        /// Which.
        process: Process,
        /// After how long.
        after: GoDuration,
    },
    /// Nobody reaches the API server for a while, but for the people of the scenario.
    Outage {
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// A node loses its power, and of what was not synced the first half survives.
    PowerLoss {
        /// Which.
        node: String,
        /// The write in the middle is torn in two.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        torn: bool,
        /// For how long it is away.
        down: GoDuration,
    },
    /// A node does not reach the API server for a while; its pods go on, and so does its way to the storage.
    Partition {
        /// Which.
        node: String,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// A node dies; a minute later somebody taints it `node.kubernetes.io/out-of-service`; six minutes after that it is back and the taint is taken off.
    OutOfService {
        /// Which.
        node: String,
    },
    /// A node is taken out of the cluster: cordoned, its pods deleted, its Node deleted when they are gone, its machine switched off.
    RemoveNode {
        /// Which.
        node: String,
        /// How long after that the machine comes back and registers again. Not before everything heals if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        back: Option<GoDuration>,
    },
    /// The management of the storage systems cannot be reached for a while; reading and writing go on.
    StorageAway {
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The storage systems have no room for a while.
    StorageFull {
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// Operations of the storage systems take longer for a while.
    SlowStorage {
        /// How much.
        by: GoDuration,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The storage systems list the volumes of a while ago: what came and went since is missing or still there.
    StaleLists {
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The links of devices that appear on a node stay behind for a while: each leads to the device that appeared before it, or to nothing.
    StaleLink {
        /// Which node.
        node: String,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// A node keeps sizes of devices for a while: one that appears where another was shows the size of that until it is looked at again, and none is seen
    /// to grow.
    CachedSize {
        /// Which node.
        node: String,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
    /// The user deletes an object.
    Delete {
        /// Which, as sites spell it: `pvc data`.
        object: String,
    },
    /// The user deletes a pod or a claim and, once it is gone, creates it again.
    Recreate {
        /// Which, as sites spell it: `pod web`.
        object: String,
    },
    /// The user takes an expansion back, and half a minute later wants it again.
    ShrinkBack {
        /// Which claim, as sites spell it: `pvc data`.
        object: String,
    },
    /// The clock of a driver's process jumps.
    SkewClock {
        /// Which.
        process: Process,
        /// How far.
        by: GoDuration,
        /// Back, not forward.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
    },
    /// The devices of volumes on a node answer every read and every write with an error for a while.
    FailDevices {
        /// Which node.
        node: String,
        /// For how long.
        #[serde(rename = "for")]
        lasts: GoDuration,
    },
}

impl Fault {
    /// The process or node that it befalls, if it befalls one.
    pub fn process(&self) -> Option<&Process> {
        match self {
            Fault::Crash { process, .. }
            | Fault::Pause { process, .. }
            | Fault::Restart { process }
            | Fault::TwoLeaders { process }
            | Fault::StaleInformer { process, .. }
            | Fault::Relist { process, .. }
            | Fault::SkewClock { process, .. } => Some(process),
            _ => None,
        }
    }

    /// Whether it is the end of this process.
    pub fn ends(&self, process: &Process) -> bool {
        match self {
            Fault::Crash { process: victim, .. } => {
                victim == process || (victim.role == Role::Node && victim.node.is_some() && victim.node == process.node)
            }
            Fault::Restart { process: victim } => victim == process,
            Fault::PowerLoss { node, .. } | Fault::OutOfService { node } => process.node.as_ref() == Some(node),
            _ => false,
        }
    }

    /// The same, to spell it in another way.
    pub fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            Fault::Crash { process, .. }
            | Fault::Pause { process, .. }
            | Fault::Restart { process }
            | Fault::TwoLeaders { process }
            | Fault::StaleInformer { process, .. }
            | Fault::Relist { process, .. }
            | Fault::SkewClock { process, .. } => Some(process),
            _ => None,
        }
    }

    /// How long it holds up a write that is not sent yet.
    pub fn holds_up(&self) -> Option<std::time::Duration> {
        match self {
            Fault::ThrottleWrite { by } => Some(by.get()),
            _ => None,
        }
    }

    /// The node that it befalls, if it names one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Fault::PowerLoss { node, .. }
            | Fault::Partition { node, .. }
            | Fault::OutOfService { node }
            | Fault::RemoveNode { node, .. }
            | Fault::StaleLink { node, .. }
            | Fault::CachedSize { node, .. }
            | Fault::FailDevices { node, .. } => Some(node),
            _ => None,
        }
    }

    /// The object that the user changes, if it is the user's doing.
    pub fn object(&self) -> Option<&str> {
        match self {
            Fault::Delete { object } | Fault::Recreate { object } | Fault::ShrinkBack { object } => Some(object),
            _ => None,
        }
    }

    /// Whether it can strike at a phase: what it does to an effect it does where the effect is.
    ///
    /// # Errors
    /// A sentence that names the phase where it can.
    pub fn fits(&self, phase: Phase) -> Result<(), String> {
        let right = match self {
            Fault::RefuseCall { .. } | Fault::DelayCall { .. } | Fault::ReorderCall { .. } => PlainPhase::BeforeSend,
            Fault::DuplicateCall {} => PlainPhase::Received,
            Fault::LoseAnswer {} | Fault::DelayAnswer { .. } | Fault::ReplaceAnswer { .. } => PlainPhase::BeforeReply,
            Fault::Conflict {} | Fault::FailWrite {} | Fault::ThrottleWrite { .. } => PlainPhase::Before,
            Fault::LoseWriteAnswer {} => PlainPhase::Applied,
            Fault::FailOperation { .. } | Fault::PretendFailure { .. } | Fault::SlowOperation { .. } => {
                let fits = matches!(phase, Phase::AfterOp(_));
                return fits.then_some(()).ok_or_else(|| self.says_where("after-op(k)"));
            }
            _ => return Ok(()),
        };
        let fits = phase == Phase::Plain(right);
        fits.then_some(()).ok_or_else(|| self.says_where(right.as_str()))
    }

    fn says_where(&self, phase: &str) -> String {
        format!("`{}` strikes at the phase `{phase}` and nowhere else", self.kind())
    }

    /// Whether it befalls what only a model has: operations of a driver's machine, its devices, its storage system, its clock, bytes that were not synced.
    pub fn needs_a_model(&self) -> bool {
        matches!(
            self,
            Fault::FailOperation { .. }
                | Fault::PretendFailure { .. }
                | Fault::SlowOperation { .. }
                | Fault::PowerLoss { .. }
                | Fault::StorageAway { .. }
                | Fault::StorageFull { .. }
                | Fault::SlowStorage { .. }
                | Fault::StaleLists { .. }
                | Fault::SkewClock { .. }
                | Fault::FailDevices { .. }
                | Fault::StaleLink { .. }
                | Fault::CachedSize { .. }
        )
    }

    /// Whether it is about the devices of a node, which lives on.
    pub fn is_of_devices(&self) -> bool {
        matches!(self, Fault::StaleLink { .. } | Fault::CachedSize { .. })
    }

    /// Whether it is about the answer to a call.
    pub fn is_of_an_answer(&self) -> bool {
        matches!(
            self,
            Fault::LoseAnswer {} | Fault::DelayAnswer { .. } | Fault::ReplaceAnswer { .. }
        )
    }
}
