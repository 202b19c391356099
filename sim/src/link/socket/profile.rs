//! The profile of an outside driver: how it is started, and what it does not say about itself.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::api::storage::v1::CSIDriverSpec;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::scenario::{GoDuration, ScenarioError, strict};

/// How an outside driver is started, and what it does not say about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Its name, as GetPluginInfo answers it.
    #[schemars(extend("format" = "dns-name"))]
    pub name: String,
    /// The process that serves the sidecars. Only with `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ProcessShape>,
    /// The process that serves kubelet, one on each node. Only with `controller`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ProcessShape>,
    /// One process that serves both, on each node; the sidecars talk to that of the first node. Instead of `controller` and `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combined: Option<ProcessShape>,
    /// The most nodes that share its volumes, e.g. 1 for a driver that keeps them on its own node. Scenarios that need more do not apply; others are played
    /// with so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub nodes: Option<u32>,
    /// Whether it really mounts and formats. A driver that only pretends needs no root, and nobody looks at pods' data.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub mounts: bool,
    /// Whether volumes survive the end of its processes.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub keeps_state: bool,
    /// The parameters of StorageClasses for it. They take the place of those of a scenario, except `csi.storage.k8s.io/…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// What is handed to every call that may carry secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// What its CSIDriver object says. If left out: what its capabilities tell, and the defaults of Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csi_driver: Option<CSIDriverSpec>,
    /// The access modes that it can do.
    #[serde(default = "usual_modes")]
    pub access_modes: Vec<AccessMode>,
    /// Whether it can do raw block volumes.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub block: bool,
    /// The file systems that it can do.
    #[serde(default = "usual_file_systems")]
    pub file_systems: Vec<String>,
    /// The smallest volume that it can format: mkfs.xfs wants 300Mi. Scenarios that ask for less do not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "quantity"))]
    pub smallest_volume: Option<String>,
    /// A command that prints the ids of the volumes that its backend holds, one in a line: what is left at the end has leaked. It runs where the controller does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<ProcessShape>,
    /// How long of real time a process may take to start, and a call to be answered. Then the run ends without a verdict.
    #[serde(default = "usual_patience")]
    pub watchdog: GoDuration,
}

/// A process of a driver, or a command. `{endpoint}`, `{node}`, `{state_dir}` and `{kubelet_dir}` stand for what a run gives it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessShape {
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables of its environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The socket of a process that runs already, `unix:///path/to.sock`, instead of a command. It can be neither killed nor started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// An access mode of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is the word of Kubernetes")]
pub enum AccessMode {
    ReadWriteOnce,
    ReadOnlyMany,
    ReadWriteMany,
    ReadWriteOncePod,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_true(this: &bool) -> bool {
    *this
}

fn usual_modes() -> Vec<AccessMode> {
    vec![AccessMode::ReadWriteOnce, AccessMode::ReadWriteOncePod]
}

fn usual_file_systems() -> Vec<String> {
    vec!["ext4".to_owned()]
}

fn usual_patience() -> GoDuration {
    GoDuration::from(Duration::from_secs(60))
}

/// The JSON Schema of a profile.
pub fn schema() -> Json {
    let mut schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<Profile>()
        .to_value();
    schema["$id"] = "https://github.com/wavetank/wavetank/docs/driver.schema.json".into();
    schema
}

static SCHEMA: LazyLock<Json> = LazyLock::new(schema);

impl Profile {
    /// Reads a profile. `name` is what mistakes call the file.
    ///
    /// # Errors
    /// All its mistakes, with places; or one about what does not fit together.
    pub fn read(name: &str, text: String) -> Result<Profile, ProfileError> {
        let profile: Profile = strict::read(name, text, &SCHEMA, "a driver profile")?;
        profile.check()?;
        Ok(profile)
    }

    /// A profile of nothing yet, with every default.
    pub fn unnamed() -> Profile {
        Profile {
            mounts: true,
            keeps_state: true,
            block: true,
            access_modes: usual_modes(),
            file_systems: usual_file_systems(),
            watchdog: usual_patience(),
            ..Profile::default()
        }
    }

