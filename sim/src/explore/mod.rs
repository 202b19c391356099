//! Exploration: strategies choose what strikes, campaigns play many storms, violations are shrunk and written down as replay files.
//!
//! A strategy gives each run a [`Chooser`](crate::storm::Chooser): it knows sites and menus, and nothing of Kubernetes. Whatever a strategy does, a run is
//! repeated from what was picked (`picks.rs`), never from how it was picked: that is what a token carries.
//!
//! ```text
//! campaign ──► strategy ──plan──► subject ──► played ──► strategy learns, coverage grows
//!                                                └─ a violation ──► shrink ──► replay file, story
//! ```
//!
//! Where to go next: `strategy/` for the strategies, `subject.rs` for what is played, `campaign.rs` for many runs on many threads, `shrink.rs` for fewer
//! faults and shorter scenarios, `replay.rs` for files that assert a violation, `story.rs` for how it is told. Nothing here judges: violations come from
//! the oracles.

pub mod campaign;
#[cfg(test)]
mod campaign_tests;
pub mod coverage;
pub mod inline;
pub mod picks;
pub mod replay;
pub mod report;
pub mod shrink;
mod simpler;
pub mod story;
pub mod strategy;
pub mod subject;
#[cfg(test)]
mod toy;
pub mod witness;
mod work;

pub use coverage::Coverage;
pub use picks::{Pick, Picks};
pub use strategy::{Plan, Strategy, StrategyName, Survey};
pub use subject::{Finding, Played, Run, Subject};
