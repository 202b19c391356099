//! What the recordings show beside their numbered facts: who goes by which clock, what is said twice, what stays. Each test names its recording.

use serde_json::{Value, json};
use wavetank_sim::scenario::{Builder, Call, Code, Inject};

use super::run::{Run, each, fact, one};

fn running(story: Builder) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "3m")
}

fn fails(call: Call, times: u32) -> Inject {
    Inject::into_call(call).code(Code::Internal).times(times)
}

#[test]
fn trace_21b_the_controller_looks_at_a_failing_attach_on_a_clock_of_its_own() {
    let story =
        running(fact("21b", "ControllerPublish fails five times").inject(fails(Call::ControllerPublishVolume, 5)));
    each(&story, |run| {
        let created = run.write("controller-manager", "create volumeattachments").at;
        let told: Vec<f64> = run
            .events("FailedAttachVolume")
            .iter()
            .map(|e| e.at - created)
            .collect();
        for (at, want) in told.iter().zip([0.5, 1.7, 3.2, 5.8, 10.4, 19.0]) {
            run.between("the next FailedAttachVolume", *at, want - 0.15, want + 0.35);
        }
        assert_eq!(told.len(), 6);
        let attached = run.since("VolumeAttachment", "csi-", |s| s.object["status"]["attached"] == true);
        let noticed = run.event("SuccessfulAttachVolume").at;
        run.between("the notice", noticed - attached, 2.0, 10.0);
    });
}

#[test]
fn trace_21b_a_failing_detach_is_deleted_again_and_keeps_no_code() {
    let story = running(fact("21b", "ControllerUnpublish fails four times"))
        .inject(fails(Call::ControllerUnpublishVolume, 4))
        .delete("pod/web")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let deletes: Vec<f64> = run
            .writes("controller-manager", "delete volumeattachments")
            .iter()
            .map(|w| w.at)
            .collect();
        let since: Vec<f64> = deletes.iter().skip(1).map(|at| at - deletes[0]).collect();
        for (at, want) in since.iter().zip([1.1, 2.7, 5.4, 9.9]) {
            run.between("the next DELETE", *at, want - 0.2, want + 0.4);
        }
        let failed = run.states("VolumeAttachment", "csi-");
        let error = failed
            .iter()
            .find_map(|s| s.object["status"].get("detachError"))
            .expect("it says why");
        assert!(
            error["message"].is_string() && error["errorCode"] == Value::Null,
            "{error}"
        );
    });
}

#[test]
fn trace_11_the_end_of_an_attachment_wakes_no_deletion() {
    let story = fact("11", "a claim deleted in use")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .delete("pvc/data")
        .run("2s")
        .delete("pod/web")
        .until("pv/claim:data", "gone", "2m");
    let mut waited = 0;
    for seed in 0..8 {
        let run = one(&story, seed);
        let detached = run.gone("VolumeAttachment", "csi-");
        let last = run.events("VolumeFailedDelete").last().map(|e| e.at);
        let deleted = run.first("DeleteVolume");
        if last.is_some() && deleted - detached > 0.3 {
            waited += 1;
        }
    }
    assert!(waited >= 3, "the back-off goes on: {waited} of 8");
}

#[test]
fn traces_06_and_08_an_expansion_is_announced_once_more_if_the_mark_on_the_volume_outlives_it() {
    let story = running(fact("06", "online expansion"))
        .grow("data", "2Gi")
        .until("pvc/data", "{.status.capacity.storage}=2Gi", "3m")
        .run("1s");
    let mut counts = [0; 3];
    for seed in 0..12 {
        let run = one(&story, seed);
        let told = run.events("ExternalExpanding");
        let count = told.last().map_or(0, |e| e.object["count"].as_u64().unwrap_or(1));
        counts[usize::try_from(count).expect("few are told")] += 1;
    }
    // The resizer takes the mark off while the expand controller looks for it.
    assert!(
        counts[0] == 0 && counts[1] > 0 && counts[2] > 0,
        "never, once, twice: {counts:?}"
    );
}

