//! What machines are made of, kept in a directory: a kernel, a first file system with the agent and this machine's tools, an empty disk; and for each set of
//! programs the state of a machine that has just booted.
//!
//! ```text
//! <directory>/manifest.json           what it was made of: if that has changed, it is made again
//! <directory>/vmlinuz, base.img, disk.img
//! <directory>/kernel/                 Debian's package, unpacked
//! <directory>/states/<digest>/        initrd.img and state: with the programs of one driver
//! ```

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::VmError;
use super::cpio::Archive;
use super::gather;
use super::kernel::{self, Kernel};
use super::machine::{self, Accelerator, Shape};
use crate::link::socket::Program;

/// Beside a guest whose machines do not run with KVM here, although there is a device for it: why.
const NO_KVM: &str = "no-kvm";
/// The format of the manifest.
const FORMAT: u32 = 2;
/// States that are kept, besides the newest.
const STATES: usize = 4;
/// The size of a node's disk. Only what is written takes room.
const DISK: &str = "64G";

/// What a guest is to be made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// A kernel and the directory of its modules; nothing: Debian's.
    pub kernel: Option<(PathBuf, PathBuf)>,
    /// The agent.
    pub agent: Program,
    /// Programs and files that are taken, too.
    pub more: Vec<PathBuf>,
    /// Memory of each machine, in MiB.
    pub memory: u32,
}

/// What a guest was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    /// Every file of this machine that is in it, with its size and time.
    inputs: Vec<String>,
    /// The words by which the program is told that it is the agent.
    prefix: Vec<String>,
    /// Memory of each machine, in MiB.
    memory: u32,
    /// Where the agent is in it.
    agent: PathBuf,
}

/// A guest that is prepared.
#[derive(Clone, Debug)]
pub struct Guest {
    directory: PathBuf,
    manifest: Manifest,
}

/// A guest with the programs of a driver, ready to be started.
#[derive(Clone, Debug)]
pub struct Ready {
    /// How its machines are started.
    pub(super) shape: Shape,
    /// The empty disk of a new node.
    pub(super) disk: PathBuf,
    /// The state of a machine that has just booted.
    pub(super) state: PathBuf,
}

impl Guest {
    /// Prepares a guest, unless it is there already and nothing that it is made of has changed. `say` is told what takes time. `true`: it was made.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn prepare(directory: &Path, parts: &Parts, say: &mut dyn FnMut(&str)) -> Result<(Guest, bool), VmError> {
        machine::qemu()?;
        fs::create_dir_all(directory).map_err(|source| VmError::file("making", directory, source))?;
        let directory = directory
            .canonicalize()
            .map_err(|source| VmError::file("finding", directory, source))?;
        let kernel = match &parts.kernel {
            Some((image, modules)) => Kernel {
                image: image.clone(),
                modules: modules.clone(),
            },
            None => {
                say("preparing the kernel: Debian's package");
                kernel::debian(&directory.join("kernel"))?
            }
        };
        let (tools, missing) = gather::tools()?;
        let mut inputs = vec![gather::mark(&kernel.image)?, gather::mark(&parts.agent.file)?];
        for file in tools.iter().chain(&parts.more) {
            inputs.push(gather::mark(file)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            inputs,
            prefix: parts.agent.prefix.clone(),
            memory: parts.memory,
            agent: PathBuf::from("/agent"),
        };
        if let Ok(found) = Guest::open(&directory)
            && found.manifest == manifest
        {
            return Ok((found, false));
        }
        // Whatever is there is no guest any more until the manifest says so.
        let _ = fs::remove_file(directory.join("manifest.json"));
        let _ = fs::remove_dir_all(directory.join("states"));
        let _ = fs::remove_file(directory.join(NO_KVM));
        let guest = Guest { directory, manifest };
        guest.make(&kernel, parts, &tools, say)?;
        if !missing.is_empty() {
            say(&format!(
                "not on this machine, and so in no node: {}",
                missing.join(", ")
            ));
        }
        Ok((guest, true))
    }

