//! Reads scenario files, and the manifests that they name. Which files those are says `files.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};

use super::arguments::read_arguments;
use super::check::{At, Check};
use super::files::{in_library, name_of, read_text, search, slashed, stem, tidy};
use super::manifest::{self, Manifest};
use super::mistake::{Mistake, ScenarioError, Source, Span};
use super::nearest::nearest;
use super::step::{Apply, Refusal, Step, WrongKey};
use super::tree::{self, Entry, Node, Value};
use super::{Places, Scenario, kinds, refer};

static SCHEMA: LazyLock<Json> = LazyLock::new(super::schema);

/// Reads a scenario file, or every scenario below a folder in order of path.
///
/// # Errors
/// What could not be read; the mistakes of all files of a folder together.
pub fn load(path: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    if !path.is_dir() {
        return Ok(vec![load_file(path)?]);
    }
    let mut files = Vec::new();
    search(path, 0, &mut files)?;
    if files.is_empty() {
        return Err(ScenarioError::NoScenarios { path: path.to_owned() });
    }
    let mut scenarios = Vec::new();
    let mut mistakes = Vec::new();
    for file in files {
        match load_file(&file) {
            Ok(mut scenario) => {
                if !in_library(&file) {
                    let below = file.strip_prefix(path).unwrap_or(&file);
                    scenario.name = if scenario.name == stem(&file) {
                        slashed(&below.with_extension(""))
                    } else {
                        scenario.name
                    };
                }
                scenarios.push(scenario);
            }
            Err(ScenarioError::Mistakes(found)) => mistakes.extend(found),
            Err(error) => return Err(error),
        }
    }
    if mistakes.is_empty() {
        Ok(scenarios)
    } else {
        Err(ScenarioError::of(mistakes))
    }
}

/// Reads one scenario file.
///
/// # Errors
/// Why it cannot be read, or all its mistakes.
pub fn load_file(path: &Path) -> Result<Scenario, ScenarioError> {
    let text = read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut scenario = parse(&path.display().to_string(), text, folder)?;
    if scenario.name.is_empty() {
        scenario.name = name_of(path);
    }
    Ok(scenario)
}

/// Reads a scenario from text. `name` is what mistakes call it; files that it names are looked for in `folder`.
///
/// # Errors
/// All its mistakes.
pub fn parse(name: &str, text: String, folder: &Path) -> Result<Scenario, ScenarioError> {
    let source = Source::new(name, text);
    let (documents, mistakes) = tree::parse(&source);
    let mut loader = Loader {
        source,
        folder,
        mistakes,
    };
    loader
        .scenario(documents)
        .ok_or_else(|| ScenarioError::of(loader.mistakes))
}

struct Loader<'a> {
    source: Arc<Source>,
    folder: &'a Path,
    mistakes: Vec<Mistake>,
}

