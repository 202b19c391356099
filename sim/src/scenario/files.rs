//! Which files are scenarios, how large they may be, and what they are called.
//!
//! A folder is searched for `*.yaml` and `*.yml`. Folders named `manifests` hold Kubernetes objects and are not searched; neither are hidden
//! folders, nor `*.replay.yaml`, which are another kind of file.

use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use super::mistake::ScenarioError;

/// The largest scenario or manifest file, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// The deepest nesting of folders.
const MAX_FOLDERS: usize = 32;

/// The scenario files below a folder, in order of path.
pub(crate) fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), ScenarioError> {
    let read = |cause| ScenarioError::Read {
        path: folder.to_owned(),
        cause,
    };
    if depth > MAX_FOLDERS {
        return Err(ScenarioError::TooDeep {
            path: folder.to_owned(),
            limit: MAX_FOLDERS,
        });
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        entries.push(entry.map_err(read)?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if name != "manifests" {
                search(&path, depth + 1, files)?;
            }
        } else if (name.ends_with(".yaml") || name.ends_with(".yml")) && !name.ends_with(".replay.yaml") {
            files.push(path);
        }
    }
    Ok(())
}

/// The text of a file, if it is text and no larger than allowed.
pub(crate) fn read_text(path: &Path) -> Result<String, ScenarioError> {
    let read = |cause| ScenarioError::Read {
        path: path.to_owned(),
        cause,
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file of the largest size from a larger one, and devices that never end from both.
    let file = fs::File::open(path).map_err(read)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ScenarioError::TooLarge {
            path: path.to_owned(),
            limit: MAX_FILE,
        });
    }
    String::from_utf8(bytes).map_err(|error| ScenarioError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

/// The name of a file without its ending.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A path as scenario names have it.
pub(crate) fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

/// Whether a folder above the file is named `scenarios`.
pub(crate) fn in_library(path: &Path) -> bool {
    path.parent()
        .is_some_and(|folder| folder.components().any(|part| part.as_os_str() == "scenarios"))
}

/// The path below the last folder named `scenarios`, without the ending; elsewhere the name of the file alone.
pub(crate) fn name_of(path: &Path) -> String {
    if !in_library(path) {
        return stem(path);
    }
    let plain = path.with_extension("");
    let parts: Vec<_> = plain.components().collect();
    let last = parts[..parts.len() - 1]
        .iter()
        .rposition(|part| part.as_os_str() == "scenarios");
    let below: PathBuf = parts[last.map_or(0, |at| at + 1)..].iter().collect();
    slashed(&below)
}

/// `a/b/../c` as `a/c`, without asking the file system.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(plain.components().next_back(), Some(Component::Normal(_))) => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}
