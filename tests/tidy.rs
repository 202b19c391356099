//! The rules of the house that no compiler checks: sizes, headers, who may name whom.
//!
//! Exceptions stand in lists below. A list may only shrink: an entry that is no longer needed fails the test as well.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;

/// No source file is longer.
const FILE_CAP: usize = 800;
/// No function is longer, from signature to closing brace.
const FUNCTION_CAP: usize = 70;
/// Half of the files are no longer than this.
const FILE_MEDIAN: usize = 250;
/// 95 of 100 files are no longer than this.
const FILE_P95: usize = 600;
/// 95 of 100 functions are no longer than this.
const FUNCTION_P95: usize = 40;

/// Functions that are longer than the cap, with the reason.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Files that may name the executor.
const NAMES_THE_EXECUTOR: &[&str] = &["sim/src/runtime/exec.rs", "sim/src/runtime/mod.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

fn sources() -> BTreeMap<String, String> {
    fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a folder of the workspace can be read") {
            let path = entry.expect("a folder of the workspace can be read").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                collect(&path, into);
            } else if name.ends_with(".rs") {
                into.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    for part in ["proto", "driver", "conform", "sim", "tests", "examples"] {
        let dir = root.join(part);
        if dir.is_dir() {
            collect(&dir, &mut paths);
        }
    }
    let relative = |p: &Path| {
        p.strip_prefix(&root)
            .expect("collected below the root")
            .to_string_lossy()
            .into_owned()
    };
    paths
        .iter()
        .map(|p| (relative(p), fs::read_to_string(p).expect("sources are UTF-8")))
        .collect()
}

struct Functions<'a> {
    file: &'a str,
    found: Vec<(String, usize)>,
}

