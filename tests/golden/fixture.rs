//! A recorded trace as it lies in `fixtures/`, and the same shape filled by the model.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

/// A recording.
#[derive(Clone, Debug, Deserialize)]
pub struct Fixture {
    /// Its name, which is its file's.
    pub trace: String,
    /// What it is about.
    pub subject: String,
    /// The namespace of its objects.
    pub namespace: String,
    /// Flags that differed from the usual ones, by process.
    pub flags: Json,
    /// What the script did and saw.
    pub steps: Vec<Step>,
    #[serde(flatten)]
    pub seen: Seen,
}

/// What was seen while the steps were taken: on a real cluster or in the model.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Seen {
    pub rpcs: Vec<Rpc>,
    pub objects: Vec<Change>,
    pub api_writes: Vec<ApiWrite>,
}

/// A step of the script.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    pub t_ms: f64,
    pub action: String,
    pub manifest: Option<Json>,
    pub patch: Option<Json>,
    pub rule: Option<Rule>,
}

/// What happens to calls.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    pub method: String,
    pub code: Option<i32>,
    #[serde(default)]
    pub message: String,
    /// How often; for ever when negative.
    pub count: i64,
    /// `after`: the driver executes the call, the answer is late. `delay`: the call reaches the driver late.
    pub when: Option<String>,
    pub delay_ms: Option<u64>,
    #[serde(rename = "match")]
    pub contains: Option<String>,
}

/// A call.
#[derive(Clone, Debug, Deserialize)]
pub struct Rpc {
    pub t_ms: f64,
    #[serde(default)]
    pub dur_ms: f64,
    pub caller: String,
    pub method: String,
    pub request: Json,
    pub code: String,
    pub deadline_ms: f64,
    /// The caller's own deadline passed, or the caller died.
    #[serde(default)]
    pub client_gave_up: bool,
    #[serde(default)]
    pub injected: bool,
}

/// A change of an object.
#[derive(Clone, Debug, Deserialize)]
pub struct Change {
    pub t_ms: f64,
    pub kind: String,
    pub name: String,
    pub event: String,
    pub object: Json,
}

/// A write that reached the API server.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiWrite {
    pub t_ms: f64,
    pub user: String,
    pub verb: String,
    pub resource: String,
    pub subresource: Option<String>,
    pub name: Option<String>,
    pub code: u16,
}

/// Where the fixtures lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures")
}

/// All fixtures, by name.
///
/// # Panics
/// If one cannot be read.
pub fn load() -> Vec<Fixture> {
    let entries = std::fs::read_dir(folder()).expect("the fixtures are there");
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    paths.iter().map(read).collect()
}

impl Fixture {
    /// The usual duration of a call of the recorded driver, in milliseconds: the median of the answers that it gave by itself.
    pub fn duration_ms(&self, method: &str) -> f64 {
        let honest = |rpc: &&Rpc| rpc.method == method && rpc.code == "OK" && !rpc.injected && !rpc.client_gave_up;
        let mut all: Vec<f64> = self.seen.rpcs.iter().filter(honest).map(|rpc| rpc.dur_ms).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(3.0)
    }

    /// When the last thing was seen, in milliseconds.
    pub fn end_ms(&self) -> f64 {
        let rpcs = self.seen.rpcs.iter().map(|rpc| rpc.t_ms + rpc.dur_ms);
        let writes = self.seen.api_writes.iter().map(|write| write.t_ms);
        let objects = self.seen.objects.iter().map(|change| change.t_ms);
        rpcs.chain(writes).chain(objects).fold(0.0, f64::max)
    }

    /// Whether the driver ran with this flag.
    pub fn driver_flag(&self, flag: &str) -> bool {
        self.flags["driver"].as_str().is_some_and(|flags| flags.contains(flag))
    }
}
