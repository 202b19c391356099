//! What a campaign shows while it runs: a bar on a terminal, a line now and then elsewhere. All of it on standard error.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::explore::campaign::Standing;
use crate::explore::report::Report;

/// What is done before this is not worth showing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where standard error is no terminal: the first line after this, then after twice as long, and so on up to the longest pause.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// One part in so many of a budget is kept for shrinking, if there is anything to shrink.
const SHRINKING: u32 = 5;

/// Shows how far a campaign is, and knows how long it has been going.
pub(super) struct Watch {
    bar: ProgressBar,
    budget: Option<Duration>,
    terminal: bool,
    shown: bool,
    told: BTreeSet<(String, String)>,
    next_line: Duration,
    pause: Duration,
}

impl Watch {
    /// A watch that begins now.
    pub fn new(budget: Option<Duration>) -> Watch {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = if budget.is_some() {
            "{bar:24} {msg}"
        } else {
            "{bar:24} {pos}/{len} {msg}"
        };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        bar.set_style(style.progress_chars("━╸ "));
        Watch {
            bar,
            budget,
            terminal: io::stderr().is_terminal(),
            shown: false,
            told: BTreeSet::new(),
            next_line: FIRST,
            pause: FIRST,
        }
    }

    /// Whether the budget is spent.
    pub fn is_over(&self) -> bool {
        self.budget.is_some_and(|budget| self.bar.elapsed() >= budget)
    }

    /// Whether what is left of the budget is for shrinking what was found.
    pub fn is_time_to_shrink(&self, standing: &Standing) -> bool {
        let share = |budget: Duration| self.bar.elapsed() >= budget - budget / SHRINKING;
        !standing.violations.is_empty() && self.budget.is_some_and(share)
    }

    /// Shows where the campaign stands.
    pub fn show(&mut self, standing: &Standing) {
        let elapsed = self.bar.elapsed();
        for violation in &standing.violations {
            if self.told.insert(violation.clone()) {
                let (scenario, promise) = violation;
                self.aside(&format!("{promise} is broken in {scenario}"));
            }
        }
        let line = line(standing, elapsed, self.budget);
        if !self.terminal {
            if elapsed >= self.next_line {
                self.pause = (self.pause * 2).min(LONGEST);
                self.next_line = elapsed + self.pause;
                match self.budget {
                    Some(_) => self.aside(&line),
                    None => self.aside(&format!("{} of {} storms, {line}", standing.runs, standing.of)),
                }
            }
            return;
        }
        match self.budget {
            Some(budget) => {
                self.bar
                    .set_length(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX));
                self.bar
                    .set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            }
            None => {
                self.bar.set_length(standing.of);
                self.bar.set_position(standing.runs);
            }
        }
        self.bar.set_message(line);
        if !self.shown && elapsed >= PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
    }

    /// A line of its own, out of the bar's way. Only once it is worth a bar at all: a short campaign prints its report at once.
    fn aside(&self, line: &str) {
        if self.bar.elapsed() < PATIENCE {
            return;
        }
        self.bar.suspend(|| anstream::eprintln!("{line}"));
    }

    /// Takes the bar away. How fast it was, if it took long enough for anybody to ask.
    pub fn finish(&self, report: &Report) -> Option<String> {
        let elapsed = self.bar.elapsed();
        self.bar.finish_and_clear();
        (elapsed >= PATIENCE).then(|| {
            let runs = report.runs();
            let rate = rate(runs, elapsed);
            let digits = usize::from(rate < 10.0);
            if let (0, Some(budget)) = (runs, self.budget) {
                let seconds = budget.as_secs_f64();
                return format!("no storm in {seconds:.0} s: each scenario is played once without faults first, and that took all of the time");
            }
            format!(
                "{runs} {} in {:.1} s, {rate:.digits$} a second",
                if runs == 1 { "storm" } else { "storms" },
                elapsed.as_secs_f64()
            )
        })
    }
}

fn rate(runs: u64, elapsed: Duration) -> f64 {
    runs as f64 / elapsed.as_secs_f64().max(0.001)
}

fn line(standing: &Standing, elapsed: Duration, budget: Option<Duration>) -> String {
    if let Some((done, of)) = standing.shrinking {
        return format!("shrinking: {done} of {of} violations");
    }
    let time = match budget {
        Some(budget) => format!("{} s of {} s", elapsed.as_secs(), budget.as_secs()),
        None => format!("{} s", elapsed.as_secs()),
    };
    let violations = match standing.violations.len() {
        0 => String::new(),
        1 => " · 1 violation".to_owned(),
        several => format!(" · {several} violations"),
    };
    let runs = if budget.is_some() {
        format!("{} storms · ", standing.runs)
    } else {
        String::new()
    };
    format!(
        "{runs}{:.0}/s · {} sites · {} struck{violations} · {time}",
        rate(standing.runs, elapsed),
        standing.sites,
        standing.struck
    )
}
