//! The cluster itself: a small controller, a script or a small driver, and what happens between them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use tonic::{Code, Response, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::identity_server::{Identity, IdentityServer};

use super::{Cluster, DriverSpec, Injection, Latency, ProcessSpec};
use crate::api::{Cache, Delta, Edit, Kind, Limiter, ObjKey, Object, ObjectRef, Patch, Write};
use crate::control::{Controller, Effect, LaneSpec, Learner, Outcome, Requests, Shell};
use crate::link::layers::Tamper;
use crate::link::{Call, CsiReply, CsiRequest, Services, Socket};
use crate::runtime::{Time, run};
use crate::trace::{Trace, What};

/// Asks the driver whether it is ready for each claim whose name begins so, then says so on the claim.
struct Greeter(&'static str);

impl Controller for Greeter {
    type Key = ObjKey;
    type Memory = std::collections::BTreeSet<ObjKey>;

    fn name(&self) -> &'static str {
        "greeter"
    }

    fn kinds(&self) -> &'static [Kind] {
        &[Kind::PersistentVolumeClaim]
    }

    fn lanes(&self) -> Vec<LaneSpec> {
        let limiter = Limiter::Exponential {
            base: Duration::from_secs(1),
            cap: Duration::from_secs(300),
        };
        vec![LaneSpec {
            name: "claims",
            workers: 1,
            limiter,
        }]
    }

    fn notice(&self, _: &Cache, _: &mut Self::Memory, delta: &Delta, _: Time, queue: &mut Requests<ObjKey>) {
        if delta.object().key().name.starts_with(self.0) {
            queue.add(delta.object().key());
        }
    }

    fn decide(&self, cache: &Cache, memory: &Self::Memory, key: &ObjKey, _: Time) -> Effect {
        let Some(claim) = cache.get::<PersistentVolumeClaim>(key) else {
            return Effect::Rest;
        };
        if claim.metadata.annotations.is_some() {
            return Effect::Rest;
        }
        if memory.contains(key) {
            let edits = vec![Edit::Annotation("greeted".into(), Some("yes".into()))];
            return Effect::Write(Write::Patch(Patch::new(
                ObjectRef::to::<PersistentVolumeClaim>(key),
                edits,
            )));
        }
        let request = CsiRequest::from(csi::ProbeRequest {});
        let timeout = Duration::from_secs(10);
        Effect::Call(Box::new(Call {
            driver: Arc::from("d"),
            socket: Socket::Controller,
            request,
            timeout,
        }))
    }

    fn learn(
        &self,
        memory: &mut Self::Memory,
        key: &ObjKey,
        effect: &Effect,
        outcome: &Outcome,
        then: &mut Learner<'_, ObjKey>,
    ) {
        if let (Effect::Call(_), Ok(_)) = (effect, outcome_of(outcome)) {
            memory.insert(key.clone());
        } else if matches!(effect, Effect::Call(_)) {
            then.queue.add_at(key.clone(), then.now + Duration::from_secs(1));
        }
    }
}

fn outcome_of(outcome: &Outcome) -> Result<(), ()> {
    match outcome {
        Outcome::Reply(Err(_)) => Err(()),
        _ => Ok(()),
    }
}

fn claim(name: &str) -> Object {
    let json = serde_json::json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } }, "storageClassName": "x" },
    });
    Object::from_json(Kind::PersistentVolumeClaim, json).unwrap()
}

fn greeter(name: &str) -> ProcessSpec {
    greeter_of(name, "")
}

fn greeter_of(name: &str, claims: &'static str) -> ProcessSpec {
    ProcessSpec {
        name: name.into(),
        component: name.into(),
        node: None,
        node_bound: false,
        shells: vec![Box::new(Shell::new(Greeter(claims)))],
        indexes: Vec::new(),
        throttle: None,
    }
}

/// A driver whose Probe takes 50 ms of virtual time.
#[derive(Clone)]
struct Slow(super::drivers::BoardClock);

