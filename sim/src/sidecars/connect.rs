//! How a sidecar gets to know its driver, and how it loses it.
//!
//! ```text
//!            not ready, no socket yet: 1 s          plan says Done
//!                 ┌────┐
//! start ──► Probe ┴──► GetPluginInfo ──► …Capabilities ────────────► Ready ──any call finds the socket gone──► exit
//!             │ any error but DeadlineExceeded   │ any error
//!             └──────────────► exit ◄────────────┘
//! ```
//!
//! A sidecar embeds a [`Connection`] in its memory and a [`Dial`] in its configuration, gives them the key that stands for connecting, and asks
//! [`Connection::gate`] before it decides anything else: until the plan is done every other key is parked, and it is queued again when it is.
//! A lost connection is noticed **at the next call**, not when the socket goes away, and ends the process (fact sheet 9.4; traces 18c, 18d).
//!
//! *Blind spots.* gRPC's own re-dialling during the first 30 s is one attempt a second. The log line every 10 s is not written.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use wavetank_proto::code::go_name;
use wavetank_proto::csi::v1 as csi;

use crate::control::{Effect, Outcome, Requests};
use crate::link::{Call, CallError, CsiReply, CsiRequest, Socket};
use crate::release::RELEASE;
use crate::runtime::Time;

/// What a sidecar asks at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `Probe`, repeated until the driver is ready.
    Probe,
    /// `GetPluginInfo`.
    PluginInfo,
    /// `GetPluginCapabilities`.
    PluginCapabilities,
    /// `ControllerGetCapabilities`.
    ControllerCapabilities,
    /// `NodeGetCapabilities`, on the controller's socket: the resizer does so.
    NodeCapabilities,
    /// `GroupControllerGetCapabilities`.
    GroupCapabilities,
}

/// What the plan of a sidecar wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another question.
    Ask(Question),
    /// The sidecar knows enough and begins to work.
    Ready,
    /// The driver is not one for this sidecar: the process exits.
    Exit(Cow<'static, str>),
}

/// The questions of one kind of sidecar in their order: given what was answered so far and what that told.
pub type Plan = fn(answered: &[Question], discovered: &Discovered) -> Next;

/// What the driver said of itself. Read once: a driver that changes its mind needs a restart of the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// `GetPluginInfo`'s name: what API objects must say to be this driver's.
    pub name: Arc<str>,
    /// `GetPluginInfo`'s version.
    pub vendor_version: String,
    plugin: BTreeSet<i32>,
    controller: BTreeSet<i32>,
    node: BTreeSet<i32>,
    group: BTreeSet<i32>,
}

/// A capability of the plugin as a whole.
pub type PluginService = csi::plugin_capability::service::Type;
/// A capability of the controller service.
pub type ControllerRpc = csi::controller_service_capability::rpc::Type;
/// A capability of the node service.
pub type NodeRpc = csi::node_service_capability::rpc::Type;
/// A capability of the group controller service.
pub type GroupRpc = csi::group_controller_service_capability::rpc::Type;

impl Discovered {
    /// What a driver of this name with these capabilities says: for tests and for components that know their driver.
    pub fn of(name: &str, plugin: &[PluginService], controller: &[ControllerRpc]) -> Discovered {
        Discovered {
            name: Arc::from(name),
            plugin: plugin.iter().map(|c| *c as i32).collect(),
            controller: controller.iter().map(|c| *c as i32).collect(),
            ..Discovered::default()
        }
    }

    /// The same driver, with these capabilities of the node service.
    #[must_use]
    pub fn with_node(mut self, node: &[NodeRpc]) -> Discovered {
        self.node = node.iter().map(|c| *c as i32).collect();
        self
    }

    /// The same driver, with these capabilities of the group controller service.
    #[must_use]
    pub fn with_group(mut self, group: &[GroupRpc]) -> Discovered {
        self.group = group.iter().map(|c| *c as i32).collect();
        self
    }

    /// Whether the plugin offers a service.
    pub fn plugin(&self, capability: PluginService) -> bool {
        self.plugin.contains(&(capability as i32))
    }

    /// Whether the controller has a capability.
    pub fn controller(&self, capability: ControllerRpc) -> bool {
        self.controller.contains(&(capability as i32))
    }

    /// Whether the node service has a capability.
    pub fn node(&self, capability: NodeRpc) -> bool {
        self.node.contains(&(capability as i32))
    }

