//! What the controller does when the API server refuses: its shell alone, the answers by hand.

use serde_json::json;

use super::bench::{DRIVER, unique};
use super::{Flags, INDEXES, shells};
use crate::api::{ApiError, Cache, Edit, Kind, Object, ReadAnswer, Write, Written, names};
use crate::control::{AnyShell, Effect, Outcome, Request};
use crate::runtime::Time;

/// The shell after a start at which a volume is attached to a node, in nobody's use.
struct Alone {
    shell: Box<dyn AnyShell>,
    cache: Cache,
    now: Time,
}

fn node() -> Object {
    let json = json!({"metadata": {"name": "n", "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "volumesAttached": [{"name": unique("h"), "devicePath": ""}]}});
    Object::from_json(Kind::Node, json).unwrap()
}

fn attachment() -> Object {
    let json = json!({"metadata": {"name": names::attachment_name(DRIVER, "h", "n")},
        "spec": {"attacher": DRIVER, "nodeName": "n", "source": {"persistentVolumeName": "vol"}}, "status": {"attached": true}});
    Object::from_json(Kind::VolumeAttachment, json).unwrap()
}

impl Alone {
    fn new() -> Alone {
        let mut alone = Alone {
            shell: shells(&Flags::default()).remove(0),
            cache: Cache::new(INDEXES),
            now: Time::ZERO,
        };
        for object in [node(), attachment()] {
            alone.cache.put(object);
        }
        alone.shell.start(&alone.cache, alone.now);
        alone
    }

    /// The next request, at its time.
    fn next(&mut self) -> Request {
        loop {
            let mut pumped = self.shell.pump(&mut self.cache, self.now);
            assert!(pumped.requests.len() < 2, "{:?}", pumped.requests);
            if let Some(request) = pumped.requests.pop() {
                return request;
            }
            self.now = self.shell.next_due().expect("the controller wants something");
        }
    }

    fn answer(&mut self, request: &Request, outcome: &Outcome) {
        self.shell.outcome(&mut self.cache, request.token, outcome, self.now);
    }
}

fn broken() -> ApiError {
    ApiError {
        code: 500,
        reason: "InternalError",
        message: "etcd is unhappy".into(),
    }
}

fn written() -> Outcome {
    Outcome::Written(Ok(Written {
        object: node(),
        changed: true,
    }))
}

/// What a request tells a node to be attached.
fn reported(request: &Request) -> Option<usize> {
    match &*request.effect {
        Effect::Write(Write::Patch(patch)) => match patch.edits.as_slice() {
            [Edit::VolumesAttached(volumes)] => Some(volumes.len()),
            _ => None,
        },
        _ => None,
    }
}

#[test]
fn a_node_that_cannot_be_told_keeps_its_volume_and_is_asked_again_at_the_next_pass() {
    // 4.3 A6: put back, skipped; the end of the pass tries to report it again, the next pass to withdraw it.
    let mut alone = Alone::new();
    for _ in 0..2 {
        let withdraw = alone.next();
        assert_eq!(reported(&withdraw), Some(0));
        let at = alone.now;
        alone.answer(&withdraw, &Outcome::Written(Err(broken())));
        let report = alone.next();
        assert_eq!((reported(&report), alone.now), (Some(1), at));
        alone.answer(&report, &Outcome::Written(Err(broken())));
    }
    assert_eq!(alone.now, Time(100_000_000));
}

#[test]
fn a_node_that_uses_the_volume_after_all_stops_the_detach() {
    // 4.5: the last look is live; the attachment stays, uncertain and unreported, until the back-off is over.
    for answer in [Ok(ReadAnswer::Object(in_use())), Err(broken())] {
        let mut alone = Alone::new();
        let withdraw = alone.next();
        alone.answer(&withdraw, &written());
        let look = alone.next();
        assert!(matches!(&*look.effect, Effect::Read(_)), "{look:?}");
        alone.answer(&look, &Outcome::Read(answer));
        let again = alone.next();
        assert!(
            matches!(&*again.effect, Effect::Read(_)),
            "withdrawn already: {again:?}"
        );
        assert_eq!(alone.now, Time(600_000_000), "500 ms and the next pass");
    }
}

fn in_use() -> Object {
    let mut json = node().to_json();
    json["status"]["volumesInUse"] = json!([unique("h")]);
    Object::from_json(Kind::Node, json).unwrap()
}

#[test]
fn a_node_that_is_gone_is_safe() {
    let mut alone = Alone::new();
    let withdraw = alone.next();
    alone.answer(&withdraw, &written());
    let look = alone.next();
    let gone = ApiError {
        code: 404,
        reason: "NotFound",
        message: "nodes \"n\" not found".into(),
    };
    alone.answer(&look, &Outcome::Read(Err(gone)));
    let delete = alone.next();
    assert!(matches!(&*delete.effect, Effect::Write(Write::Delete(_))), "{delete:?}");
}

#[test]
fn an_attachment_in_use_costs_nothing() {
    // Nothing ticks when nothing is to be seen: the next word is the node's.
    let mut alone = Alone::new();
    alone.cache.put(in_use());
    alone.shell.forget_everything();
    alone.shell.start(&alone.cache, Time::ZERO);
    while alone.now < Time(1_000_000_000) {
        for request in alone.shell.pump(&mut alone.cache, alone.now).requests {
            assert_eq!(reported(&request), Some(1), "what the node knows already: {request:?}");
            alone.answer(&request, &written());
        }
        match alone.shell.next_due() {
            Some(due) => alone.now = due,
            None if alone.shell.is_idle() => return,
            None => {}
        }
    }
    panic!("it never comes to rest");
}
