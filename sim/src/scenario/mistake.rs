//! What is wrong with a scenario or a manifest, and where.
//!
//! A [`Mistake`] is one wrong place of one file; a [`ScenarioError`] is everything that kept a scenario from being read. All mistakes of a file
//! are reported, in the order in which they stand. Rendering is miette's; [`ScenarioError::render`] is what the command prints.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};

/// The most mistakes that are shown at once.
const MOST_SHOWN: usize = 40;

/// A file as it was read: what mistakes quote.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file, as the user would spell it.
    pub name: Arc<str>,
    /// Its text.
    pub text: String,
}

/// The longest stretch of a file that is quoted as it is, in bytes. Of longer lines only the neighbourhood of the mistake is shown.
const LONGEST_QUOTE: usize = 600;
/// How much of a long line is shown before and behind the start of a mistake, in bytes.
const AROUND: usize = 60;

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let whole = self.text.read_span(span, before, after)?;
        let name = self.name.to_string();
        if whole.data().len() <= LONGEST_QUOTE {
            let (line, column, lines) = (whole.line(), whole.column(), whole.line_count());
            return Ok(Box::new(MietteSpanContents::new_named(
                name,
                whole.data(),
                *whole.span(),
                line,
                column,
                lines,
            )));
        }
        let place = self.text.read_span(span, 0, 0)?;
        let text = self.text.as_bytes();
        let at = span.offset();
        let line_start = text[..at]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |newline| newline + 1);
        let line_end = text[at..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(text.len(), |newline| at + newline);
        let start = boundary(&self.text, line_start.max(at.saturating_sub(AROUND)));
        let end = boundary(&self.text, line_end.min(at + span.len().min(AROUND) + AROUND));
        let window = SourceSpan::new(start.into(), end - start);
        Ok(Box::new(MietteSpanContents::new_named(
            name,
            &text[start..end],
            window,
            place.line(),
            place.column(),
            1,
        )))
    }
}

impl Source {
    /// A source with this name and text.
    pub fn new(name: &str, text: String) -> Arc<Source> {
        Arc::new(Source {
            name: Arc::from(name),
            text,
        })
    }

    /// The place where `span` starts.
    pub fn place(&self, span: Span) -> Place {
        Place {
            file: self.name.clone(),
            line: span.line,
            column: span.column,
        }
    }
}

/// A stretch of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub start: usize,
    /// Length in bytes.
    pub len: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Where something stands in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the user would spell it.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Names and values can be as long as a file; what is said about them is not.
fn clip(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    format!("{}…", &text[..boundary(&text, most)])
}

/// One wrong place of a scenario or a manifest.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// What is wrong, in one sentence without the place.
    pub message: String,
    /// The path of the key, e.g. `spec.containers[0].volumeMounts`; empty for the whole document.
    pub key: String,
    /// The key that was probably meant, when there is one.
    pub suggest: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    quote: Option<(Arc<Source>, Span)>,
}

impl Mistake {
    /// A mistake at a key path, for now without a place.
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Mistake {
        Mistake {
            message: clip(message.into(), 400),
            key: clip(key.into(), 160),
            suggest: None,
            help: None,
            quote: None,
        }
    }

    /// The same with a place.
    pub(crate) fn at(mut self, source: &Arc<Source>, span: Span) -> Mistake {
        self.quote = Some((source.clone(), span));
        self
    }

    /// The same with a way out.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Mistake {
        self.help = Some(clip(help.into(), 1000));
        self
    }

    /// The same with the key that was probably meant.
    pub(crate) fn suggest(mut self, key: impl Into<String>) -> Mistake {
        self.suggest = Some(key.into());
        self
    }

    /// Where it stands; nothing for a scenario written in Rust.
    pub fn place(&self) -> Option<Place> {
        self.quote.as_ref().map(|(source, span)| source.place(*span))
    }

    pub(crate) fn order(&self) -> (Option<Arc<str>>, usize) {
        self.quote
            .as_ref()
            .map_or((None, 0), |(source, span)| (Some(source.name.clone()), span.start))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.quote.as_ref().map(|(source, _)| &**source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, span) = self.quote.as_ref()?;
        let label = (!self.key.is_empty()).then(|| self.key.clone());
        let span = SourceSpan::new(span.start.into(), span.len.min(AROUND));
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(
            label, span,
        ))))
    }
}

/// What kept a scenario from being read. The command exits with status 64.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The files were read and say something impossible.
    #[error("{}", count(.0.len()))]
    Mistakes(Vec<Mistake>),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// A file is not UTF-8 text.
    #[error("{} is not UTF-8 text: byte {offset} belongs to no character", path.display())]
    NotText {
        /// Which file.
        path: PathBuf,
        /// The first byte that is not text.
        offset: usize,
    },
    /// A file is larger than any scenario.
    #[error("{} is larger than {limit} bytes, the most that a scenario or manifest may have", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A folder holds no scenario.
    #[error("{} holds no scenario: no file below it ends in .yaml or .yml (folders named `manifests` are not searched)", path.display())]
    NoScenarios {
        /// Which folder.
        path: PathBuf,
    },
    /// Folders are nested beyond reason, most likely by a link to a parent.
    #[error("{} is nested deeper than {limit} folders", path.display())]
    TooDeep {
        /// Which folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
}

fn count(mistakes: usize) -> String {
    match mistakes {
        1 => "one mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

impl Diagnostic for ScenarioError {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self {
            ScenarioError::Mistakes(mistakes) => Some(Box::new(mistakes.iter().map(|m| m as &dyn Diagnostic))),
            _ => None,
        }
    }
}

impl ScenarioError {
    /// The mistakes in order of place; empty if no file could be read at all.
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            ScenarioError::Mistakes(mistakes) => mistakes,
            _ => &[],
        }
    }

    /// The error as a person reads it, `width` columns wide, with the quoted lines.
    pub fn render(&self, width: usize, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
        let mut text = String::new();
        let written = match self.mistakes() {
            [] => handler.render_report(&mut text, self),
            mistakes => mistakes
                .iter()
                .take(MOST_SHOWN)
                .try_for_each(|m| handler.render_report(&mut text, m)),
        };
        written.expect("writing to a String does not fail");
        if self.mistakes().len() > MOST_SHOWN {
            text.push_str(&format!("  and {} more mistakes\n", self.mistakes().len() - MOST_SHOWN));
        }
        text
    }

    /// Mistakes as one error, in order of place.
    pub(crate) fn of(mut mistakes: Vec<Mistake>) -> ScenarioError {
        mistakes.sort_by_key(Mistake::order);
        ScenarioError::Mistakes(mistakes)
    }
}
