//! Facts 32 to 36, 42: who restarts, who notices, and who is held back by limits.

use serde_json::json;
use wavetank_sim::scenario::{Builder, Call, Code, Inject};

use super::run::{each, fact, one};

fn running(story: Builder) -> Builder {
    story
        .claim("data", "1Gi", |claim| claim.class("imm"))
        .pod("web", |pod| pod.mounts("data").on("node-1"))
        .until("pod/web", "Ready", "1m")
        .run("15s")
}

fn after(run: &super::run::Run, moment: f64) -> Vec<(String, f64)> {
    let node = run
        .rpcs
        .iter()
        .filter(|r| r.at > moment && r.caller.starts_with("kubelet/"));
    let life = node.filter(|r| Call::parse(&r.method).is_some_and(Call::is_lifecycle));
    life.map(|r| (r.method.clone(), r.at - moment)).collect()
}

fn names(calls: &[(String, f64)]) -> Vec<&str> {
    calls.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn fact_32_a_new_kubelet_stages_and_publishes_again() {
    let story = running(fact("32", "kubelet restarts under a pod"))
        .restart("kubelet/node-1")
        .run("30s");
    each(&story, |run| {
        let calls = after(run, run.last_step());
        assert_eq!(names(&calls), ["NodeStageVolume", "NodePublishVolume"]);
        run.between("the remount", calls[0].1, 1.2, 1.9);
        assert!(run.calls("ControllerUnpublishVolume").is_empty());
    });
}

#[test]
fn fact_32_a_pod_that_was_deleted_meanwhile_is_taken_down_after_a_second() {
    let story = running(fact("32", "a pod force-deleted while kubelet is down"))
        .stop("kubelet/node-1")
        .run("2s")
        .delete_now("pod/web")
        .run("2s")
        .start("kubelet/node-1")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let started = run.last_step();
        let calls = after(run, started);
        // The container of the pod lives on until housekeeping finds it: a driver may find the volume busy.
        assert_eq!(names(&calls)[..2], ["NodeUnpublishVolume", "NodeUnstageVolume"]);
        assert!(!names(&calls).contains(&"NodeStageVolume"));
        run.between("NodeUnpublish", calls[0].1, 0.9, 1.8);
        run.between("NodeUnstage", calls[1].1 - calls[0].1, 0.09, 0.12);
        let detached = run.first("ControllerUnpublishVolume") - started;
        run.between("the detach", detached, calls[1].1, 14.5);
    });
}

#[test]
fn fact_32_a_terminating_pod_is_mounted_again_only_to_be_unmounted() {
    let story = running(fact("32", "a pod deleted while kubelet is down"))
        .stop("kubelet/node-1")
        .run("2s")
        .delete("pod/web")
        .run("2s")
        .start("kubelet/node-1")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let calls = after(run, run.last_step());
        assert_eq!(
            names(&calls),
            [
                "NodeStageVolume",
                "NodePublishVolume",
                "NodeUnpublishVolume",
                "NodeUnstageVolume"
            ]
        );
        let took = calls[3].1 - calls[0].1;
        run.between("all four", took, 0.1, 1.5);
    });
}

#[test]
fn fact_33_idle_sidecars_that_restart_only_ask() {
    let mut story = running(fact("33", "sidecars restart with nothing to do").cluster(|cluster| {
        cluster.drivers[0].options.list = false;
    }));
    for sidecar in ["provisioner", "attacher", "resizer"] {
        story = story.restart(sidecar).run("20s");
    }
    each(&story, |run| {
        let questions = run
            .rpcs
            .iter()
            .filter(|r| r.at > run.first("NodePublishVolume") && !r.caller.starts_with("kubelet"));
        let allowed = [
            "Probe",
            "GetPluginInfo",
            "GetPluginCapabilities",
            "ControllerGetCapabilities",
        ];
        let questions: Vec<&str> = questions.map(|r| r.method.as_str()).collect();
        assert!(questions.iter().all(|m| allowed.contains(m)), "{questions:?}");
        for question in ["Probe", "GetPluginInfo", "ControllerGetCapabilities"] {
            assert!(questions.contains(&question), "{question} is asked");
        }
    });
}

#[test]
fn fact_33_who_dies_before_the_answer_asks_again_in_the_same_words() {
    let story = fact("33", "sidecars die between call and answer")
        .crash_at("provisioner / CreateVolume / pvc data / attempt 1 / before-reply")
        .crash_at("attacher / ControllerPublishVolume / pvc data / attempt 1 / before-reply");
    each(&running(story), |run| {
        for method in ["CreateVolume", "ControllerPublishVolume"] {
            let calls = run.calls(method);
            assert_eq!(calls[0].code, "Canceled");
            assert!(
                calls[1].code == "OK" && calls[0].request == calls[1].request,
                "{method}"
            );
            run.between("the successor", calls[1].at - calls[0].at, 0.0, 2.0);
        }
    });
}

