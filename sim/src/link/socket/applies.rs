//! Which scenarios an outside driver can be played with, and as what: derived from what it says of itself, from its profile, and from what the link can do.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Outside;
use super::profile::AccessMode;
use crate::api::quantity::Amount;
use crate::scenario::{Expectation, GoDuration, Manifest, Process, Role, Scenario, Step};
use crate::storm::Fault;

/// A node that is silent for so long is one whose pods Kubernetes evicts: their tolerations end.
const PATIENCE: Duration = Duration::from_secs(300);
/// The prefix of parameters that belong to Kubernetes.
const KUBERNETES: &str = "csi.storage.k8s.io/";
/// The Secret that holds a profile's secrets.
const SECRET: (&str, &str) = ("kube-system", "wavetank-driver");
/// The calls that may carry secrets, as parameters of a class spell them.
const SECRET_CALLS: &[&str] = &[
    "provisioner",
    "controller-publish",
    "node-stage",
    "node-publish",
    "controller-expand",
    "node-expand",
];

/// What a scenario needs when it says one of these words, and where the driver says that it has it.
const NEEDS: &[(&[&str], Side, &str)] = &[
    (
        &[
            "ControllerPublishVolume",
            "ControllerUnpublishVolume",
            "VolumeAttachment",
            "attacher",
            " / va ",
        ],
        Side::Controller,
        "PUBLISH_UNPUBLISH_VOLUME",
    ),
    (
        &["NodeStageVolume", "NodeUnstageVolume"],
        Side::Node,
        "STAGE_UNSTAGE_VOLUME",
    ),
    (
        &["ControllerExpandVolume", "resizer"],
        Side::Controller,
        "EXPAND_VOLUME",
    ),
    (&["NodeExpandVolume"], Side::Node, "EXPAND_VOLUME"),
    (
        &["VolumeSnapshot", "CreateSnapshot", "DeleteSnapshot"],
        Side::Controller,
        "CREATE_DELETE_SNAPSHOT",
    ),
    (
        &["ControllerModifyVolume", "volumeAttributesClassName"],
        Side::Controller,
        "MODIFY_VOLUME",
    ),
    (&["NodeGetVolumeStats"], Side::Node, "GET_VOLUME_STATS"),
    (&["GetCapacity"], Side::Controller, "GET_CAPACITY"),
    // The attacher lists volumes to learn where they are.
    (&["ListVolumes"], Side::Controller, "LIST_VOLUMES_PUBLISHED_NODES"),
];

#[derive(Clone, Copy)]
enum Side {
    Controller,
    Node,
}

/// Why a scenario does not apply.
pub(super) fn reasons_against(outside: &Outside, scenario: &Scenario) -> Vec<String> {
    let mut json = serde_json::to_value(scenario).expect("a scenario is plain data");
    for besides in ["name", "because", "cluster"] {
        json.as_object_mut().expect("a scenario is a map").remove(besides);
    }
    let mut case = Case {
        outside,
        scenario,
        text: json.to_string(),
        reasons: BTreeSet::new(),
    };
    case.cluster();
    case.company();
    case.capabilities();
    case.manifests();
    case.steps();
    case.reasons.into_iter().collect()
}

struct Case<'a> {
    outside: &'a Outside,
    scenario: &'a Scenario,
    /// What happens in the scenario, as text.
    text: String,
    reasons: BTreeSet<String>,
}

