//! Every mutant, by pattern. `docs/mutants.md` shows the same with what catches each.

use wavetank_driver::Quirk;

use super::{Mutant, Place, Wrong};

/// The patterns that real bugs of storage drivers and of Kubernetes storage follow, from 1.
pub const PATTERNS: [&str; 13] = [
    "the repeat takes another path than the first call",
    "OK is said before the effect, or without it",
    "the caller's patience ends and the work does not",
    "a crash between an effect and its record",
    "what could not be found out is read as not there",
    "identity by place instead of by name",
    "no fence of its own",
    "a clean-up that is too broad, or undoes somebody else's success",
    "the wrong error code",
    "nobody is left to finish",
    "an expansion loses its second half",
    "repetition without bound",
    "what was confided is told, or lost on the way",
];

const fn driver(quirk: Quirk, pattern: usize, scenarios: &'static [&'static str]) -> Mutant {
    Mutant {
        place: Place::Driver(quirk),
        pattern,
        scenarios,
    }
}

const fn cluster(wrong: Wrong, pattern: usize, scenarios: &'static [&'static str]) -> Mutant {
    Mutant {
        place: Place::Cluster(wrong),
        pattern,
        scenarios,
    }
}

const SIMPLE: &str = "lifecycle/dynamic-immediate";
const CLONE: &str = "data/clone";
const LARGER: &str = "data/clone-larger";
const ONLINE: &str = "expand/online";
const INLINE: &str = "ephemeral/inline";
const SHARED: &str = "attach/read-write-many";
const BACK: &str = "attach/there-and-back";