#[tonic::async_trait]
impl Identity for Slow {
    async fn probe(&self, _: tonic::Request<csi::ProbeRequest>) -> Result<Response<csi::ProbeResponse>, Status> {
        crate::link::layers::Sleeper::sleep(&self.0, Duration::from_millis(50)).await;
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}

fn slow_driver() -> DriverSpec {
    DriverSpec::Process {
        driver: "d".into(),
        name: "d/controller".into(),
        node: None,
        launch: Box::new(|launching| {
            let clock = super::drivers::BoardClock {
                board: launching.board,
                lane: launching.lane,
            };
            Box::pin(async move { Ok(Services::new().with(IdentityServer::new(Slow(clock))).into()) })
        }),
    }
}

fn story(trace: &Trace) -> Vec<String> {
    let show = |r: &crate::trace::Record| {
        let what = match &r.what {
            What::Write { write, result, .. } => {
                format!(
                    "{write} {}",
                    result.as_ref().map_or_else(|e| e.code.to_string(), |_| "ok".into())
                )
            }
            What::Call { call, .. } => format!("{} ...", call.request.method()),
            What::Reply { call, took, result, .. } => {
                let code = result
                    .as_ref()
                    .map_or_else(|s| format!("{:?}", s.code()), |_| "OK".into());
                format!("{} {code} after {} us", call.request.method(), took.as_micros())
            }
            What::Process(change) => format!("{change:?}"),
            What::Fault(text) | What::Step(text) => text.clone(),
            What::Machine { op, .. } => format!("{op:?}"),
        };
        format!("{} {what}", r.process)
    };
    trace.records().iter().map(show).collect()
}

#[test]
fn a_scripted_answer_leads_to_the_next_effect() {
    let trace = run(|| async {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        let script = |_: &super::ScriptedCall<'_>| {
            (
                Duration::from_millis(5),
                Ok(CsiReply::Probe(csi::ProbeResponse::default())),
            )
        };
        cluster.add_driver(DriverSpec::Scripted {
            driver: "d".into(),
            script: Box::new(script),
        });
        let process = cluster.add_process(greeter("greeter"));
        cluster.start(process);
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.create(claim("a")).unwrap();
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.shut_down().await
    });
    // With another seed the watch is slower than the answer, and a second patch follows that changes nothing: `dedup`.
    let mut story = story(&trace);
    story.dedup();
    assert_eq!(
        story,
        [
            "greeter Started",
            "kubectl create pvc default/a ok",
            "greeter Probe ...",
            "greeter Probe OK after 5300 us",
            "greeter patch pvc default/a ok",
        ]
    );
}

#[test]
fn a_real_driver_answers_in_virtual_time() {
    let trace = run(|| async {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        cluster.add_driver(slow_driver());
        let process = cluster.add_process(greeter("greeter"));
        cluster.start(process);
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.create(claim("a")).unwrap();
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.shut_down().await
    });
    assert!(
        story(&trace).contains(&"greeter Probe OK after 50300 us".to_owned()),
        "{:#?}",
        story(&trace)
    );
}

#[test]
fn killing_the_driver_cuts_the_call_in_the_middle() {
    let trace = run(|| async {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        cluster.add_driver(slow_driver());
        let process = cluster.add_process(greeter("greeter"));
        cluster.start(process);
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.create(claim("a")).unwrap();
        cluster.run_for(Duration::from_millis(20)).await;
        assert!(cluster.kill_driver("d/controller"));
        cluster.run_for(Duration::from_millis(1)).await;
        assert!(cluster.start_driver("d/controller"));
        cluster.run_for(Duration::from_secs(2)).await;
        cluster.shut_down().await
    });
    let replies: Vec<String> = story(&trace).into_iter().filter(|l| l.contains("after")).collect();
    assert!(replies[0].contains("Unavailable"), "{replies:?}");
    assert!(
        replies[1].contains("OK after 50300 us"),
        "a new incarnation answers: {replies:?}"
    );
}

#[test]
fn a_deadline_and_an_injected_code_are_what_the_caller_sees() {
    let trace = run(|| async {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        cluster.add_driver(slow_driver());
        let inject = |tamper| Injection::on("Probe", 1, tamper);
        cluster.inject(inject(Tamper::Replace(Code::Internal, "injected".into())));
        cluster.inject(inject(Tamper::Late(Duration::from_secs(60))));
        let process = cluster.add_process(greeter("greeter"));
        cluster.start(process);
        cluster.run_for(Duration::from_secs(1)).await;
        cluster.create(claim("a")).unwrap();
        cluster.run_for(Duration::from_secs(20)).await;
        assert_eq!(cluster.pending_injections().count(), 0);
        cluster.shut_down().await
    });
    let replies: Vec<String> = story(&trace).into_iter().filter(|l| l.contains("after")).collect();
    assert!(replies[0].contains("Internal after 50300 us"), "{replies:?}");
    assert!(replies[1].contains("DeadlineExceeded after 10000300 us"), "{replies:?}");
    assert!(replies[2].contains("OK after 50300 us"), "{replies:?}");
}

