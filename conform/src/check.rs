//! One obligation of a driver as a check, and what may come of it.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use wavetank_proto::csi::v1::controller_service_capability::rpc::Type as ControllerRpc;
use wavetank_proto::csi::v1::node_service_capability::rpc::Type as NodeRpc;

use crate::lab::Lab;

/// What a check is about, as reports group them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The Identity service.
    Identity,
    /// The Controller service.
    Controller,
    /// The GroupController service.
    GroupController,
    /// The SnapshotMetadata service.
    SnapshotMetadata,
    /// The Node service.
    Node,
    /// Several calls one after another.
    Lifecycle,
    /// The same call again.
    Repeats,
    /// Calls at the same time.
    Concurrency,
    /// The driver restarted between calls.
    Restart,
    /// Bytes in volumes.
    Contents,
}

impl Service {
    /// As reports head a group.
    pub fn title(self) -> &'static str {
        match self {
            Self::Identity => "Identity",
            Self::Controller => "Controller",
            Self::GroupController => "GroupController",
            Self::SnapshotMetadata => "SnapshotMetadata",
            Self::Node => "Node",
            Self::Lifecycle => "Lifecycle",
            Self::Repeats => "Repeats",
            Self::Concurrency => "Concurrency",
            Self::Restart => "Restart",
            Self::Contents => "Contents",
        }
    }
}

/// How binding an obligation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The specification says MUST or REQUIRED, or callers lose data without it.
    Must,
    /// The specification says SHOULD, or leaves it open and callers are better off with it.
    Should,
}

/// What a check needs in order to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The driver serves the Controller service and makes volumes.
    Volumes,
    /// A capability of the Controller service.
    Controller(ControllerRpc),
    /// A capability of the Node service.
    Node(NodeRpc),
    /// The GroupController service with its one capability.
    Group,
    /// The SnapshotMetadata service.
    Metadata,
    /// `VOLUME_ACCESSIBILITY_CONSTRAINTS`.
    Topology,
    /// Volumes with a file system.
    Mount,
    /// Raw block volumes.
    Block,
    /// The machine shows mounts and contents.
    Contents,
    /// A second node.
    TwoNodes,
    /// The driver can be restarted and keeps its state.
    Restart,
    /// Mutable parameters that the driver takes were named.
    MutableParameters,
    /// The node reports a small attach limit.
    AttachLimit,
    /// The caller said that the driver serves inline ephemeral volumes.
    Ephemeral,
    /// The driver grows volumes while they are in use.
    OnlineExpansion,
}

/// Why a check ends before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The obligation is not kept.
    Broken(String),
    /// It turned out that nothing can be said.
    NotApplicable(String),
    /// No answer came in time.
    Hung(String),
}

/// What a check returns.
pub type Outcome = Result<(), Stop>;

/// Ends a check: the obligation is not kept.
pub(crate) fn broken<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Broken(text.into()))
}

/// Ends a check unless `held`.
pub(crate) fn expect(held: bool, text: impl FnOnce() -> String) -> Outcome {
    if held { Ok(()) } else { broken(text()) }
}

/// One obligation.
pub struct Check {
    /// Its name, unique, e.g. `create/needs-name`.
    pub name: &'static str,
    /// Its group.
    pub service: Service,
    /// How binding it is.
    pub weight: Weight,
    /// What the driver has to do, in a sentence.
    pub obligation: &'static str,
    /// Where that is written: a section of the CSI specification v1.12, or why it follows.
    pub source: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    pub(crate) run: for<'a> fn(&'a Lab) -> BoxFuture<'a, Outcome>,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The obligation is kept.
    Held,
    /// It is not.
    Broken(String),
    /// Something that should be is not.
    Advice(String),
    /// Nothing can be said of this driver.
    NotApplicable(String),
    /// No answer came in time, or the driver went away.
    NotJudged(String),
}

/// One call of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The method.
    pub method: &'static str,
    /// What was asked, without secrets.
    pub request: Value,
    /// What was answered: the message, or code and text.
    pub answer: Result<Value, (tonic::Code, String)>,
    /// When, since the check began.
    pub at: Duration,
    /// It was made to undo what the check did.
    pub undoes: bool,
}

/// A check that was run.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// Its calls, in order of their answers.
    pub exchanges: Vec<Exchange>,
}