    /// Whether the group controller has a capability.
    pub fn group(&self, capability: GroupRpc) -> bool {
        self.group.contains(&(capability as i32))
    }

    /// Whether the driver tells several writers on one node from one: decides the access modes of [`super::capability`].
    pub fn multi_writer(&self) -> bool {
        self.controller(ControllerRpc::SingleNodeMultiWriter)
    }

    fn take(&mut self, reply: &CsiReply) {
        match reply {
            CsiReply::GetPluginInfo(info) => {
                self.name = Arc::from(info.name.as_str());
                self.vendor_version.clone_from(&info.vendor_version);
            }
            CsiReply::GetPluginCapabilities(reply) => self.plugin = services(&reply.capabilities),
            CsiReply::ControllerGetCapabilities(reply) => self.controller = controller_rpcs(&reply.capabilities),
            CsiReply::NodeGetCapabilities(reply) => self.node = node_rpcs(&reply.capabilities),
            CsiReply::GroupControllerGetCapabilities(reply) => self.group = group_rpcs(&reply.capabilities),
            other => unreachable!("no question of the start-up is answered by {}", other.message_name()),
        }
    }
}

fn services(capabilities: &[csi::PluginCapability]) -> BTreeSet<i32> {
    let service = |c: &csi::PluginCapability| match c.r#type {
        Some(csi::plugin_capability::Type::Service(service)) => Some(service.r#type),
        _ => None,
    };
    capabilities.iter().filter_map(service).collect()
}

