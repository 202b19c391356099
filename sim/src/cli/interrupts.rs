//! Ctrl-C, from the moment at which a driver is asked what it can do until the command ends.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use super::{Stop, Streams};

/// Interrupts of one command. They end the program as usual until somebody wants to hear them.
pub(super) struct Interrupts {
    /// What is missing where they cannot be heard.
    without: &'static str,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    listens: bool,
    presses: usize,
    listener: Option<Box<dyn FnMut() + Send>>,
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Interrupts {
    /// `without`: what an interrupt leaves out where no handler can be set and the usual one ends the program.
    pub fn new(without: &'static str) -> Interrupts {
        Interrupts {
            without,
            heard: Arc::default(),
        }
    }

    /// Tells of every interrupt, also of those that others have heard before. Whoever was told until now is not any more.
    pub fn tell(&self, mut listener: impl FnMut() + Send + 'static, streams: &mut Streams) -> Result<(), Stop> {
        let mut heard = lock(&self.heard);
        (0..heard.presses).for_each(|_| listener());
        heard.listener = Some(Box::new(listener));
        let listens = std::mem::replace(&mut heard.listens, true);
        drop(heard);
        if listens {
            return Ok(());
        }
        let heard = Arc::clone(&self.heard);
        let press = move || {
            let mut heard = lock(&heard);
            heard.presses += 1;
            if let Some(listener) = &mut heard.listener {
                listener();
            }
        };
        if let Err(error) = ctrlc::set_handler(press) {
            let without = self.without;
            writeln!(
                streams.err,
                "wavetank: an interrupt will end this without a {without}: {error}"
            )?;
        }
        Ok(())
    }

    /// What comes of work on a thread of its own. Nothing if an interrupt comes first: then the work ends with the program.
    pub fn unless<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        streams: &mut Streams,
    ) -> Result<Option<T>, Stop> {
        let (news, heard) = mpsc::channel();
        let done = news.clone();
        // Nobody waits for the second of both.
        let interrupted = move || drop(news.send(None));
        self.tell(interrupted, streams)?;
        std::thread::spawn(move || drop(done.send(Some(catch_unwind(AssertUnwindSafe(work))))));
        match heard.recv().ok().flatten() {
            Some(Ok(done)) => Ok(Some(done)),
            Some(Err(panic)) => resume_unwind(panic),
            None => Ok(None),
        }
    }
}
