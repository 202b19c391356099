//! Plays the steps of a recording on the model: the same user doing the same things, each after what it waited for in the recording.
//!
//! A step that the script took by itself follows the one before it after the recorded time. A step that was `observed:` is waited for as the script did,
//! with a look every 150 ms, at the phase of the recorded look that saw it; when it does not come within [`PATIENCE`] beyond the recorded time, the replay ends there and says so.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use tonic::Code;
use wavetank_sim::api::{Delete, Edit, Kind, ObjKey, Object, ObjectRef, Patch, Write};
use wavetank_sim::cluster::{Cluster, Injection, Latency, Liveness};
use wavetank_sim::link::layers::Tamper;
use wavetank_sim::play::{assemble, boot};
use wavetank_sim::runtime::run;
use wavetank_sim::trace::{Trace, recorded};

use crate::condition::Condition;
use crate::driver;
use crate::fixture::{ApiWrite, Fixture, Rpc, Rule, Seen, Step};

/// How often the script looks, in milliseconds.
const LOOK_MS: f64 = 150.0;

/// How much longer than in the recording the model may take: a few rounds of the slowest tick (a pod is looked at again after at most 90 s).
const PATIENCE: Duration = Duration::from_secs(100);

/// Processes that ran while recording and that nothing recorded depends on.
const BYSTANDERS: &[&str] = &["snapshotter", "snapctl"];

/// What the model did.
pub struct Played {
    pub seen: Seen,
    /// The step that could not be taken, and why.
    pub stuck: Option<String>,
}

/// Plays a recording's steps with one seed.
pub fn play(fixture: &Fixture, seed: u64) -> Played {
    let fixture = fixture.clone();
    run(move || async move {
        let mut cluster = begin(&fixture, seed).await;
        let mut stuck = None;
        for nth in 0..fixture.steps.len() {
            if let Err(why) = take(&mut cluster, &fixture, nth).await {
                stuck = Some(format!("step {} ({}): {why}", nth + 1, fixture.steps[nth].action));
                break;
            }
        }
        let seen = seen(&cluster.shut_down().await);
        Played { seen, stuck }
    })
}

async fn begin(fixture: &Fixture, seed: u64) -> Cluster {
    let shape = driver::shape();
    let mut cluster = Cluster::new(seed, Latency::default(), Trace::new());
    assemble(&mut cluster, &shape, &BTreeMap::new());
    driver::install(&mut cluster, fixture);
    cluster.restart_containers(false);
    boot(&mut cluster, &shape).await;
    let namespace = json!({"metadata": {"name": fixture.namespace}});
    create(&mut cluster, Kind::Namespace, namespace).expect("a namespace is accepted");
    for class in driver::classes() {
        let kind = kind(class["kind"].as_str().unwrap_or_default()).expect("the classes have a kind");
        create(&mut cluster, kind, class).expect("the classes are accepted");
    }
    cluster.run_for(Duration::from_secs(1)).await;
    let now = cluster.now();
    cluster.trace_mut().begin(now);
    cluster
}

fn create(cluster: &mut Cluster, kind: Kind, json: serde_json::Value) -> Result<(), String> {
    let object = Object::from_json(kind, json).map_err(|e| e.to_string())?;
    cluster.create(object).map(|_| ()).map_err(|e| e.message)
}

async fn take(cluster: &mut Cluster, fixture: &Fixture, nth: usize) -> Result<(), String> {
    let step = &fixture.steps[nth];
    let next = fixture.steps.get(nth + 1);
    if let Some(condition) = Condition::of(fixture, nth)? {
        let began = nth.checked_sub(1).map_or(0.0, |before| fixture.steps[before].t_ms);
        wait(cluster, &condition, (step.t_ms - began).max(0.0)).await?;
    } else {
        act(cluster, fixture, step)?;
    }
    // A recording that was cut ends with its last line.
    let then = next.map_or(fixture.end_ms(), |next| next.t_ms);
    if !next.is_some_and(|next| Condition::is_waited_for(&next.action)) {
        let gap = (then - step.t_ms).max(0.0);
        cluster.run_for(Duration::from_secs_f64(gap / 1000.0)).await;
    }
    Ok(())
}