fn controller_rpcs(capabilities: &[csi::ControllerServiceCapability]) -> BTreeSet<i32> {
    use csi::controller_service_capability::Type;
    let types = capabilities.iter().filter_map(|c| c.r#type);
    types.map(|Type::Rpc(rpc)| rpc.r#type).collect()
}

fn node_rpcs(capabilities: &[csi::NodeServiceCapability]) -> BTreeSet<i32> {
    use csi::node_service_capability::Type;
    let types = capabilities.iter().filter_map(|c| c.r#type);
    types.map(|Type::Rpc(rpc)| rpc.r#type).collect()
}

fn group_rpcs(capabilities: &[csi::GroupControllerServiceCapability]) -> BTreeSet<i32> {
    use csi::group_controller_service_capability::Type;
    let types = capabilities.iter().filter_map(|c| c.r#type);
    types.map(|Type::Rpc(rpc)| rpc.r#type).collect()
}

/// Whom a sidecar dials and what it asks first. Part of the configuration: survives a restart.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The driver, as the link names it.
    pub driver: Arc<str>,
    /// `--timeout`: the deadline of every call of the sidecar, probes included.
    pub timeout: Duration,
    /// The deadline of the questions after the probe; `--timeout` unless the sidecar has its own (1 s in external-attacher).
    pub question_timeout: Duration,
    /// Its questions.
    pub plan: Plan,
    /// How long the first connect may take.
    pub connect_limit: Duration,
    /// The pause between probes of a driver that is not ready.
    pub probe_pause: Duration,
}

/// What a lost connection makes a sidecar write to its termination log.
pub const LOST: &str = "Lost connection to CSI driver, exiting";

impl Dial {
    /// Dials `driver` with the constants of csi-lib-utils.
    pub fn new(driver: impl Into<Arc<str>>, timeout: Duration, plan: Plan) -> Dial {
        Dial {
            driver: driver.into(),
            timeout,
            question_timeout: timeout,
            plan,
            connect_limit: RELEASE.sidecars.connect_limit,
            probe_pause: RELEASE.sidecars.probe_pause,
        }
    }

    /// The same, with another deadline for the questions after the probe.
    #[must_use]
    pub fn asking_within(mut self, timeout: Duration) -> Dial {
        self.question_timeout = timeout;
        self
    }

    /// A call on the controller's socket with the sidecar's deadline.
    pub fn call(&self, request: impl Into<CsiRequest>) -> Effect {
        self.call_within(request, self.timeout)
    }

    /// A call on the controller's socket with a deadline of its own.
    pub fn call_within(&self, request: impl Into<CsiRequest>, timeout: Duration) -> Effect {
        Effect::Call(Box::new(Call {
            driver: Arc::clone(&self.driver),
            socket: Socket::Controller,
            request: request.into(),
            timeout,
        }))
    }

    /// The next effect of the key that stands for connecting.
    pub fn decide<K>(&self, connection: &Connection<K>) -> Effect {
        if let Some(message) = &connection.fatal {
            return Effect::Exit(message.clone());
        }
        if connection.pause {
            return Effect::Wait(self.probe_pause);
        }
        if connection.ready {
            return Effect::Rest;
        }
        match (self.plan)(&connection.answered, &connection.discovered) {
            Next::Ask(Question::Probe) => self.call(request(Question::Probe)),
            Next::Ask(question) => self.call_within(request(question), self.question_timeout),
            Next::Ready => Effect::Note("connected"),
            Next::Exit(message) => Effect::Exit(message),
        }
    }

    /// Takes in what came of it.
    pub fn learn<K: Ord>(
        &self,
        connection: &mut Connection<K>,
        effect: &Effect,
        outcome: &Outcome,
        now: Time,
        queue: &mut Requests<K>,
    ) {
        match effect {
            Effect::Wait(_) => connection.pause = false,
            Effect::Note(_) => {
                connection.ready = true;
                for key in std::mem::take(&mut connection.parked) {
                    queue.add(key);
                }
            }
            Effect::Call(call) => self.answered(connection, call, outcome.reply(), now),
            other => unreachable!("connecting has no effect such as {other:?}"),
        }
    }

    fn answered<K>(
        &self,
        connection: &mut Connection<K>,
        call: &Call,
        reply: Result<&CsiReply, &CallError>,
        now: Time,
    ) {
        match reply {
            Ok(CsiReply::Probe(probe)) => {
                connection.reached = true;
                if probe.ready == Some(false) {
                    connection.pause = true;
                } else {
                    connection.answered.push(Question::Probe);
                }
            }
            Ok(reply) => {
                connection.reached = true;
                connection.discovered.take(reply);
                connection.answered.push(asked(&call.request));
            }
            Err(error) if error.disconnected && !connection.reached => {
                if now.since(connection.since) < self.connect_limit {
                    connection.pause = true;
                } else {
                    connection.fatal = Some("failed to connect to CSI driver within 30 s".into());
                }
            }
            Err(error) if error.disconnected => connection.fatal = Some(LOST.into()),
            Err(error) if asked(&call.request) == Question::Probe && error.code() == Code::DeadlineExceeded => {
                connection.reached = true;
                connection.pause = true;
            }
            Err(error) => {
                let failure = format!("{}: {}", call.request.method(), describe(&error.status));
                connection.fatal = Some(failure.into());
            }
        }
    }
}

fn request(question: Question) -> CsiRequest {
    match question {
        Question::Probe => csi::ProbeRequest {}.into(),
        Question::PluginInfo => csi::GetPluginInfoRequest {}.into(),
        Question::PluginCapabilities => csi::GetPluginCapabilitiesRequest {}.into(),
        Question::ControllerCapabilities => csi::ControllerGetCapabilitiesRequest {}.into(),
        Question::NodeCapabilities => csi::NodeGetCapabilitiesRequest {}.into(),
        Question::GroupCapabilities => csi::GroupControllerGetCapabilitiesRequest {}.into(),
    }
}

fn asked(request: &CsiRequest) -> Question {
    match request {
        CsiRequest::Probe(_) => Question::Probe,
        CsiRequest::GetPluginInfo(_) => Question::PluginInfo,
        CsiRequest::GetPluginCapabilities(_) => Question::PluginCapabilities,
        CsiRequest::ControllerGetCapabilities(_) => Question::ControllerCapabilities,
        CsiRequest::NodeGetCapabilities(_) => Question::NodeCapabilities,
        CsiRequest::GroupControllerGetCapabilities(_) => Question::GroupCapabilities,
        other => unreachable!("{} is no question of the start-up", other.method()),
    }
}

/// The plan of external-provisioner and external-attacher (traces 18d, 19).
pub fn controller_plan(answered: &[Question], _: &Discovered) -> Next {
    const ORDER: [Question; 4] = [
        Question::Probe,
        Question::PluginInfo,
        Question::PluginCapabilities,
        Question::ControllerCapabilities,
    ];
    ORDER.get(answered.len()).map_or(Next::Ready, |q| Next::Ask(*q))
}

/// Where a process stands with its driver. Part of its memory: a restart begins anew.
#[derive(Clone, Debug)]
pub struct Connection<K> {
    /// What the driver said.
    pub discovered: Discovered,
    answered: Vec<Question>,
    since: Time,
    reached: bool,
    ready: bool,
    pause: bool,
    fatal: Option<Cow<'static, str>>,
    parked: BTreeSet<K>,
}

impl<K> Default for Connection<K> {
    fn default() -> Self {
        Connection {
            discovered: Discovered::default(),
            answered: Vec::new(),
            since: Time::ZERO,
            reached: false,
            ready: false,
            pause: false,
            fatal: None,
            parked: BTreeSet::new(),
        }
    }
}

impl<K: Ord> Connection<K> {
    /// A connection that is up, to a driver that said this: for unit tests.
    pub fn up(discovered: Discovered) -> Connection<K> {
        Connection {
            discovered,
            reached: true,
            ready: true,
            ..Connection::default()
        }
    }

    /// The process has started: the limit of the first connect runs from now.
    pub fn begin(&mut self, now: Time) {
        self.since = now;
    }

    /// Whether the plan is done.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What every other key of the process must do first: exit when the connection is lost, rest until it is up.
    pub fn gate(&self) -> Option<Effect> {
        match &self.fatal {
            Some(message) => Some(Effect::Exit(message.clone())),
            None if self.ready => None,
            None => Some(Effect::Rest),
        }
    }

    /// The sync of a key ended: if the gate was what ended it, it waits for the connection.
    pub fn ended(&mut self, key: K) {
        if !self.ready {
            self.parked.insert(key);
        }
    }

    /// The process is to exit with this message at the next decision.
    pub fn abort(&mut self, message: impl Into<Cow<'static, str>>) {
        self.fatal = Some(message.into());
    }

    /// Looks at the outcome of a call: the process exits if the connection is lost.
    pub fn heed(&mut self, outcome: &Outcome) {
        if let Outcome::Reply(Err(error)) = outcome
            && error.disconnected
        {
            self.abort(LOST);
        }
    }
}

/// Whether a gRPC code says that the operation is certainly not running any more. Resizer's and snapshotter's view; provisioner and kubelet take
/// `ResourceExhausted` as final too (fact sheet 11.9).
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
    )
}

/// A status as Go's gRPC spells it in errors, and so in events and conditions.
pub fn describe(status: &Status) -> String {
    format!(
        "rpc error: code = {} desc = {}",
        go_name(status.code()),
        status.message()
    )
}

#[cfg(test)]
mod tests {
    use super::{Connection, ControllerRpc, Dial, Discovered, LOST, controller_plan, describe, is_final};
    use crate::control::{Effect, Outcome, Requests};
    use crate::link::{CallError, CsiReply};
    use crate::runtime::Time;
    use std::time::Duration;
    use tonic::{Code, Status};
    use wavetank_proto::csi::v1 as csi;

    const SECOND: Duration = Duration::from_secs(1);

    struct Bench {
        dial: Dial,
        connection: Connection<u8>,
        now: Time,
        queue: Requests<u8>,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                dial: Dial::new("csi.example", 10 * SECOND, controller_plan),
                connection: Connection::default(),
                now: Time::ZERO,
                queue: Requests::default(),
            }
        }

        /// The next call's method, after which `reply` is its outcome.
        fn answer(&mut self, reply: Result<CsiReply, CallError>) -> &'static str {
            let effect = self.dial.decide(&self.connection);
            let Effect::Call(call) = &effect else {
                panic!("a call was expected, not {effect:?}")
            };
            let outcome = Outcome::Reply(reply);
            self.dial
                .learn(&mut self.connection, &effect, &outcome, self.now, &mut self.queue);
            call.request.method()
        }

        fn step(&mut self, expected: &Effect) {
            let effect = self.dial.decide(&self.connection);
            assert_eq!(&effect, expected);
            self.dial
                .learn(&mut self.connection, &effect, &Outcome::Done, self.now, &mut self.queue);
        }
    }

    fn probe(ready: Option<bool>) -> Result<CsiReply, CallError> {
        Ok(CsiReply::Probe(csi::ProbeResponse { ready }))
    }

    fn error(code: Code, disconnected: bool) -> Result<CsiReply, CallError> {
        Err(CallError {
            status: Status::new(code, "why"),
            disconnected,
        })
    }

    fn capabilities(rpc: ControllerRpc) -> Result<CsiReply, CallError> {
        let rpc = csi::controller_service_capability::Rpc { r#type: rpc as i32 };
        let capability = csi::ControllerServiceCapability {
            r#type: Some(csi::controller_service_capability::Type::Rpc(rpc)),
        };
        Ok(CsiReply::ControllerGetCapabilities(
            csi::ControllerGetCapabilitiesResponse {
                capabilities: vec![capability],
            },
        ))
    }

    #[test]
    fn the_start_asks_in_the_observed_order_and_then_lets_parked_keys_go() {
        // Traces 18d and 19: Probe, GetPluginInfo, GetPluginCapabilities, ControllerGetCapabilities.
        let mut bench = Bench::new();
        assert_eq!(bench.connection.gate(), Some(Effect::Rest));
        bench.connection.ended(7);
        let info = csi::GetPluginInfoResponse {
            name: "csi.example".into(),
            ..Default::default()
        };
        assert_eq!(bench.answer(probe(None)), "Probe");
        assert_eq!(bench.answer(Ok(CsiReply::GetPluginInfo(info))), "GetPluginInfo");
        let none = csi::GetPluginCapabilitiesResponse::default();
        assert_eq!(
            bench.answer(Ok(CsiReply::GetPluginCapabilities(none))),
            "GetPluginCapabilities"
        );
        assert_eq!(
            bench.answer(capabilities(ControllerRpc::SingleNodeMultiWriter)),
            "ControllerGetCapabilities"
        );
        bench.step(&Effect::Note("connected"));
        assert_eq!(bench.queue.keys(), [(&7, None)]);
        assert_eq!(bench.connection.gate(), None);
        assert!(bench.connection.discovered.multi_writer());
        assert_eq!(
            bench.connection.discovered,
            Discovered::of("csi.example", &[], &[ControllerRpc::SingleNodeMultiWriter])
        );
        assert_eq!(bench.dial.decide(&bench.connection), Effect::Rest);
    }

    #[test]
    fn a_driver_that_is_not_ready_is_probed_each_second_and_other_errors_are_fatal() {
        // Fact sheet 9.4.
        for reply in [probe(Some(false)), error(Code::DeadlineExceeded, false)] {
            let mut bench = Bench::new();
            bench.answer(reply);
            bench.step(&Effect::Wait(SECOND));
            assert_eq!(bench.answer(probe(Some(true))), "Probe");
        }
        let mut bench = Bench::new();
        bench.answer(error(Code::Internal, false));
        let exit = Effect::Exit("Probe: rpc error: code = Internal desc = why".into());
        assert_eq!(bench.dial.decide(&bench.connection), exit);
        assert_eq!(bench.connection.gate(), Some(exit));
    }

    #[test]
    fn the_first_connect_may_take_thirty_seconds() {
        let mut bench = Bench::new();
        bench.connection.begin(Time::ZERO + SECOND);
        bench.now = Time::ZERO + 20 * SECOND;
        bench.answer(error(Code::Unavailable, true));
        bench.step(&Effect::Wait(SECOND));
        bench.now = Time::ZERO + 31 * SECOND;
        bench.answer(error(Code::Unavailable, true));
        assert!(matches!(bench.dial.decide(&bench.connection), Effect::Exit(_)));
    }

    #[test]
    fn a_connection_lost_later_ends_the_process_at_the_next_call_of_any_key() {
        // Trace 18d: the provisioner exits at its next RPC.
        let mut connection: Connection<u8> = Connection::up(Discovered::default());
        connection.heed(&Outcome::Reply(error(Code::Unavailable, false)));
        assert_eq!(
            connection.gate(),
            None,
            "a driver that answers Unavailable is still there"
        );
        connection.heed(&Outcome::Reply(error(Code::Unavailable, true)));
        assert_eq!(connection.gate(), Some(Effect::Exit(LOST.into())));
    }

    #[test]
    fn errors_are_spelt_as_go_spells_them_and_classed_as_the_sidecars_do() {
        assert_eq!(
            describe(&Status::cancelled("gone")),
            "rpc error: code = Canceled desc = gone"
        );
        let uncertain = [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Aborted,
        ];
        for number in 1..=16 {
            let code = Code::from_i32(number);
            assert_eq!(is_final(code), !uncertain.contains(&code), "{code:?}");
        }
    }
}
