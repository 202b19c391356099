//! The socket link: any CSI driver as processes of its own, called over their unix sockets.
//!
//! ```text
//! world (virtual time) ──request──► real threads ──HTTP/2──► the driver's socket
//!   t: sent, completion t+d drawn          │
//!   t+d: waits for the answer ◄────────────┘
//! ```
//!
//! [`Outside`] is a driver that was asked what it can do; [`Run`] is one play around it, with a directory, agents and processes of its own. A call is sent
//! at its virtual moment, its completion is drawn then, and its answer is delivered at exactly that moment, however long the driver takes: the load of the
//! machine moves nothing. Real time counts only for the watchdog, which ends a run without a verdict.
//!
//! Blind spots: the driver's own clock is the machine's; it is told no deadline, because a deadline in virtual time means nothing to it; a call whose caller
//! gave up is let finish before virtual time goes on.

mod applies;
mod around;
mod facts;
mod flights;
mod ground;
mod machine;
mod names;
mod process;
mod profile;
mod run;
mod tenure;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use self::tenure::Tenure;
use crate::scenario::Scenario;

pub use around::Around;
pub use facts::{Facts, scratch};
pub use ground::{Ground, Here, Place, Powered, Way};
pub use machine::OutsideMachine;
pub use process::Process;
pub(super) use process::last_words;
pub use profile::{AccessMode, PLACEHOLDERS, ProcessShape, Profile, ProfileError, schema};
pub use run::Run;
pub use wavetank_agent::Program;
pub use wire::Wire;

/// An outside driver: its profile, what it said of itself, and what this machine allows.
pub struct Outside {
    profile: Profile,
    ground: Box<dyn Ground>,
    /// Why nodes have no namespaces of their own, if they have none.
    shared: Option<String>,
    facts: OnceLock<Facts>,
    threads: tokio::runtime::Runtime,
    directory: PathBuf,
    runs: AtomicU64,
    living: Mutex<Vec<Weak<Run>>>,
    _tenure: Tenure,
}

/// Why an outside driver cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OutsideError {
    /// No threads, no directory.
    #[error("the socket link cannot be set up")]
    SetUp(#[source] std::io::Error),
    /// It does not start, or does not answer.
    #[error("the driver {name} cannot be asked: {why}")]
    Driver {
        /// Its name in the profile.
        name: String,
        /// Why.
        why: String,
    },
    /// It is another driver than the profile says.
    #[error("the driver calls itself `{found}`, the profile names `{name}`")]
    Name {
        /// The name in the profile.
        name: String,
        /// The name it gives.
        found: String,
    },
    /// It mounts for real, and its nodes cannot have mounts of their own.
    #[error("{0}. A driver that never mounts for real runs without: say `mounts: false` in its profile")]
    NoMounts(String),
}

impl Outside {
    /// Starts the driver once and asks it what it can do. `directory` must not exist; it is removed at the end.
    ///
    /// # Errors
    /// [`OutsideError`].
    pub fn open(profile: Profile, program: Program, directory: &Path) -> Result<Arc<Outside>, OutsideError> {
        let outside = Outside::set_up(profile, program, directory)?;
        if let (true, Some(why)) = (outside.profile.mounts, &outside.shared) {
            return Err(OutsideError::NoMounts(why.clone()));
        }
        Outside::asked(outside)
    }

    /// Starts the driver and asks it what it can do.
    fn asked(outside: Outside) -> Result<Arc<Outside>, OutsideError> {
        let outside = Arc::new(outside);
        let facts = outside.ask()?;
        if facts.name != outside.profile.name {
            return Err(OutsideError::Name {
                name: outside.profile.name.clone(),
                found: facts.name,
            });
        }
        outside.facts.get_or_init(|| facts);
        Ok(outside)
    }

    /// The same, with nodes that stand on something else than this machine and have mounts of their own.
    ///
    /// # Errors
    /// [`OutsideError`].
    pub fn open_on(ground: Box<dyn Ground>, profile: Profile, directory: &Path) -> Result<Arc<Outside>, OutsideError> {
        Outside::asked(Outside::standing(ground, None, profile, directory)?)
    }