impl Case<'_> {
    fn against(&mut self, reason: impl Into<String>) {
        self.reasons.insert(reason.into());
    }

    fn cluster(&mut self) {
        let shape = &self.scenario.cluster;
        let Some(driver) = shape.only_driver() else {
            return self.against(format!("it has {} drivers, and this is one", shape.drivers.len()));
        };
        let usual = crate::scenario::DriverShape::named(&driver.name).options;
        let (usual, asked) = (json!(usual), json!(driver.options));
        let changed: Vec<&str> = asked
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| usual.get(key.as_str()) != Some(value))
            .map(|(key, _)| key.as_str())
            .collect();
        if !changed.is_empty() {
            self.against(format!(
                "it sets options of the reference driver ({})",
                changed.join(", ")
            ));
        }
        if driver.csi_driver.is_some() && self.outside.profile.csi_driver != driver.csi_driver {
            self.against("it writes the driver's CSIDriver object, which belongs to the profile");
        }
        if shape
            .nodes
            .iter()
            .any(|node| !node.topology.is_empty() || node.max_volumes.is_some())
        {
            self.against("it says where nodes are or how many volumes they take, which is the driver's to say");
        }
        let most = self.outside.profile.nodes.unwrap_or(u32::MAX) as usize;
        if shape.nodes.len() > most {
            let named = |name: &str| {
                [format!("\"{name}\""), format!("/{name}\""), format!("/{name} ")]
                    .iter()
                    .any(|spelled| self.text.contains(spelled.as_str()))
            };
            let beyond = shape.nodes.iter().skip(most).find(|node| named(&node.name));
            if let Some(node) = beyond {
                let reach = if most == 1 {
                    "one node".to_owned()
                } else {
                    format!("{most} nodes")
                };
                let reason = format!("it needs {}, and the driver's volumes reach {reach}", node.name);
                self.against(reason);
            }
        }
    }

    /// What Kubernetes does only where other nodes are left.
    fn company(&mut self) {
        let alone = self.outside.profile.nodes == Some(1) && self.scenario.cluster.nodes.len() > 1;
        if alone && self.text.contains("outOfService") {
            self.against("a node is declared dead in it, and no other is there to take over");
        }
        let silent = |process: &Process, down: &Option<GoDuration>| {
            matches!(process.role, Role::Kubelet | Role::Node) && down.is_some_and(|down| down.get() >= PATIENCE)
        };
        let falls_silent = self.scenario.steps.iter().any(|step| match step {
            Step::Crash(crash) => crash
                .process
                .as_ref()
                .is_some_and(|process| silent(process, &crash.down)),
            Step::Strike(strike) => {
                matches!(&strike.fault, Fault::Crash { process, down } if silent(process, down))
                    || matches!(&strike.fault, Fault::Partition { lasts, .. } if lasts.get() >= PATIENCE)
            }
            _ => false,
        });
        if alone && (falls_silent || self.text.contains("TaintManagerEviction")) {
            self.against("a node goes silent in it, and where it is the only one, Kubernetes evicts nobody");
        }
    }

    fn capabilities(&mut self) {
        let facts = self.outside.facts();
        let mut missing = BTreeSet::new();
        for (words, side, capability) in NEEDS {
            let (has, whose) = match side {
                Side::Controller => (&facts.controller, "controller"),
                Side::Node => (&facts.node, "node"),
            };
            let said = words.iter().any(|word| self.text.contains(word));
            if said && !has.contains(*capability) {
                missing.insert(format!("the driver's {whose} does not report {capability}"));
            }
        }
        self.reasons.extend(missing);
    }

    fn manifests(&mut self) {
        let manifests: Vec<Json> = self
            .scenario
            .all_manifests()
            .map(|manifest| manifest.json.clone())
            .collect();
        for manifest in manifests {
            match manifest["kind"].as_str() {
                Some("PersistentVolumeClaim") => self.claim(&manifest["spec"]),
                Some("PersistentVolume") if manifest["spec"]["csi"].is_object() => {
                    self.against("it needs a volume that is there before it begins");
                }
                Some("StorageClass") => self.class(&manifest),
                Some("CSIDriver") => self.against("it applies a CSIDriver object, which belongs to the profile"),
                _ => self.templates(&manifest),
            }
        }
    }

    /// Claims and volumes inside of other objects.
    fn templates(&mut self, json: &Json) {
        match json {
            Json::Object(fields) => {
                if fields.contains_key("accessModes") {
                    self.claim(json);
                }
                let inline = fields.get("csi").is_some_and(|csi| csi.get("driver").is_some());
                if inline && !self.may_be_inline() {
                    self.against("the driver's CSIDriver object does not allow inline volumes");
                }
                fields.values().for_each(|value| self.templates(value));
            }
            Json::Array(items) => items.iter().for_each(|item| self.templates(item)),
            _ => {}
        }
    }

    fn may_be_inline(&self) -> bool {
        let spec = self.outside.profile.csi_driver.as_ref();
        spec.and_then(|spec| spec.volume_lifecycle_modes.as_ref())
            .is_some_and(|modes| modes.iter().any(|mode| mode == "Ephemeral"))
    }

    fn claim(&mut self, spec: &Json) {
        let profile = &self.outside.profile;
        let can: BTreeSet<String> = profile
            .access_modes
            .iter()
            .map(|mode: &AccessMode| format!("{mode:?}"))
            .collect();
        let asked = spec["accessModes"].as_array().into_iter().flatten();
        let missing: Vec<String> = asked
            .filter_map(Json::as_str)
            .filter(|mode| !can.contains(*mode))
            .map(|mode| format!("its profile does not list the access mode {mode}"))
            .collect();
        self.reasons.extend(missing);
        let bytes = |text: &str| Amount::parse(text).map_or(0, Amount::ceil);
        if let (Some(least), Some(asked)) = (
            profile.smallest_volume.as_deref(),
            spec["resources"]["requests"]["storage"].as_str(),
        ) && bytes(asked) < bytes(least)
        {
            let reason = format!("it asks for a volume of {asked}, and the driver's are not smaller than {least}");
            self.reasons.insert(reason);
        }
        if spec["volumeMode"] == "Block" && !self.outside.profile.block {
            self.against("the driver does no raw block volumes");
        }
        let clones = ["dataSource", "dataSourceRef"]
            .iter()
            .any(|key| spec[*key]["kind"] == "PersistentVolumeClaim");
        if clones && !self.outside.facts().controller.contains("CLONE_VOLUME") {
            self.against("the driver's controller does not report CLONE_VOLUME");
        }
    }

    fn class(&mut self, class: &Json) {
        let wanted = class["parameters"]["csi.storage.k8s.io/fstype"].as_str();
        if let Some(wanted) = wanted
            && !self.outside.profile.file_systems.iter().any(|fs| fs == wanted)
        {
            self.against(format!("its profile does not list the file system {wanted}"));
        }
        let facts = self.outside.facts();
        let grows = facts.controller.contains("EXPAND_VOLUME") || facts.node.contains("EXPAND_VOLUME");
        if class["allowVolumeExpansion"] == true && !grows && self.text.contains("\"patch\"") {
            self.against("the driver does not report EXPAND_VOLUME");
        }
    }

    fn steps(&mut self) {
        if self.text.contains("after-op(") {
            self.against("it strikes between two operations of the driver, which only the in-process link can");
        }
        let steps = self.scenario.steps.clone();
        for step in &steps {
            match step {
                Step::Write(_) | Step::Verify(_) => self.data(),
                Step::Restart(process) | Step::Stop(process) | Step::Start(process) => self.ends(process),
                Step::Crash(crash) => {
                    if let Some(process) = &crash.process {
                        self.ends(process);
                    }
                    if let (Some(site), None) = (&crash.at, &crash.process) {
                        self.ends(&site.process);
                    }
                }
                Step::Strike(strike) if !self.outside.knows(&strike.fault) => {
                    self.against(format!(
                        "it strikes with `{}`, which only the in-process link can",
                        strike.fault.kind()
                    ));
                }
                Step::Strike(strike) => match (&strike.fault, strike.fault.node()) {
                    (Fault::Crash { process, .. } | Fault::Restart { process }, _) => self.ends(process),
                    (Fault::OutOfService { .. } | Fault::RemoveNode { .. }, Some(node)) => {
                        self.ends(&Process::node(node))
                    }
                    _ => {}
                },
                Step::Expect(expected) if expected.iter().any(|one| matches!(one, Expectation::Data(_))) => {
                    self.data();
                }
                _ => {}
            }
        }
        let expected = &self.scenario.expect;
        if expected.iter().any(|one| matches!(one, Expectation::Data(_))) {
            self.data();
        }
    }

    fn data(&mut self) {
        if !self.outside.profile.mounts {
            self.against("it looks at pods' data, and the driver does not mount for real");
        }
    }

    fn ends(&mut self, process: &Process) {
        let profile = &self.outside.profile;
        let combined = profile.combined.is_some();
        let (of_driver, node) = match process.role {
            Role::DriverController | Role::DriverNode => (true, false),
            Role::Node => (true, true),
            _ => (false, false),
        };
        if node && !self.outside.sees_mounts() {
            let why = match &self.outside.shared {
                Some(why) => why.clone(),
                None => "the driver does not mount for real".to_owned(),
            };
            self.against(format!("it ends a node: {why}"));
        }
        if of_driver && profile.has_strangers() {
            self.against("it ends the driver, which wavetank did not start");
        }
        if of_driver && !profile.keeps_state && (combined || process.role == Role::DriverController) {
            self.against("it ends the driver, whose volumes do not survive that");
        }
    }
}

