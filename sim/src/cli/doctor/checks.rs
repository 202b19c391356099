//! What follows from what was found: check by check, and what can be run at all. Pure, so that every machine can be tested on any.

use wavetank_agent::examine::Findings;

use crate::scenario::nearest;

/// So much disk a run with real volumes may need for a moment.
const DISK: u64 = 2 << 30;
/// So much memory two machines need.
const MEMORY: u64 = 1 << 30;

/// What was found on a machine.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What the processor is called.
    pub processor: &'static str,
    /// Whether there is the tool.
    pub cryptsetup: bool,
    /// Which QEMU runs by the processor, or why none does.
    pub kvm: Result<String, String>,
    /// Which QEMU runs, or why none does.
    pub tcg: Result<String, String>,
    /// Whether kernels can be fetched as packages of Debian.
    pub apt: bool,
    /// What the agent found out, or why it did not.
    pub agent: Result<Findings, String>,
}

/// One thing that is there or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name.
    pub name: &'static str,
    /// What was found, or why it is not there.
    pub found: Result<String, String>,
    /// What it is for.
    pub enables: &'static str,
    /// How to get it.
    pub get: Vec<&'static str>,
}

/// Something that one can run, or cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ability {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// The checks that it needs and that fail.
    pub lacks: Vec<&'static str>,
}

/// Names, what they are, and which checks they need.
const ABILITIES: [(&str, &str, &[&str]); 4] = [
    ("model", "scenarios, storms and reports around modelled machines", &[]),
    (
        "processes",
        "drivers as processes behind sockets that mount nothing (`mounts: false`)",
        &["agent"],
    ),
    (
        "sockets",
        "drivers as processes behind sockets, with real mounts: run --driver",
        &["root", "namespaces", "loops", "ext4", "disk"],
    ),
    (
        "vm",
        "nodes as virtual machines with kernels of their own",
        &["qemu", "kernel", "ext4", "memory", "disk"],
    ),
];

/// All checks: name, what it is for, how to get it.
const CHECKS: [(&str, &str, &[&str]); 15] = [
    (
        "agent",
        "drivers outside, and whatever is tried below",
        &["this program must be able to start itself"],
    ),
    (
        "root",
        "real mounts and loop devices",
        &["sudo, or a container with --privileged"],
    ),
    (
        "namespaces",
        "nodes whose mounts vanish when they crash",
        &["root, or a container with CAP_SYS_ADMIN (--privileged)"],
    ),
    (
        "loops",
        "real volumes",
        &["modprobe loop", "in a container: --privileged -v /dev:/dev"],
    ),
    (
        "ext4",
        "volumes as most classes ask for them",
        &["apt install e2fsprogs", "dnf install e2fsprogs", "modprobe ext4"],
    ),
    (
        "ext4-online",
        "ext4 that grows while pods use it, around drivers behind sockets",
        &[
            "real root, not that of a container",
            "--nodes vm: a kernel of one's own",
        ],
    ),
    (
        "xfs",
        "volumes with fsType xfs",
        &["apt install xfsprogs", "dnf install xfsprogs", "modprobe xfs"],
    ),
    (
        "btrfs",
        "volumes with fsType btrfs",
        &["apt install btrfs-progs", "dnf install btrfs-progs", "modprobe btrfs"],
    ),
    (
        "mapper",
        "encrypted volumes, and device errors on real nodes",
        &["modprobe dm_mod"],
    ),
    (
        "cryptsetup",
        "encrypted volumes",
        &["apt install cryptsetup-bin", "dnf install cryptsetup"],
    ),
    (
        "qemu",
        "nodes as virtual machines",
        &["apt install qemu-system-x86", "dnf install qemu-system-x86-core"],
    ),
    (
        "kvm",
        "virtual machines that are much faster; nothing needs it",
        &["modprobe kvm_intel or kvm_amd, where BIOS and hypervisor allow it"],
    ),
    (
        "kernel",
        "virtual machines",
        &["wavetank vm prepare --kernel FILE --modules DIRECTORY"],
    ),
    ("memory", "two machines at once", &["end something else"]),
    (
        "disk",
        "images of volumes and machines, in the directory for temporary files",
        &["free some space there"],
    ),
];

