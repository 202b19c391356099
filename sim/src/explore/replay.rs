//! Replay files: a shrunk scenario, what strikes, and the promise that breaks. They assert a violation, not a trace, and live on in later versions.
//!
//! ```yaml
//! schema: 1
//! promise: no-leftovers
//! mutant: delete-believes-backend # none for a bug of the honest driver
//! strikes:
//! - at: provisioner / DeleteVolume / pvc data / attempt 1 / before-reply
//!   fault: {crash: {process: driver-controller}}
//! scenario: {because: …}
//! ```
//!
//! A comment above it tells the story. What strikes is pinned by site; there is no seed. Where the violation needs other delays of watch events than usual, `delays`
//! names their pattern.
//!
//! Blind spots: a pattern of delays is a number; single deliveries cannot be pinned, except by faults that delay.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::inline::Inlined;
use super::shrink::Case;
use crate::scenario::Scenario;
use crate::storm::Strike;

/// The number of this form of the file.
pub const SCHEMA: u32 = 1;
/// How names of replay files end.
pub const ENDING: &str = ".replay.yaml";

/// What a replay file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "a replay file")]
pub struct ReplayFile {
    /// The number of this form of the file: 1.
    #[schemars(range(min = 1, max = 1))]
    pub schema: u32,
    /// The name of the scenario that it was made from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The promise that breaks.
    pub promise: String,
    /// The bug that must be switched on, and without which the promise holds. Left out when the honest driver breaks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// What strikes, by site.
    #[serde(default)]
    pub strikes: Vec<Strike>,
    /// The pattern of delays of watch events. The usual one if left out.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub delays: u64,
    /// The scenario, whole.
    #[schemars(with = "Scenario")]
    pub scenario: Inlined,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_usual(delays: &u64) -> bool {
    *delays == 0
}

/// Why a replay file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is no replay file.
    #[error("{} is no replay file: {message}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its place.
        message: String,
    },
    /// It is of a later form.
    #[error("{} is a replay file of schema {found}; this version reads schema {SCHEMA}", path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// Its scenario is wrong.
    #[error("the scenario in {} is wrong: {message}", path.display())]
    Scenario {
        /// Which file.
        path: PathBuf,
        /// All its mistakes.
        message: String,
    },
}

impl ReplayFile {
    /// The file for a case.
    pub fn new(case: &Case, promise: &str, mutant: Option<String>) -> Option<ReplayFile> {
        let scenario = case.scenario.as_ref()?;
        Some(ReplayFile {
            schema: SCHEMA,
            name: scenario.name.clone(),
            promise: promise.to_owned(),
            mutant,
            strikes: case.strikes.clone(),
            delays: case.seed,
            scenario: Inlined::new(scenario),
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(path: &Path) -> Result<(ReplayFile, Case), ReplayError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ReplayError::Read {
            path: path.to_owned(),
            cause,
        })?;
        ReplayFile::parse(path, &text)
    }

    /// Reads the text of a file. `path` is what errors call it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(path: &Path, text: &str) -> Result<(ReplayFile, Case), ReplayError> {
        let shape = |message: String| ReplayError::Shape {
            path: path.to_owned(),
            message,
        };
        // The number first: what else a later form says is not known here.
        let head: Head = serde_saphyr::from_str(text).map_err(|e| shape(first_line(&e.to_string())))?;
        if head.schema != SCHEMA {
            let path = path.to_owned();
            let found = head.schema;
            return Err(ReplayError::Schema { path, found });
        }
        let file: ReplayFile = serde_saphyr::from_str(text).map_err(|e| shape(first_line(&e.to_string())))?;
        let scenario = file
            .scenario
            .read(&file.name, path)
            .map_err(|error| ReplayError::Scenario {
                path: path.to_owned(),
                message: error.render(100, false),
            })?;
        let case = Case {
            scenario: Some(scenario),
            seed: file.delays,
            strikes: file.strikes.clone(),
        };
        Ok((file, case))
    }

    /// The text of the file, `story` as a comment above it.
    pub fn text(&self, story: &str) -> String {
        let mut text = String::new();
        for line in story.lines() {
            let line = format!("# {line}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text + &serde_saphyr::to_string(self).expect("a replay file is plain data")
    }
}

#[derive(Deserialize)]
struct Head {
    schema: u32,
}

/// A message without the picture of the file below it.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// The JSON Schema of replay files.
pub fn schema() -> Json {
    let mut schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<ReplayFile>()
        .to_value();
    schema["$id"] = "https://github.com/wavetank/wavetank/docs/replay.schema.json".into();
    schema
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ReplayError, ReplayFile};
    use crate::explore::shrink::Case;
    use crate::explore::toy::{crash, site};
    use crate::scenario::{self, PlainPhase};
    use crate::storm::Strike;

    fn library() -> Vec<scenario::Scenario> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios");
        scenario::load(Path::new(folder)).unwrap()
    }

    #[test]
    fn every_scenario_of_the_library_survives_a_replay_file() {
        for scenario in library() {
            let case = Case {
                seed: 0,
                strikes: vec![Strike {
                    at: site("provisioner", "CreateVolume", "pvc data", 1, PlainPhase::BeforeReply),
                    fault: crash("driver-controller"),
                }],
                scenario: Some(scenario.clone()),
            };
            let file = ReplayFile::new(&case, "one-writer", Some("forgets".into())).unwrap();
            let text = file.text("a story\n\nof two lines");
            assert!(text.starts_with("# a story\n#\n# of two lines\n"));
            let (again, read) =
                ReplayFile::parse(Path::new("a.replay.yaml"), &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(again, file, "{}", scenario.name);
            assert_eq!(read, case, "{}\n{text}", scenario.name);
            assert!(text.len() < 40_000, "{} is {} bytes long", scenario.name, text.len());
        }
    }

    #[test]
    fn the_schema_has_every_key_of_a_file_and_the_whole_scenario() {
        let schema = super::schema();
        for key in ["schema", "name", "promise", "mutant", "strikes", "delays", "scenario"] {
            assert!(schema["properties"][key].is_object(), "{key}");
        }
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["$defs"]["Scenario"]["properties"]["steps"].is_object());
        assert!(schema["$defs"]["Strike"]["properties"]["at"].is_object());
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_sentence() {
        let refuse = |text: &str| ReplayFile::parse(Path::new("x.replay.yaml"), text).unwrap_err();
        assert!(matches!(
            refuse("schema: 2\nnew: true"),
            ReplayError::Schema { found: 2, .. }
        ));
        for (text, part) in [
            ("schema: 1\npromise: a\nstrikse: []\nscenario: {}", "strikse"),
            ("because: a scenario", "schema"),
            ("schema: 1\npromise: a\nscenario: {because: x, stpes: []}", "stpes"),
            (
                "schema: 1\npromise: a\nstrikes: [{at: nowhere, fault: {crash: {process: scheduler}}}]\nscenario: {because: x}",
                "five parts",
            ),
        ] {
            let error = refuse(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
