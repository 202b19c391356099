//! Progress on a terminal, for what takes longer than a moment.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done before this is not worth a bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bar on standard error that appears when it takes long. Nothing where standard error is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// A bar for so many runs; for one run it counts its steps.
    pub fn new(runs: usize) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(runs as u64), ProgressDrawTarget::hidden());
        let template = "{bar:24} {pos}/{len} {msg}  {elapsed}";
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        bar.set_style(style.progress_chars("━╸ "));
        Progress {
            bar,
            terminal: io::stderr().is_terminal(),
            shown: false,
        }
    }

    /// So much is done of so much.
    pub fn at(&mut self, done: usize, of: usize, message: &str) {
        if !self.terminal {
            return;
        }
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(message.to_owned());
        self.appear();
    }

    /// Shows the bar if it is time.
    pub fn appear(&mut self) {
        if self.terminal && !self.shown && self.bar.elapsed() >= PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(Duration::from_millis(500));
            self.shown = true;
        }
    }

    /// Writes while the bar is out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away. How long it took, if anybody watched it.
    pub fn finish(&self) -> Option<Duration> {
        self.bar.finish_and_clear();
        self.shown.then(|| self.bar.elapsed())
    }
}
