//! The manifests in `deploy/` against the API's types: every key is one that the API knows, and what refers to each other exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn manifests() -> Vec<(String, Value)> {
    let mut found = manifests_of("../deploy");
    found.extend(manifests_of("../deploy/explore"));
    found
}

fn manifests_of(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
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
            "PersistentVolumeClaim" => check::<PersistentVolumeClaim>(&document),
            "Job" => check::<Job>(&document),
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
        assert!(["thin", "thick", "encrypted"].contains(&kind), "{kind}");
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

/// The commands `wavetank …` in a script or a workflow, word by word; variables become a number.
fn commands(text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .map(str::trim)
        .map(|line| line.trim_start_matches("- run: "));
    let ours = lines.filter(|line| line.starts_with("wavetank "));
    let word = |word: &str| {
        word.replace("${{ matrix.shard }}", "2")
            .replace("$shard", "2")
            .replace(['"', '\''], "")
    };
    ours.map(|line| {
        line.replace("${{ matrix.shard }}", "$shard")
            .split_whitespace()
            .map(word)
            .collect()
    })
    .collect()
}

/// The examples of campaigns over many machines use shards as the command takes them: their commands are read by the command itself.
#[test]
fn the_examples_of_sharded_campaigns_are_commands_that_the_program_reads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/explore");
    let job: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(folder.join("job.yaml")).unwrap()).unwrap();
    let spec = &job[1]["spec"];
    let script = spec["template"]["spec"]["containers"][0]["args"][0].as_str().unwrap();
    assert_eq!(spec["completionMode"], "Indexed");
    assert!(
        script.contains("$((JOB_COMPLETION_INDEX + 1))"),
        "indexes count from 0, shards from 1"
    );
    let parts = format!("/{}\"", spec["completions"]);
    assert!(script.contains(&parts), "as many shards as completions: {script}");

    let workflow = fs::read_to_string(folder.join("workflow.yaml")).unwrap();
    let read: Value = serde_saphyr::from_str(&workflow).unwrap();
    let shards = read["jobs"]["storm"]["strategy"]["matrix"]["shard"].as_array().unwrap();
    assert!(
        workflow.contains(&format!("}}}}/{} --out", shards.len())),
        "as many shards as the matrix has"
    );
    let mut found = commands(script);
    found.extend(commands(&workflow));
    assert_eq!(found.len(), 3, "{found:?}");
    for command in found {
        wavetank_sim::cli::understands(&command).unwrap_or_else(|e| panic!("{command:?}: {e}"));
    }
}