async fn wait(cluster: &mut Cluster, condition: &Condition, recorded_ms: f64) -> Result<(), String> {
    let ms = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
    let until = cluster.now() + ms(recorded_ms) + PATIENCE;
    cluster.run_for(ms(recorded_ms % LOOK_MS)).await;
    while !condition.holds(cluster) {
        if cluster.now() >= until {
            return Err("it does not come".into());
        }
        cluster.run_for(ms(LOOK_MS)).await;
    }
    Ok(())
}

/// What the script does by itself.
fn act(cluster: &mut Cluster, fixture: &Fixture, step: &Step) -> Result<(), String> {
    let words: Vec<&str> = step.action.split_whitespace().collect();
    match words[..] {
        ["create", kind, ..] => {
            let mut manifest = step.manifest.clone().ok_or("no manifest")?;
            let volume = manifest["spec"]["volumeName"].as_str();
            if let Some(here) = volume.and_then(|name| crate::condition::here(cluster, fixture, name)) {
                manifest["spec"]["volumeName"] = here.into();
            }
            create(cluster, self::kind(kind)?, manifest)
        }
        ["patch", kind, name] => {
            let target = target(cluster, fixture, kind, name)?;
            let edit = Edit::Merge(step.patch.clone().ok_or("no patch")?);
            apply(cluster, &Write::Patch(Patch::new(target, vec![edit])))
        }
        ["delete", kind, name, ref more @ ..] => {
            let target = target(cluster, fixture, kind, name)?;
            let grace_seconds = more.contains(&"grace=0").then_some(0);
            let delete = Delete {
                grace_seconds,
                ..Delete::new(target)
            };
            apply(cluster, &Write::Delete(delete))
        }
        ["inject", "fault", "rule"] => {
            cluster.inject(injection(step.rule.as_ref().ok_or("no rule")?));
            Ok(())
        }
        ["clear", "rules"] => {
            cluster.heal(None);
            Ok(())
        }
        [verb @ ("add" | "remove"), "out-of-service", "taint", "on", node] => out_of_service(cluster, node, verb),
        // Where the script gave up waiting, it had waited in vain for the recorded time.
        ["wait" | "end" | "TIMEOUT", ..] => Ok(()),
        [verb @ ("start" | "stop" | "restart" | "SIGKILL"), ref victims @ ..] => {
            let text = victims.join(" ");
            let text = text.split(" (").next().unwrap_or_default();
            let mut names = text.split([',', ' ']).filter(|name| !name.is_empty() && *name != "and");
            names.try_for_each(|name| process(cluster, verb, name))
        }
        _ => Err("nobody knows how to do this".into()),
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = Kind::ALL.iter().find(|kind| kind.name() == name);
    known.copied().ok_or_else(|| format!("no kind {name}"))
}

fn target(cluster: &Cluster, fixture: &Fixture, kind: &str, name: &str) -> Result<ObjectRef, String> {
    let kind = self::kind(kind)?;
    let key = if kind.namespaced() {
        ObjKey::new(fixture.namespace.as_str(), name)
    } else {
        let name = crate::condition::here(cluster, fixture, name).unwrap_or_else(|| name.to_owned());
        ObjKey::cluster(name.as_str())
    };
    Ok(ObjectRef::new(kind, key))
}

fn apply(cluster: &mut Cluster, write: &Write) -> Result<(), String> {
    cluster.apply(write).map(|_| ()).map_err(|e| e.message)
}

fn out_of_service(cluster: &mut Cluster, node: &str, verb: &str) -> Result<(), String> {
    let target = ObjectRef::new(Kind::Node, ObjKey::cluster(node));
    let stored = cluster.get::<k8s_openapi::api::core::v1::Node>(&target.key);
    let taints = stored.and_then(|node| node.spec.as_ref()?.taints.clone());
    let mut taints = taints.unwrap_or_default();
    taints.retain(|taint| taint.key != "node.kubernetes.io/out-of-service");
    if verb == "add" {
        taints.push(k8s_openapi::api::core::v1::Taint {
            key: "node.kubernetes.io/out-of-service".into(),
            value: Some("nodeshutdown".into()),
            effect: "NoExecute".into(),
            time_added: None,
        });
    }
    apply(cluster, &Write::Patch(Patch::new(target, vec![Edit::Taints(taints)])))
}

fn process(cluster: &mut Cluster, verb: &str, name: &str) -> Result<(), String> {
    if BYSTANDERS.contains(&name) || name == "proxy" {
        return Ok(());
    }
    let names: Vec<String> = match name.split_once('-') {
        _ if name == "driver" => cluster.driver_names().map(|name| name.to_string()).collect(),
        Some((role, node)) => vec![format!("{role}/node-{node}")],
        None => vec![name.to_owned()],
    };
    for name in &names {
        match verb {
            "SIGKILL" => cluster.crash_named(name, false)?,
            "stop" => cluster.stop_named(name, false)?,
            // The script starts what runs already anew.
            _ => {
                let runs = cluster
                    .process(name)
                    .is_some_and(|id| cluster.liveness(id) != Liveness::Down);
                if runs {
                    cluster.stop_named(name, false)?;
                }
                cluster.start_named(name, false)?;
            }
        }
    }
    Ok(())
}

fn injection(rule: &Rule) -> Injection {
    let late = Duration::from_millis(rule.delay_ms.unwrap_or(0));
    let tamper = match (rule.code.unwrap_or(0), rule.when.as_deref()) {
        (0, Some("after")) => Tamper::Late(late),
        (0, _) => Tamper::Delay(late),
        (code, _) => Tamper::Refuse(Code::from_i32(code), rule.message.clone()),
    };
    Injection {
        times: u32::try_from(rule.count).ok(),
        contains: rule.contains.clone(),
        ..Injection::on(&rule.method, 0, tamper)
    }
}

/// The model's trace in the shape of the recordings.
fn seen(trace: &Trace) -> Seen {
    Seen {
        rpcs: recorded::rpcs(trace)
            .iter()
            .filter(|json| arrived(json))
            .map(rpc)
            .collect(),
        objects: from(recorded::objects(trace)),
        api_writes: from(recorded::api_writes(trace)),
    }
    .renamed()
}

fn from<T: serde::de::DeserializeOwned>(values: Vec<serde_json::Value>) -> Vec<T> {
    let read = |value| serde_json::from_value(value).expect("the model's trace has the recordings' shape");
    values.into_iter().map(read).collect()
}

/// What nobody listened to never reached the recording proxy.
fn arrived(json: &serde_json::Value) -> bool {
    let message = json["status"]["message"].as_str().unwrap_or_default();
    !message.contains("connection refused")
}

fn rpc(json: &serde_json::Value) -> Rpc {
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| json[key].as_f64().unwrap_or_default();
    let (dur_ms, deadline_ms) = (number("dur_ms"), number("deadline_ms"));
    let code = json["status"]["code"].as_str().unwrap_or_default().to_owned();
    // The recording proxy saw a deadline of the caller as a cancelled call.
    let deadline = code == "DeadlineExceeded" && dur_ms + 1.0 >= deadline_ms;
    Rpc {
        t_ms: number("t_ms"),
        dur_ms,
        caller: text("caller"),
        method: text("method"),
        request: json["request"].clone(),
        client_gave_up: deadline || json["client_gave_up"] == true,
        code: if deadline { "Canceled".into() } else { code },
        deadline_ms,
        injected: false,
    }
}

impl Seen {
    /// With the recordings' names of the model's processes.
    fn renamed(mut self) -> Seen {
        self.rpcs.iter_mut().for_each(|rpc| rpc.caller = caller(&rpc.caller));
        self.api_writes
            .iter_mut()
            .for_each(|write: &mut ApiWrite| write.user = caller(&write.user));
        self
    }
}

/// `provisioner` is `csi-provisioner`, `kubelet/node-a` is `kubelet-a`, the user is `admin`.
pub fn caller(process: &str) -> String {
    match process.split_once("/node-") {
        Some((role, node)) => format!("{role}-{node}"),
        None => match process {
            "provisioner" | "attacher" | "resizer" => format!("csi-{process}"),
            "kubectl" => "admin".to_owned(),
            other => other.to_owned(),
        },
    }
}