/// The catalogue.
pub static MUTANTS: &[Mutant] = &[
    driver(Quirk::NameLookupRaces, 1, &[SIMPLE]),
    driver(Quirk::RetryAnsweredByQuota, 1, &["provision/as-large-as-can-be"]),
    driver(Quirk::CloneAnswerDropsSource, 1, &["faults/clone-answer-lost"]),
    driver(Quirk::CloneRetryRefused, 1, &[CLONE]),
    driver(Quirk::AttachRetryOtherSlot, 1, &[SIMPLE]),
    driver(Quirk::AttachRetryRefused, 1, &[SIMPLE]),
    driver(Quirk::UnpublishNotIdempotent, 1, &[SIMPLE]),
    driver(Quirk::UnstageNotIdempotent, 1, &[SIMPLE]),
    driver(Quirk::EphemeralRepublishForgets, 1, &[INLINE]),
    driver(Quirk::RetryDropsTopology, 1, &["binding/zones"]),
    driver(Quirk::DeleteBelievesBackend, 2, &["faults/storage-away-while-deleting"]),
    driver(Quirk::AttachResultIgnored, 2, &["faults/attach-refused-by-the-storage"]),
    driver(Quirk::DetachErrorDropped, 2, &["faults/detach-fails-once"]),
    driver(
        Quirk::PublishOkWithoutMount,
        2,
        &["faults/mount-fails-while-publishing"],
    ),
    driver(Quirk::UnstageErrorDropped, 2, &[SIMPLE]),
    driver(
        Quirk::ExpandBelievesTarget,
        2,
        &["faults/expansion-slower-than-the-caller"],
    ),
    driver(Quirk::DetachAnsweredEarly, 2, &[BACK]),
    driver(
        Quirk::CreateLoserDeletesWinner,
        3,
        &["faults/creation-overtaken-by-its-repeat"],
    ),
    driver(Quirk::CreateLeaksOnDoubt, 3, &["faults/creation-in-doubt"]),
    driver(Quirk::LateDetachFires, 3, &["faults/detach-fails-once"]),
    driver(Quirk::OppositeCallsOverlap, 3, &["faults/unstage-outlives-its-caller"]),
    driver(Quirk::RecordWrittenLate, 4, &[SIMPLE]),
    driver(Quirk::InterruptedCreateBelieved, 4, &[SIMPLE]),
    driver(Quirk::InterruptedAttachBelieved, 4, &[SIMPLE]),
    driver(Quirk::RestartForgets, 4, &["restart/driver-between-claim-and-pod"]),
    driver(Quirk::LeftoversStopStart, 4, &["faults/crash-between-two-operations"]),
    driver(Quirk::UnreadableMeansBlank, 5, &["faults/device-cannot-be-read"]),
    driver(Quirk::MountErrorFormats, 5, &["faults/mount-refused"]),
    driver(Quirk::UnreachableMeansGone, 5, &["faults/storage-away-while-deleting"]),
    driver(Quirk::DeviceMixedUp, 6, &["provision/two-claims-of-a-pod"]),
    driver(Quirk::DeviceLeftOnUnstage, 6, &[SIMPLE]),
    driver(Quirk::DriverDetachesOthers, 7, &[SHARED]),
    driver(Quirk::DetachDoesNotFence, 7, &[SIMPLE]),
    driver(Quirk::CloneSnapshotLeft, 8, &[CLONE]),
    driver(Quirk::ParentCleanupTooBroad, 8, &["data/idle-neighbour"]),
    driver(Quirk::RecursiveDestroy, 8, &[CLONE]),
    driver(Quirk::UnpublishIgnoresNode, 8, &[SHARED]),
    driver(Quirk::DeleteCutsOffUsers, 8, &["shapes/claim-goes-with-its-pod"]),
    driver(Quirk::FullMeansOutOfRange, 9, &["provision/no-room-in-one-zone"]),
    driver(Quirk::NodeBackoffStarves, 10, &["attach/two-volumes-one-node"]),
    driver(Quirk::InlineUnpublishWrongId, 10, &[INLINE]),
    driver(
        Quirk::AttachLimitAtStart,
        10,
        &["limits/driver-restarts-on-a-busy-node"],
    ),
    driver(Quirk::ExpandRetryDropsNodeFlag, 11, &["faults/expand-answer-lost"]),
    driver(Quirk::RestartBreaksExpand, 11, &["expand/after-the-driver-restarted"]),
    driver(Quirk::InnerLayerNotGrown, 11, &["secrets/encrypted-volume"]),
    driver(Quirk::GrowBeforeRescan, 11, &[ONLINE]),
    driver(Quirk::OldSizeBelieved, 11, &["faults/size-of-the-device-before"]),
    driver(Quirk::CopyNotGrown, 11, &[LARGER]),
    driver(Quirk::ExpandStuckAfterFailure, 11, &["faults/expansion-cut-short"]),
    driver(Quirk::PublishStacksMounts, 12, &["shapes/republished-for-hours"]),
    driver(Quirk::ListForgetsNodes, 12, &["lifecycle/an-hour-in-use"]),
    cluster(Wrong::DetachesInUse, 3, &[SIMPLE]),
    cluster(Wrong::ForgetsUncertainCreate, 3, &["provision/changed-their-mind"]),
    cluster(Wrong::UncertainMeansUnmounted, 3, &["errors/stage-uncertain", SIMPLE]),
    cluster(
        Wrong::FailedUnstageMeansStaged,
        3,
        &["errors/unstage-fails-and-the-next-pod-comes"],
    ),
    cluster(
        Wrong::RestartForgetsAttachments,
        4,
        &["restart/pod-leaves-while-the-manager-is-away"],
    ),
    cluster(
        Wrong::RestartForgetsMounts,
        4,
        &["restart/kubelet-while-a-pod-is-forced-away"],
    ),
    cluster(Wrong::FreshVolumeReleased, 5, &[SIMPLE]),
    cluster(Wrong::AttachesTwice, 7, &["attach/multi-attach"]),
    cluster(Wrong::DeletesOnSaveFailure, 8, &[SIMPLE]),
    cluster(Wrong::DeletesWhileAttached, 8, &["attach/claim-goes-with-its-pod"]),
    cluster(Wrong::ErrorMeansDetached, 9, &[SIMPLE]),
    cluster(Wrong::SkipsUnstage, 10, &[SIMPLE]),
    cluster(Wrong::KeepsFinalizer, 10, &[SIMPLE]),
    cluster(Wrong::DeleteNotRetried, 10, &[SIMPLE]),
    cluster(Wrong::ProvisioningStops, 10, &["faults/creation-refused-once"]),
    cluster(Wrong::FinalizerConflictLost, 10, &["faults/finalizer-write-fails"]),
    cluster(Wrong::ForgetsExpansion, 11, &["expand/errors-on-both-sides"]),
    cluster(Wrong::SkipsNode, 11, &[ONLINE]),
    cluster(Wrong::ExpansionMissed, 11, &[ONLINE]),
    cluster(Wrong::NoBackOff, 12, &["errors/refused-until-healed"]),
    cluster(Wrong::OwnErrorsWakeIt, 12, &["errors/refused-until-healed"]),
    driver(Quirk::SecretsInContext, 13, &["secrets/of-a-class"]),
    cluster(Wrong::DropsPublishContext, 13, &[SIMPLE]),
];

#[cfg(test)]
mod tests {
    use super::{MUTANTS, PATTERNS};
    use crate::mutants::{Place, Wrong, find};
    use wavetank_driver::Quirk;

    #[test]
    fn every_mistake_is_in_it_once() {
        for (nth, mutant) in MUTANTS.iter().enumerate() {
            assert!(
                MUTANTS[..nth].iter().all(|other| other.name() != mutant.name()),
                "{}",
                mutant.name()
            );
            assert!((1..=PATTERNS.len()).contains(&mutant.pattern) && !mutant.scenarios.is_empty());
            assert!(
                mutant.says().ends_with('.') && !mutant.bug().is_empty(),
                "{}",
                mutant.name()
            );
            assert!(std::ptr::eq(find(mutant.name()).expect("it was just named"), mutant));
        }
        let drivers = Quirk::ALL.iter().map(|quirk| Place::Driver(*quirk));
        for place in drivers.chain(Wrong::ALL.iter().map(|wrong| Place::Cluster(*wrong))) {
            assert!(
                MUTANTS.iter().any(|mutant| mutant.place == place),
                "{place:?} is missing"
            );
        }
        for pattern in 1..=PATTERNS.len() {
            assert!(
                MUTANTS.iter().any(|mutant| mutant.pattern == pattern),
                "pattern {pattern} has none"
            );
        }
    }
}
