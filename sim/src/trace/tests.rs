//! Rendering, record by record: columns, folding, what terminals are kept from, and the names of calls.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tonic::Status;
use wavetank_proto::csi::v1 as csi;

use super::{Follow, ProcessChange, Record, TextOptions, Trace, What, json as json_lines, text};
use crate::api::{Kind, Object, Write, Written};
use crate::link::{Call, CsiReply, CsiRequest, MachineError, MachineOp, Socket};
use crate::runtime::Time;

/// A trace that is written by hand: each record a millisecond after the other.
#[derive(Default)]
struct Story {
    trace: Trace,
    records: u64,
}

impl Story {
    fn then(mut self, process: &str, what: What) -> Story {
        self.records += 1;
        let at = Time::ZERO + Duration::from_millis(self.records);
        let process = Arc::from(process);
        self.trace.push(Record { at, process, what });
        self
    }

    fn killed(self, process: &str) -> Story {
        self.then(process, What::Process(ProcessChange::Killed))
    }

    fn call(self, process: &str, id: u64, request: impl Into<CsiRequest>) -> Story {
        let call = call(request);
        self.then(process, What::Call { id, call })
    }

    fn reply(self, process: &str, id: u64, request: impl Into<CsiRequest>, result: Result<CsiReply, Status>) -> Story {
        let (call, took) = (call(request), Duration::from_micros(3400));
        self.then(process, What::Reply { id, call, took, result })
    }

    fn create(self, process: &str, kind: Kind, object: Json) -> Story {
        let object = Object::from_json(kind, object).unwrap();
        let result = Ok(Written {
            object: object.clone(),
            changed: true,
        });
        let write = Arc::new(Write::Create(object));
        let before = None;
        self.then(process, What::Write { write, before, result })
    }

    fn coloured(&self, options: &TextOptions) -> String {
        let mut page = Vec::new();
        text::write(&mut page, &self.trace, options).unwrap();
        String::from_utf8(page).unwrap()
    }

    fn lines(&self, options: &TextOptions) -> Vec<String> {
        let plain = anstream::adapter::strip_str(&self.coloured(options)).to_string();
        plain.lines().map(str::to_owned).collect()
    }

    fn plain(&self) -> Vec<String> {
        self.lines(&TextOptions::default())
    }