    /// Do its parts fit each other?
    ///
    /// # Errors
    /// [`ProfileError::Shape`].
    pub fn check(&self) -> Result<(), ProfileError> {
        let refuse = |why: &str| Err(ProfileError::Shape(why.to_owned()));
        match (&self.controller, &self.node, &self.combined) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => {}
            _ => return refuse("it needs either `combined`, or both `controller` and `node`"),
        }
        let processes = [&self.controller, &self.node, &self.combined, &self.inventory];
        for process in processes.into_iter().flatten() {
            if process.command.is_empty() == process.endpoint.is_none() {
                return refuse("each process needs a `command` or an `endpoint`, and not both");
            }
            for word in process.command.iter().chain(process.env.values()) {
                if let Some(unknown) = unknown_placeholder(word) {
                    return Err(ProfileError::Shape(format!(
                        "there is no placeholder `{unknown}`; there are {}",
                        PLACEHOLDERS.join(", ")
                    )));
                }
            }
            if let Some(endpoint) = &process.endpoint
                && !endpoint.starts_with("unix:///")
            {
                return refuse("an endpoint is a unix socket: write unix:///path/to.sock");
            }
        }
        if self
            .inventory
            .as_ref()
            .is_some_and(|process| process.endpoint.is_some())
        {
            return refuse("the inventory is a command");
        }
        Ok(())
    }

    /// Why a process that is started cannot know where to listen.
    pub fn deaf(&self) -> Option<&'static str> {
        let mut processes = [&self.controller, &self.node, &self.combined].into_iter().flatten();
        processes.find_map(ProcessShape::deaf)
    }

    /// Its name or, before it was asked for that, its program.
    pub fn called(&self) -> String {
        let process = self.combined.as_ref().or(self.controller.as_ref());
        let program = process.and_then(|process| process.command.first());
        match program {
            Some(program) if self.name.is_empty() => program.clone(),
            _ => self.name.clone(),
        }
    }

    /// Whether processes are there that wavetank did not start.
    pub fn has_strangers(&self) -> bool {
        let processes = [&self.controller, &self.node, &self.combined];
        processes
            .into_iter()
            .flatten()
            .any(|process| process.endpoint.is_some())
    }
}

impl ProcessShape {
    pub(super) fn deaf(&self) -> Option<&'static str> {
        let mut words = self.command.iter().chain(self.env.values());
        let told = self.command.is_empty() || words.any(|word| word.contains("{endpoint}"));
        (!told).then_some("nothing tells it where to listen: `{endpoint}` is neither in its `command` nor in its `env`")
    }
}

/// What may stand in commands.
pub const PLACEHOLDERS: &[&str] = &["{endpoint}", "{node}", "{state_dir}", "{kubelet_dir}"];

fn unknown_placeholder(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}')? + 1;
        let found = &rest[open..close];
        let plain = found[1..found.len() - 1]
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_');
        if plain && !PLACEHOLDERS.contains(&found) {
            return Some(found);
        }
        rest = &rest[close..];
    }
    None
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Keys or values are wrong.
    #[error(transparent)]
    Read(#[from] ScenarioError),
    /// Its parts do not fit each other.
    #[error("the driver profile does not fit: {0}")]
    Shape(String),
}

#[cfg(test)]
mod tests {
    use super::{Profile, ProfileError};

    fn read(text: &str) -> Result<Profile, ProfileError> {
        Profile::read("d.yaml", text.to_owned())
    }

    #[test]
    fn a_profile_needs_its_processes() {
        let good = read("name: a.b\ncombined: {command: [x, '{endpoint}']}\n").unwrap();
        assert!(good.mounts && good.keeps_state && good.watchdog.get().as_secs() == 60);
        for wrong in [
            "name: a.b\n",
            "name: a.b\ncontroller: {command: [x]}\n",
            "name: a.b\ncombined: {}\n",
            "name: a.b\ncombined: {command: [x, '{enpoint}']}\n",
            "name: a.b\ncombined: {endpoint: 'tcp://1.2.3.4'}\n",
        ] {
            assert!(matches!(read(wrong), Err(ProfileError::Shape(_))), "{wrong}");
        }
    }

    #[test]
    fn a_process_is_told_where_to_listen_by_its_command_or_its_environment() {
        let deaf = |text: &str| read(text).unwrap().deaf().is_some();
        assert!(!deaf("name: a.b\ncombined: {command: [x, '--at={endpoint}']}\n"));
        assert!(!deaf(
            "name: a.b\ncombined: {command: [x], env: {CSI_ENDPOINT: '{endpoint}'}}\n"
        ));
        assert!(!deaf("name: a.b\ncombined: {endpoint: 'unix:///run/csi.sock'}\n"));
        assert!(deaf("name: a.b\ncombined: {command: [x, '{node}']}\n"));
        assert!(deaf(
            "name: a.b\ncontroller: {command: [x, '{endpoint}']}\nnode: {command: [x]}\n"
        ));
    }

    #[test]
    fn a_wrong_key_has_its_place_and_the_key_that_was_meant() {
        let error = read("name: a.b\ncombined:\n  comand: [x]\n").unwrap_err();
        let ProfileError::Read(error) = error else {
            panic!("{error}")
        };
        let text = error.render(100, false);
        assert!(
            text.contains("comand") && text.contains("command") && text.contains("d.yaml"),
            "{text}"
        );
    }
}
