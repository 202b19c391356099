//! The replay files in `snapshots/regressions/`: each violation is there, with its mutant, and not without.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use wavetank_sim::explore::replay::{ENDING, ReplayFile};
use wavetank_sim::explore::subject::{Run, Subject, Tank};
use wavetank_sim::mutants::find;

fn main() {
    let trials = files().into_iter().map(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Trial::test(name.unwrap_or_default(), move || judge(&path))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/regressions");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ENDING))
        .collect();
    files.sort();
    files
}

fn judge(path: &Path) -> Result<(), Failed> {
    let (file, case) = ReplayFile::load(path)?;
    let scenario = case.scenario.ok_or("a replay file has a scenario")?;
    let mutant = match &file.mutant {
        Some(name) => Some(find(name).ok_or_else(|| format!("there is no mutant {name}"))?),
        None => None,
    };
    let tank = Tank {
        scenario: Arc::new(scenario),
        drivers: Default::default(),
        outside: None,
        mutant,
    };
    let run = || Run::pinned(case.seed, case.strikes.clone());
    let played = tank.play(run(), &Arc::default());
    let command = format!("see it with: wavetank replay {}", path.display());
    if played.broke(&file.promise).is_none() {
        return Err(format!("{} holds: the violation is gone\n{command}", file.promise).into());
    }
    if let (Some(mutant), Some(honest)) = (&file.mutant, tank.with(&tank.scenario, true))
        && let Some(finding) = honest.play(run(), &Arc::default()).broke(&file.promise)
    {
        return Err(format!(
            "{} is broken without {mutant}, too: {}\n{command}",
            file.promise, finding.text
        )
        .into());
    }
    Ok(())
}
