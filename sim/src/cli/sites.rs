//! `wavetank sites`: where faults can be pinned in a scenario.

use std::io::Write as _;

use super::args::SitesArgs;
use super::{Drivers, Stop, Streams, USAGE, load};
use crate::play::{self, Options};
use crate::trace;

/// Plays a scenario as it is written and lists the sites that it met.
pub(super) fn sites(args: &SitesArgs, drivers: &Drivers, streams: &mut Streams) -> Result<u8, Stop> {
    let mut scenarios = load(&args.path, streams)?;
    let (Some(scenario), true) = (scenarios.pop(), scenarios.is_empty()) else {
        let path = args.path.display();
        writeln!(streams.err, "wavetank: {path} holds several scenarios: name one file")?;
        return Err(Stop::Status(USAGE));
    };
    let options = Options {
        seed: args.seed,
        drivers: drivers.clone(),
        ..Options::default()
    };
    let report = play::play(&scenario, &options);
    for site in trace::sites(&report.trace) {
        writeln!(streams.out, "{site}")?;
    }
    if !report.verdict.held() {
        // It may have ended before its end.
        let first = report
            .verdict
            .failures()
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        writeln!(
            streams.err,
            "wavetank: the run did not hold, later sites may be missing: {first}"
        )?;
    }
    Ok(0)
}
