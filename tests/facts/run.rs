//! What one run of a story has shown, in the shape of the recordings: calls, writes, states of objects, all with their time in seconds.

use serde_json::Value as Json;
use wavetank_sim::play::{Options, play};
use wavetank_sim::scenario::{Builder, Call, Scenario};
use wavetank_sim::trace::{ProcessChange, Record, Trace, What, recorded};

/// The seeds that every story is played with: chance moves phases of loops, and with them who comes first.
pub const SEEDS: std::ops::Range<u64> = 0..4;

/// A CSI call.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// When it was sent, in seconds.
    pub at: f64,
    /// How long its caller waited, in seconds.
    pub took: f64,
    /// Who made it.
    pub caller: String,
    /// Which call.
    pub method: String,
    /// What its caller got, spelled as Go does.
    pub code: String,
    /// The request.
    pub request: Json,
}

/// A write as the API server took it.
#[derive(Clone, Debug)]
pub struct Write {
    /// When, in seconds.
    pub at: f64,
    /// Who.
    pub user: String,
    /// `patch persistentvolumeclaims/status data`.
    pub what: String,
    /// The HTTP code.
    pub code: u64,
    /// The request.
    pub body: Json,
}

/// A state that an object had.
#[derive(Clone, Debug)]
pub struct State {
    /// Since when, in seconds.
    pub at: f64,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub event: String,
    /// The object.
    pub object: Json,
}

/// One run.
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// All calls.
    pub rpcs: Vec<Rpc>,
    /// All writes.
    pub writes: Vec<Write>,
    /// All states.
    pub states: Vec<State>,
    /// When the last step that did something began: not one that waits.
    last_step: f64,
    /// Who exited by itself, and when.
    exits: Vec<(f64, String)>,
}

/// A story about a fact: two nodes, the classes `imm` and `wffc`.
pub fn fact(number: &str, says: &str) -> Builder {
    Scenario::builder(&format!("fact-{number}"))
        .because(says)
        .nodes(2)
        .cluster(|cluster| cluster.drivers[0].options.single_node_multi_writer = true)
        .class("imm", |class| class.expandable())
        .class("wffc", |class| class.expandable().wait_for_first_consumer())
}

/// Plays a story with every seed.
pub fn each(story: &Builder, judge: impl Fn(&Run)) {
    SEEDS.for_each(|seed| judge(&one(story, seed)));
}

/// Plays a story with one seed.
pub fn one(story: &Builder, seed: u64) -> Run {
    let scenario = story
        .clone()
        .build()
        .unwrap_or_else(|e| panic!("{}", e.render(120, false)));
    let options = Options {
        seed,
        ..Options::default()
    };
    let report = play(&scenario, &options);
    assert!(report.verdict.held(), "seed {seed}: {:#?}", report.verdict);
    Run {
        seed,
        rpcs: recorded::rpcs(&report.trace).iter().map(rpc).collect(),
        writes: recorded::api_writes(&report.trace).iter().map(write).collect(),
        states: recorded::objects(&report.trace).iter().map(state).collect(),
        last_step: last_step(&report.trace),
        exits: exits(&report.trace),
    }
}

fn since(trace: &Trace, record: &Record) -> f64 {
    record.at.since(trace.origin()).as_secs_f64()
}

fn last_step(trace: &Trace) -> f64 {
    let acts = |record: &&Record| matches!(&record.what, What::Step(text) if !text.starts_with("wait") && !text.starts_with("run"));
    let last = trace.records().iter().rev().find(acts);
    last.map_or(0.0, |record| since(trace, record))
}

fn exits(trace: &Trace) -> Vec<(f64, String)> {
    let exit = |record: &Record| match &record.what {
        What::Process(ProcessChange::Exited(why)) if why != "stopped" => {
            Some((since(trace, record), record.process.to_string()))
        }
        _ => None,
    };
    trace.records().iter().filter_map(exit).collect()
}

fn seconds(json: &Json) -> f64 {
    json.as_f64().unwrap_or(0.0) / 1000.0
}

fn text(json: &Json) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn rpc(json: &Json) -> Rpc {
    Rpc {
        at: seconds(&json["t_ms"]),
        took: seconds(&json["dur_ms"]),
        caller: text(&json["caller"]),
        method: text(&json["method"]),
        code: text(&json["status"]["code"]),
        request: json["request"].clone(),
    }
}

fn write(json: &Json) -> Write {
    let part = |key: &str, before: &str| json[key].as_str().map(|t| format!("{before}{t}")).unwrap_or_default();
    Write {
        at: seconds(&json["t_ms"]),
        user: text(&json["user"]),
        what: format!(
            "{}{}{}{}",
            part("verb", ""),
            part("resource", " "),
            part("subresource", "/"),
            part("name", " ")
        ),
        code: json["code"].as_u64().unwrap_or(0),
        body: json["request_object"].clone(),
    }
}