impl Loader<'_> {
    fn refuse(&mut self, mistake: Mistake, span: Span) {
        self.mistakes.push(mistake.at(&self.source, span));
    }

    fn scenario(&mut self, mut documents: Vec<Node>) -> Option<Scenario> {
        if documents.len() > 1 {
            let message =
                "a scenario file holds one document; several objects go into `manifests`, or into a file of their own";
            self.refuse(Mistake::new("", message), documents[1].span);
            return None;
        }
        let mut root = self.root(documents.pop())?;
        for (mistake, span) in read_arguments(&mut root) {
            self.refuse(mistake, span);
        }
        let mut check = Check::of(&self.source, &SCHEMA, "a scenario");
        let here = At {
            path: String::new(),
            span: Span { len: 0, ..root.span },
        };
        check.check(&root, &SCHEMA, &here);
        let found = std::mem::take(&mut check.mistakes);
        self.mistakes.extend(found);
        let manifests = self.manifests(root.get("manifests"));
        let applied = self.steps(root.get("steps"));
        if !self.mistakes.is_empty() {
            return None;
        }
        let mut scenario = self.typed(&root)?;
        scenario.manifests = manifests;
        for (n, apply) in applied {
            if let Some(Step::Apply(there)) = scenario.steps.get_mut(n) {
                *there = Apply {
                    refused: there.refused.take(),
                    ..apply
                };
            }
        }
        scenario.places = self.places(&root);
        for wrong in refer::check(&mut scenario) {
            let span = find(&root, &wrong.path);
            self.refuse(wrong.mistake, span);
        }
        self.mistakes.is_empty().then_some(scenario)
    }

    fn root(&mut self, document: Option<Node>) -> Option<Node> {
        let empty = Span {
            start: 0,
            len: 0,
            line: 1,
            column: 1,
        };
        let Some(root) = document.filter(|node| !node.is_null()) else {
            // A file that the parser gave up on holds no document either; that mistake is there already.
            if self.mistakes.is_empty() {
                let mistake = Mistake::new("", "the file is empty; a scenario begins with `because: why it exists`");
                self.refuse(mistake, empty);
            }
            return None;
        };
        if root.get("because").is_none() && root.get("apiVersion").is_some() && root.get("kind").is_some() {
            let mistake = Mistake::new("", "this is a Kubernetes manifest, not a scenario");
            let help = "put it into a folder named `manifests` and name it in a scenario: `manifests: [{file: …}]` or `- apply: {file: …}`";
            self.refuse(mistake.help(help), root.span);
            return None;
        }
        Some(root)
    }

    /// The scenario as its types have it; the objects come later, with their places.
    fn typed(&mut self, root: &Node) -> Option<Scenario> {
        let mut json = root.to_json(false);
        // A null among the fields of a condition and in a patch means something.
        keep_nulls(root, &mut json);
        json["manifests"] = json!([]);
        for step in json.get_mut("steps").and_then(Json::as_array_mut).into_iter().flatten() {
            if let Some(apply) = step.get_mut("apply") {
                let refused = apply.get("refused").filter(|_| apply.get("kind").is_none()).cloned();
                *apply = refused.map_or(json!({}), |refused| json!({ "refused": refused }));
            }
        }
        match serde_json::from_value(json) {
            Ok(scenario) => Some(scenario),
            Err(error) => {
                self.refuse(Mistake::new("", format!("this is no scenario: {error}")), root.span);
                None
            }
        }
    }

    fn places(&self, root: &Node) -> Places {
        let places = |key: &str| -> BTreeMap<usize, _> {
            let items = root.get(key).and_then(Node::items).unwrap_or_default();
            items
                .iter()
                .enumerate()
                .map(|(n, item)| (n, self.source.place(item.span)))
                .collect()
        };
        Places {
            file: Some(self.source.name.clone()),
            steps: places("steps"),
            expect: places("expect"),
        }
    }

    fn manifests(&mut self, node: Option<&Node>) -> Vec<Manifest> {
        let mut all = Vec::new();
        for item in node.and_then(Node::items).unwrap_or_default() {
            let read = match item.get("file").and_then(Node::text) {
                Some(file) if item.get("kind").is_none() => self.file(file, item.get("file").expect("just found")),
                _ => Some(self.inline(item)),
            };
            if let Some(read) = read {
                all.extend(read.manifests);
                self.mistakes.extend(read.mistakes);
            }
        }
        all
    }

    fn inline(&self, node: &Node) -> manifest::Read {
        let mut read = manifest::Read::default();
        let at = At {
            path: String::new(),
            span: node.span,
        };
        read.node(node, &self.source, &at);
        read
    }

    /// Reads a manifest file named at `node`.
    fn file(&mut self, file: &str, node: &Node) -> Option<manifest::Read> {
        let path = tidy(&self.folder.join(file));
        match read_text(&path) {
            Ok(text) => Some(manifest::read_source(&Source::new(&path.display().to_string(), text))),
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(|cause| format!(": {cause}"))
                    .unwrap_or_default();
                let mistake = Mistake::new("file", format!("{error}{cause}"));
                let folder = path.parent().map(fs::read_dir).and_then(Result::ok);
                let names: Vec<String> = folder
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.file_name().to_string_lossy().into_owned())
                    .collect();
                let wanted = path.file_name().unwrap_or_default().to_string_lossy();
                let mistake = match nearest(&wanted, names.iter().map(String::as_str)) {
                    Some(near) => mistake.suggest(near).help(format!("did you mean `{near}`?")),
                    None => mistake.help("the path is relative to the folder of the scenario"),
                };
                self.refuse(mistake, node.span);
                None
            }
        }
    }

    /// The objects of every apply step, by the step's number; checks patches on the way.
    fn steps(&mut self, node: Option<&Node>) -> Vec<(usize, Apply)> {
        let mut applied = Vec::new();
        for (n, step) in node.and_then(Node::items).unwrap_or_default().iter().enumerate() {
            if let Some(apply) = step.get("apply") {
                applied.push((n, self.apply(apply)));
            }
            if let Some(patch) = step.get("patch") {
                self.patch(patch, &format!("steps[{n}].patch.patch"));
            }
        }
        applied
    }

    fn apply(&mut self, node: &Node) -> Apply {
        let mut apply = Apply::new(Vec::new());
        let forms: Vec<&Entry> = ["file", "manifest", "manifests"]
            .iter()
            .filter_map(|key| node.entry(key))
            .collect();
        let spelled = !forms.is_empty() || node.get("refused").is_some();
        if node.entries().is_none() {
            return apply; // The schema check has said so.
        }
        if !spelled || node.get("kind").is_some() {
            let read = self.inline(node);
            self.mistakes.extend(read.mistakes);
            apply.manifests = read.manifests;
            return apply;
        }
        let read = match &forms[..] {
            [form] => match (form.key.as_str(), &form.value.value) {
                ("file", Value::Text(file)) => self.file(file, &form.value),
                ("manifest", _) => Some(self.inline(&form.value)),
                (_, Value::List(items)) => {
                    let mut read = manifest::Read::default();
                    for item in items {
                        let one = self.inline(item);
                        read.manifests.extend(one.manifests);
                        read.mistakes.extend(one.mistakes);
                    }
                    Some(read)
                }
                _ => None,
            },
            _ => {
                let message = "an apply step names its objects in exactly one way: `file`, `manifest` or `manifests`";
                self.refuse(Mistake::new("apply", message), node.span);
                None
            }
        };
        let Some(read) = read else { return apply };
        apply.manifests = read.manifests;
        if expects_keys(node) {
            apply.wrong = read.mistakes.iter().map(wrong_key).collect();
        } else {
            self.mistakes.extend(read.mistakes);
        }
        apply
    }

    /// A patch may hold only keys that its kind has.
    fn patch(&mut self, node: &Node, path: &str) {
        let Some(kind) = node.get("kind").and_then(Node::text).and_then(kinds::by_word) else {
            return;
        };
        let json_patch = node.get("type").and_then(Node::text) == Some("json");
        let Some(entry) = node.entry("patch") else { return };
        let wanted = if json_patch { "a list of operations" } else { "a map" };
        if entry.value.items().is_some() != json_patch || (!json_patch && entry.value.entries().is_none()) {
            let message = format!("`{path}` must be {wanted}, not {}", entry.value.what());
            self.refuse(Mistake::new(path, message), entry.span);
            return;
        }
        let schema: &Json = if json_patch { &JSON_PATCH } else { kinds::schema(kind) };
        let title = if json_patch { "a JSON patch" } else { kind.name() };
        let mut check = Check {
            source: &self.source,
            root: schema,
            title,
            partial: !json_patch,
            known: &|path, key| {
                if json_patch {
                    None
                } else {
                    kinds::misplaced(kind, path, key)
                }
            },
            format: |_, _| None,
            mistakes: Vec::new(),
        };
        let here = At {
            path: String::new(),
            span: entry.span,
        };
        check.check(&entry.value, schema, &here);
        let found = std::mem::take(&mut check.mistakes);
        self.mistakes.extend(found);
    }
}

