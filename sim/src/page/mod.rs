//! The report as one self-contained page: verdicts, stories, and pictures of runs. It needs no network and no server.
//!
//! What people must see stands in the HTML itself, escaped by the template; a small script (`templates/report.js`) makes the list sortable and draws the pictures from
//! JSON that is embedded beside them. A policy in the page lets no other script run, and lets it load nothing.
//!
//! The page is a function of what it is given: no clock, no path of the machine. Its size is bounded: pictures of runs that did not hold come first, the others follow
//! as long as all of them together stay below [`BUDGET`]; a run without a picture says so.

mod scene;

use askama::Template;
use sha2::{Digest as _, Sha256};

use crate::explore::story::{Story, plain};
use crate::explore::subject::Finding;

pub use scene::Scene;

/// So many bytes of pictures a page carries.
pub const BUDGET: usize = 12 << 20;

/// A page.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// What stands above everything: how many runs, and how they ended.
    pub title: String,
    /// The command, as it was typed.
    pub command: String,
    /// The version of wavetank.
    pub version: &'static str,
    /// What the column of durations holds.
    pub measure: &'static str,
    /// What the column of counts holds.
    pub counted: &'static str,
    /// How many ended how.
    pub counts: Vec<Count>,
    /// Sentences below them.
    pub notes: Vec<String>,
    /// The runs, in order.
    pub entries: Vec<Entry>,
    /// The promises that were judged: name and sentence.
    pub promises: Vec<(&'static str, &'static str)>,
    /// What was not judged.
    pub unjudged: Vec<Unjudged>,
}

/// How many runs ended in one way.
#[derive(Clone, Debug)]
pub struct Count {
    /// How it looks.
    pub class: &'static str,
    /// How many.
    pub number: usize,
    /// The way, in a word.
    pub word: String,
}

/// Something that was not judged.
#[derive(Clone, Debug)]
pub struct Unjudged {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// How a run ended, as the page spells it: a class for its looks, a word for people.
pub type Ending = (&'static str, &'static str);

/// Everything is as expected.
pub const HELD: Ending = ("held", "held");
/// An expectation failed.
pub const FAILED: Ending = ("failed", "failed");
/// A promise of safety is broken.
pub const UNSAFE: Ending = ("unsafe", "unsafe");
/// A promise of the calm is broken.
pub const RESTLESS: Ending = ("restless", "unrest");
/// Nothing can be said.
pub const HUNG: Ending = ("hung", "not judged");
/// The scenario does not apply to the driver.
pub const NOT_APPLICABLE: Ending = ("na", "n/a");
/// A bug of ours.
pub const BUG: Ending = ("broken", "bug");
/// A campaign or replay in which a promise broke.
pub const BROKEN: Ending = ("broken", "broken");

/// A replay file whose violation is there, as it should be.
pub const THERE: Ending = ("held", "there");
/// A replay file whose violation is gone.
pub const GONE: Ending = ("failed", "gone");

/// What a page says, worst first.
const ENDINGS: [Ending; 10] = [
    BUG,
    UNSAFE,
    RESTLESS,
    BROKEN,
    FAILED,
    GONE,
    HUNG,
    NOT_APPLICABLE,
    THERE,
    HELD,
];

/// One run, one scenario of a campaign, or one replay file.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its number on the page.
    pub id: usize,
    /// How it ended, for its looks.
    pub class: &'static str,
    /// How it ended, for people.
    pub word: &'static str,
    /// The name of the scenario.
    pub name: String,
    /// The seed, if it matters.
    pub seed: String,
    /// What the scenario is for.
    pub because: String,
    /// One line for the list.
    pub gist: String,
    /// The virtual time that it took, for people.
    pub took: String,
    /// The same in milliseconds.
    pub took_ms: u128,
    /// How many events, or storms.
    pub count: u64,
    /// What of the scenario itself failed.
    pub failures: Vec<String>,
    /// The promises that broke.
    pub tales: Vec<Tale>,
    /// The pictures.
    pub scenes: Vec<Scene>,
    /// Why there is no picture, if there is none.
    pub absent: String,
    /// Figures with their labels.
    pub figures: Vec<(String, String)>,
    /// Longer lists.
    pub lists: Vec<Listing>,
    /// Sentences below.
    pub notes: Vec<String>,
    /// The command that shows it again.
    pub again: String,
    /// The token.
    pub token: String,
}