fn state(json: &Json) -> State {
    State {
        at: seconds(&json["t_ms"]),
        kind: text(&json["kind"]),
        name: text(&json["name"]),
        event: text(&json["event"]),
        object: json["object"].clone(),
    }
}

impl Run {
    /// When the last step that did something began: not one that waits.
    pub fn last_step(&self) -> f64 {
        self.last_step
    }

    /// Who exited by itself at such a moment.
    pub fn exits(&self, then: impl Fn(f64) -> bool) -> Vec<String> {
        let exits = self.exits.iter().filter(|(at, _)| then(*at));
        exits.map(|(_, who)| who.clone()).collect()
    }

    /// The calls of one method, in their order.
    pub fn calls(&self, method: &str) -> Vec<&Rpc> {
        self.rpcs.iter().filter(|rpc| rpc.method == method).collect()
    }

    /// When the calls of one method were made.
    pub fn times(&self, method: &str) -> Vec<f64> {
        self.calls(method).iter().map(|rpc| rpc.at).collect()
    }

    /// When the first call of a method was made.
    #[track_caller]
    pub fn first(&self, method: &str) -> f64 {
        let times = self.times(method);
        *times
            .first()
            .unwrap_or_else(|| panic!("seed {}: no {method}", self.seed))
    }

    /// When the last call of a method was made.
    #[track_caller]
    pub fn last(&self, method: &str) -> f64 {
        let times = self.times(method);
        *times
            .last()
            .unwrap_or_else(|| panic!("seed {}: no {method}", self.seed))
    }

    /// The pauses between the calls of one method, from start to start.
    pub fn gaps(&self, method: &str) -> Vec<f64> {
        self.times(method).windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The calls of a volume's life, as `NodeStageVolume`, `NodeStageVolume!Internal`; the same one in a row counts once.
    pub fn life(&self) -> Vec<String> {
        let mut life: Vec<String> = Vec::new();
        for rpc in &self.rpcs {
            let known = Call::parse(&rpc.method).is_some_and(Call::is_lifecycle);
            let line = match rpc.code.as_str() {
                "OK" => rpc.method.clone(),
                code => format!("{}!{code}", rpc.method),
            };
            if known && life.last() != Some(&line) {
                life.push(line);
            }
        }
        life
    }

    /// The writes that fit a beginning such as `patch persistentvolumes`.
    pub fn writes(&self, user: &str, what: &str) -> Vec<&Write> {
        let fits = |w: &&Write| w.user == user && w.what.starts_with(what);
        self.writes.iter().filter(fits).collect()
    }

    /// The first write that fits.
    #[track_caller]
    pub fn write(&self, user: &str, what: &str) -> &Write {
        let writes = self.writes(user, what);
        writes
            .first()
            .unwrap_or_else(|| panic!("seed {}: {user} never did {what}", self.seed))
    }

    /// The events with a reason: when, and how often by then.
    pub fn events(&self, reason: &str) -> Vec<&State> {
        let fits = |s: &&State| s.kind == "Event" && s.object["reason"] == reason;
        self.states.iter().filter(fits).collect()
    }

    /// The first event with a reason.
    #[track_caller]
    pub fn event(&self, reason: &str) -> &State {
        let events = self.events(reason);
        events
            .first()
            .unwrap_or_else(|| panic!("seed {}: no event {reason}", self.seed))
    }

    /// The states of the objects of a kind with a name that begins so.
    pub fn states(&self, kind: &str, name: &str) -> Vec<&State> {
        let fits = |s: &&State| s.kind == kind && s.name.starts_with(name);
        self.states.iter().filter(fits).collect()
    }

    /// Since when an object is so.
    #[track_caller]
    pub fn since(&self, kind: &str, name: &str, so: impl Fn(&State) -> bool) -> f64 {
        let state = self.states(kind, name).into_iter().find(|s| so(s));
        state
            .unwrap_or_else(|| panic!("seed {}: {kind} {name} was never so", self.seed))
            .at
    }

    /// When an object was gone.
    #[track_caller]
    pub fn gone(&self, kind: &str, name: &str) -> f64 {
        self.since(kind, name, |s| s.event == "DELETED")
    }

    /// A number of seconds lies in a range, both ends included.
    #[track_caller]
    pub fn between(&self, what: &str, seconds: f64, low: f64, high: f64) {
        assert!(
            (low..=high).contains(&seconds),
            "seed {}: {what} took {seconds:.3} s, not {low} to {high} s",
            self.seed
        );
    }

    /// Pauses are these, each at most `late` seconds longer.
    #[track_caller]
    pub fn paced(&self, what: &str, gaps: &[f64], expected: &[f64], late: f64) {
        let fits = gaps.len() == expected.len()
            && gaps
                .iter()
                .zip(expected)
                .all(|(gap, want)| (*want - 0.001..=want + late).contains(gap));
        assert!(
            fits,
            "seed {}: {what} came after {gaps:.3?} s, not {expected:?} s",
            self.seed
        );
    }
}

/// The names in a list of objects with a `name`.
pub fn names(list: &Json) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| text(&item["name"])).collect()
}
