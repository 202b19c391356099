//! node-driver-registrar: introduces a driver to the kubelet of its node (fact sheet 9.1).
//!
//! ```text
//! Ask (GetPluginInfo, 1 s) ─ok─► Listen ─► rest ─registration failed─► exit 1
//!   │  no socket yet: 1 s, at most 30 s         └─SIGTERM─► Close ─► exit 0
//!   └─ any other error: exit
//! ```
//!
//! It never registers again by itself: not when the driver dies, not when kubelet does. A killed registrar leaves its socket behind, and kubelet stays registered;
//! a new one removes and makes the socket anew, and kubelet unregisters and registers.
//!
//! *Blind spots.* gRPC's own re-dialling during the first 30 s is one attempt a second. No health endpoint.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wavetank_proto::csi::v1 as csi;

use crate::api::{Cache, Delta, Index, Kind, Limiter};
use crate::control::{
    AnyShell, Controller, Effect, LaneSpec, Learner, Outcome, PluginInfo, RegistrationOp, Requests, Shell, Signal,
};
use crate::link::{Call, CallError, CsiReply, Socket};
use crate::release::RELEASE;
use crate::runtime::Time;
use crate::sidecars::connect::describe;

/// The command line of node-driver-registrar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Deadline of GetPluginInfo.
    pub timeout: Duration,
    /// Where kubelet finds the driver; empty for `/var/lib/kubelet/plugins/<driver>/csi.sock`.
    pub kubelet_registration_path: String,
}

impl Default for Flags {
    fn default() -> Flags {
        Flags {
            timeout: Duration::from_secs(1),
            kubelet_registration_path: String::new(),
        }
    }
}

/// How long the first connect may take.
const CONNECT_LIMIT: Duration = RELEASE.sidecars.connect_limit;
/// Between two attempts of it.
const CONNECT_PAUSE: Duration = RELEASE.sidecars.connect_pause;
/// The versions of the registration interface.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// The indexes that its cache needs: none, it watches nothing.
pub const INDEXES: &[Index] = &[];

/// The controllers of a registrar: one.
pub fn shells(driver: impl Into<Arc<str>>, flags: &Flags) -> Vec<Box<dyn AnyShell>> {
    vec![Box::new(Shell::new(Registrar {
        driver: driver.into(),
        flags: flags.clone(),
    }))]
}

/// The registrar of one driver on one node.
pub struct Registrar {
    driver: Arc<str>,
    flags: Flags,
}

/// There is one thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration;

impl fmt::Display for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("registration")
    }
}

/// Where a registrar stands.
#[derive(Clone, Debug, Default, PartialEq)]
enum Step {
    #[default]
    Ask,
    Pause,
    Listen(PluginInfo),
    Serve,
    Exit(Cow<'static, str>),
}

/// What a crash erases.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    step: Step,
    began: Time,
    terminated: bool,
}

impl Controller for Registrar {
    type Key = Registration;
    type Memory = Memory;

    fn name(&self) -> &'static str {
        "node-driver-registrar"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        vec![LaneSpec {
            name: "registration",
            workers: 1,
            limiter: Limiter::Exponential {
                base: CONNECT_PAUSE,
                cap: CONNECT_LIMIT,
            },
        }]
    }

    fn start(&self, _: &Cache, memory: &mut Memory, now: Time, queue: &mut Requests<Registration>) {
        memory.began = now;
        queue.add(Registration);
    }

    fn notice(&self, _: &Cache, _: &mut Memory, _: &Delta, _: Time, _: &mut Requests<Registration>) {}

    fn signal(&self, memory: &mut Memory, signal: &Signal, _: Time, queue: &mut Requests<Registration>) {
        match signal {
            Signal::RegistrationFailed(why) => {
                memory.step = Step::Exit(format!("registration process failed with error: {why}").into());
            }
            Signal::Terminate => memory.terminated = true,
            Signal::SocketCreated(_)
            | Signal::SocketRemoved(_)
            | Signal::PodExited(..)
            | Signal::HeartbeatsBegin { .. }
            | Signal::HeartbeatsEnd { .. } => return,
        }
        queue.add(Registration);
    }

    fn decide(&self, _: &Cache, memory: &Memory, _: &Registration, _: Time) -> Effect {
        if memory.terminated && !matches!(memory.step, Step::Exit(_)) {
            return Effect::Registration(RegistrationOp::Close);
        }
        match &memory.step {
            Step::Ask => Effect::Call(Box::new(Call {
                driver: Arc::clone(&self.driver),
                socket: Socket::Node,
                request: csi::GetPluginInfoRequest {}.into(),
                timeout: self.flags.timeout,
            })),
            Step::Pause => Effect::Wait(CONNECT_PAUSE),
            Step::Listen(info) => Effect::Registration(RegistrationOp::Listen(info.clone())),
            Step::Serve => Effect::Rest,
            Step::Exit(message) => Effect::Exit(message.clone()),
        }
    }

    fn learn(
        &self,
        memory: &mut Memory,
        _: &Registration,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, Registration>,
    ) {
        if matches!(memory.step, Step::Exit(_)) {
            return;
        }
        memory.step = match effect {
            Effect::Call(_) => self.asked(memory, outcome.reply(), then.now),
            Effect::Registration(RegistrationOp::Close) => Step::Exit("terminated".into()),
            Effect::Registration(_) => match outcome {
                Outcome::Registration(Err(error)) => Step::Exit(
                    format!(
                        "failed to listen on the registration socket: {}",
                        describe(&error.status)
                    )
                    .into(),
                ),
                _ => Step::Serve,
            },
            _ => Step::Ask,
        };
    }
}