/// The scenario as it is played: as many nodes as the driver reaches, its CSIDriver object, its parameters and secrets.
pub(super) fn adapt(outside: &Outside, scenario: &Scenario) -> Scenario {
    let mut played = scenario.clone();
    let (profile, facts) = (&outside.profile, outside.facts());
    let most = profile.nodes.unwrap_or(u32::MAX) as usize;
    played.cluster.nodes.truncate(most.max(1));
    for driver in &mut played.cluster.drivers {
        let attach = facts.controller.contains("PUBLISH_UNPUBLISH_VOLUME");
        driver.csi_driver =
            Some(
                profile
                    .csi_driver
                    .clone()
                    .unwrap_or_else(|| k8s_openapi::api::storage::v1::CSIDriverSpec {
                        attach_required: Some(attach),
                        ..Default::default()
                    }),
            );
        if !attach {
            driver.sidecars.attacher = None;
        }
        if !facts.controller.contains("EXPAND_VOLUME") {
            driver.sidecars.resizer = None;
        }
    }
    for manifest in &mut played.manifests {
        class(outside, manifest);
    }
    for step in &mut played.steps {
        if let Step::Apply(apply) = step {
            apply.manifests.iter_mut().for_each(|manifest| class(outside, manifest));
        }
    }
    if !profile.secrets.is_empty() {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": SECRET.0, "name": SECRET.1},
            "stringData": profile.secrets,
        });
        let secret = Manifest::from_json(secret).expect("the Secret is one of Kubernetes");
        played.manifests.insert(0, secret);
    }
    played
}

/// A StorageClass gets the driver's parameters.
fn class(outside: &Outside, manifest: &mut Manifest) {
    if manifest.json["kind"] != "StorageClass" {
        return;
    }
    let mut json = manifest.json.clone();
    let mut parameters = serde_json::Map::new();
    for (key, value) in json["parameters"].as_object().into_iter().flatten() {
        if key.starts_with(KUBERNETES) {
            parameters.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in &outside.profile.parameters {
        parameters.insert(key.clone(), value.as_str().into());
    }
    if !outside.profile.secrets.is_empty() {
        for call in SECRET_CALLS {
            parameters.insert(format!("{KUBERNETES}{call}-secret-namespace"), SECRET.0.into());
            parameters.insert(format!("{KUBERNETES}{call}-secret-name"), SECRET.1.into());
        }
    }
    json["parameters"] = Json::Object(parameters);
    if let Ok(changed) = Manifest::from_json(json) {
        let place = manifest.place.take();
        *manifest = Manifest { place, ..changed };
    }
}
