//! Claim protection against the model of the API server.

use serde_json::{Value, json};

use super::{ClaimProtection, INDEXES, VolumeProtection};
use crate::api::{Kind, ObjKey};
use crate::control::Shell;
use crate::controllers::bench::{Bench, merged};
use crate::runtime::Time;

const CLAIM: Kind = Kind::PersistentVolumeClaim;

fn key(name: &str) -> ObjKey {
    ObjKey::new("default", name)
}

fn bench() -> Bench {
    Bench::new(
        INDEXES,
        vec![
            Box::new(Shell::new(ClaimProtection::default())),
            Box::new(Shell::new(VolumeProtection::default())),
        ],
    )
}

fn claim(bench: &mut Bench, name: &str, meta: &Value) {
    let meta = merged(json!({"name": name, "namespace": "default"}), meta);
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    bench.create(CLAIM, json!({"metadata": meta, "spec": spec}));
}

/// Creates a pod that uses the claim `data` through this volume source.
fn pod(bench: &mut Bench, node: Option<&str>, source: &Value) {
    let volume = merged(json!({"name": "d"}), source);
    let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}], "volumes": [volume]});
    bench.create(
        Kind::Pod,
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}),
    );
}

fn by_name() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}

fn exists(bench: &Bench) -> bool {
    bench.json(CLAIM, &key("data")) != Value::Null
}

#[test]
fn an_unused_claim_goes_at_once() {
    let mut bench = bench();
    claim(&mut bench, "data", &json!({}));
    bench.delete(CLAIM, &key("data"));
    assert_eq!(bench.take_log(), ["update pvc default/data"]);
    assert!(!exists(&bench));
}

#[test]
fn a_pod_with_a_node_keeps_its_claim_until_its_object_is_gone() {
    // Trace 11, and Appendix I.6: a pod that has run to its end keeps the claim as well.
    let mut bench = bench();
    claim(&mut bench, "data", &json!({}));
    pod(&mut bench, Some("n1"), &by_name());
    bench.delete(CLAIM, &key("data"));
    bench.patch(Kind::Pod, &key("web"), true, json!({"status": {"phase": "Succeeded"}}));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.delete(Kind::Pod, &key("web"));
    assert_eq!(bench.take_log(), ["update pvc default/data"]);
    assert!(!exists(&bench));
}

#[test]
fn a_pod_without_a_node_keeps_nothing() {
    let mut bench = bench();
    claim(&mut bench, "data", &json!({}));
    pod(&mut bench, None, &by_name());
    bench.delete(CLAIM, &key("data"));
    assert!(!exists(&bench));
}

#[test]
fn a_live_list_sees_the_pod_that_the_informer_does_not() {
    let mut bench = bench();
    claim(&mut bench, "data", &json!({}));
    bench.hold(Kind::Pod);
    pod(&mut bench, Some("n1"), &by_name());
    bench.delete(CLAIM, &key("data"));
    assert_eq!(bench.take_log(), [""; 0]);
    assert!(exists(&bench));
}

#[test]
fn an_ephemeral_claim_is_kept_only_by_the_pod_that_owns_it() {
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    for owned in [true, false] {
        let mut bench = bench();
        pod(
            &mut bench,
            Some("n1"),
            &json!({"ephemeral": {"volumeClaimTemplate": template.clone()}}),
        );
        let uid = bench.json(Kind::Pod, &key("web"))["metadata"]["uid"].clone();
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid, "controller": true}]);
        claim(
            &mut bench,
            "web-d",
            &if owned {
                json!({"ownerReferences": owner})
            } else {
                json!({})
            },
        );
        bench.delete(CLAIM, &key("web-d"));
        assert_eq!(bench.json(CLAIM, &key("web-d")) != Value::Null, owned);
    }
}

#[test]
fn a_conflict_is_retried_alone_and_later_each_time() {
    // Trace 10: another finalizer is taken away at the same moment; 409, then 5, 10, … ms.
    let mut bench = bench();
    claim(&mut bench, "stale", &json!({"finalizers": ["example.com/other"]}));
    let _ = bench.take_log();
    bench.delete_behind(CLAIM, &key("stale"), json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(bench.take_log(), ["update pvc default/stale 409"]);
    let ms = |n: u64| Time(n * 1_000_000);
    bench.run_to(ms(5));
    assert_eq!(bench.take_log(), ["update pvc default/stale 409"]);
    bench.run_to(ms(14));
    assert_eq!(bench.take_log(), [""; 0]);
    bench.run_to(ms(15));
    assert_eq!(bench.take_log(), ["update pvc default/stale 409"]);
    bench.release();
    assert_eq!(bench.take_log(), ["update pvc default/stale"]);
}

#[test]
fn a_claim_made_while_admission_slept_gets_its_finalizer() {
    let mut bench = bench();
    claim(&mut bench, "data", &json!({}));
    bench.patch(CLAIM, &key("data"), false, json!({"metadata": {"finalizers": null}}));
    assert_eq!(bench.take_log(), ["update pvc default/data"]);
    assert_eq!(
        bench.json(CLAIM, &key("data"))["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
}