/// A list that is folded away.
#[derive(Clone, Debug)]
pub struct Listing {
    /// What it lists.
    pub title: String,
    /// The items.
    pub items: Vec<String>,
}

/// A broken promise.
#[derive(Clone, Debug, Default)]
pub struct Tale {
    /// The name of the promise.
    pub promise: String,
    /// The promise as one sentence.
    pub says: String,
    /// What was seen.
    pub text: String,
    /// The objects.
    pub objects: String,
    /// Who is to blame, and what decides that.
    pub blame: String,
    /// How it was found.
    pub found: String,
    /// What strikes.
    pub strikes: Vec<String>,
    /// What happened, in order.
    pub events: Vec<String>,
    /// The lines of the trace around it.
    pub lines: Vec<String>,
    /// Which of them showed it.
    pub shown: Option<usize>,
    /// The command that shows it again.
    pub again: String,
    /// The token.
    pub token: String,
    /// The picture that it is in, by number.
    pub scene: usize,
    /// The mark that showed it.
    pub mark: Option<usize>,
}

impl Entry {
    /// Says how it ended.
    pub fn ended(mut self, (class, word): Ending) -> Entry {
        (self.class, self.word) = (class, word);
        self
    }

    /// Worst first.
    fn rank(&self) -> usize {
        let known = ENDINGS
            .iter()
            .position(|(class, word)| *class == self.class && *word == self.word);
        known.unwrap_or(ENDINGS.len())
    }

    fn weight(&self) -> usize {
        self.scenes.iter().map(Scene::weight).sum()
    }
}

impl Tale {
    /// The tale of a finding, and its story if there is one.
    pub fn of(finding: &Finding, story: Option<Story>) -> Tale {
        let source = match finding.source.as_str() {
            "" => String::new(),
            source => format!("; decided by {source}"),
        };
        let story = story.unwrap_or_default();
        Tale {
            promise: finding.promise.clone(),
            says: finding.says.clone(),
            text: plain(&finding.text),
            objects: finding.objects.join(", "),
            blame: finding
                .blame
                .map_or_else(String::new, |party| format!("{party}{source}")),
            events: story.events,
            lines: story.lines,
            shown: story.shown,
            ..Tale::default()
        }
    }

    fn is_shown(&self, line: &usize) -> bool {
        self.shown == Some(*line)
    }
}

#[derive(Template)]
#[template(path = "report.html")]
struct Sheet<'a> {
    page: &'a Page,
    css: &'static str,
    js: &'static str,
    policy: String,
}

/// How the page looks.
const CSS: &str = include_str!("../../templates/report.css");
/// What the page does.
const JS: &str = include_str!("../../templates/report.js");

impl Page {
    /// Takes in one more entry. Pictures of runs that held give way when there is no room.
    pub fn push(&mut self, mut entry: Entry) {
        entry.id = self.entries.len();
        self.entries.push(entry);
        let mut weight: usize = self.entries.iter().map(Entry::weight).sum();
        // The last that held first, then the last of all: what came early stays, however many follow.
        for held in [true, false] {
            for entry in self.entries.iter_mut().rev() {
                if weight <= BUDGET {
                    return;
                }
                if (entry.class == HELD.0) == held && !entry.scenes.is_empty() {
                    weight -= entry.weight();
                    entry.scenes.clear();
                    entry.tales.iter_mut().for_each(|tale| tale.mark = None);
                    entry.absent = "There was no room for its picture: a page carries those of the runs that did not hold, and of the others as many as fit. \
                                    The command below, with --report, makes a page of it alone."
                        .into();
                }
            }
        }
    }

    /// Counts how the entries ended, worst first.
    pub fn count(&mut self) {
        let count = |(class, word): Ending| Count {
            class,
            number: self
                .entries
                .iter()
                .filter(|e| e.class == class && e.word == word)
                .count(),
            word: word.into(),
        };
        self.counts = ENDINGS
            .into_iter()
            .map(count)
            .filter(|count| count.number > 0)
            .collect();
    }

    /// The page as HTML.
    ///
    /// # Errors
    /// What the template says.
    pub fn html(&self) -> Result<String, askama::Error> {
        let sheet = Sheet {
            page: self,
            css: CSS,
            js: JS,
            policy: format!("sha256-{}", base64(&Sha256::digest(JS))),
        };
        sheet.render()
    }
}

/// Bytes as base64.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            match place <= three.len() {
                true => text.push(char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
