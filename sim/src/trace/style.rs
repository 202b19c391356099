//! Colours of the trace: one calm colour for each kind of process, and a few for what needs attention.
//!
//! Renderers always write styles; the stream that the command opens takes them out where nobody sees them. The numbers are of the 256-colour palette and of
//! middle lightness, so that they read on dark and on light ground.

use anstyle::{Ansi256Color, AnsiColor, Color, Style};

use crate::scenario::Role;

const fn indexed(number: u8) -> Style {
    Style::new().fg_color(Some(Color::Ansi256(Ansi256Color(number))))
}

/// No style.
pub(super) const PLAIN: Style = Style::new();
/// What is there for completeness.
pub(super) const DIM: Style = indexed(244);
/// What the user of the scenario does, and headings.
pub(super) const BOLD: Style = Style::new().bold();
/// Names of objects.
pub(super) const NAME: Style = Style::new().bold();
/// What came, and what is well.
pub(super) const GOOD: Style = indexed(71);
/// What went.
pub(super) const GONE: Style = indexed(137);
/// Warnings, and refusals that are retried.
pub(super) const WARN: Style = indexed(172);
/// Errors.
pub(super) const BAD: Style = indexed(167);
/// Faults.
pub(super) const FAULT: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Magenta)));

/// The colour of a process, by the kind of process that it is.
pub(super) fn process(name: &str) -> Style {
    let role = name.split(['@', '/']).next().unwrap_or(name);
    match Role::parse(role) {
        Some(Role::ControllerManager) => indexed(67),
        Some(Role::Scheduler) => indexed(73),
        Some(Role::SnapshotController) => indexed(97),
        Some(Role::Provisioner) => indexed(107),
        Some(Role::Attacher) => indexed(139),
        Some(Role::Resizer) => indexed(143),
        Some(Role::Snapshotter) => indexed(133),
        Some(Role::DriverController) => indexed(131),
        Some(Role::DriverNode) => indexed(137),
        Some(Role::Registrar) => indexed(103),
        Some(Role::Kubelet) => indexed(68),
        Some(Role::Node) | None => BOLD,
    }
}