    fn json(&self, follow: &[Follow]) -> Vec<Json> {
        let mut page = Vec::new();
        json_lines::write(&mut page, &self.trace, follow).unwrap();
        let page = String::from_utf8(page).unwrap();
        page.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn call(request: impl Into<CsiRequest>) -> Arc<Call> {
    Arc::new(Call {
        driver: "csi.wavetank.dev".into(),
        socket: Socket::Controller,
        request: request.into(),
        timeout: Duration::from_secs(10),
    })
}

fn delete(id: &str) -> csi::DeleteVolumeRequest {
    csi::DeleteVolumeRequest {
        volume_id: id.into(),
        ..Default::default()
    }
}

fn deleted() -> Result<CsiReply, Status> {
    Ok(CsiReply::DeleteVolume(csi::DeleteVolumeResponse {}))
}

fn probed() -> Result<CsiReply, Status> {
    Ok(CsiReply::Probe(csi::ProbeResponse::default()))
}

fn named(name: &str) -> Json {
    json!({"metadata": {"name": name, "namespace": "default"}})
}

/// Where the sign of a line stands, in characters.
fn column(line: &str, sign: char) -> usize {
    line.chars()
        .position(|c| c == sign)
        .unwrap_or_else(|| panic!("no {sign} in {line}"))
}

#[test]
fn columns_are_as_wide_as_the_longest_name_and_no_wider_than_28() {
    let story = Story::default().killed("scheduler").killed("kubelet/node-1");
    assert_eq!(
        story.plain(),
        [
            "    0.001  scheduler       ▼ killed",
            "    0.002  kubelet/node-1  ▼ killed"
        ]
    );
    let story = story.killed("driver-node@csi.wavetank.dev/a-node-with-a-long-name");
    let lines = story.plain();
    let columns: Vec<usize> = lines.iter().map(|line| column(line, '▼')).collect();
    assert_eq!(columns, [11 + 28 + 2; 3], "{lines:#?}");
    assert!(
        lines[2].contains("driver-node@c…th-a-long-name"),
        "both ends of a long name stay: {}",
        lines[2]
    );
}

#[test]
fn a_call_and_its_answer_are_one_line_unless_something_comes_between() {
    let at_once =
        Story::default()
            .call("provisioner", 1, delete("vol-1"))
            .reply("provisioner", 1, delete("vol-1"), deleted());
    assert_eq!(
        at_once.plain(),
        ["    0.001  provisioner  ⇄ DeleteVolume vol-1 OK 3.4 ms"]
    );
    let apart = Story::default()
        .call("provisioner", 1, delete("vol-1"))
        .killed("scheduler")
        .reply("provisioner", 1, delete("vol-1"), Err(Status::aborted("busy")));
    let lines = apart.plain();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("→ DeleteVolume vol-1"), "{}", lines[0]);
    assert!(
        lines[2].contains("← DeleteVolume") && lines[2].contains("ABORTED busy 3.4 ms"),
        "{}",
        lines[2]
    );
}

#[test]
fn the_same_question_again_and_again_is_one_line_and_a_deed_is_not() {
    let mut story = Story::default();
    for id in 0..5 {
        let request = csi::ProbeRequest {};
        story = story
            .call("provisioner", id, request)
            .reply("provisioner", id, request, probed());
    }
    let lines = story.plain();
    assert!(
        lines.len() == 1 && lines[0].contains("Probe") && lines[0].contains("×5"),
        "{lines:?}"
    );
    let mut story = Story::default();
    for id in 0..2 {
        story = story
            .call("provisioner", id, delete("vol-1"))
            .reply("provisioner", id, delete("vol-1"), deleted());
    }
    assert_eq!(story.plain().len(), 2);
}

#[test]
fn what_others_say_cannot_steer_a_terminal_nor_fill_it() {
    let evil = "\u{1b}]0;gone\u{7}\u{1b}[2J\u{9b}31m";
    let failed = |message: &str| What::Process(ProcessChange::Failed(message.to_owned()));
    let story = Story::default().then("provisioner", failed(evil));
    let page = story.coloured(&TextOptions::default());
    assert!(
        !page.contains('\u{7}') && !page.contains("\u{1b}[2J") && !page.contains('\u{9b}'),
        "{page:?}"
    );
    assert!(page.contains("\u{fffd}[2J"), "{page:?}");
    let story = Story::default().then("provisioner", failed(&"x".repeat(1 << 20)));
    let verbose = TextOptions {
        verbose: true,
        ..TextOptions::default()
    };
    let line = &story.lines(&verbose)[0];
    assert!(
        line.len() < 5000 && line.ends_with("… (1048576 bytes)"),
        "{} bytes",
        line.len()
    );
    assert!(story.plain()[0].chars().count() < 250);
}

#[test]
fn what_kubelet_does_on_its_node_is_for_the_curious_unless_it_fails() {
    let op = Arc::new(MachineOp::MakeDirs("/var/lib/kubelet/pods/x".into()));
    let machine = |error| What::Machine {
        op: Arc::clone(&op),
        error,
    };
    let missing = MachineError::Missing("/var/lib/kubelet/pods/x".into());
    let story = Story::default()
        .then("kubelet/node-1", machine(None))
        .then("kubelet/node-1", machine(Some(missing)))
        .then("kubelet/node-1", machine(Some(MachineError::Down)));
    assert_eq!(story.plain().len(), 1);
    let verbose = TextOptions {
        verbose: true,
        ..TextOptions::default()
    };
    assert_eq!(story.lines(&verbose).len(), 3);
}

#[test]
fn following_an_object_leaves_out_what_does_not_concern_it() {
    let story = Story::default()
        .create("kubectl", Kind::PersistentVolumeClaim, named("data"))
        .create("kubectl", Kind::PersistentVolumeClaim, named("other"));
    let follow: Follow = "pvc/data".parse().unwrap();
    let options = TextOptions {
        follow: vec![follow.clone()],
        ..TextOptions::default()
    };
    let lines = story.lines(&options);
    assert!(lines.len() == 1 && lines[0].contains("+ create pvc data"), "{lines:?}");
    let lines = story.json(&[follow]);
    assert_eq!((lines.len(), &lines[0]["name"]), (1, &json!("data")));
    let stranger: [Follow; 1] = ["pvc/dat".parse().unwrap()];
    let strangers = super::strangers(&stranger, story.trace.records());
    assert_eq!(strangers[0].1.as_deref(), Some("pvc/data"));
}

#[test]
fn calls_have_names_that_join_them_to_their_answers() {
    let story = Story::default()
        .call("provisioner", 7, delete("vol-1"))
        .call("provisioner", 8, delete("vol-2"))
        .reply("provisioner", 8, delete("vol-2"), deleted())
        .reply("provisioner", 7, delete("vol-1"), Err(Status::internal("no")));
    let lines = story.json(&[]);
    assert_eq!(lines[0]["call"], lines[3]["call"]);
    assert_eq!(lines[1]["call"], lines[2]["call"]);
    assert_ne!(lines[0]["call"], lines[1]["call"]);
    assert_eq!(
        lines[0]["call"], "provisioner DeleteVolume vol-1 1000000",
        "no running number is in it"
    );
    assert_eq!(
        (&lines[3]["code"], &lines[3]["message"]),
        (&json!("INTERNAL"), &json!("no"))
    );
    assert_eq!(
        (&lines[2]["code"], &lines[2]["sent_ms"], &lines[2]["took_ms"]),
        (&json!("OK"), &json!(2), &json!(3.4))
    );
}

#[test]
fn versions_of_objects_are_in_no_line() {
    let object = json!({"metadata": {"name": "data", "namespace": "default", "resourceVersion": "4711", "uid": "u"}});
    let story = Story::default().create("kubectl", Kind::PersistentVolumeClaim, object);
    let line = &story.json(&[])[0];
    assert_eq!(
        (&line["object"]["metadata"]["uid"], &line["event"]),
        (&json!("u"), &json!("ADDED"))
    );
    assert!(!line.to_string().contains("4711"), "{line}");
}

#[test]
fn times_begin_when_the_scenario_does() {
    let mut story = Story::default().killed("scheduler");
    story.trace.begin(Time::ZERO + Duration::from_millis(2));
    let story = Story { records: 5, ..story }.killed("scheduler");
    assert_eq!(story.plain(), ["    0.004  scheduler   ▼ killed"]);
    assert_eq!(story.json(&[])[0]["t_ms"], json!(4));
}