impl Functions<'_> {
    fn note(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = block.span().end().line - signature.span().start().line + 1;
        self.found.push((format!("{}::{}", self.file, signature.ident), lines));
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.note(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.note(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

fn functions() -> Vec<(String, usize)> {
    let mut all = Vec::new();
    for (file, text) in sources() {
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut functions = Functions {
            file: &file,
            found: Vec::new(),
        };
        functions.visit_file(&parsed);
        all.extend(functions.found);
    }
    all
}

fn at_percent(sorted: &[usize], percent: usize) -> usize {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn every_file_opens_with_what_it_is() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, t)| !t.starts_with("//!"))
        .map(|(f, _)| f)
        .collect();
    assert!(silent.is_empty(), "these files do not open with `//!`: {silent:#?}");
}

#[test]
fn files_stay_within_their_budget() {
    let lines: BTreeMap<String, usize> = sources().into_iter().map(|(f, t)| (f, t.lines().count())).collect();
    let long: Vec<_> = lines.iter().filter(|(_, n)| **n > FILE_CAP).collect();
    assert!(long.is_empty(), "longer than {FILE_CAP} lines: {long:#?}");
    let mut sorted: Vec<usize> = lines.values().copied().collect();
    sorted.sort_unstable();
    assert!(
        at_percent(&sorted, 50) <= FILE_MEDIAN,
        "half of the files are longer than {FILE_MEDIAN} lines"
    );
    assert!(
        at_percent(&sorted, 95) <= FILE_P95,
        "the longest files grew: p95 is {}",
        at_percent(&sorted, 95)
    );
}

#[test]
fn functions_stay_within_their_budget() {
    let all = functions();
    let long: Vec<_> = all
        .iter()
        .filter(|(name, n)| *n > FUNCTION_CAP && !LONG_FUNCTIONS.iter().any(|(f, _)| f == name))
        .collect();
    assert!(long.is_empty(), "longer than {FUNCTION_CAP} lines: {long:#?}");
    let spare: Vec<_> = LONG_FUNCTIONS
        .iter()
        .filter(|(f, _)| !all.iter().any(|(name, n)| name == f && *n > FUNCTION_CAP))
        .collect();
    assert!(spare.is_empty(), "no longer needed as exceptions: {spare:#?}");
    let mut sorted: Vec<usize> = all.iter().map(|(_, n)| *n).collect();
    sorted.sort_unstable();
    assert!(
        at_percent(&sorted, 95) <= FUNCTION_P95,
        "functions grew: p95 is {}",
        at_percent(&sorted, 95)
    );
}

/// Which lines of which files hold a word that must not stand there.
fn places(word: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let here = "tests/tidy.rs";
    let mut found = Vec::new();
    for (file, text) in sources() {
        if file == here || allowed(&file) {
            continue;
        }
        let hits = text.lines().enumerate().filter(|(_, line)| line.contains(word));
        found.extend(hits.map(|(n, line)| format!("{file}:{}: {}", n + 1, line.trim())));
    }
    found
}

#[test]
fn one_module_names_the_executor() {
    let found = places("madsim::", |f| NAMES_THE_EXECUTOR.contains(&f));
    assert!(found.is_empty(), "only sim/src/runtime names madsim: {found:#?}");
}

/// The packages that one of the workspace needs, itself included, as the lock file tells.
fn needs(package: &str) -> Vec<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("the lock file is there");
    let mut found = vec![package.to_owned()];
    let mut next = 0;
    while let Some(name) = found.get(next).cloned() {
        next += 1;
        let entries = lock
            .split("[[package]]")
            .filter(|entry| entry.contains(&format!("\nname = \"{name}\"\n")));
        for entry in entries {
            let (_, listed) = entry.split_once("dependencies = [").unwrap_or_default();
            let listed = listed.split(']').next().unwrap_or_default();
            let names = listed.split('"').skip(1).step_by(2);
            for needed in names.filter_map(|word| word.split(' ').next()) {
                if !found.iter().any(|known| known == needed) {
                    found.push(needed.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn the_agent_of_a_real_node_is_no_part_of_a_simulation() {
    let needed = needs("wavetank-agent");
    assert!(needed.iter().any(|name| name == "wavetank-driver"), "{needed:?}");
    for foreign in ["madsim", "wavetank-sim"] {
        assert!(!needed.iter().any(|name| name == foreign), "the agent needs {foreign}");
    }
    assert!(
        needs("wavetank-sim").iter().any(|name| name == "madsim"),
        "the lock file is read as it is"
    );
}

#[test]
fn the_driver_never_learns_that_it_is_simulated() {
    let found: Vec<String> = places("wavetank_sim", |f| {
        !f.starts_with("driver/") && !f.starts_with("proto/")
    });
    assert!(found.is_empty(), "{found:#?}");
}

/// The variants of an enum that a file declares, by the calls of a macro or as they stand.
fn variants(file: &str, enumeration: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).expect("the file is there");
    let lines = text.lines().map(str::trim);
    let named = lines.filter_map(|line| line.split_once(" = \"").map(|(variant, _)| variant));
    let found: Vec<String> = named
        .filter(|variant| variant.chars().all(char::is_alphanumeric) && variant.starts_with(char::is_uppercase))
        .map(|variant| format!("{enumeration}::{variant}"))
        .collect();
    assert!(!found.is_empty(), "{file} declares none");
    found
}

/// How many lines below `folder`, tests apart, name a word that ends there.
fn readers(word: &str, folder: &str, declared: &str) -> usize {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let names = |line: &str| line.match_indices(word).any(|(at, _)| ends(&line[at + word.len()..]));
    sources()
        .iter()
        .filter(|(file, _)| file.starts_with(folder) && *file != declared && !file.contains("/tests"))
        .map(|(_, text)| text.lines().filter(|line| names(line)).count())
        .sum()
}

#[test]
fn each_mistake_is_one_line_of_the_driver() {
    let declared = "driver/src/quirk.rs";
    for quirk in variants(declared, "Quirk") {
        let lines = readers(&quirk, "driver/src", declared);
        assert_eq!(
            lines, 1,
            "{quirk} is read at {lines} lines of the driver, and not at one"
        );
    }
}

#[test]
fn each_mistake_is_one_line_of_the_cluster() {
    let declared = "sim/src/mutants/wrong.rs";
    for wrong in variants(declared, "Wrong") {
        let all = readers(&wrong, "sim/src", declared);
        let listed = readers(&wrong, "sim/src/mutants", declared);
        assert_eq!(listed, 1, "{wrong} is listed in the catalogue");
        assert_eq!(
            all - listed,
            1,
            "{wrong} is read at {} lines, and not at one",
            all - listed
        );
    }
}

#[test]
fn who_deploys_the_driver_cannot_make_it_wrong() {
    for file in [
        "driver/src/main.rs",
        "driver/src/server/options.rs",
        "driver/src/config.rs",
    ] {
        let text = fs::read_to_string(root().join(file)).expect("the file is there");
        assert!(!text.to_lowercase().contains("quirk"), "{file} knows quirks");
        assert!(!text.contains("run_wrongly"), "{file} can start a wrong driver");
    }
}

#[test]
fn faults_strategies_and_oracles_never_import_each_other() {
    let powers = ["faults", "explore", "oracles"];
    for one in powers {
        for other in powers.iter().filter(|o| **o != one) {
            let found = places(&format!("crate::{other}"), |f| {
                !f.starts_with(&format!("sim/src/{one}/"))
            });
            assert!(found.is_empty(), "{one} imports {other}: {found:#?}");
        }
    }
}

#[test]
fn no_test_is_ignored_and_none_expects_a_panic() {
    for word in ["#[ignore", "should_panic", "thread::sleep"] {
        let found = places(word, |_| false);
        assert!(found.is_empty(), "{word}: {found:#?}");
    }
}

#[test]
fn no_name_says_nothing() {
    let files: Vec<String> = sources().into_keys().collect();
    for word in ["utils", "helpers", "common", "manager"] {
        let found: Vec<_> = files
            .iter()
            .filter(|f| f.contains(&format!("{word}.rs")) || f.contains(&format!("/{word}/")))
            .collect();
        assert!(
            found.is_empty(),
            "a name that says nothing collects everything: {found:#?}"
        );
    }
}