    /// Without asking, and with nodes on this machine.
    fn set_up(profile: Profile, program: Program, directory: &Path) -> Result<Outside, OutsideError> {
        std::fs::create_dir_all(directory).map_err(OutsideError::SetUp)?;
        let log = directory.join("agent.log");
        let shared = wavetank_agent::can_isolate(&program, &log, profile.watchdog.get()).err();
        let here = Here {
            program,
            isolated: shared.is_none() && profile.mounts,
            patience: profile.watchdog.get(),
        };
        Outside::standing(Box::new(here), shared, profile, directory)
    }

    fn standing(
        ground: Box<dyn Ground>,
        shared: Option<String>,
        profile: Profile,
        directory: &Path,
    ) -> Result<Outside, OutsideError> {
        if let Some(place) = directory.parent() {
            tenure::sweep(place);
        }
        std::fs::create_dir_all(directory).map_err(OutsideError::SetUp)?;
        let tenure = Tenure::take(directory).map_err(OutsideError::SetUp)?;
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        threads.worker_threads(2).thread_name("sockets").enable_all();
        let threads = threads.build().map_err(OutsideError::SetUp)?;
        Ok(Outside {
            profile,
            ground,
            shared,
            facts: OnceLock::new(),
            threads,
            directory: directory.to_owned(),
            runs: AtomicU64::new(0),
            living: Mutex::default(),
            _tenure: tenure,
        })
    }

    /// Asks a driver for its name and its facts, whatever the profile calls it.
    ///
    /// # Errors
    /// [`OutsideError`].
    pub fn facts_of(profile: Profile, program: Program, directory: &Path) -> Result<Facts, OutsideError> {
        Arc::new(Outside::set_up(profile, program, directory)?).ask()
    }

    /// Its profile.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What it said of itself.
    pub fn facts(&self) -> &Facts {
        self.facts.get_or_init(Facts::default)
    }

    /// Why nodes have no mounts of their own here, if they have none.
    pub fn shared(&self) -> Option<&str> {
        self.shared.as_deref()
    }

    /// Whether the mounts and the data of pods can be looked at.
    pub fn sees_mounts(&self) -> bool {
        self.shared.is_none() && self.profile.mounts
    }

    /// Why a scenario does not apply to this driver; empty if it does.
    pub fn reasons_against(&self, scenario: &Scenario) -> Vec<String> {
        applies::reasons_against(self, scenario)
    }

    /// The scenario as it is played with this driver.
    pub fn adapt(&self, scenario: &Scenario) -> Scenario {
        applies::adapt(self, scenario)
    }

    /// Begins a run. Only outside of every world, because it may start threads.
    pub fn begin(self: &Arc<Self>) -> Arc<Run> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let run = Arc::new(Run::new(Arc::clone(self), self.directory.join(number.to_string())));
        let mut living = self.living.lock().unwrap_or_else(PoisonError::into_inner);
        living.retain(|run| run.strong_count() > 0);
        living.push(Arc::downgrade(&run));
        drop(living);
        run
    }

    /// Ends the runs that are under way and removes what they left; then the directory, unless output of runs was kept there.
    pub fn tidy(&self) {
        let living = std::mem::take(&mut *self.living.lock().unwrap_or_else(PoisonError::into_inner));
        for run in living.iter().filter_map(Weak::upgrade).filter(|run| !run.has_ended()) {
            run.end();
            run.clear();
        }
        Tenure::give_up(&self.directory);
        // An error means that something is kept there.
        let _ = std::fs::remove_file(self.directory.join("agent.log"));
        let _ = std::fs::remove_dir(&self.directory);
    }

    fn ask(self: &Arc<Self>) -> Result<Facts, OutsideError> {
        facts::ask(self).map_err(|why| OutsideError::Driver {
            name: self.profile.called(),
            why,
        })
    }

    /// Gives a node its power.
    fn boot(&self, place: &Place) -> Result<Box<dyn Powered>, String> {
        self.ground.boot(place, self.threads.handle())
    }

    fn patience(&self) -> Duration {
        self.profile.watchdog.get()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.tidy();
    }
}
