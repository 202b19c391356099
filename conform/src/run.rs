//! Runs checks one after another and says what came of each.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{Either, select};

use crate::check::{Check, Finding, Stop, Verdict, Weight};
use crate::driver::UnderTest;
use crate::lab::{Lab, leftovers};
use crate::profile::{Profile, Unreachable};
use crate::settings::Settings;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// What the driver said of itself.
    pub profile: Profile,
    /// Every check that was asked for, in order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The findings with a broken obligation.
    pub fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|one| matches!(one.verdict, Verdict::Broken(_)))
    }

    /// The findings that are neither held nor not applicable, a line each: for assertions.
    pub fn troubles(&self) -> Vec<String> {
        let told = self.findings.iter().filter_map(|one| match &one.verdict {
            Verdict::Held | Verdict::NotApplicable(_) => None,
            Verdict::Broken(text) | Verdict::Advice(text) | Verdict::NotJudged(text) => {
                Some(format!("{}: {text}", one.check.name))
            }
        });
        told.collect()
    }

    /// How many obligations were kept.
    pub fn held(&self) -> usize {
        self.findings.iter().filter(|one| one.verdict == Verdict::Held).count()
    }
}

/// Runs `checks` against a driver. `told` hears of each as it ends.
///
/// # Errors
/// [`Unreachable`] if the driver cannot be asked what it is.
pub async fn run(
    driver: Arc<dyn UnderTest>,
    settings: Settings,
    checks: &[&'static Check],
    told: &mut (dyn FnMut(&Finding) + Send),
) -> Result<Report, Unreachable> {
    let profile = Arc::new(Profile::ask(driver.as_ref(), &settings).await?);
    let settings = Arc::new(settings);
    let ids = Arc::new(Mutex::new(BTreeSet::new()));
    let mut findings = Vec::new();
    let mut lost: Option<String> = None;
    for check in checks {
        let began = driver.now();
        let lab = Lab::new(
            Arc::clone(&driver),
            Arc::clone(&profile),
            Arc::clone(&settings),
            Arc::clone(&ids),
            check.name,
        );
        let needs = check
            .needs
            .iter()
            .find_map(|need| profile.lacks(*need, driver.as_ref(), &settings));
        let verdict = match (needs, &lost) {
            (Some(why), _) => Verdict::NotApplicable(why),
            (None, Some(why)) => Verdict::NotJudged(why.clone()),
            (None, None) => one(check, &lab, driver.as_ref(), &settings, &mut lost).await,
        };
        let finding = Finding {
            check,
            verdict,
            took: driver.now().saturating_sub(began),
            exchanges: lab.exchanges(),
        };
        told(&finding);
        findings.push(finding);
    }
    Ok(Report {
        profile: Arc::unwrap_or_clone(profile),
        findings,
    })
}

/// How long a driver may take to answer after a check went wrong.
const REVIVAL: Duration = Duration::from_secs(10);

async fn one(
    check: &Check,
    lab: &Lab,
    driver: &dyn UnderTest,
    settings: &Settings,
    lost: &mut Option<String>,
) -> Verdict {
    let before = driver.inventory();
    let outcome = match select((check.run)(lab), driver.sleep(settings.check_limit)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(_) => Err(Stop::Hung(format!("no end within {:?}", settings.check_limit))),
    };
    if let Some(how) = driver.ended().await {
        lab.forget();
        return Verdict::Broken(format!("the driver's process ended: {how}"));
    }
    let cleaned = match select(Box::pin(lab.clean_up()), driver.sleep(settings.check_limit)).await {
        Either::Left((cleaned, _)) => cleaned,
        Either::Right(_) => Err(Stop::Hung("cleaning up did not end".to_owned())),
    };
    let tidy = cleaned.and_then(|()| leftovers(before.as_deref(), driver.inventory().as_deref()));
    match outcome.and(tidy) {
        Ok(()) => Verdict::Held,
        Err(Stop::NotApplicable(why)) => Verdict::NotApplicable(why),
        Err(Stop::Broken(text)) if check.weight == Weight::Should => Verdict::Advice(text),
        Err(Stop::Broken(text)) => Verdict::Broken(text),
        Err(Stop::Hung(text)) => {
            if !lab.answers(REVIVAL).await {
                *lost = Some(format!("the driver answers no more since {}", check.name));
            }
            Verdict::NotJudged(text)
        }
    }
}