#[test]
fn trace_10_the_source_of_a_clone_is_protected_until_it_is_deleted() {
    let story = fact("10", "a clone")
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .until("pvc/data", "Bound", "10s")
        .claim("copy", "1Gi", |claim| claim.class("imm").clone_of("data"))
        .until("pvc/copy", "Bound", "30s")
        .run("30s")
        .delete("pvc/data")
        .until("pvc/data", "gone", "10s");
    each(&story, |run| {
        let protected = |s: &super::run::State| {
            s.object["metadata"]["finalizers"]
                .to_string()
                .contains("cloning-protection")
        };
        let states = run.states("PersistentVolumeClaim", "data");
        let deleted = run.write("kubectl", "delete persistentvolumeclaims data").at;
        let before = states.iter().rfind(|s| s.at < deleted).expect("it was there");
        assert!(protected(before), "thirty seconds after the clone was bound");
        let last = states.iter().rfind(|s| protected(s)).expect("it was protected");
        run.between(
            "the end of the protection",
            run.gone("PersistentVolumeClaim", "data") - last.at,
            0.0,
            0.06,
        );
    });
}

fn node_writes(run: &Run, after: f64) -> Vec<(String, f64)> {
    let kubelet = run.writes.iter().filter(|w| w.user == "kubelet/node-1" && w.at > after);
    let ours = kubelet.filter(|w| w.what.starts_with("update csinodes") || w.what == "patch nodes node-1");
    ours.map(|w| (w.what.clone(), w.at - after)).collect()
}

#[test]
fn traces_18b_and_18c_a_registrar_that_restarts_takes_its_driver_away_for_a_second() {
    let story = running(fact("18b", "a registrar restarts"))
        .run("3s")
        .restart("registrar/node-1")
        .run("5s");
    each(&story, |run| {
        let writes = node_writes(run, run.last_step());
        let names: Vec<&str> = writes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "update csinodes node-1",
                "patch nodes node-1",
                "patch nodes node-1",
                "update csinodes node-1"
            ]
        );
        run.between("the unregistration", writes[0].1, 0.0, 1.1);
        run.between("without the driver", writes[3].1 - writes[0].1, 0.9, 1.2);
        let info = run.last("NodeGetInfo");
        run.between(
            "the CSINode after NodeGetInfo",
            run.last_step() + writes[3].1 - info,
            0.0,
            0.05,
        );
        assert_eq!(
            (run.calls("NodeStageVolume").len(), run.calls("NodePublishVolume").len()),
            (1, 1)
        );
    });
}

#[test]
fn trace_19_sidecars_ask_in_this_order_when_they_start() {
    let mut story =
        running(fact("19", "sidecars restart").cluster(|cluster| cluster.drivers[0].options.list = false)).run("3s");
    for sidecar in ["provisioner", "attacher", "resizer"] {
        story = story.restart(sidecar).run("5s");
    }
    each(&story, |run| {
        let start = run.first("NodePublishVolume") + 1.0;
        for (caller, questions) in [("provisioner", 1), ("attacher", 1), ("resizer", 3)] {
            let asked = run.rpcs.iter().filter(|r| r.caller == caller && r.at > start);
            let asked: Vec<&str> = asked.map(|r| r.method.as_str()).collect();
            let mut expected = vec!["Probe", "GetPluginInfo", "GetPluginCapabilities"];
            expected.extend(["ControllerGetCapabilities"].repeat(questions));
            assert_eq!(asked, expected, "{caller}");
        }
    });
}

#[test]
fn trace_25_a_returning_pod_waits_for_a_round_of_its_own() {
    let story = running(fact("25", "a pod comes back before the tick"))
        .run("3s")
        .delete("pod/web")
        .until("pod/web", "gone", "1m")
        .run("150ms")
        .pod("again", |pod| pod.mounts("data").on("node-1"))
        .until("pod/again", "Ready", "1m");
    each(&story, |run| {
        let bound = run.writes("scheduler", "create pods/binding")[1].at;
        let staged = run.last("NodeStageVolume");
        assert!(staged > bound);
        run.between("NodeStage", staged - bound, 0.1, 10.6);
    });
}

#[test]
fn trace_12_a_retained_volume_is_released_and_nothing_else() {
    let retain = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "keep"},
        "provisioner": "csi.wavetank.dev", "reclaimPolicy": "Retain",
    });
    let story = fact("12", "policy Retain")
        .manifest(retain)
        .claim("data", "1Gi", |claim| claim.class("keep"))
        .until("pvc/data", "Bound", "10s")
        .delete("pvc/data")
        .until("pv/claim:data", "Released", "10s")
        .run("1m")
        .delete("pv/claim:data")
        .until("pv/claim:data", "gone", "10s");
    each(&story, |run| {
        assert_eq!(run.life(), ["CreateVolume"], "the volume stays in the storage system");
    });
}