/// A name that can be demanded.
pub(super) fn name(text: &str) -> Result<String, String> {
    let known = || {
        ABILITIES
            .iter()
            .map(|(name, ..)| *name)
            .chain(CHECKS.iter().map(|(name, ..)| *name))
    };
    if known().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    let near = nearest(text, known()).map_or_else(|| ".".to_owned(), |near| format!("; did you mean `{near}`?"));
    Err(format!(
        "there is nothing of that name{near} Known are {}",
        known().collect::<Vec<_>>().join(", ")
    ))
}

/// What can be run.
pub(super) fn abilities(checks: &[Check]) -> Vec<Ability> {
    let fails = |name: &&&str| checks.iter().any(|check| check.name == **name && check.found.is_err());
    let ability = |(name, what, needs): (&'static str, &'static str, &[&'static str])| Ability {
        name,
        what,
        lacks: needs.iter().filter(fails).copied().collect(),
    };
    ABILITIES.into_iter().map(ability).collect()
}

/// What is there.
pub(super) fn checks(found: &Found) -> Vec<Check> {
    let check = |(name, enables, get): (&'static str, &'static str, &[&'static str])| Check {
        name,
        found: look(found, name),
        enables,
        get: get.to_vec(),
    };
    CHECKS.into_iter().map(check).collect()
}

/// What was found of one check, or why it fails.
fn look(found: &Found, name: &str) -> Result<String, String> {
    match name {
        "cryptsetup" => return yes(found.cryptsetup, "installed", "not installed"),
        "kernel" => {
            return yes(
                found.apt,
                "apt can fetch Debian's",
                "there is no apt to fetch Debian's kernel with",
            );
        }
        "kvm" => {
            return found
                .kvm
                .clone()
                .map(|_| "a machine was started by the processor".into());
        }
        "qemu" if found.processor != "x86_64" => {
            return Err(format!(
                "machines are x86_64, and this processor is {}",
                found.processor
            ));
        }
        "qemu" => return found.tcg.clone().map(|version| format!("{version} was started")),
        _ => {}
    }
    let agent = match (&found.agent, name) {
        (Ok(agent), _) => agent,
        (Err(why), "agent") => return Err(why.clone()),
        (Err(_), _) => return Err("not tried: there is no agent".into()),
    };
    match name {
        "agent" => Ok(format!("runs on Linux {}", agent.kernel)),
        "root" => yes(agent.root, "yes", "this is an ordinary user"),
        "namespaces" => agent
            .namespaces
            .clone()
            .map(|()| "a mount namespace was granted".into()),
        "loops" => agent
            .loops
            .clone()
            .map(|device| format!("{device} was attached and let go")),
        "mapper" => yes(agent.mapper, "the kernel has it", "the kernel has no device-mapper"),
        "memory" => room(agent.memory, MEMORY),
        "disk" => room(agent.free, DISK),
        "ext4-online" => file_system(agent, "ext4"),
        // Growing it is a check of its own: in many containers the kernel refuses that alone.
        "ext4" => match file_system(agent, "ext4") {
            Err(why) if why.starts_with("grow:") => Ok("made and mounted".into()),
            other => other,
        },
        kind => file_system(agent, kind),
    }
}

fn yes(so: bool, well: &str, not: &str) -> Result<String, String> {
    if so { Ok(well.to_owned()) } else { Err(not.to_owned()) }
}

fn file_system(agent: &Findings, name: &str) -> Result<String, String> {
    let (_, tried) = agent
        .file_systems
        .iter()
        .find(|(kind, _)| kind == name)
        .ok_or("not tried")?;
    match tried {
        Ok(()) => Ok("made, mounted, grown while mounted, checked".into()),
        Err((step, why)) => Err(format!("{step}: {why}")),
    }
}

fn room(there: u64, needed: u64) -> Result<String, String> {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    if there >= needed {
        Ok(format!("{} free", gib(there)))
    } else {
        Err(format!("{} free, {} needed", gib(there), gib(needed)))
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECKS, Found, abilities, checks, name};
    use wavetank_agent::examine::Findings;

    fn workstation() -> Found {
        Found {
            processor: "x86_64",
            cryptsetup: true,
            kvm: Ok("QEMU 9".into()),
            tcg: Ok("QEMU 9".into()),
            apt: true,
            agent: Ok(Findings {
                root: true,
                kernel: "6.12".into(),
                namespaces: Ok(()),
                loops: Ok("/dev/loop0".into()),
                file_systems: ["ext4", "xfs", "btrfs"].map(|kind| (kind.to_owned(), Ok(()))).to_vec(),
                mapper: true,
                free: 1 << 40,
                memory: 1 << 34,
            }),
        }
    }

    fn lacking(found: &Found) -> Vec<(&'static str, Vec<&'static str>)> {
        let abilities = abilities(&checks(found));
        abilities
            .into_iter()
            .map(|ability| (ability.name, ability.lacks))
            .collect()
    }

    #[test]
    fn a_workstation_runs_everything() {
        assert!(lacking(&workstation()).iter().all(|(_, lacks)| lacks.is_empty()));
        assert!(checks(&workstation()).iter().all(|check| check.found.is_ok()));
        let names: Vec<_> = checks(&workstation()).iter().map(|check| check.name).collect();
        assert_eq!(names, CHECKS.map(|(name, ..)| name));
    }

    #[test]
    fn an_ordinary_user_plays_and_drives_processes_that_mount_nothing() {
        let mut found = workstation();
        let agent = found.agent.as_mut().unwrap();
        agent.root = false;
        agent.namespaces = Err("Operation not permitted".into());
        agent.loops = Err("asking for a loop device: Permission denied".into());
        agent.file_systems[0].1 = Err(("attach".into(), "Permission denied".into()));
        let lacking = lacking(&found);
        assert_eq!(lacking[0], ("model", vec![]));
        assert_eq!(lacking[1], ("processes", vec![]));
        assert_eq!(lacking[2], ("sockets", vec!["root", "namespaces", "loops", "ext4"]));
    }

    #[test]
    fn what_is_missing_says_why_and_how_to_get_it() {
        let mut found = workstation();
        found.agent.as_mut().unwrap().file_systems[1].1 = Err(("make".into(), "mkfs.xfs is not installed".into()));
        found.agent.as_mut().unwrap().free = 1 << 20;
        let checks = checks(&found);
        let xfs = checks.iter().find(|check| check.name == "xfs").unwrap();
        assert_eq!(xfs.found, Err("make: mkfs.xfs is not installed".into()));
        assert!(xfs.get.contains(&"apt install xfsprogs") && xfs.get.contains(&"dnf install xfsprogs"));
        let disk = checks.iter().find(|check| check.name == "disk").unwrap();
        assert_eq!(disk.found, Err("0.0 GiB free, 2.0 GiB needed".into()));
        for check in &checks {
            assert!(!check.get.is_empty() && !check.enables.is_empty(), "{}", check.name);
        }
    }

    #[test]
    fn ext4_that_does_not_grow_while_it_is_mounted_is_ext4_all_the_same() {
        let mut found = workstation();
        found.agent.as_mut().unwrap().file_systems[0].1 = Err(("grow".into(), "Operation not permitted".into()));
        assert!(lacking(&found).iter().all(|(_, lacks)| lacks.is_empty()));
        let failing: Vec<_> = checks(&found)
            .into_iter()
            .filter(|check| check.found.is_err())
            .collect();
        assert_eq!(failing.len(), 1);
        assert_eq!(failing[0].name, "ext4-online");
    }

    #[test]
    fn machines_want_their_processor_and_no_kvm() {
        let mut found = workstation();
        found.kvm = Err("no".into());
        assert_eq!(lacking(&found)[3], ("vm", vec![]));
        found.processor = "aarch64";
        assert_eq!(lacking(&found)[3], ("vm", vec!["qemu"]));
    }

    #[test]
    fn without_an_agent_nothing_outside_runs() {
        let mut found = workstation();
        found.agent = Err("it cannot be started".into());
        let lacking = lacking(&found);
        assert_eq!(lacking[0].1.len(), 0);
        assert_eq!(lacking[1].1, ["agent"]);
        assert!(lacking[2].1.contains(&"loops"));
    }

    #[test]
    fn only_what_is_known_can_be_demanded() {
        assert_eq!(name("vm"), Ok("vm".into()));
        assert_eq!(name("xfs"), Ok("xfs".into()));
        assert!(name("sokcets").unwrap_err().contains("did you mean `sockets`?"));
    }
}
