//! Known mistakes of sidecars, controllers and kubelet, each of which the modelled one makes when it is told to.
//!
//! A mistake travels with the flags of its process and is read at exactly one line, which `tests/tidy.rs` holds. No scenario can switch one on.

macro_rules! wrongs {
    ($(#[doc = $says:literal] $variant:ident = $name:literal, $process:literal, $bug:literal;)+) => {
        /// One mistake of a part of Kubernetes. Its documentation says what the part then does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Wrong {
            $(#[doc = $says] $variant,)+
        }

        impl Wrong {
            /// All of them.
            pub const ALL: &'static [Wrong] = &[$(Wrong::$variant,)+];

            /// Its name on a command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Wrong::$variant => $name,)+
                }
            }

            /// What the part does, as one sentence.
            pub const fn says(self) -> &'static str {
                match self {
                    $(Wrong::$variant => $says.trim_ascii(),)+
                }
            }

            /// Which part makes it.
            pub const fn process(self) -> &'static str {
                match self {
                    $(Wrong::$variant => $process,)+
                }
            }

            /// The real bug it is modelled on, by its number in `docs/mutants.md`.
            pub const fn bug(self) -> &'static str {
                match self {
                    $(Wrong::$variant => $bug,)+
                }
            }
        }
    };
}

wrongs! {
    /// It takes every failed CreateVolume for one that left nothing behind, and forgets it with its claim.
    ForgetsUncertainCreate = "forgets-uncertain-create", "provisioner", "S02";
    /// When the volume object cannot be saved it deletes the storage and starts over.
    DeletesOnSaveFailure = "deletes-on-save-failure", "provisioner", "S03";
    /// It has storage deleted that is still attached to a node.
    DeletesWhileAttached = "deletes-while-attached", "provisioner", "K10";
    /// A deletion that failed once is not tried again.
    DeleteNotRetried = "delete-not-retried", "provisioner", "S42";
    /// A claim that could not be provisioned once is not tried again.
    ProvisioningStops = "provisioning-stops", "provisioner", "S10";
    /// It tries again at once, whatever the error.
    NoBackOff = "no-back-off", "provisioner", "S04";
    /// Any answer to ControllerUnpublishVolume means detached.
    ErrorMeansDetached = "error-means-detached", "attacher", "S20";
    /// Its own error messages make it try again at once.
    OwnErrorsWakeIt = "own-errors-wake-it", "attacher", "S44";
    /// An attachment is written down without what the driver said about it.
    DropsPublishContext = "drops-publish-context", "attacher", "H278";
    /// Its finalizer never leaves a volume.
    KeepsFinalizer = "keeps-finalizer", "attacher", "S22";
    /// It takes an expansion for finished when the controller's part is.
    SkipsNode = "skips-node", "resizer", "S31";
    /// An expansion that met an error is not tried again.
    ForgetsExpansion = "forgets-expansion", "resizer", "S32";
    /// It detaches volumes that their node still reports in use.
    DetachesInUse = "detaches-in-use", "controller-manager", "K03";
    /// After a restart it knows of no attachment that no pod wants.
    RestartForgetsAttachments = "restart-forgets-attachments", "controller-manager", "K22";
    /// A volume for one node is attached to a second one.
    AttachesTwice = "attaches-twice", "controller-manager", "K22";
    /// A volume whose claim does not name it yet is taken for released.
    FreshVolumeReleased = "fresh-volume-released", "controller-manager", "K30";
    /// A finalizer that could not be removed is not tried again.
    FinalizerConflictLost = "finalizer-conflict-lost", "controller-manager", "S43";
    /// It lets go of a device without NodeUnstageVolume.
    SkipsUnstage = "skips-unstage", "kubelet", "K05";
    /// After any error of staging or publishing it takes the volume for not mounted.
    UncertainMeansUnmounted = "uncertain-means-unmounted", "kubelet", "K02";
    /// After a failed NodeUnstageVolume it takes the volume for still staged.
    FailedUnstageMeansStaged = "failed-unstage-means-staged", "kubelet", "K01";
    /// After a restart it does not look for what it mounted before.
    RestartForgetsMounts = "restart-forgets-mounts", "kubelet", "K06";
    /// It never expands a volume that is in use.
    ExpansionMissed = "expansion-missed", "kubelet", "K11";
}