static JSON_PATCH: LazyLock<Json> = LazyLock::new(|| {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"], "type": "string"},
                "path": {"type": "string"},
                "from": {"type": "string"},
                "value": {},
            },
            "required": ["op", "path"],
        },
    })
});

fn expects_keys(apply: &Node) -> bool {
    let keys = apply
        .get("refused")
        .and_then(|refused| refused.get("keys"))
        .and_then(Node::items);
    keys.is_some_and(|keys| !keys.is_empty())
}

fn wrong_key(mistake: &Mistake) -> WrongKey {
    WrongKey {
        key: mistake.key.clone(),
        line: mistake.place().map(|place| place.line),
        suggest: mistake.suggest.clone(),
        message: mistake.message.clone(),
    }
}

/// Puts back the nulls of patches and of the fields of conditions.
fn keep_nulls(node: &Node, json: &mut Json) {
    match (&node.value, json) {
        (Value::List(items), Json::Array(there)) => {
            items.iter().zip(there).for_each(|(item, json)| keep_nulls(item, json))
        }
        (Value::Map(entries), Json::Object(there)) => {
            for entry in entries {
                let Some(json) = there.get_mut(&entry.key) else {
                    continue;
                };
                match entry.key.as_str() {
                    "fields" => *json = entry.value.to_json(true),
                    "patch" if entry.value.get("patch").is_none() => *json = entry.value.to_json(true),
                    _ => keep_nulls(&entry.value, json),
                }
            }
        }
        _ => {}
    }
}

/// The place of `/steps/3/delete/name`, or of the nearest part above it that was written.
fn find(root: &Node, path: &str) -> Span {
    let mut node = root;
    let mut span = Span { len: 0, ..root.span };
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = match (part.parse::<usize>(), &node.value) {
            (Ok(n), Value::List(items)) => items.get(n).map(|item| (item, item.span)),
            _ => node.entry(part).map(|entry| (&entry.value, entry.span)),
        };
        let Some((inner, at)) = next else { break };
        node = inner;
        let scalar = inner.entries().is_none() && inner.items().is_none() && !inner.is_null();
        span = if scalar { inner.span } else { at };
    }
    span
}

impl Refusal {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.code.is_none() && self.message.is_none() && self.keys.is_empty()
    }
}