#[test]
fn an_unrelated_process_moves_nothing() {
    let story_of = |seed: u64, strangers: usize| {
        let trace = run(move || async move {
            let mut cluster = Cluster::new(seed, Latency::default(), Trace::new());
            cluster.add_driver(slow_driver());
            for n in 0..strangers {
                let id = cluster.add_process(greeter_of(if n == 0 { "aaa" } else { "zzz" }, "s"));
                cluster.start(id);
            }
            let process = cluster.add_process(greeter_of("greeter", "c"));
            cluster.start(process);
            cluster.run_for(Duration::from_secs(1)).await;
            if strangers > 0 {
                cluster.create(claim("s1")).unwrap();
            }
            for name in ["c1", "c2", "c3"] {
                cluster.create(claim(name)).unwrap();
            }
            cluster.run_for(Duration::from_secs(1)).await;
            cluster.shut_down().await
        });
        let own = |r: &&crate::trace::Record| &*r.process == "greeter" && !matches!(r.what, What::Write { .. });
        trace
            .records()
            .iter()
            .filter(own)
            .map(|r| format!("{} {:?}", r.at, kind_of(&r.what)))
            .collect::<Vec<_>>()
    };
    for seed in 0..5 {
        let alone = story_of(seed, 0);
        assert!(!alone.is_empty());
        assert_eq!(alone, story_of(seed, 2), "seed {seed}");
    }
}

fn kind_of(what: &What) -> String {
    match what {
        What::Call { call, .. } => format!("call {}", call.request.method()),
        What::Reply { took, .. } => format!("reply after {took:?}"),
        other => format!("{other:?}"),
    }
}

/// The life of one process, a line per change.
fn life(told: impl Fn(&mut Cluster, super::ProcessId) + Send + 'static) -> Vec<String> {
    let trace = run(move || async move {
        let mut cluster = Cluster::new(0, Latency::default(), Trace::new());
        let process = cluster.add_process(greeter("greeter"));
        cluster.starts_slowly(process, Duration::from_millis(1500));
        cluster.start(process);
        cluster.run_for(Duration::from_secs(1)).await;
        told(&mut cluster, process);
        cluster.run_for(Duration::from_secs(30)).await;
        cluster.shut_down().await
    });
    let line = |r: &crate::trace::Record| format!("{} ms {:?}", r.at.as_millis(), r.what);
    let changes = trace.records().iter().filter(|r| matches!(r.what, What::Process(_)));
    changes.map(line).collect()
}

#[test]
fn who_exits_starts_again_and_takes_its_time_unless_somebody_stopped_it_meanwhile() {
    let exited = life(|cluster, process| cluster.exit(process, "lost".into()));
    let expected = [
        "20 ms Process(Started)",
        "1000 ms Process(Exited(\"lost\"))",
        "3500 ms Process(Started)",
    ];
    assert_eq!(
        exited, expected,
        "the container starts after a second, the process is there after 1.5 s more"
    );
    let stopped = life(|cluster, process| {
        cluster.exit(process, "lost".into());
        cluster.stop_named("greeter", false).unwrap();
    });
    assert_eq!(stopped, expected[..2], "it stays down");
    let bare = life(|cluster, process| {
        cluster.restart_containers(false);
        cluster.exit(process, "lost".into());
    });
    assert_eq!(
        bare,
        expected[..2],
        "nobody starts it where there is no container runtime"
    );
}

#[test]
fn who_was_started_by_hand_does_not_start_once_more() {
    let started = life(|cluster, process| {
        cluster.exit(process, "lost".into());
        cluster.start_named("greeter", false).unwrap();
        cluster.stop_named("greeter", false).unwrap();
    });
    let last = started.last().map(String::as_str);
    assert_eq!(last, Some("1000 ms Process(Exited(\"stopped\"))"), "{started:?}");
}
