//! The manifests in `deploy/` against the API's types: every key is one that the API knows, and what refers to each other exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn manifests() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a manifest that the kustomization names");
    let kustomization: Value = serde_saphyr::from_str(&text("kustomization.yaml")).expect("YAML");
    let resources = kustomization["resources"].as_array().expect("a list of resources");
    let mut found = Vec::new();
    for name in resources.iter().map(|name| name.as_str().expect("a file name")) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text(name)).expect("YAML");
        found.extend(documents.into_iter().map(|document| (name.to_owned(), document)));
    }
    found
}

/// Keys of `written` that its type dropped.
fn lost(written: &Value, understood: &Value, at: &str, found: &mut Vec<String>) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (key, value) in written {
                let at = format!("{at}.{key}");
                match understood.get(key) {
                    Some(other) => lost(value, other, &at, found),
                    None if matches!(key.as_str(), "apiVersion" | "kind") => {}
                    None => found.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            for (nth, (value, other)) in written.iter().zip(understood).enumerate() {
                lost(value, other, &format!("{at}[{nth}]"), found);
            }
        }
        (written, understood) if written == understood => {}
        _ => found.push(at.to_owned()),
    }
}

fn check<T: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    let typed: T = serde_json::from_value(document.clone()).expect("the API reads it");
    let understood = serde_json::to_value(typed).expect("the API writes it");
    let mut found = Vec::new();
    lost(document, &understood, "", &mut found);
    found
}

#[test]
fn every_key_is_one_that_the_api_knows() {
    let mut kinds = BTreeMap::new();
    for (file, document) in manifests() {
        let kind = document["kind"].as_str().unwrap().to_owned();
        let lost = match kind.as_str() {
            "Namespace" => check::<Namespace>(&document),
            "CSIDriver" => check::<CSIDriver>(&document),
            "StorageClass" => check::<StorageClass>(&document),
            "ServiceAccount" => check::<ServiceAccount>(&document),
            "ClusterRole" => check::<ClusterRole>(&document),
            "ClusterRoleBinding" => check::<ClusterRoleBinding>(&document),
            "StatefulSet" => check::<StatefulSet>(&document),
            other => panic!("{file}: nobody checks {other}"),
        };
        assert_eq!(lost, Vec::<String>::new(), "{file}");
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(
        (kinds["StorageClass"], kinds["StatefulSet"], kinds["CSIDriver"]),
        (3, 1, 1)
    );
}

#[test]
fn what_refers_to_each_other_exists() {
    let all = manifests();
    let of = |kind: &str| {
        all.iter()
            .map(|(_, document)| document)
            .filter(|one| one["kind"] == kind)
            .collect::<Vec<_>>()
    };
    let name = &of("CSIDriver")[0]["metadata"]["name"];
    for class in of("StorageClass") {
        assert_eq!(class["provisioner"], *name);
        let kind = class["parameters"]["type"].as_str().unwrap();
        assert!(["thin", "thick"].contains(&kind), "{kind}");
    }
    let spec = &of("StatefulSet")[0]["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], of("ServiceAccount")[0]["metadata"]["name"]);
    let volumes: Vec<&Value> = spec["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| &volume["name"])
        .collect();
    for container in spec["containers"].as_array().unwrap() {
        for mount in container["volumeMounts"].as_array().unwrap() {
            assert!(volumes.contains(&&mount["name"]), "{mount}");
        }
    }
    let probe = &spec["containers"][0]["livenessProbe"]["httpGet"];
    assert_eq!(probe["path"], "/healthz", "the liveness probe beside it answers there");
}
