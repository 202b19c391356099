//! What came of runs, as machines of continuous integration take it: GitHub annotations, JUnit.

use std::io::{self, Write};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::found::annotation;
use super::report::{Outcome, plain};
use crate::play::Verdict;

/// A run that did not hold, as an annotation of its scenario. A run that held says nothing.
pub(super) fn github(out: &mut dyn Write, outcome: &Outcome) -> io::Result<()> {
    if matches!(outcome.verdict, Verdict::Held | Verdict::NotApplicable(_)) {
        return Ok(());
    }
    let title = format!("{} {}", outcome.name, headline(outcome));
    annotation(out, outcome.file.as_deref(), &title, &plain(outcome))
}

/// In one phrase what is wrong.
fn headline(outcome: &Outcome) -> String {
    match (outcome.violations.first(), &outcome.verdict) {
        (Some(told), _) => format!("breaks {}", told.violation.promise.name),
        (None, Verdict::NotJudged(_)) => "was not judged".to_owned(),
        (None, Verdict::Broken(_)) => "met a bug of wavetank".to_owned(),
        (None, _) => "failed".to_owned(),
    }
}

/// Runs as a JUnit suite: a test case for each run.
#[derive(Default)]
pub(super) struct Suite(Vec<TestCase>);

impl Suite {
    /// One more run.
    pub fn add(&mut self, outcome: &Outcome) {
        let status = match &outcome.verdict {
            Verdict::Held => TestCaseStatus::success(),
            Verdict::NotApplicable(reasons) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(reasons.join("; "));
                status
            }
            verdict => {
                let bug = matches!(verdict, Verdict::Broken(_) | Verdict::NotJudged(_));
                let kind = if bug {
                    NonSuccessKind::Error
                } else {
                    NonSuccessKind::Failure
                };
                let mut status = TestCaseStatus::non_success(kind);
                let promise = outcome.violations.first().map(|told| told.violation.promise.name);
                status
                    .set_type(promise.unwrap_or("expectations"))
                    .set_message(headline(outcome))
                    .set_description(plain(outcome));
                status
            }
        };
        let mut case = TestCase::new(format!("{} seed {}", outcome.name, outcome.seed), status);
        case.set_classname("wavetank.run");
        case.set_system_out(format!("token: {}", outcome.token));
        self.0.push(case);
    }

    /// All of them as XML.
    pub fn xml(&self) -> String {
        let mut suite = TestSuite::new("wavetank run");
        suite.add_test_cases(self.0.iter().cloned());
        let mut report = Report::new("wavetank");
        report.add_test_suite(suite);
        report.to_string().unwrap_or_else(|error| format!("<!-- {error} -->"))
    }
}
