//! `wavetank sites`: where faults can be pinned in a scenario, and which.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use super::args::SitesArgs;
use super::{Drivers, Stop, Streams, USAGE, load};
use crate::faults::{Chooser, Meeting};
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
    let seen = Arc::new(Mutex::new(Vec::new()));
    let scout = Arc::clone(&seen);
    let options = Options {
        seed: args.seed,
        drivers: drivers.clone(),
        storm: (args.faults || args.operations).then(|| {
            let scout = move || Box::new(Scout(Arc::clone(&scout))) as Box<dyn Chooser>;
            Arc::new(scout) as Arc<dyn Fn() -> Box<dyn Chooser> + Send + Sync>
        }),
        ..Options::default()
    };
    let report = play::play(&scenario, &options);
    if args.faults || args.operations {
        let seen = seen.lock().expect("the run is over");
        for (site, menu) in seen
            .iter()
            .filter(|(site, _)| args.operations || !site.contains(" / after-op("))
        {
            writeln!(streams.out, "{site}")?;
            for fault in menu.iter().filter(|_| args.faults) {
                writeln!(streams.out, "    {fault}")?;
            }
        }
    } else {
        for site in trace::sites(&report.trace) {
            writeln!(streams.out, "{site}")?;
        }
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

/// A site, and the faults of its menu as scenarios spell them.
type Seen = (String, Vec<String>);

/// Notes what may strike, and never strikes.
struct Scout(Arc<Mutex<Vec<Seen>>>);

impl Chooser for Scout {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        let spelled = |fault| serde_json::to_string(fault).unwrap_or_default();
        let seen = (meeting.site.to_string(), meeting.menu.iter().map(spelled).collect());
        self.0.lock().expect("one run, one thread").push(seen);
        None
    }
}