impl Registrar {
    fn asked(&self, memory: &Memory, reply: Result<&CsiReply, &CallError>, now: Time) -> Step {
        match reply {
            Ok(CsiReply::GetPluginInfo(info)) => Step::Listen(PluginInfo {
                name: info.name.clone(),
                endpoint: self.endpoint(&info.name),
                versions: VERSIONS.iter().map(|v| (*v).to_owned()).collect(),
            }),
            Ok(other) => panic!("the plugin's info was asked for, not {}", other.message_name()),
            Err(error) if error.disconnected && now.since(memory.began) < CONNECT_LIMIT => Step::Pause,
            Err(error) => Step::Exit(format!("error retrieving plugin info: {}", describe(&error.status)).into()),
        }
    }

    fn endpoint(&self, name: &str) -> String {
        match self.flags.kubelet_registration_path.as_str() {
            "" => format!("/var/lib/kubelet/plugins/{name}/csi.sock"),
            path => path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, Memory, Registrar, Registration};
    use crate::api::Cache;
    use crate::control::{Controller, Effect, Learner, Outcome, RegistrationOp, Requests, Signal};
    use crate::link::{CallError, CsiReply};
    use crate::runtime::Time;
    use std::time::Duration;
    use tonic::Status;
    use wavetank_proto::csi::v1 as csi;

    struct Bench(Registrar, Memory);

    impl Bench {
        fn new() -> Bench {
            let registrar = Registrar {
                driver: "d".into(),
                flags: Flags::default(),
            };
            Bench(registrar, Memory::default())
        }

        fn decide(&self) -> Effect {
            self.0.decide(&Cache::default(), &self.1, &Registration, Time::ZERO)
        }

        fn learn(&mut self, outcome: &Outcome, now: Time) {
            let effect = self.decide();
            let (mut cache, mut queue) = (Cache::default(), Requests::default());
            let mut then = Learner {
                cache: &mut cache,
                now,
                queue: &mut queue,
            };
            self.0.learn(&mut self.1, &Registration, &effect, outcome, &mut then);
        }

        fn signal(&mut self, signal: &Signal) {
            let mut queue = Requests::default();
            self.0.signal(&mut self.1, signal, Time::ZERO, &mut queue);
            assert_eq!(queue.keys().len(), 1);
        }
    }

    fn info() -> Outcome {
        Outcome::Reply(Ok(CsiReply::GetPluginInfo(csi::GetPluginInfoResponse {
            name: "d".into(),
            ..Default::default()
        })))
    }

    fn error(disconnected: bool) -> Outcome {
        let status = Status::unavailable("no");
        Outcome::Reply(Err(CallError { status, disconnected }))
    }

    fn serving() -> Bench {
        let mut bench = Bench::new();
        bench.learn(&info(), Time::ZERO);
        let Effect::Registration(RegistrationOp::Listen(info)) = bench.decide() else {
            panic!()
        };
        assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/d/csi.sock");
        assert_eq!(info.versions, ["1.0.0"]);
        bench.learn(&Outcome::Registration(Ok(None)), Time::ZERO);
        assert_eq!(bench.decide(), Effect::Rest);
        bench
    }

    #[test]
    fn it_asks_once_and_listens() {
        serving();
    }

    #[test]
    fn a_refused_registration_ends_it() {
        let mut bench = serving();
        bench.signal(&Signal::RegistrationFailed("why".into()));
        assert!(matches!(bench.decide(), Effect::Exit(m) if m.contains("why")));
    }

    #[test]
    fn a_terminated_one_removes_its_socket() {
        let mut bench = serving();
        bench.signal(&Signal::Terminate);
        assert_eq!(bench.decide(), Effect::Registration(RegistrationOp::Close));
        bench.learn(&Outcome::Registration(Ok(None)), Time::ZERO);
        assert!(matches!(bench.decide(), Effect::Exit(_)));
    }

    #[test]
    fn it_waits_for_the_socket_but_not_for_the_driver_to_make_up_its_mind() {
        let second = Duration::from_secs(1);
        let mut bench = Bench::new();
        bench.learn(&error(true), Time::ZERO);
        assert_eq!(bench.decide(), Effect::Wait(second));
        bench.learn(&Outcome::Done, Time::ZERO);
        bench.learn(&error(true), Time::ZERO + 30 * second);
        assert!(matches!(bench.decide(), Effect::Exit(_)), "thirty seconds are over");
        let mut bench = Bench::new();
        bench.learn(&error(false), Time::ZERO);
        assert!(
            matches!(bench.decide(), Effect::Exit(_)),
            "an answer that is an error is fatal"
        );
    }
}
