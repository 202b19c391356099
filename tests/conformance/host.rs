//! The modelled machine against the kernel: random sequences of operations on both, and after each of them the same answer, the same mount table,
//! the same devices, and in the end the same bytes.
//!
//! Needs root. Another user is told that it did not run; the variable `WAVETANK_ROOT_TESTS` makes that a failure.
//!
//! Left out, because the two differ there on purpose: a node is cut off from a volume that it has attached (the store of images refuses), a device
//! that a pod may write to is cut (the store refuses, other storage need not), and ext4 grows while it is mounted (a right that a container may lack).
//! Where the kernel has no device-mapper, encryption layers are never made: compared is then what is said of volumes without one.

mod arms;

use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use proptest::test_runner::RngSeed;
use wavetank_driver::Access;

use arms::Arms;

/// Few names, so that operations meet.
pub(crate) const VOLUMES: [&str; 2] = ["v", "w"];
pub(crate) const PATHS: [&str; 5] = ["/m/a", "/m/b", "/m/a/inner", "/m/file", "/m/b/file"];

/// One operation on both arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Delete,
    Grow,
    Export(Access),
    Unexport,
    Attach(Access),
    Detach,
    Rescan,
    Probe,
    Mkfs,
    Fsck,
    Mount(Access),
    /// With flags that forbid programs and device nodes.
    MountStrictly,
    Bind(Access),
    BindDevice,
    Unmount,
    /// Everything belongs to a group.
    SetGroup,
    /// A snapshot of the volume; there is one name for it.
    Cut,
    DropSnapshot,
    /// The volume is made from the snapshot.
    Restore,
    /// The volume is made as a copy of the other one.
    Clone,
    Encrypt,
    Unlock(Access),
    GrowLayer,
    Lock,
    CreateDir,
    RemoveDir,
    CreateFile,
    RemoveFile,
    Kind,
    Write,
    Read,
    Sync,
}

/// An operation, the volume it is about, and the paths it goes from and to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) volume: &'static str,
    pub(crate) from: &'static str,
    pub(crate) at: &'static str,
}

fn op() -> impl Strategy<Value = Op> {
    let rw = Access::ReadWrite;
    // Those that lead to a mounted file system are drawn more often.
    let all = [
        Op::Create,
        Op::Delete,
        Op::Grow,
        Op::Export(rw),
        Op::Export(Access::ReadOnly),
        Op::Unexport,
        Op::Attach(rw),
        Op::Attach(rw),
        Op::Attach(Access::ReadOnly),
        Op::Detach,
        Op::Rescan,
        Op::Probe,
        Op::Mkfs,
        Op::Mkfs,
        Op::Fsck,
        Op::Mount(rw),
        Op::Mount(rw),
        Op::Mount(Access::ReadOnly),
        Op::MountStrictly,
        Op::SetGroup,
        Op::Cut,
        Op::Cut,
        Op::DropSnapshot,
        Op::Restore,
        Op::Restore,
        Op::Clone,
        Op::Encrypt,
        Op::Unlock(rw),
        Op::Unlock(Access::ReadOnly),
        Op::GrowLayer,
        Op::Lock,
        Op::Bind(rw),
        Op::Bind(Access::ReadOnly),
        Op::BindDevice,
        Op::Unmount,
        Op::Unmount,
        Op::CreateDir,
        Op::RemoveDir,
        Op::CreateFile,
        Op::RemoveFile,
        Op::Kind,
        Op::Write,
        Op::Write,
        Op::Read,
        Op::Sync,
    ];
    (0..all.len()).prop_map(move |nth| all[nth])
}

fn step() -> impl Strategy<Value = Step> {
    let fields = (op(), any::<u8>(), any::<u8>(), any::<u8>());
    fields.prop_map(|(op, volume, from, at)| Step {
        op,
        volume: VOLUMES[usize::from(volume) % VOLUMES.len()],
        from: PATHS[usize::from(from) % PATHS.len()],
        at: PATHS[usize::from(at) % PATHS.len()],
    })
}

/// The same sequences in every run.
fn config() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0),
        failure_persistence: None,
        cases: 40,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

/// The way every volume goes, so that random steps start from somewhere.
fn opening() -> Vec<Step> {
    let step = |op, volume, at| Step {
        op,
        volume,
        from: PATHS[0],
        at,
    };
    let rw = Access::ReadWrite;
    let mut steps = Vec::new();
    for (volume, at) in [("v", PATHS[0]), ("w", PATHS[1])] {
        for op in [
            Op::Create,
            Op::Export(rw),
            Op::Attach(rw),
            Op::Probe,
            Op::Mkfs,
            Op::Probe,
            Op::Mount(rw),
            Op::Write,
        ] {
            steps.push(step(op, volume, at));
        }
    }
    steps
}

/// Tells a user who may not mount, and whoever demanded the tests.
#[expect(clippy::print_stdout, reason = "a test says what it did not run")]
fn may_mount() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("WAVETANK_ROOT_TESTS").is_none(),
        "this test was demanded, and needs root"
    );
    println!("NOT RUN: loop devices and mounts need root");
    false
}

#[test]
fn what_a_mount_forbids_a_read_only_bind_of_it_forbids_too() {
    if !may_mount() {
        return;
    }
    let mut steps = opening();
    steps.truncate(8);
    // Created and probed, which answer with more than that they did.
    steps.retain(|step| !matches!(step.op, Op::Create | Op::Probe | Op::Write));
    steps.last_mut().expect("it is mounted").op = Op::MountStrictly;
    let bind = Step {
        op: Op::Bind(Access::ReadOnly),
        volume: "v",
        from: PATHS[0],
        at: PATHS[1],
    };
    let create = Step { op: Op::Create, ..bind };
    let arms = Arms::new();
    arms.perform(create);
    for step in steps.into_iter().chain([bind]) {
        assert_eq!(arms.perform(step), ["()", "()"], "{step:?}");
    }
    let [model, kernel] = [0, 1].map(|arm| arms.state(arm));
    assert_eq!(model, kernel);
    let strict = "/m/b shows v / ReadOnly {\"nodev\", \"noexec\", \"nosuid\"}";
    assert!(kernel.iter().any(|line| line.starts_with(strict)), "{kernel:?}");
    arms.clean_up();
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn the_model_agrees_with_the_kernel(opened in any::<bool>(), steps in proptest::collection::vec(step(), 1..60)) {
        if !may_mount() {
            return Ok(());
        }
        let arms = Arms::new();
        let opening = if opened { opening() } else { Vec::new() };
        let mut told = Vec::new();
        for step in opening.into_iter().chain(steps) {
            let answers = arms.perform(step);
            told.push(format!("{step:?}: {answers:?}"));
            assert_eq!(answers[0], answers[1], "model, kernel; so far:\n{}", told.join("\n"));
            assert_eq!(arms.state(0), arms.state(1), "model, kernel; so far:\n{}", told.join("\n"));
        }
        assert_eq!(arms.bytes(0), arms.bytes(1), "model, kernel; so far:\n{}", told.join("\n"));
        arms.clean_up();
    }
}
