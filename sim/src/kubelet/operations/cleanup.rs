//! Removing the directories of a mount that is not there any more: target or staging directory, metadata file, parent.
//!
//! ```text
//! Look ──nothing mounted──► Directory ──► Record ──► Parent ──► Done
//!   └──mounted: strict: error; else Done
//! ```

use crate::control::{Effect, Outcome};
use crate::kubelet::paths::record_in;
use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};

/// Where a clean-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Look,
    Directory,
    Record,
    Parent,
    Done,
}

/// A clean-up under way.
#[derive(Clone, Debug)]
pub struct Cleanup {
    directory: String,
    parent: String,
    strict: bool,
    step: Step,
}

impl Cleanup {
    /// After an unmount: what cannot be removed is an error.
    pub fn strict(directory: String, parent: String) -> Cleanup {
        Cleanup {
            directory,
            parent,
            strict: true,
            step: Step::Look,
        }
    }

    /// After a failed mount: what cannot be removed stays.
    pub fn lenient(directory: String, parent: String) -> Cleanup {
        Cleanup {
            strict: false,
            ..Cleanup::strict(directory, parent)
        }
    }

    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// What next.
    pub fn decide(&self) -> Effect {
        match self.step {
            Step::Look => Effect::Machine(MachineOp::Stat(self.directory.clone())),
            Step::Directory => Effect::Machine(MachineOp::RemoveDir(self.directory.clone())),
            Step::Record => Effect::Machine(MachineOp::RemoveFile(record_in(&self.parent))),
            Step::Parent => Effect::Machine(MachineOp::RemoveDir(self.parent.clone())),
            Step::Done => Effect::Note("cleaned up"),
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// What stands in the way, if that matters.
    pub fn learn(&mut self, outcome: &Outcome) -> Result<(), String> {
        let answer = match outcome.machine() {
            Ok(answer) => answer,
            Err(MachineError::Missing(_)) => &MachineAnswer::Done,
            Err(_) if !self.strict => {
                self.step = Step::Done;
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        self.step = match (self.step, answer) {
            (Step::Look, MachineAnswer::Path(PathKind::MountPoint)) if self.strict => {
                return Err(format!("{}: still a mount point", self.directory));
            }
            (Step::Look, MachineAnswer::Path(PathKind::MountPoint)) => Step::Done,
            (Step::Look, MachineAnswer::Path(PathKind::Missing)) => Step::Record,
            (Step::Look, _) => Step::Directory,
            (Step::Directory, _) => Step::Record,
            (Step::Record, _) => Step::Parent,
            (Step::Parent | Step::Done, _) => Step::Done,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Cleanup;
    use crate::control::{Effect, Outcome};
    use crate::link::{MachineAnswer, MachineError, MachineOp, PathKind};

    fn run(mut cleanup: Cleanup, kind: PathKind, fail: Option<&MachineError>) -> (Vec<MachineOp>, Result<(), String>) {
        let mut ops = Vec::new();
        while !cleanup.is_done() {
            let Effect::Machine(op) = cleanup.decide() else {
                panic!()
            };
            let answer = match (&op, fail) {
                (MachineOp::Stat(_), _) => Ok(MachineAnswer::Path(kind)),
                (MachineOp::RemoveDir(_), Some(error)) => Err(error.clone()),
                _ => Ok(MachineAnswer::Done),
            };
            ops.push(op);
            if let Err(error) = cleanup.learn(&Outcome::Machine(answer)) {
                return (ops, Err(error));
            }
        }
        (ops, Ok(()))
    }

    #[test]
    fn a_mount_point_is_never_removed() {
        let paths = || ("/v/mount".to_owned(), "/v".to_owned());
        let (ops, result) = run(Cleanup::strict(paths().0, paths().1), PathKind::MountPoint, None);
        assert!(result.is_err() && ops.len() == 1);
        let (ops, result) = run(Cleanup::lenient(paths().0, paths().1), PathKind::MountPoint, None);
        assert_eq!((ops.len(), result), (1, Ok(())));
    }

    #[test]
    fn directory_record_and_parent_go_in_this_order() {
        let cleanup = Cleanup::strict("/v/mount".into(), "/v".into());
        let (ops, result) = run(cleanup, PathKind::Directory, None);
        let expected = [
            MachineOp::Stat("/v/mount".into()),
            MachineOp::RemoveDir("/v/mount".into()),
            MachineOp::RemoveFile("/v/vol_data.json".into()),
            MachineOp::RemoveDir("/v".into()),
        ];
        assert_eq!((ops.as_slice(), result), (&expected[..], Ok(())));
        let cleanup = Cleanup::strict("/v/mount".into(), "/v".into());
        assert_eq!(
            run(cleanup, PathKind::Missing, None).0.len(),
            3,
            "the driver removed it"
        );
    }

    #[test]
    fn leftover_files_make_an_unmount_fail() {
        // Fact sheet 6.10: NodeUnpublish is repeated then.
        let cleanup = Cleanup::strict("/v/mount".into(), "/v".into());
        let busy = MachineError::Busy("/v/mount".into());
        assert!(run(cleanup, PathKind::Directory, Some(&busy)).1.is_err());
    }
}
