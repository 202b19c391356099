//! Mutants: the honest cluster with one documented bug in it, so that every promise can be shown to notice something.
//!
//! A mutant is wrong in one place: the reference driver ([`Quirk`]) or a part of Kubernetes ([`Wrong`]). The catalogue says for each which bug it is
//! modelled on, which pattern of bugs it belongs to, and in which scenarios of the library its effect can be seen.

mod catalogue;
pub mod matrix;
mod wrong;

use wavetank_driver::Quirk;

pub use catalogue::{MUTANTS, PATTERNS};
pub use wrong::Wrong;

/// Where a mutant is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the reference driver.
    Driver(Quirk),
    /// In a sidecar, a controller or kubelet.
    Cluster(Wrong),
}

/// One bug on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Where it is.
    pub place: Place,
    /// Which of the [`PATTERNS`] of bugs it follows, from 1.
    pub pattern: usize,
    /// Scenarios in which its effect can be seen, below `scenarios/` and without `.yaml`; the best one first.
    pub scenarios: &'static [&'static str],
}

impl Mutant {
    /// Its name on a command line.
    pub const fn name(&self) -> &'static str {
        match self.place {
            Place::Driver(quirk) => quirk.name(),
            Place::Cluster(wrong) => wrong.name(),
        }
    }

    /// What is wrong, as one sentence.
    pub const fn says(&self) -> &'static str {
        match self.place {
            Place::Driver(quirk) => quirk.says(),
            Place::Cluster(wrong) => wrong.says(),
        }
    }

    /// Who is wrong.
    pub const fn process(&self) -> &'static str {
        match self.place {
            Place::Driver(_) => "driver",
            Place::Cluster(wrong) => wrong.process(),
        }
    }

    /// The real bug it is modelled on, by its number in `docs/mutants.md`.
    pub const fn bug(&self) -> &'static str {
        match self.place {
            Place::Driver(quirk) => quirk.bug(),
            Place::Cluster(wrong) => wrong.bug(),
        }
    }

    /// The driver's mistake, if it is the driver's.
    pub fn quirk(&self) -> Option<Quirk> {
        match self.place {
            Place::Driver(quirk) => Some(quirk),
            Place::Cluster(_) => None,
        }
    }

    /// The mistake of a part of Kubernetes, if it is one's.
    pub fn wrong(&self) -> Option<Wrong> {
        match self.place {
            Place::Driver(_) => None,
            Place::Cluster(wrong) => Some(wrong),
        }
    }
}

/// The mutant of that name.
pub fn find(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|mutant| mutant.name() == name)
}
