//! A scenario written out whole, as YAML that a person reads and this version and later ones load: for replay files.
//!
//! What has its default value is left out. What is written is read again and compared, so that a file never says something else than was played.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::scenario::{self, Cluster, DriverShape, Scenario, ScenarioError};

/// The scenario as it is when it has been written out and read again. Nothing if it cannot be read: a step may speak of an object that is not there any more.
pub fn reread(scenario: &Scenario) -> Option<Scenario> {
    read(&short(scenario), &scenario.name, Path::new("a smaller scenario")).ok()
}

/// A scenario without what has its default value, its parts in the order in which people write them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inlined {
    because: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    cluster: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    manifests: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    steps: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    expect: Json,
    #[serde(skip_serializing_if = "Json::is_null")]
    sometimes: Json,
}

impl Inlined {
    /// The scenario, written out.
    pub fn new(scenario: &Scenario) -> Inlined {
        let short = short(scenario);
        let same = read(&short, &scenario.name, Path::new("a shorter scenario")).is_ok_and(|read| read == *scenario);
        let json = if same { short } else { spelled(scenario) };
        serde_json::from_value(json).expect("a scenario has these parts")
    }

    /// The scenario, read. `file` is what mistakes call it.
    ///
    /// # Errors
    /// All its mistakes.
    pub fn read(&self, name: &str, file: &Path) -> Result<Scenario, ScenarioError> {
        read(&serde_json::to_value(self).expect("it is JSON already"), name, file)
    }
}

/// Reads an inlined scenario. `file` is what mistakes call it.
///
/// # Errors
/// All its mistakes.
fn read(json: &Json, name: &str, file: &Path) -> Result<Scenario, ScenarioError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut read = match scenario::parse(&file.display().to_string(), json.to_string(), folder) {
        Ok(read) => read,
        // A step may be about manifests that cannot be read: what was wrong with them is written out beside it, and was judged when the scenario was loaded.
        Err(error) if applies_the_unreadable(json) => serde_json::from_value(whole(json)).map_err(|_| error)?,
        Err(error) => return Err(error),
    };
    name.clone_into(&mut read.name);
    Ok(read)
}

fn applies_the_unreadable(json: &Json) -> bool {
    let steps = json["steps"].as_array().into_iter().flatten();
    steps.into_iter().any(|step| step["apply"]["wrong"].is_array())
}

fn whole(json: &Json) -> Json {
    let mut json = json.clone();
    json["name"] = "".into();
    json
}

fn spelled(scenario: &Scenario) -> Json {
    let mut json = serde_json::to_value(scenario).expect("a scenario is plain data");
    if let Some(fields) = json.as_object_mut() {
        fields.remove("name");
    }
    json
}

fn short(scenario: &Scenario) -> Json {
    let mut json = spelled(scenario);
    let usual = serde_json::to_value(Cluster::default()).expect("a cluster is plain data");
    let Some(fields) = json.as_object_mut() else {
        return json;
    };
    if let Some(cluster) = fields.get_mut("cluster").and_then(Json::as_object_mut) {
        drivers(cluster, scenario);
        nodes(cluster, scenario);
        without(cluster, usual.as_object());
    }
    fields.retain(|_, value| !is_empty(value));
    json
}

/// Drivers without what each has by default.
fn drivers(cluster: &mut Map<String, Json>, scenario: &Scenario) {
    if scenario.cluster.drivers == Cluster::default().drivers {
        cluster.remove("drivers");
        return;
    }
    let drivers = cluster.get_mut("drivers").and_then(Json::as_array_mut);
    for (driver, shape) in drivers.into_iter().flatten().zip(&scenario.cluster.drivers) {
        let usual = serde_json::to_value(DriverShape::named(&shape.name)).expect("a driver's shape is plain data");
        if let Some(fields) = driver.as_object_mut() {
            if let Some(options) = fields.get_mut("options").and_then(Json::as_object_mut) {
                options.remove("name");
            }
            without(fields, usual.as_object());
            fields.insert("name".into(), Json::from(shape.name.as_str()));
        }
    }
}

/// A list of nodes that a number says as well.
fn nodes(cluster: &mut Map<String, Json>, scenario: &Scenario) {
    let count = scenario.cluster.nodes.len();
    let plain = scenario::numbered(u32::try_from(count).unwrap_or(u32::MAX));
    if plain == scenario.cluster.nodes {
        cluster.insert("nodes".into(), Json::from(count));
    }
    if scenario.cluster.nodes == Cluster::default().nodes {
        cluster.remove("nodes");
    }
}

/// Takes away what is as usual.
fn without(fields: &mut Map<String, Json>, usual: Option<&Map<String, Json>>) {
    let Some(usual) = usual else { return };
    fields.retain(|name, value| match (value, usual.get(name)) {
        (value, Some(same)) if value == same => false,
        (Json::Object(inner), Some(Json::Object(usual))) => {
            without(inner, Some(usual));
            !inner.is_empty()
        }
        _ => true,
    });
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Object(fields) => fields.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}
