//! The kernel of the machines: Debian's package, unpacked without installing it, or one's own; and the modules that a node needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::VmError;

/// What names the package of the newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Modules without which a machine is no node, unless they are built in.
const NEEDED: &[&str] = &["virtio_pci", "virtio_console", "virtio_blk", "loop", "ext4"];
/// Modules that are taken where the kernel has them.
const WELCOME: &[&str] = &["xfs", "btrfs", "dm_mod", "dm_flakey"];

/// A kernel and where its modules lie.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub image: PathBuf,
    pub modules: PathBuf,
}

/// Downloads and unpacks Debian's kernel into `directory`, unless one is there.
pub(super) fn debian(directory: &Path) -> Result<Kernel, VmError> {
    if let Some(found) = unpacked(directory) {
        return Ok(found);
    }
    let fail = |why: String| VmError::NoKernel(why);
    fs::create_dir_all(directory).map_err(|source| VmError::file("making", directory, source))?;
    let told = run(Command::new("apt-cache").args(["depends", "--no-recommends", PACKAGE])).map_err(fail)?;
    let package = told
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-") && *word != PACKAGE)
        .ok_or_else(|| VmError::NoKernel(format!("apt knows no package {PACKAGE}: `apt-get update` may help")))?;
    run(Command::new("apt-get")
        .args(["download", package])
        .current_dir(directory))
    .map_err(fail)?;
    let archive = fs::read_dir(directory).into_iter().flatten().flatten();
    let archive = archive
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_else(|| VmError::NoKernel(format!("apt-get downloaded no {package}")))?;
    let draft = directory.join("draft");
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&draft)).map_err(fail)?;
    let root = directory.join("root");
    fs::rename(&draft, &root).map_err(|source| VmError::file("placing", &root, source))?;
    // It is unpacked: the package is of no more use, and what stays is in the manifest anyway.
    let _ = fs::remove_file(&archive);
    unpacked(directory).ok_or_else(|| VmError::NoKernel(format!("{package} holds no kernel")))
}

fn unpacked(directory: &Path) -> Option<Kernel> {
    let only = |directory: PathBuf, starts: &str| {
        let entries = fs::read_dir(directory).ok()?.flatten();
        let mut found: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(starts))
            .map(|entry| entry.path())
            .collect();
        found.sort();
        found.pop()
    };
    let root = directory.join("root");
    Some(Kernel {
        image: only(root.join("boot"), "vmlinuz")?,
        modules: only(root.join("lib/modules"), "").or_else(|| only(root.join("usr/lib/modules"), ""))?,
    })
}

/// Runs a tool of this machine to its end, and returns what it said.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(std::process::Stdio::null()).output();
    let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().next_back().unwrap_or("it does not say why");
    Err(format!("{name} failed: {last}"))
}

/// The modules that a node needs, each after those that it needs itself, with their bytes.
pub(super) fn modules(kernel: &Kernel) -> Result<Vec<(String, Vec<u8>)>, VmError> {
    let mut files = Vec::new();
    below(&kernel.modules.join("kernel"), &mut files);
    let built_in = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
    let mut loading = Loading {
        files,
        built_in: built_in.lines().map(|line| plain(Path::new(line))).collect(),
        taken: BTreeSet::new(),
        modules: Vec::new(),
    };
    for (names, is_needed) in [(NEEDED, true), (WELCOME, false)] {
        for name in names {
            if !loading.take(name)? && is_needed {
                return Err(VmError::NoKernel(format!(
                    "{} has no module {name}",
                    kernel.modules.display()
                )));
            }
        }
    }
    Ok(loading.modules)
}

struct Loading {
    files: Vec<PathBuf>,
    built_in: BTreeSet<String>,
    taken: BTreeSet<String>,
    modules: Vec<(String, Vec<u8>)>,
}

impl Loading {
    /// Takes a module and what it needs; `false` if the kernel does not have it.
    fn take(&mut self, name: &str) -> Result<bool, VmError> {
        if self.built_in.contains(name) || !self.taken.insert(name.to_owned()) {
            return Ok(true);
        }
        let Some(path) = self.files.iter().find(|path| plain(path) == name).cloned() else {
            return Ok(false);
        };
        let bytes = read(&path)?;
        for needed in depends(&bytes) {
            self.take(&needed)?;
        }
        self.modules.push((format!("{name}.ko"), bytes));
        Ok(true)
    }
}

fn below(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            below(&path, files);
        } else {
            files.push(path);
        }
    }
    files.sort();
}

/// A module's name, as the kernel spells it.
fn plain(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>, VmError> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).map_err(|source| VmError::file("reading", path, source)),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output();
    match output {
        Ok(output) if output.status.success() => Ok(output.stdout),
        _ => Err(VmError::NoKernel(format!("{tool} cannot unpack {}", path.display()))),
    }
}

/// The modules that a module names as needed.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY);
    let rest = at.map_or(&[][..], |at| &module[at + KEY.len()..]);
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Kernel, VmError, depends, modules};

    #[test]
    fn modules_come_after_what_they_need() {
        assert_eq!(depends(b"x\0depends=a-b,c\0y"), ["a_b", "c"]);
        assert!(depends(b"x\0depends=\0y").is_empty() && depends(b"").is_empty());
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("kernel/drivers");
        std::fs::create_dir_all(&at).unwrap();
        let put = |name: &str, needs: &str| std::fs::write(at.join(name), format!("\0depends={needs}\0")).unwrap();
        put("virtio_pci.ko", "virtio,virtio-ring");
        put("virtio.ko", "");
        put("virtio-ring.ko", "virtio");
        put("virtio_console.ko", "virtio");
        put("virtio_blk.ko", "");
        std::fs::write(root.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let kernel = Kernel {
            image: root.path().join("none"),
            modules: root.path().to_owned(),
        };
        let Err(VmError::NoKernel(why)) = modules(&kernel) else {
            panic!("there is no loop module")
        };
        assert!(why.ends_with("no module loop"), "{why}");
        put("loop.ko", "");
        let names: Vec<String> = modules(&kernel).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "virtio.ko",
                "virtio_ring.ko",
                "virtio_pci.ko",
                "virtio_console.ko",
                "virtio_blk.ko",
                "loop.ko"
            ]
        );
    }
}
