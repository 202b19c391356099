//! Known mistakes of CSI drivers, each of which this driver makes when it is told to: so that a tank, a suite or an oracle can show that it notices.
//!
//! A quirk is given with the [`Seat`](crate::Seat), never with the configuration: nobody who deploys the driver can switch one on. Each is read at exactly
//! one line of the driver, which `tests/tidy.rs` holds; what is longer than a line stands in a `wrong` module beside the honest code.

use std::fmt;
use std::str::FromStr;

macro_rules! quirks {
    ($(#[doc = $says:literal] $variant:ident = $name:literal, $bug:literal;)+) => {
        /// One mistake. Its documentation says what the driver then does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Quirk {
            $(#[doc = $says] $variant,)+
        }

        impl Quirk {
            /// All of them.
            pub const ALL: &'static [Quirk] = &[$(Quirk::$variant,)+];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Quirk::$variant => $name,)+
                }
            }

            /// What the driver does, as one sentence.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Quirk::$variant => $says.trim_ascii(),)+
                }
            }

            /// The real bug it is modelled on, by its number in `docs/mutants.md`.
            pub const fn bug(self) -> &'static str {
                match self {
                    $(Quirk::$variant => $bug,)+
                }
            }
        }
    };
}

quirks! {
    /// It looks a volume up by name and makes one if there is none, so that two requests at once make two.
    NameLookupRaces = "name-lookup-races", "D02";
    /// A creation that took long deletes the volume although a second request has been given it meanwhile.
    CreateLoserDeletesWinner = "create-loser-deletes-winner", "D01";
    /// A creation of which the storage system gave no clear answer is forgotten, and reported as one that left nothing.
    CreateLeaksOnDoubt = "create-leaks-on-doubt", "D03";
    /// The quota is asked before the request is recognised as a repeat, and the volume itself has used it up.
    RetryAnsweredByQuota = "retry-answered-by-quota", "D05";
    /// It answers a second before what it did is on its disk.
    RecordWrittenLate = "record-written-late", "D06";
    /// After a crash in the middle of a creation it takes the volume for finished.
    InterruptedCreateBelieved = "interrupted-create-believed", "D08";
    /// After a crash in the middle of an attachment it takes the volume for attached.
    InterruptedAttachBelieved = "interrupted-attach-believed", "D09";
    /// The answer to a repeated request leaves out what the volume is a copy of.
    CloneAnswerDropsSource = "clone-answer-drops-source", "D10";
    /// A deletion that the storage system refused is reported as done.
    DeleteBelievesBackend = "delete-believes-backend", "D11";
    /// For each copy it cuts a snapshot of the source and leaves it there.
    CloneSnapshotLeft = "clone-snapshot-left", "D12";
    /// With a volume it clears away whatever lies beside it and is not in use at the moment.
    ParentCleanupTooBroad = "parent-cleanup-too-broad", "D14";
    /// With a volume go all the copies that were made of it.
    RecursiveDestroy = "recursive-destroy", "D15";
    /// A repeated request for a copy is refused because the copy exists.
    CloneRetryRefused = "clone-retry-refused", "D19";
    /// A detachment that failed is tried once more a minute later, whoever has the volume then.
    LateDetachFires = "late-detach-fires", "D21";
    /// After one failed detachment the node is refused everything.
    NodeBackoffStarves = "node-backoff-starves", "D23";
    /// The answer to a repeated attachment names another slot.
    AttachRetryOtherSlot = "attach-retry-other-slot", "D25";
    /// A volume that is to be attached to one node is taken from the others first.
    DriverDetachesOthers = "driver-detaches-others", "D28";
    /// An attachment that failed is reported as done.
    AttachResultIgnored = "attach-result-ignored", "D30";
    /// A detachment that failed is reported as done.
    DetachErrorDropped = "detach-error-dropped", "D12";
    /// A detachment from one node takes the volume from all.
    UnpublishIgnoresNode = "unpublish-ignores-node", "D32";
    /// A detached node is not cut off.
    DetachDoesNotFence = "detach-does-not-fence", "D33";
    /// A repeated attachment is refused because the volume is in use.
    AttachRetryRefused = "attach-retry-refused", "D34";
    /// A new process knows of no attachment and of no volume.
    RestartForgets = "restart-forgets", "D62";
    /// The answer to a repeated request leaves out where the volume can be reached from.
    RetryDropsTopology = "retry-drops-topology", "D63";
    /// A place without room is reported as a size that cannot be had.
    FullMeansOutOfRange = "full-means-out-of-range", "D64";
    /// The answer to a repeated expansion says that the node has nothing to do.
    ExpandRetryDropsNodeFlag = "expand-retry-drops-node-flag", "D68";
    /// An expansion is reported as done from the moment it is intended.
    ExpandBelievesTarget = "expand-believes-target", "D69";
    /// After an expansion that was cut short nothing works on the volume any more.
    ExpandStuckAfterFailure = "expand-stuck-after-failure", "D76";
    /// A detachment is answered at once and happens half a minute later.
    DetachAnsweredEarly = "detach-answered-early", "K27";
    /// A volume is deleted although a node has it.
    DeleteCutsOffUsers = "delete-cuts-off-users", "K10";
    /// A volume that cannot be looked up is taken for deleted.
    UnreachableMeansGone = "unreachable-means-gone", "D11";
    /// The list of volumes names no nodes.
    ListForgetsNodes = "list-forgets-nodes", "S23";
    /// The volumes that a node has when its driver starts are taken off its limit.
    AttachLimitAtStart = "attach-limit-at-start", "D39";
    /// The device that was attached last is taken for the volume's.
    DeviceMixedUp = "device-mixed-up", "D26";
    /// The size that a new device shows is believed, although it may be that of the device before it.
    OldSizeBelieved = "old-size-believed", "D43";
    /// A device that cannot be read is formatted.
    UnreadableMeansBlank = "unreadable-means-blank", "D40";
    /// A device that cannot be mounted is formatted.
    MountErrorFormats = "mount-error-formats", "D41";
    /// The device stays on the machine after the volume is unstaged.
    DeviceLeftOnUnstage = "device-left-on-unstage", "D44";
    /// A target that could not be mounted is reported as mounted.
    PublishOkWithoutMount = "publish-ok-without-mount", "D46";
    /// Every repeated publication mounts once more.
    PublishStacksMounts = "publish-stacks-mounts", "D48";
    /// A repeated unpublication fails because nothing is mounted.
    UnpublishNotIdempotent = "unpublish-not-idempotent", "D50";
    /// A repeated publication of an inline volume forgets where it is published.
    EphemeralRepublishForgets = "ephemeral-republish-forgets", "D51";
    /// Unstaging does not wait for staging of the same volume.
    OppositeCallsOverlap = "opposite-calls-overlap", "D53";
    /// What belongs to an inline volume is looked for under another id, and stays.
    InlineUnpublishWrongId = "inline-unpublish-wrong-id", "D59";
    /// A volume that was staged by an earlier process cannot be expanded.
    RestartBreaksExpand = "restart-breaks-expand", "D67";
    /// The device grows, and the encryption layer on it does not.
    InnerLayerNotGrown = "inner-layer-not-grown", "D72";
    /// The file system grows before the device has been looked at again.
    GrowBeforeRescan = "grow-before-rescan", "D73";
    /// A copy that is larger than its source keeps the source's file system as it is.
    CopyNotGrown = "copy-not-grown", "T325";
    /// A repeated unstaging fails because nothing is staged.
    UnstageNotIdempotent = "unstage-not-idempotent", "K01";
    /// A volume that could not be unmounted is reported as unstaged.
    UnstageErrorDropped = "unstage-error-dropped", "K03";
    /// What it was given as a secret it keeps among the volume's attributes.
    SecretsInContext = "secrets-in-context", "CVE-2023-2878";
    /// A new process does not start over what an earlier one left unfinished.
    LeftoversStopStart = "leftovers-stop-start", "CSM987";
}

impl fmt::Display for Quirk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no quirk of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no quirk `{0}`")]
pub struct NoSuchQuirk(String);

impl FromStr for Quirk {
    type Err = NoSuchQuirk;

    fn from_str(text: &str) -> Result<Self, NoSuchQuirk> {
        let found = Quirk::ALL.iter().find(|quirk| quirk.name() == text);
        found.copied().ok_or_else(|| NoSuchQuirk(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::Quirk;

    #[test]
    fn names_are_unique_and_are_read_back() {
        for (nth, quirk) in Quirk::ALL.iter().enumerate() {
            assert_eq!(quirk.name().parse(), Ok(*quirk));
            assert!(Quirk::ALL[..nth].iter().all(|other| other.name() != quirk.name()));
            assert!(quirk.says().ends_with('.'), "{quirk}: {}", quirk.says());
        }
        assert!("honest".parse::<Quirk>().is_err());
    }
}