#[test]
fn fact_34_only_the_sidecar_that_has_work_notices_that_its_driver_is_gone() {
    let story = running(fact("34", "the driver's controller part is gone"))
        .stop("driver-controller")
        .run("20s")
        .claim("more", "1Gi", |claim| claim.class("imm"))
        .run("3s")
        .start("driver-controller")
        .until("pvc/more", "Bound", "1m");
    each(&story, |run| {
        let created = run.write("kubectl", "create persistentvolumeclaims more").at;
        assert_eq!(run.exits(|at| at < created), Vec::<String>::new());
        let exits = run.exits(|at| at > created);
        assert!(
            !exits.is_empty() && exits.iter().all(|who| who == "provisioner"),
            "{exits:?}"
        );
    });
}

#[test]
fn fact_35_a_controller_manager_that_restarts_changes_nothing() {
    let story = running(fact("35", "the controller manager restarts"))
        .restart("controller-manager")
        .run("5m");
    each(&story, |run| {
        assert_eq!(run.writes("controller-manager", "create volumeattachments").len(), 1);
        assert!(run.writes("controller-manager", "delete volumeattachments").is_empty());
        assert!(run.calls("ControllerUnpublishVolume").is_empty());
    });
}

#[test]
fn fact_35_what_was_unmounted_meanwhile_is_detached_at_once_afterwards() {
    let story = running(fact("35", "a pod deleted while the controller manager is down"))
        .stop("controller-manager")
        .run("2s")
        .delete("pod/web")
        .until("pod/web", "gone", "1m")
        .run("15s")
        .start("controller-manager")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let started = run.last_step();
        assert!(run.gone("Pod", "web") < started);
        run.between("the detach", run.first("ControllerUnpublishVolume") - started, 1.4, 2.0);
    });
}

#[test]
fn fact_36_a_full_node_takes_the_next_pod_only_after_the_detach() {
    let story = fact("36", "one volume per node")
        .nodes(1)
        .cluster(|cluster| cluster.nodes[0].max_volumes = Some(1))
        .claim("one", "1Gi", |claim| claim.class("imm"))
        .claim("two", "1Gi", |claim| claim.class("imm"))
        .pod("one", |pod| pod.mounts("one").on("node-1"))
        .until("pod/one", "Ready", "1m")
        .pod("two", |pod| pod.mounts("two").on("node-1"))
        .until("pod/two", "event:FailedScheduling", "10s")
        .run("10s")
        .delete("pod/one")
        .until("pod/two", "Ready", "7m");
    for seed in 0..8 {
        let run = one(&story, seed);
        let message = run.event("FailedScheduling").object["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(message.contains("exceed max volume count"), "{message}");
        let bound = run.writes("scheduler", "create pods/binding")[1].at;
        let detached = run.gone("VolumeAttachment", "csi-");
        assert!(run.gone("Pod", "one") < detached);
        run.between("the binding after the detach", bound - detached, 0.0, 1.2);
    }
}

#[test]
fn fact_36_a_driver_that_is_full_is_asked_again_like_after_any_error() {
    let full = Inject::into_call(Call::ControllerPublishVolume)
        .code(Code::ResourceExhausted)
        .times(2);
    each(
        &running(fact("36", "ResourceExhausted at the driver").inject(full)),
        |run| {
            let gaps = run.gaps("ControllerPublishVolume");
            run.between("the second call", gaps[0], 0.001, 0.03);
            run.between("the third call", gaps[1], 0.999, 1.06);
        },
    );
}

#[test]
fn fact_42_a_pod_deleted_by_force_is_unmounted_at_once_and_detached_at_the_tick() {
    let story = running(fact("42", "a pod force-deleted on a healthy node"))
        .delete_now("pod/web")
        .until("va/claim:data", "gone", "1m");
    each(&story, |run| {
        let deleted = run.write("kubectl", "delete pods web").at;
        run.between("NodeUnpublish", run.first("NodeUnpublishVolume") - deleted, 0.02, 1.5);
        let order = ["NodeUnpublishVolume", "NodeUnstageVolume", "ControllerUnpublishVolume"].map(|m| run.first(m));
        assert!(order.is_sorted());
        let reported = run.writes("kubelet/node-1", "patch nodes/status");
        let reported = reported.last().expect("it says what it uses");
        let used = &reported.body["status"]["volumesInUse"];
        assert!(*used == json!(null) || *used == json!([]), "{used}");
        run.between("the detach", order[2] - reported.at, 0.01, 0.13);
    });
}
