//! `wavetank doctor`: what this machine can run, and how to get the rest.
//!
//! Nothing is guessed: an agent of a moment attaches a loop device, makes, mounts, grows and checks each file system, asks the kernel for namespaces; QEMU is started and
//! told to quit. All of it is undone. What was found is data ([`Found`]); what follows from it is a pure function (`checks.rs`).

mod checks;
mod probe;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use clap::Args as ClapArgs;
use serde_json::json;

use super::args::Format;
use super::{Stop, Streams};
use checks::{Ability, Check, abilities, checks};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Exit status: something that was demanded is missing.
const MISSING: u8 = 5;

/// Say what this machine can run, and how to get the rest.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  wavetank doctor                          what runs here, what is missing, and which package has it
  wavetank doctor --require sockets,vm     for CI: exit status 5 and a list, unless both run here

Everything is tried and undone: a loop device is attached, file systems are made, mounted and grown in a namespace of their own, QEMU is started. It takes about a second.")]
pub(super) struct DoctorArgs {
    /// End with 5 unless all of these run here: abilities (model, processes, sockets, vm) or single checks such as `xfs`.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = checks::name)]
    pub require: Vec<String>,
    /// How to print.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// Looks, and tells.
pub(super) fn doctor(args: &DoctorArgs, streams: &mut Streams) -> Result<u8, Stop> {
    let found = probe::look();
    let checks = checks(&found);
    let abilities = abilities(&checks);
    let missing = missing(&args.require, &checks, &abilities);
    match args.format {
        Format::Json => writeln!(streams.out, "{}", json(&found, &checks, &abilities, &missing))?,
        Format::Text => text(&mut streams.out, &checks, &abilities)?,
    }
    if missing.is_empty() {
        return Ok(0);
    }
    writeln!(
        streams.err,
        "wavetank: demanded and missing here: {}",
        missing.join(", ")
    )?;
    Ok(MISSING)
}

/// What is demanded and not there.
fn missing(required: &[String], checks: &[Check], abilities: &[Ability]) -> Vec<String> {
    let there = |name: &&String| {
        let check = checks
            .iter()
            .any(|check| check.name == name.as_str() && check.found.is_ok());
        check
            || abilities
                .iter()
                .any(|ability| ability.name == name.as_str() && ability.lacks.is_empty())
    };
    required.iter().filter(|name| !there(name)).cloned().collect()
}

fn text(out: &mut dyn Write, checks: &[Check], abilities: &[Ability]) -> io::Result<()> {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        match &check.found {
            Ok(what) => writeln!(out, "{GOOD}✓{GOOD:#} {:<width$}  {what}", check.name)?,
            Err(why) => {
                writeln!(out, "{BAD}✗{BAD:#} {BOLD}{:<width$}{BOLD:#}  {why}", check.name)?;
                writeln!(out, "  {:width$}  {DIM}for{DIM:#} {}", "", check.enables)?;
                for line in &check.get {
                    writeln!(out, "  {:width$}  {DIM}get{DIM:#} {line}", "")?;
                }
            }
        }
    }
    writeln!(out)?;
    let width = abilities.iter().map(|ability| ability.name.len()).max().unwrap_or(0);
    for ability in abilities {
        let (name, what) = (ability.name, ability.what);
        match &ability.lacks[..] {
            [] => writeln!(out, "{GOOD}runs{GOOD:#}     {name:<width$}  {what}")?,
            lacks => writeln!(
                out,
                "{BAD}does not{BAD:#} {name:<width$}  {what}: lacks {}",
                lacks.join(", ")
            )?,
        }
    }
    Ok(())
}

fn json(found: &checks::Found, checks: &[Check], abilities: &[Ability], missing: &[String]) -> serde_json::Value {
    let check = |check: &Check| {
        json!({
            "name": check.name, "ok": check.found.is_ok(), "found": check.found.as_ref().ok(), "why": check.found.as_ref().err(),
            "enables": check.enables, "get": check.get,
        })
    };
    let ability = |ability: &Ability| json!({"name": ability.name, "what": ability.what, "ok": ability.lacks.is_empty(), "lacks": ability.lacks});
    json!({
        "type": "doctor", "schema": 1, "kernel": found.agent.as_ref().ok().map(|agent| &agent.kernel),
        "checks": checks.iter().map(check).collect::<Vec<_>>(), "abilities": abilities.iter().map(ability).collect::<Vec<_>>(), "missing": missing,
    })
}
