//! How kubelet speaks CSI: which fields its requests have, and what it makes of an error (fact sheet 6.3, 6.7).
//!
//! Each question about capabilities is a call of its own, at the place where the answer is needed: three before NodeStage and three before NodePublish of a
//! file system, two and one for a block volume, two before NodePublish of an inline volume, two before NodeExpand, one before NodeUnstage and
//! NodeGetVolumeStats, none before NodeUnpublish.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use wavetank_proto::csi::v1 as csi;
use wavetank_proto::csi::v1::node_service_capability::{Type, rpc};
use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;
use wavetank_proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use super::actual::Class;
use super::operations::OpError;
use super::volume::{Source, VolumeSpec};
use crate::control::{Effect, Outcome};
use crate::link::{Call, CallError, CsiReply, CsiRequest, Socket};

/// A capability of the node service.
pub use rpc::Type as NodeRpc;

/// A call to the driver's socket on this node.
pub fn call(driver: &Arc<str>, request: impl Into<CsiRequest>, timeout: Duration) -> Effect {
    Effect::Call(Box::new(Call {
        driver: Arc::clone(driver),
        socket: Socket::Node,
        request: request.into(),
        timeout,
    }))
}

/// The question about capabilities.
pub fn ask(driver: &Arc<str>, timeout: Duration) -> Effect {
    call(driver, csi::NodeGetCapabilitiesRequest {}, timeout)
}

/// Whether the answer to [`ask`] has a capability.
///
/// # Errors
/// What the driver, or the wire, answered instead.
pub fn has(outcome: &Outcome, wanted: NodeRpc) -> Result<bool, &CallError> {
    let reply = match outcome.reply()? {
        CsiReply::NodeGetCapabilities(reply) => reply,
        other => panic!("capabilities were asked for, not {}", other.message_name()),
    };
    let types = reply.capabilities.iter().filter_map(|c| c.r#type);
    Ok(types.map(|Type::Rpc(rpc)| rpc.r#type).any(|have| have == wanted as i32))
}

/// A driver that is not in the list of registered ones.
pub fn unregistered(driver: &str) -> String {
    format!("driver name {driver} not found in the list of registered CSI drivers")
}

/// What an error of a call says about the operation: kubelet looks at the code only.
pub fn class(error: &CallError) -> Class {
    match error.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted => {
            Class::Uncertain
        }
        _ => Class::Final,
    }
}

/// An error of a call as it is.
pub fn raw(error: &CallError) -> OpError {
    OpError {
        class: class(error),
        message: describe(&error.status),
    }
}

/// A status as Go's gRPC spells it, and so events and conditions do.
pub fn describe(status: &Status) -> String {
    // Rust spells one code with a second l.
    let code = match status.code() {
        Code::Cancelled => String::from("Canceled"),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// The access mode that the driver is told: the first one of the volume, ReadWriteOnce if there is none.
pub fn access_mode(modes: &[String], multi_writer: bool) -> Mode {
    match (modes.first().map(String::as_str), multi_writer) {
        (Some("ReadWriteMany"), _) => Mode::MultiNodeMultiWriter,
        (Some("ReadOnlyMany"), _) => Mode::MultiNodeReaderOnly,
        (Some("ReadWriteOncePod"), true) => Mode::SingleNodeSingleWriter,
        (_, true) => Mode::SingleNodeMultiWriter,
        (_, false) => Mode::SingleNodeWriter,
    }
}

/// The volume capability of a request. The file system's type is never defaulted here: empty stays empty.
pub fn capability(spec: &VolumeSpec, multi_writer: bool, mount_group: Option<String>) -> csi::VolumeCapability {
    let mount = || {
        let (fs_type, mount_flags) = match &spec.source {
            Source::Persistent(pv) => {
                let pv = pv.spec.as_ref();
                let fs = pv.and_then(|s| s.csi.as_ref()).and_then(|c| c.fs_type.clone());
                (fs, pv.and_then(|s| s.mount_options.clone()))
            }
            Source::Inline(source, _) => (source.fs_type.clone(), None),
            Source::Reconstructed { .. } => (None, None),
        };
        AccessType::Mount(MountVolume {
            fs_type: fs_type.unwrap_or_default(),
            mount_flags: mount_flags.unwrap_or_default(),
            volume_mount_group: mount_group.unwrap_or_default(),
        })
    };
    let access_type = if spec.block {
        AccessType::Block(BlockVolume {})
    } else {
        mount()
    };
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: access_mode(spec.modes(), multi_writer) as i32,
        }),
        access_type: Some(access_type),
    }
}

/// The volume's attributes.
pub fn attributes(spec: &VolumeSpec) -> BTreeMap<String, String> {
    match &spec.source {
        Source::Persistent(pv) => {
            let csi = pv.spec.as_ref().and_then(|s| s.csi.as_ref());
            csi.and_then(|c| c.volume_attributes.clone()).unwrap_or_default()
        }
        Source::Inline(source, _) => source.volume_attributes.clone().unwrap_or_default(),
        Source::Reconstructed { .. } => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{access_mode, capability, class, describe};
    use crate::kubelet::actual::Class;
    use crate::kubelet::testing::{block_volume, volume};
    use crate::link::CallError;
    use tonic::{Code, Status};
    use wavetank_proto::csi::v1::volume_capability::access_mode::Mode;

    #[test]
    fn only_the_first_access_mode_counts() {
        // Fact sheet 6.7, appendix I 11.
        let table = [
            (vec![], false, Mode::SingleNodeWriter),
            (vec![], true, Mode::SingleNodeMultiWriter),
            (
                vec!["ReadWriteOnce", "ReadWriteMany"],
                true,
                Mode::SingleNodeMultiWriter,
            ),
            (vec!["ReadWriteMany", "ReadWriteOnce"], true, Mode::MultiNodeMultiWriter),
            (vec!["ReadOnlyMany"], true, Mode::MultiNodeReaderOnly),
            (vec!["ReadWriteOncePod"], true, Mode::SingleNodeSingleWriter),
            (vec!["ReadWriteOncePod"], false, Mode::SingleNodeWriter),
        ];
        for (modes, bit, mode) in table {
            let modes: Vec<String> = modes.into_iter().map(String::from).collect();
            assert_eq!(access_mode(&modes, bit), mode, "{modes:?} with bit {bit}");
        }
    }

    #[test]
    fn five_codes_leave_the_operation_uncertain() {
        let uncertain = [1, 4, 8, 10, 14];
        for number in 1..=16 {
            let status = Status::new(Code::from_i32(number), "why");
            let error = CallError {
                status,
                disconnected: false,
            };
            let expected = if uncertain.contains(&number) {
                Class::Uncertain
            } else {
                Class::Final
            };
            assert_eq!(class(&error), expected, "{}", describe(&error.status));
        }
        assert_eq!(
            describe(&Status::cancelled("gone")),
            "rpc error: code = Canceled desc = gone"
        );
    }

    #[test]
    fn nothing_is_defaulted() {
        // Traces 03 and 16: `mount: {}` and `block: {}`.
        use wavetank_proto::csi::v1::volume_capability::{AccessType, BlockVolume, MountVolume};
        let fs = capability(&volume("pvc-1", "h"), true, None);
        assert_eq!(fs.access_type, Some(AccessType::Mount(MountVolume::default())));
        let block = capability(&block_volume("pvc-1", "h"), true, Some("7".into()));
        assert_eq!(block.access_type, Some(AccessType::Block(BlockVolume {})));
    }
}