    /// Opens what was prepared.
    ///
    /// # Errors
    /// [`VmError::NotPrepared`].
    pub fn open(directory: &Path) -> Result<Guest, VmError> {
        let not = || VmError::NotPrepared(directory.to_owned());
        let text = fs::read(directory.join("manifest.json")).map_err(|_| not())?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|_| not())?;
        if manifest.format != FORMAT {
            return Err(not());
        }
        Ok(Guest {
            directory: directory.canonicalize().map_err(|_| not())?,
            manifest,
        })
    }

    /// Whether its machines have this agent: one of another version does not understand what it is asked.
    ///
    /// # Errors
    /// [`VmError::Stale`].
    pub fn has(self, agent: &Program) -> Result<Guest, VmError> {
        let mark = gather::mark(&agent.file)?;
        if self.manifest.inputs.contains(&mark) {
            Ok(self)
        } else {
            Err(VmError::Stale(self.directory))
        }
    }

    /// Memory of each machine, in MiB.
    pub fn memory(&self) -> u32 {
        self.manifest.memory
    }

    fn make(
        &self,
        kernel: &Kernel,
        parts: &Parts,
        tools: &[PathBuf],
        say: &mut dyn FnMut(&str),
    ) -> Result<(), VmError> {
        say("preparing the first file system: agent, modules, tools");
        let at = |name: &str| self.directory.join(name);
        fs::copy(&kernel.image, at("vmlinuz")).map_err(|source| VmError::file("copying", &kernel.image, source))?;
        let base = at("base.img");
        let packed = |source| VmError::file("packing", &base, source);
        let mut archive = Archive::new(BufWriter::new(File::create(&base).map_err(packed)?));
        for (name, to) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            if Path::new("/").join(name).is_symlink() {
                archive
                    .directory(to)
                    .and_then(|()| archive.link(name, to))
                    .map_err(packed)?;
            }
        }
        for name in ["proc", "sys", "dev", "tmp", "run", "etc", "var/lib", "modules"] {
            archive.directory(name).map_err(packed)?;
        }
        archive.device("dev/console", (5, 1)).map_err(packed)?;
        archive.device("dev/null", (1, 3)).map_err(packed)?;
        archive.link("etc/mtab", "/proc/self/mounts").map_err(packed)?;
        gather::program(&mut archive, &parts.agent.file, &self.manifest.agent, &self.directory)?;
        for tool in tools {
            gather::program(&mut archive, tool, tool, &self.directory)?;
        }
        for file in &parts.more {
            gather::program(&mut archive, file, file, &self.directory)?;
        }
        let defaults = Path::new("/etc/mke2fs.conf");
        if defaults.is_file() {
            gather::file(&mut archive, defaults)?;
        }
        let modules = kernel::modules(kernel)?;
        let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        archive
            .file("modules/order", 0o644, order.join("\n").as_bytes())
            .map_err(packed)?;
        for (name, bytes) in &modules {
            archive.file(&format!("modules/{name}"), 0o644, bytes).map_err(packed)?;
        }
        archive.finish().map_err(packed)?;
        say("preparing the empty disk of a node");
        self.make_disk()?;
        let text = serde_json::to_vec_pretty(&self.manifest).unwrap_or_default();
        let draft = at("manifest.draft");
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, at("manifest.json")));
        written.map_err(|source| VmError::file("writing", &draft, source))
    }

    fn make_disk(&self) -> Result<(), VmError> {
        let disk = self.directory.join("disk.img");
        let _ = fs::remove_file(&disk);
        let tool = gather::find("mkfs.ext4").ok_or(VmError::NoTool("mkfs.ext4"))?;
        let mut command = Command::new(tool);
        command.args([
            "-q",
            "-F",
            "-N",
            "65536",
            "-J",
            "size=32",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1",
        ]);
        kernel::run(command.arg(&disk).arg(DISK))
            .map_err(VmError::Boot)
            .map(drop)
    }

    /// The guest with these programs in it, at the paths that they have here. The state of a machine with them is made once: that takes the time of one boot,
    /// which also shows whether KVM works.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn with(&self, programs: &[PathBuf], runner: &Program, say: &mut dyn FnMut(&str)) -> Result<Ready, VmError> {
        let mut key = serde_json::to_string(&self.manifest).unwrap_or_default();
        for program in programs {
            key.push_str(&gather::mark(program)?);
        }
        let digest = blake3::hash(key.as_bytes()).to_hex();
        let mut ways = Vec::new();
        let mut accelerators = Accelerator::candidates();
        if self.directory.join(NO_KVM).exists() {
            accelerators.retain(|accelerator| *accelerator != Accelerator::Kvm);
        }
        for accelerator in accelerators {
            ways.push(self.way(accelerator, &digest[..16], runner)?);
        }
        if let Some(ready) = ways.iter().find(|ready| ready.state.is_file()) {
            return Ok(ready.clone());
        }
        let mut made = Err(VmError::NoQemu);
        for ready in ways {
            let accelerator = ready.shape.accelerator;
            say(&format!("one boot under {}, whose state is kept", accelerator.word()));
            made = self.make_state(&ready, programs).map(|()| ready);
            match &made {
                Ok(_) => break,
                Err(error) if accelerator == Accelerator::Kvm => {
                    // It is not tried for every driver again, but when the guest is prepared anew.
                    let _ = fs::write(self.directory.join(NO_KVM), error.to_string());
                    say(&format!("not with KVM: {error}"));
                }
                Err(_) => {}
            }
        }
        made
    }

    fn way(&self, accelerator: Accelerator, digest: &str, runner: &Program) -> Result<Ready, VmError> {
        let place = self
            .directory
            .join("states")
            .join(format!("{digest}-{}", accelerator.word()));
        Ok(Ready {
            shape: Shape {
                qemu: machine::qemu()?,
                runner: runner.clone(),
                accelerator,
                memory: self.manifest.memory,
                kernel: self.directory.join("vmlinuz"),
                initrd: place.join("initrd.img"),
                agent: self.manifest.agent.clone(),
                words: [self.manifest.prefix.clone(), vec!["guest".to_owned()]].concat(),
            },
            disk: self.directory.join("disk.img"),
            state: place.join("state"),
        })
    }

    fn make_state(&self, ready: &Ready, programs: &[PathBuf]) -> Result<(), VmError> {
        let draft = self.directory.join(format!("draft-{}", std::process::id()));
        let made = self.boot_once(&draft, ready, programs).and_then(|()| {
            self.forget_old_states();
            let place = ready.state.parent().unwrap_or(&self.directory);
            let parent = place.parent().unwrap_or(&self.directory);
            match fs::create_dir_all(parent).and_then(|()| fs::rename(&draft, place)) {
                // Another process was faster.
                Err(_) if ready.state.is_file() => Ok(()),
                Err(source) => Err(VmError::file("placing", place, source)),
                Ok(()) => Ok(()),
            }
        });
        // What stays is made anew.
        let _ = fs::remove_dir_all(&draft);
        made
    }

    fn boot_once(&self, draft: &Path, ready: &Ready, programs: &[PathBuf]) -> Result<(), VmError> {
        fs::create_dir_all(draft).map_err(|source| VmError::file("making", draft, source))?;
        let initrd = draft.join("initrd.img");
        let packed = |source| VmError::file("packing", &initrd, source);
        fs::copy(self.directory.join("base.img"), &initrd).map_err(packed)?;
        let end = File::options().append(true).open(&initrd).map_err(packed)?;
        let mut archive = Archive::new(BufWriter::new(end));
        for program in programs {
            gather::program(&mut archive, program, program, draft)?;
        }
        archive.finish().map_err(packed)?;
        let shape = Shape {
            initrd: initrd.clone(),
            ..ready.shape.clone()
        };
        machine::keep_state(&shape, draft, &ready.disk)
    }

    /// What was not made lately goes.
    fn forget_old_states(&self) {
        let entries = fs::read_dir(self.directory.join("states"))
            .into_iter()
            .flatten()
            .flatten();
        let mut states: Vec<(i64, PathBuf)> = entries
            .filter_map(|entry| Some((entry.metadata().ok()?.mtime(), entry.path())))
            .collect();
        states.sort();
        for (_, state) in states.iter().rev().skip(STATES) {
            let _ = fs::remove_dir_all(state);
        }
    }
}
