//! Directories, files and links, as kubelet and drivers find them.

use futures::executor::block_on;
use wavetank_driver::Host;
use wavetank_driver::host::{HostErrorKind, PathKind as Kind};

use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};
use crate::runtime::Time;

use super::Machine;
use super::{make_dirs, path, publish_path, refusal, tank, write};

#[test]
fn kubelets_operations_are_those_of_a_real_node() {
    let machine = Machine::new("n");
    let perform = |operation| machine.perform(Time::ZERO, &operation);
    let busy = |path: &str| Err(MachineError::Busy(path.into()));
    make_dirs(&machine, "/a/b/c");
    make_dirs(&machine, "/a/b/c");
    assert_eq!(perform(MachineOp::RemoveDir("/a/b".into())), busy("/a/b"));
    let write = |bytes: &[u8]| perform(MachineOp::WriteFile("/a/b/f".into(), bytes.to_vec()));
    write(&[7; 5000]).unwrap();
    write(b"short").unwrap();
    assert_eq!(
        perform(MachineOp::ReadFile("/a/b/f".into())),
        Ok(MachineAnswer::Bytes(b"short".to_vec())),
        "written anew, not over"
    );
    let names = perform(MachineOp::ListDir("/a/b".into()));
    assert_eq!(names, Ok(MachineAnswer::Names(vec!["c".into(), "f".into()])));
    let missing = MachineError::Missing("/none/f".into());
    assert_eq!(perform(MachineOp::WriteFile("/none/f".into(), vec![])), Err(missing));
    perform(MachineOp::RemoveFile("/a/none".into())).expect("a missing file is as good as removed");
    perform(MachineOp::RemoveAll("/a".into())).unwrap();
    perform(MachineOp::RemoveAll("/a".into())).unwrap();
    let stat = perform(MachineOp::Stat("/a".into()));
    assert_eq!(stat, Ok(MachineAnswer::Path(PathKind::Missing)));
    let under_file = perform(MachineOp::Stat("/tmp/x/y".into()));
    assert_eq!(under_file, Ok(MachineAnswer::Path(PathKind::Missing)));
}

#[test]
fn removing_a_tree_stops_at_mount_points() {
    block_on(async {
        let tank = tank();
        tank.published("v").await;
        write(&tank.machine, "p", &publish_path("p"), 0, 1, 1).unwrap();
        let remove = MachineOp::RemoveAll("/var/lib/kubelet/pods".into());
        let removed = tank.machine.perform(Time::ZERO, &remove);
        assert_eq!(removed, Err(MachineError::Busy("/var/lib/kubelet/pods".into())));
        let seen = tank.machine.pod_read("p", &publish_path("p")).unwrap();
        assert_eq!(seen.found.len(), 1, "nothing behind the mount was touched");
        let stat = MachineOp::Stat(publish_path("p"));
        let stat = tank.machine.perform(Time::ZERO, &stat);
        assert_eq!(stat, Ok(MachineAnswer::Path(PathKind::MountPoint)));
    });
}

#[test]
fn links_are_followed_in_paths_and_never_by_lstat() {
    block_on(async {
        let tank = tank();
        make_dirs(&tank.machine, "/real/inner");
        for (to, at) in [("/real", "/link"), ("inner", "/real/relative"), ("/loop", "/loop")] {
            let link = MachineOp::Link {
                to: to.into(),
                at: at.into(),
            };
            tank.machine.perform(Time::ZERO, &link).unwrap();
        }
        assert_eq!(tank.host.kind(&path("/link")).await.unwrap(), Some(Kind::Symlink));
        assert_eq!(
            tank.host.kind(&path("/link/inner")).await.unwrap(),
            Some(Kind::Directory)
        );
        tank.host.create_dir(&path("/link/relative/deep")).await.unwrap();
        assert_eq!(
            tank.host.kind(&path("/real/inner/deep")).await.unwrap(),
            Some(Kind::Directory)
        );
        assert_eq!(refusal(tank.host.kind(&path("/loop/x")).await), HostErrorKind::Invalid);
        let other = MachineOp::Link {
            to: "/elsewhere".into(),
            at: "/link".into(),
        };
        let other = tank.machine.perform(Time::ZERO, &other);
        assert_eq!(other, Err(MachineError::Exists("/link".into())));
    });
}

#[test]
fn the_driver_never_removes_data() {
    block_on(async {
        let tank = tank();
        let file = MachineOp::WriteFile("/tmp/f".into(), b"x".to_vec());
        tank.machine.perform(Time::ZERO, &file).unwrap();
        assert_eq!(
            refusal(tank.host.remove_file(&path("/tmp/f")).await),
            HostErrorKind::NotEmpty
        );
        assert_eq!(
            refusal(tank.host.remove_dir(&path("/tmp/f")).await),
            HostErrorKind::Invalid
        );
        assert_eq!(
            refusal(tank.host.remove_dir(&path("/tmp")).await),
            HostErrorKind::NotEmpty
        );
        assert_eq!(
            refusal(tank.host.remove_dir(&path("/none")).await),
            HostErrorKind::NotFound
        );
        assert_eq!(
            refusal(tank.host.create_dir(&path("/tmp")).await),
            HostErrorKind::Exists
        );
        assert_eq!(
            refusal(tank.host.create_dir(&path("/none/d")).await),
            HostErrorKind::NotFound
        );
    });
}
